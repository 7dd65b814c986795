package volumefs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
)

const (
	subtype = "tarn"
	fsType  = "fuse." + subtype

	// maxRequest bounds one READ or WRITE. It is a multiple of a page, so that
	// a long write is cut between pages. A run of pages in the log is about as
	// long; several are served in parallel, and larger ones cost more processor
	// time a page, not less.
	maxRequest = 64 * layer.PageSize

	// unmountPatience is how long a busy mount is asked politely.
	unmountPatience = 5 * time.Second

	// pollName is a file the library invents at the root.
	pollName = ".go-fuse-epoll-hack"
)

// DefaultReadAheadKB is how far the kernel reads ahead on a mount of root's: a
// cold scan halves its time from 128 to 2048.
const DefaultReadAheadKB = 2048

// Options of a mount. The zero value is good.
type Options struct {
	Name        string       // first column of df and mount; "" = tarn
	ReadAheadKB int          // 0 = DefaultReadAheadKB, negative = the kernel's own; without root always the latter
	Log         *slog.Logger // nil = none
	Rings       Rings        // 0 = RingsNever
}

// Directory is a mounted volume.
//
//	Mount ──▶ serving ──▶ done
//	Adopt ──────┘
//
// It is done when no request can come any more: after Unmount, when somebody
// else unmounted it, or after HandOver.
type Directory struct {
	dir       string
	log       *slog.Logger
	c         *connection
	transport transport
	done      chan struct{}
	ended     error // why it is done; set before done is closed

	mu       sync.Mutex // held across unmounting: a second caller waits for the first
	detached bool
}

// Mount mounts v at dir, which is made if missing, and returns when it can be
// used. Root mounts for every user, an ordinary user through fusermount3 for
// himself. Without FUSE the error is KindUnavailable and its hint says what to
// install; where something is mounted already it is KindConflict.
func Mount(ctx context.Context, dir string, v Volume, o Options) (*Directory, error) {
	m, err := mount(ctx, dir, v, o)
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	return m, nil
}

func mount(ctx context.Context, dir string, v Volume, o Options) (*Directory, error) {
	o.fill()
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := checkFree(dir); err != nil {
		return nil, err
	}
	log := o.Log.With("path", dir)
	if o.Rings == RingsAsked {
		if err := askForRings(); err != nil {
			log.Warn("io_uring not switched on for FUSE", "err", err) // slower, no harm
		}
	}
	c, err := open(ctx, dir, v, o, log)
	if errors.Is(err, errRings) {
		log.Warn("mounting once more without io_uring", "err", err)
		o.Rings = RingsNever
		c, err = open(ctx, dir, v, o, log)
	}
	if err != nil {
		return nil, err
	}
	m := serve(dir, c)
	if err := m.prepare(o.ReadAheadKB); err != nil {
		return nil, errors.Join(err, m.Unmount(ctx))
	}
	return m, nil
}

// open makes the mount, whose first request is answered.
func open(ctx context.Context, dir string, v Volume, o Options, log *slog.Logger) (*connection, error) {
	fd, err := attach(ctx, dir, o.Name)
	if err != nil {
		return nil, err
	}
	c := newConnection(fd, newFilesystem(v, log), o.Name, log)
	if err := c.begin(o.Rings); err != nil {
		// Closing the descriptor ends the mount's life.
		return nil, errors.Join(err, unix.Close(fd), detach(ctx, dir, detachLazy))
	}
	return c, nil
}

// serve answers a connection's requests until none can come any more.
func serve(dir string, c *connection) *Directory {
	m := &Directory{dir: dir, log: c.log, c: c, transport: c.transport(), done: make(chan struct{})}
	go func() {
		defer close(m.done)
		m.ended = m.transport.serve()
		if errors.Is(m.ended, errStopped) {
			return // the mount goes on
		}
		if m.ended != nil {
			m.log.Error("mount ended", "err", m.ended)
		}
		m.end()
	}()
	return m
}

// end lets go of the mount. Whoever still uses it gets errors from here on, not
// silence.
func (m *Directory) end() {
	if err := unix.Close(m.c.fd); err != nil {
		m.log.Error("mount ended", "err", err)
	}
	m.c.fs.lookups.dropAll()
}

// Probe tells whether Mount can work below dir, by mounting and unmounting once.
// Its errors are Mount's.
func Probe(ctx context.Context, dir string) error {
	place, err := os.MkdirTemp(dir, "fuse-probe-")
	if err != nil {
		return fmt.Errorf("try FUSE in %s: %w", dir, err)
	}
	fd, err := attach(ctx, place, subtype)
	if err == nil {
		// Without its descriptor it is dead: whoever looks at it is not kept
		// waiting.
		err = errors.Join(unix.Close(fd), detach(context.WithoutCancel(ctx), place, detachLazy))
	}
	if err = errors.Join(err, os.Remove(place)); err != nil {
		return fmt.Errorf("try FUSE in %s: %w", dir, err)
	}
	return nil
}

// checkFree makes dir if it is missing and refuses a place where something is
// mounted: a second mount would hide the first. It asks nothing of what is there.
func checkFree(dir string) error {
	if err := os.Mkdir(dir, 0o755); errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	} else if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	here, err := deviceAt(dir)
	if err != nil {
		return err
	}
	above, err := deviceAt(filepath.Dir(dir))
	if err != nil {
		return err
	}
	if here != above {
		return tarn.Conflict("something is mounted there")
	}
	return nil
}

// prepare makes the new mount fit for use. It asks nothing of the mount itself: a
// process that is killed while it waits for its own answer never ends, since the
// mount ends with the last thread.
func (m *Directory) prepare(readAheadKB int) error {
	if readAheadKB == 0 {
		readAheadKB = DefaultReadAheadKB
	}
	if readAheadKB < 0 || os.Geteuid() != 0 {
		return nil
	}
	dev, err := deviceAt(m.dir)
	if err != nil {
		return fmt.Errorf("set read ahead: %w", err)
	}
	path := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", unix.Major(dev), unix.Minor(dev))
	if err := os.WriteFile(path, []byte(strconv.Itoa(readAheadKB)), 0); err != nil {
		m.log.Warn("read ahead not raised", "err", err) // slower scans, no harm; /sys is read-only in some containers
	}
	return nil
}

// Dir is where it is mounted.
func (m *Directory) Dir() string { return m.dir }

// OnRings tells whether requests come through io_uring.
func (m *Directory) OnRings() bool { return m.c.rings != nil }

// Done is closed when no request can come any more.
func (m *Directory) Done() <-chan struct{} { return m.done }

// Unmount ends the mount and waits until the volume is used no more. While
// somebody holds a file or works in a directory of it, Unmount tries again;
// after five seconds, or when ctx ends, it takes the mount away by force, and
// who still holds something gets errors.
func (m *Directory) Unmount(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.detached {
		return nil
	}
	err := m.unmountUnused(ctx)
	if errors.Is(err, unix.EBUSY) {
		m.log.Warn("mount busy: taken away by force")
		// ctx may be over; this takes milliseconds.
		err = detach(context.WithoutCancel(ctx), m.dir, detachForce)
	}
	switch {
	case errors.Is(err, unix.EINVAL): // somebody else has unmounted it
	case err != nil:
		return fmt.Errorf("unmount %s: %w", m.dir, err)
	}
	<-m.done
	if errors.Is(m.ended, errStopped) { // a HandOver that failed
		m.end()
	}
	m.detached = true
	return nil
}

// unmountUnused tries until nobody uses the mount; EBUSY when that does not
// come in time.
func (m *Directory) unmountUnused(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, unmountPatience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := detach(context.WithoutCancel(ctx), m.dir, detachUnused)
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		select {
		case <-m.done:
			// Its connection has ended: whoever is in the way waits for
			// nothing.
			return detach(context.WithoutCancel(ctx), m.dir, detachLazy)
		case <-ctx.Done():
			return unix.EBUSY
		case <-tick.C:
		}
	}
}

// UnmountStale removes the dead mount that a killed process left at dir; one
// that lives is KindConflict, none at all is fine. End what still works in it
// first: it could only fail afterwards.
func UnmountStale(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	for {
		// statfs is never answered from a cache, unlike stat.
		var st unix.Statfs_t
		err := unix.Statfs(dir, &st)
		switch {
		case errors.Is(err, unix.ENOENT):
			return nil
		case errors.Is(err, unix.ENOTCONN), errors.Is(err, unix.ECONNABORTED):
			if err := detach(context.Background(), dir, detachLazy); err != nil {
				return fmt.Errorf("unmount what was left at %s: %w", dir, err)
			}
		case err != nil:
			return fmt.Errorf("unmount what was left at %s: %w", dir, err)
		case st.Type == unix.FUSE_SUPER_MAGIC && checkFree(dir) != nil:
			return tarn.Conflict("unmount what was left at %s: it is in use", dir)
		default:
			return nil
		}
	}
}
