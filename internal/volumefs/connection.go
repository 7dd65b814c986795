package volumefs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"

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
	// opNotifyReply is what poke makes come.
	opNotifyReply = 41

	// pageBytes leaves room for any request's arguments beside its data.
	pageBytes = 4096
)

// connection is a mount's end of the conversation with the kernel: it knows
// how a request is answered. A transport moves the bytes.
type connection struct {
	fd     int // of the device
	fs     *filesystem
	server *fuse.ProtocolServer
	init   handshake
	log    *slog.Logger
	rings  *rings // nil = the kernel uses the device alone
}

// transport brings requests of a connection to its answer, and the answers
// back. Each way of doing so serves the whole mount.
type transport interface {
	// serve blocks until no request can come any more and every one that came
	// was answered. After stop it reads no more, answers what it has read, and
	// its error is errStopped. dir is where it is mounted.
	serve() error
	stop(dir string) error
}

var errStopped = errors.New("stopped")

func newConnection(fd int, fs *filesystem, name string, log *slog.Logger) *connection {
	return &connection{fd: fd, fs: fs, log: log, server: fuse.NewProtocolServer(fs, &fuse.MountOptions{
		MaxBackground:            64,
		MaxWrite:                 maxRequest,
		Name:                     subtype,
		FsName:                   name,
		Logger:                   slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		DisableXAttrs:            true,
		ExplicitDataCacheControl: true, // nobody else changes the contents
		EnableSymlinkCaching:     true,
		ExtraCapabilities:        fuse.CAP_HAS_RESEND | fuse.CAP_OVER_IO_URING,
	})}
}

// begin answers INIT, the first request of a mount, and agrees with the kernel on
// rings when it offers them and r wants them.
func (c *connection) begin(r Rings) error {
	b := newBuffers(maxRequest)
	n, err := readDevice(c.fd, b.in)
	if err != nil {
		return fmt.Errorf("read INIT: %w", err)
	}
	if opcode(b.in) != opInit {
		return fmt.Errorf("the first request of the mount is %d, not INIT", opcode(b.in))
	}
	c.offer(b.in[:n], r)
	c.init.request = bytes.Clone(b.in[:n])
	n = c.answer(b.request(n), b.answer())
	if b.errno() != 0 {
		return errors.Join(fmt.Errorf("answer INIT: %w", b.errno()), c.rings.abandon())
	}
	c.init.answer = bytes.Clone(b.out[:n])
	if _, err := unix.Write(c.fd, b.out[:n]); err != nil {
		return errors.Join(fmt.Errorf("answer INIT: %w", err), c.rings.abandon())
	}
	return c.rings.register()
}

// transport is what was agreed on.
func (c *connection) transport() transport {
	if c.rings != nil {
		return c.rings
	}
	return newDevice(c)
}

// buffers are large enough for every request of the mount: one that was adopted
// may have agreed on larger ones than we would.
func (c *connection) buffers() *buffers { return newBuffers(max(maxRequest, c.init.maxWrite())) }

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

func newBuffers(data int) *buffers {
	b := &buffers{in: make([]byte, data+pageBytes), out: make([]byte, data+pageBytes)}
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
