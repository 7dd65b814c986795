package volumefs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/tarndb/tarn"
)

// Rings says whether a mount uses FUSE over io_uring: requests then come to a
// thread on the processor where they were made and are answered without a
// wake-up of another. Linux 6.14 and later can do so; it offers it where the
// parameter enable_uring of the module fuse is set, which it is not by
// default.
//
// What it costs: requests that a dead server had taken from rings never end. So
// a mount on rings cannot change hands, and a server killed while it works in
// its own mount may stay, with the mount, until that is taken away by force.
type Rings uint8

// Whether to use rings.
const (
	RingsNever   Rings = iota
	RingsOffered       // where the kernel offers them
	RingsAsked         // set enable_uring first, for good, which root can; then where the kernel offers them
)

// ringsParameter makes the kernel offer rings to mounts made from then on.
const ringsParameter = "/sys/module/fuse/parameters/enable_uring"

// maxQueues bounds what rings cost: a thread and queueDepth requests of address
// space for each processor that the computer could have.
const maxQueues = 64

// errRings means that the kernel was promised rings that it did not get: the
// mount cannot be used.
var errRings = errors.New("set up io_uring")

func askForRings() error { return os.WriteFile(ringsParameter, []byte("Y"), 0) }

// Where an INIT request says what the kernel can do; its answer says there what
// is agreed on.
//
//	request   header 40 │ major, minor, max read ahead, flags u32 │ more flags u32 │ …
const (
	initFlags     = requestHeader + 12
	initMoreFlags = requestHeader + 16
	initExt       = 1 << 30        // there are more flags
	overRings     = 1 << (41 - 32) // among them
)

// offer makes rings when an INIT request offers them and r wants them; otherwise
// the offer is struck out of the request. Everything that can fail is done
// before the kernel hears yes.
func (c *connection) offer(request []byte, r Rings) {
	if len(request) < initMoreFlags+4 || binary.NativeEndian.Uint32(request[initFlags:])&initExt == 0 {
		return
	}
	more := binary.NativeEndian.Uint32(request[initMoreFlags:])
	if more&overRings == 0 {
		return
	}
	if r != RingsNever {
		var err error
		if c.rings, err = openRings(c); err == nil {
			return
		}
		c.log.Warn("no io_uring for this mount", "err", err) // slower, no harm
	}
	binary.NativeEndian.PutUint32(request[initMoreFlags:], more&^overRings)
}

// rings is the transport that takes requests from one io_uring for each
// processor. FORGET, INTERRUPT and what the kernel does not answer for still
// come through the device.
//
//	openRings ──▶ prepared ──register──▶ serving ──▶ done
//	                  └──────abandon──────────────────▶
//
// Once the kernel has heard that rings will be used, every processor that could
// exist must be registered: until then it keeps all requests waiting.
type rings struct {
	c      *connection
	queues []*queue
	start  chan struct{}
	said   chan error
	work   sync.WaitGroup

	mu   sync.Mutex // guards fail; nothing is called under it
	fail error
}

// openRings makes the rings and their threads, of which the kernel's FUSE
// knows nothing yet.
func openRings(c *connection) (*rings, error) {
	n, err := possibleCPUs()
	if err != nil {
		return nil, err
	}
	if n > maxQueues {
		return nil, fmt.Errorf("the computer could have %d processors, more than %d", n, maxQueues)
	}
	t := &rings{c: c, start: make(chan struct{}), said: make(chan error)}
	for cpu := range n {
		q, err := newQueue(c, cpu)
		if err != nil {
			return nil, errors.Join(err, t.abandon())
		}
		t.queues = append(t.queues, q)
	}
	for _, q := range t.queues {
		t.work.Go(func() {
			if err := q.run(t.start, t.said); err != nil {
				t.mu.Lock()
				t.fail = errors.Join(t.fail, err)
				t.mu.Unlock()
			}
		})
	}
	if err := t.hear(); err != nil {
		return nil, errors.Join(err, t.abandon())
	}
	return t, nil
}

// hear waits until every queue has said something.
func (t *rings) hear() error {
	var err error
	for range t.queues {
		err = errors.Join(err, <-t.said)
	}
	return err
}

// register gives the kernel the rings, when it has heard that it gets them. With
// an error there are none and the mount is lost.
func (t *rings) register() error {
	if t == nil {
		return nil
	}
	for range t.queues {
		t.start <- struct{}{}
	}
	err := t.hear()
	if err == nil {
		return nil
	}
	for _, q := range t.queues {
		q.stop.Store(true)
		q.rouse()
	}
	return errors.Join(errRings, err, t.close())
}

// abandon ends rings that were not registered.
func (t *rings) abandon() error {
	if t == nil {
		return nil
	}
	close(t.start)
	return t.close()
}

func (t *rings) close() error {
	t.work.Wait()
	var err error
	for _, q := range t.queues {
		err = errors.Join(err, q.close())
	}
	return err
}

func (t *rings) serve() error {
	d := newDevice(t.c)
	d.readers = 1
	err := d.serve()
	return errors.Join(err, t.close(), t.fail)
}

// stop refuses: see Rings.
func (t *rings) stop(string) error { return tarn.Conflict("it is served over io_uring") }

// possibleCPUs is how many processors the kernel is prepared for.
func possibleCPUs() (int, error) {
	const path = "/sys/devices/system/cpu/possible"
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("ask for the processors of this computer: %w", err)
	}
	// 0-3, or with gaps 0,2-5: the kernel counts them through to the last.
	text := strings.TrimSpace(string(b))
	last := text[strings.LastIndexAny(text, ",-")+1:]
	n, err := strconv.Atoi(last)
	if err != nil {
		return 0, fmt.Errorf("read %s: %q", path, text)
	}
	return n + 1, nil
}
