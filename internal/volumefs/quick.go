package volumefs

import (
	"encoding/binary"
	"fmt"
	"runtime/debug"
	"syscall"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/tarndb/tarn/internal/layer"
)

// The requests that a running Postgres makes all the time are answered here
// without the library, whose every request costs it some memory: at a hundred
// thousand a second the collector would be the larger part of the work.
const (
	opGetAttr   = 3
	opWrite     = 16
	opInterrupt = 36

	getAttrAnswer = int(unsafe.Sizeof(fuse.AttrOut{}))
	writeAnswer   = 8 // size u32 │ 0 u32
)

// quick answers a READ, a WRITE or a GETATTR as the library would; false leaves
// the request to it.
//
//	READ, WRITE   handle u64 │ offset u64 │ size u32 │ flags u32 │ owner u64 │ flags u32 │ 0 u32 │ data
func (c *connection) quick(in, out [][]byte) (n int, ok bool) {
	op, ino := opcode(in[0]), layer.Ino(binary.NativeEndian.Uint64(in[0][16:]))
	if uint64(ino) == pollNode { // the library's
		return 0, false
	}
	var length int // of the answer without its header
	var st fuse.Status
	switch op {
	case opInterrupt:
		// Nothing of ours can be interrupted. An answer is not wanted, and the
		// library's for a request it does not know would be asked for again.
		return 0, true
	case opRead, opWrite:
		const arguments = 40
		a := piece(in, requestHeader)
		if len(a) < arguments {
			return 0, false
		}
		off, size := binary.NativeEndian.Uint64(a[8:]), int(binary.NativeEndian.Uint32(a[16:]))
		body := piece(out, answerHeader)
		if op == opRead {
			if len(body) < size {
				return 0, false
			}
			length, st = c.quickRead(ino, body[:size], off)
			break
		}
		data := piece(in, requestHeader+arguments)
		if len(data) != size || len(body) < writeAnswer {
			return 0, false
		}
		length, st = c.quickWrite(ino, data, off)
		if st.Ok() {
			// Not before the write: data may stand in the same place.
			binary.NativeEndian.PutUint64(body, uint64(uint32(length)))
			length = writeAnswer
		}
	case opGetAttr:
		body := piece(out, answerHeader)
		if len(body) < getAttrAnswer {
			return 0, false
		}
		clear(body[:getAttrAnswer])
		length, st = getAttrAnswer, c.quickAttr(ino, (*fuse.AttrOut)(unsafe.Pointer(&body[0])))
	default:
		return 0, false
	}
	if !st.Ok() {
		length = 0
	}
	h := out[0][:answerHeader]
	binary.NativeEndian.PutUint32(h[0:], uint32(answerHeader+length))
	binary.NativeEndian.PutUint32(h[4:], uint32(-int32(st)))
	copy(h[8:], in[0][8:16])
	return answerHeader + length, true
}

// piece is what of v comes after its first n bytes, as far as it stands
// together.
func piece(v [][]byte, n int) []byte {
	for _, b := range v {
		if n < len(b) {
			return b[n:]
		}
		n -= len(b)
	}
	return nil
}

func (c *connection) quickRead(ino layer.Ino, p []byte, off uint64) (n int, st fuse.Status) {
	defer c.survive(&st)
	n, err := c.fs.v.ReadAt(ino, p, off)
	return n, c.fs.errs.status("read", err)
}

func (c *connection) quickWrite(ino layer.Ino, p []byte, off uint64) (n int, st fuse.Status) {
	defer c.survive(&st)
	n, err := c.fs.v.WriteAt(ino, p, off)
	return n, c.fs.errs.status("write", err)
}

func (c *connection) quickAttr(ino layer.Ino, out *fuse.AttrOut) (st fuse.Status) {
	defer c.survive(&st)
	a, err := c.fs.v.Attr(ino)
	out.AttrValid = cacheFor
	fillAttr(&a, &out.Attr)
	return c.fs.errs.status("attr", err)
}

// survive turns a panic of the volume into an error for who asked, as the
// library does: one broken file must not take every branch down.
func (c *connection) survive(st *fuse.Status) {
	if r := recover(); r != nil {
		c.log.Error("volume panicked", "err", fmt.Errorf("%v\n%s", r, debug.Stack()))
		*st = fuse.Status(syscall.EIO)
	}
}
