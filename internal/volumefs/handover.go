package volumefs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
)

// Handover is a mount between two servers. The kernel keeps its requests
// meanwhile; whoever asks waits. It lives as long as the descriptor does: when
// nobody has that open any more the mount is dead, as after a crash.
//
//	serving ──HandOver──▶ between ──Adopt──▶ serving
//	                         └─────Close───▶ dead
type Handover struct {
	Device int `json:"device"` // the descriptor, in this process or one executed by it
	// Init and Answer are what was agreed on when the mount began.
	Init   []byte `json:"init"`
	Answer []byte `json:"answer"`
	// References are those the kernel holds, by file; nil = not known, as after
	// a server that was killed. Then no file is forgotten before the mount ends.
	References map[layer.Ino]uint64 `json:"references"`
}

// HandOver answers every request that was read and stops reading. Afterwards
// the volume is used no more and can be closed, Unmount has nothing to do, and
// the mount is what the Handover says. On an error Unmount must end the mount,
// but for KindConflict: then it serves on, because it cannot be handed over.
func (m *Directory) HandOver(ctx context.Context) (Handover, error) {
	h, err := m.handOver(ctx)
	if err != nil {
		return h, fmt.Errorf("hand over mount %s: %w", m.dir, err)
	}
	return h, nil
}

func (m *Directory) handOver(ctx context.Context) (Handover, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.detached {
		return Handover{}, tarn.Unavailable("it has ended")
	}
	if err := m.transport.stop(m.dir); err != nil {
		return Handover{}, err
	}
	select {
	case <-m.done:
	case <-ctx.Done():
		return Handover{}, fmt.Errorf("requests in progress: %w", context.Cause(ctx))
	}
	if !errors.Is(m.ended, errStopped) {
		return Handover{}, tarn.Unavailable("it has ended")
	}
	m.detached = true
	return Handover{
		Device:     m.c.fd,
		Init:       m.c.init.request,
		Answer:     m.c.init.answer,
		References: m.c.fs.lookups.all(),
	}, nil
}

// Held lists the files that the kernel holds; false when that is not known.
func (h Handover) Held() ([]layer.Ino, bool) {
	return slices.Collect(maps.Keys(h.References)), h.References != nil
}

// Close gives the mount up: it is dead unless somebody else has the device.
func (h Handover) Close() error {
	if err := unix.Close(h.Device); err != nil {
		return fmt.Errorf("give up a mount: %w", err)
	}
	return nil
}

// Adopt goes on serving a mount at dir. v has what it had at HandOver, the
// files that are held without a name included. Adopt takes the descriptor, also
// when it fails: then the mount is dead.
//
// What an earlier server read and never answered, since it was killed, the
// kernel sends again (Linux 6.9 and newer); on older kernels whoever waits for
// that waits until the mount ends.
func Adopt(ctx context.Context, dir string, h Handover, v Volume, o Options) (*Directory, error) {
	m, err := adopt(dir, h, v, o)
	if err != nil {
		return nil, fmt.Errorf("adopt mount %s: %w", dir, errors.Join(err, h.Close()))
	}
	return m, nil
}

func adopt(dir string, h Handover, v Volume, o Options) (*Directory, error) {
	o.fill()
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	log := o.Log.With("path", dir)
	fs := newFilesystem(v, log)
	fs.lookups.take(h.References)
	c := newConnection(h.Device, fs, o.Name, log)
	if err := c.resume(handshake{h.Init, h.Answer}); err != nil {
		return nil, err
	}
	unix.CloseOnExec(h.Device)
	if !c.init.resends() {
		if h.References == nil {
			log.Warn("the kernel sends nothing again: what a killed server had read stays unanswered")
		}
	} else if err := c.notify(notifyResend, nil); err != nil {
		return nil, fmt.Errorf("ask for lost requests: %w", err)
	}
	return serve(dir, c), nil
}

// handshake is the first request of a mount, INIT, and its answer.
//
//	request   header 40 │ major u32 │ minor u32 │ read-ahead u32 │ flags u32 │ flags2 u32 │ …
//	answer    header 16 │ major u32 │ minor u32 │ read-ahead u32 │ flags u32 │ u16 │ u16 │ max write u32 │ …
type handshake struct {
	request, answer []byte
}

// resends says whether the kernel can send requests again.
func (h handshake) resends() bool {
	const hasResend = 1 << (39 - 32)
	return len(h.request) >= 60 && binary.NativeEndian.Uint32(h.request[56:])&hasResend != 0
}

// onRings says whether rings were agreed on. The answer's more flags are its
// ninth word.
func (h handshake) onRings() bool {
	const at = answerHeader + 32
	return len(h.answer) >= at+4 && binary.NativeEndian.Uint32(h.answer[at:])&overRings != 0
}

// maxWrite is the most data of one request.
func (h handshake) maxWrite() int { return int(binary.NativeEndian.Uint32(h.answer[36:])) }

// resume makes the protocol what it was agreed to be, without a word to the
// kernel. What this server would agree to counts for nothing.
func (c *connection) resume(h handshake) error {
	if len(h.request) < requestHeader || len(h.answer) < 40 || opcode(h.request) != opInit {
		return tarn.Invalid("its beginning is not known")
	}
	if h.onRings() {
		return tarn.Conflict("it is served over io_uring")
	}
	c.init = h
	b := c.buffers()
	if c.answer([][]byte{bytes.Clone(h.request)}, b.answer()); b.errno() != 0 {
		return fmt.Errorf("begin again: %w", b.errno())
	}
	return nil
}

// Notifications; they have the form of an answer to no request, with the code
// in place of the error.
const (
	notifyRetrieve = 5 // the kernel sends what it caches of a file, as a request
	notifyResend   = 7 // the kernel sends again what was read and not answered

	pollNode = ^uint64(0) // of pollName
)

func (c *connection) notify(code uint32, body []byte) error {
	b := make([]byte, answerHeader, answerHeader+len(body))
	binary.NativeEndian.PutUint32(b[0:], uint32(answerHeader+len(body)))
	binary.NativeEndian.PutUint32(b[4:], code)
	_, err := unix.Write(c.fd, append(b, body...))
	return err
}

// pokes makes readers that wait for requests find out that they shall not. It
// returns a function that makes one request come, opNotifyReply, which wants no
// answer: it asks for no bytes of a file that the kernel knows until done is called.
// Only where the kernel knows no file at all, and so where no Postgres works, does
// it find one by asking the mount, which needs a reader; see prepare for why not
// always.
func (c *connection) pokes(dir string) (poke, done func() error, err error) {
	if _, ok := c.known(); ok {
		return c.pokeKnown, func() error { return nil }, nil
	}
	fd, err := unix.Open(filepath.Join(dir, pollName), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("wake readers: %w", err)
	}
	return func() error { return c.retrieve(pollNode) }, func() error { return unix.Close(fd) }, nil
}

// known is a regular file that the kernel knows, if there is one.
func (c *connection) known() (layer.Ino, bool) {
	for ino := range c.fs.lookups.all() {
		if a, err := c.fs.v.Attr(ino); err == nil && a.Mode&unix.S_IFMT == unix.S_IFREG {
			return ino, true
		}
	}
	return 0, false
}

// pokeKnown pokes with one of the files that the kernel knows; it can forget that
// one meanwhile.
func (c *connection) pokeKnown() error {
	for {
		ino, ok := c.known()
		if !ok {
			return errors.New("wake readers: the kernel has forgotten every file")
		}
		if err := c.retrieve(uint64(ino)); !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
}

// retrieve asks the kernel for no bytes of a file.
func (c *connection) retrieve(node uint64) error {
	b := make([]byte, 32) // unique u64 │ node u64 │ offset u64 │ size u32 │ 0 u32
	binary.NativeEndian.PutUint64(b[8:], node)
	if err := c.notify(notifyRetrieve, b); err != nil {
		return fmt.Errorf("wake readers: %w", err)
	}
	return nil
}

func (b *buffers) errno() syscall.Errno {
	return syscall.Errno(-int32(binary.NativeEndian.Uint32(b.out[4:])))
}

// fill sets the defaults.
func (o *Options) fill() {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Name == "" {
		o.Name = subtype
	}
}
