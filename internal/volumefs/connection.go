package volumefs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// The parts of the protocol's headers that are used here.
//
//	request   length u32 │ opcode u32 │ unique u64 │ node u64 │ uid, gid, pid u32 │ extlen u16 │ 0 u16
//	answer    length u32 │ −errno i32 │ unique u64
const (
	requestHeader = 40
	answerHeader  = 16

	opRead     = 15
	opFsync    = 20
	opInit     = 26
	opFsyncDir = 30

	// pageBytes leaves room for any request's arguments beside its data.
	pageBytes = 4096
)

// connection is a mount's end of the conversation with the kernel: it knows
// how a request is answered. A transport moves the bytes.
type connection struct {
	fd     int // of the device
	fs     *filesystem
	server *fuse.ProtocolServer
	log    *slog.Logger
	rings  *rings // nil = the kernel uses the device alone
}

// transport brings requests of a connection to its answer, and the answers
// back. Each way of doing so serves the whole mount.
type transport interface {
	// serve blocks until no request can come any more and every one that came
	// was answered.
	serve() error
}

// connect answers the kernel's INIT, the first request of a mount, and agrees
// with it on rings when it offers them and r wants them.
func connect(fd int, fs *filesystem, name string, log *slog.Logger, r Rings) (*connection, error) {
	c := &connection{fd: fd, fs: fs, log: log}
	b := newBuffers()
	n, err := readDevice(fd, b.in)
	if err != nil {
		return nil, fmt.Errorf("read INIT: %w", err)
	}
	if opcode(b.in) != opInit {
		return nil, fmt.Errorf("the first request of the mount is %d, not INIT", opcode(b.in))
	}
	c.offer(b.in[:n], r)
	c.server = fuse.NewProtocolServer(fs, &fuse.MountOptions{
		MaxBackground:            64,
		MaxWrite:                 maxRequest,
		Name:                     subtype,
		FsName:                   name,
		Logger:                   slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		DisableXAttrs:            true,
		ExplicitDataCacheControl: true, // nobody else changes the contents
		EnableSymlinkCaching:     true,
		ExtraCapabilities:        fuse.CAP_OVER_IO_URING,
	})
	n = c.answer(b.request(n), b.answer())
	if errno := syscall.Errno(-int32(binary.NativeEndian.Uint32(b.out[4:]))); errno != 0 {
		return nil, errors.Join(fmt.Errorf("answer INIT: %w", errno), c.rings.abandon())
	}
	if _, err := unix.Write(fd, b.out[:n]); err != nil {
		return nil, errors.Join(fmt.Errorf("answer INIT: %w", err), c.rings.abandon())
	}
	return c, c.rings.register()
}

// transport is what the connection agreed with the kernel on.
func (c *connection) transport() transport {
	if c.rings != nil {
		return c.rings
	}
	return newDevice(c)
}

// answer serves one request, whole but in any number of pieces, and returns the
// length of the answer it put into out; 0 = none is wanted. out has room for
// what the request asks for. It may block: see mayWait.
func (c *connection) answer(in, out [][]byte) int {
	if n, ok := c.quick(in, out); ok {
		return n
	}
	n, st := c.server.HandleRequest(in, out)
	if st.Ok() {
		return n
	}
	// The library would not even look at it.
	b := out[0][:answerHeader]
	binary.NativeEndian.PutUint32(b[0:], answerHeader)
	binary.NativeEndian.PutUint32(b[4:], uint32(-int32(st)))
	copy(b[8:], in[0][8:16])
	return answerHeader
}

// mayWait tells of requests that can take as long as a disk does, or an object
// store. All others are answered from memory, but for a WRITE that waits for
// the log: then nothing else of the volume moves either.
func mayWait(op uint32) bool { return op == opRead || op == opFsync || op == opFsyncDir }

func opcode(request []byte) uint32 { return binary.NativeEndian.Uint32(request[4:]) }

// buffers are for one request at a time.
type buffers struct {
	in, out   []byte
	inV, outV [1][]byte // spare a slice for each request
}

func newBuffers() *buffers {
	b := &buffers{in: make([]byte, maxRequest+pageBytes), out: make([]byte, maxRequest+pageBytes)}
	b.outV[0] = b.out
	return b
}

// request is the first n bytes that were read.
func (b *buffers) request(n int) [][]byte {
	b.inV[0] = b.in[:n]
	return b.inV[:]
}

func (b *buffers) answer() [][]byte { return b.outV[:] }

// readDevice reads one request.
func readDevice(fd int, b []byte) (int, error) {
	for {
		n, err := unix.Read(fd, b)
		switch {
		case err == nil && n < requestHeader:
			return 0, fmt.Errorf("a request of %d bytes", n)
		case err == nil:
			return n, nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOENT):
			// ENOENT: who asked went away before we read it.
		default:
			return 0, err
		}
	}
}
