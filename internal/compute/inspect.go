package compute

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
	"github.com/tarndb/tarn/internal/pagestore"
)

// inspected is storage that tells what it takes and verifies itself.
type inspected interface {
	Stats(ctx context.Context) (pagestore.Stats, error)
	Check(ctx context.Context, report func(pagestore.Finding)) (pagestore.Checked, error)
}

// inspector answers a fleet's callers what concerns the store as a whole.
type inspector struct {
	of      *machine
	records *records
	enter   func() (leave func(), err error) // of the fleet

	mu      sync.Mutex // guards what follows; not held across I/O
	running *checking  // the check that runs, or ran last
}

// checking is a check that outlives the call that began it: it may take minutes.
type checking struct {
	began  time.Time
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when it has ended

	mu sync.Mutex // guards s
	s  tarn.StoreCheck
}

// checkPatience is how long a call waits for a check to end.
const checkPatience = time.Second

func (i *inspector) pageStore() (inspected, error) {
	s, ok := i.of.store.(inspected)
	if !ok {
		return nil, tarn.Unavailable("this node keeps plain directories and no page store").WithHint("look at its data directory with du")
	}
	return s, nil
}

// StoreStats tells what the page store takes.
func (i *inspector) StoreStats(ctx context.Context) (tarn.StoreStats, error) {
	leave, err := i.enter()
	if err != nil {
		return tarn.StoreStats{}, err
	}
	defer leave()
	s, err := i.pageStore()
	if err != nil {
		return tarn.StoreStats{}, err
	}
	st, err := s.Stats(ctx)
	if err != nil {
		return tarn.StoreStats{}, err
	}
	out := tarn.StoreStats{Total: st.Total, Free: st.Free, TableBytes: st.Tables, Timelines: []tarn.StoreTimeline{}}
	for _, t := range st.Timelines {
		one := tarn.StoreTimeline{ID: t.ID, Parent: t.Parent, Deleted: t.Ghost, Open: t.Open, Visible: t.Visible, LogBytes: t.LogBytes + t.ImageBytes,
			MapBytes: t.MapBytes, Garbage: t.Garbage, Memory: t.Index, Behind: t.Behind, Marks: t.Marks, History: t.History, Collected: t.Collected}
		if r, ok := i.records.known(t.ID); ok && r.Template {
			one.Template = r.PGVersion
		}
		if one.WALBytes, err = usage(i.of.path("wal", string(t.ID))); err != nil {
			return out, fmt.Errorf("look at the WAL of timeline %s: %w", t.ID, err)
		}
		out.Timelines = append(out.Timelines, one)
	}
	return out, nil
}

// usage is the space that the files below a directory take; files may go
// meanwhile.
func usage(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		sum += st.Blocks * 512
		return nil
	})
	return sum, err
}

// CheckStore begins a check of the store under a name, or tells how far it is; it
// returns after a moment, or when the check has ended. While another check runs it
// tells of that one: its name says so.
func (i *inspector) CheckStore(ctx context.Context, spec tarn.StoreCheckSpec) (tarn.StoreCheck, error) {
	leave, err := i.enter()
	if err != nil {
		return tarn.StoreCheck{}, err
	}
	defer leave()
	s, err := i.pageStore()
	if err != nil {
		return tarn.StoreCheck{}, err
	}
	i.mu.Lock()
	c := i.running
	if c == nil || c.ended() && c.state().ID != spec.ID {
		c = beginCheck(ctx, i.of, s, spec)
		i.running = c
	}
	i.mu.Unlock()
	wait := time.NewTimer(checkPatience)
	defer wait.Stop()
	select {
	case <-c.done:
	case <-wait.C:
	case <-ctx.Done():
		return tarn.StoreCheck{}, context.Cause(ctx)
	}
	return c.state(), nil
}

// beginCheck begins a check; stop ends it.
func beginCheck(ctx context.Context, m *machine, s inspected, spec tarn.StoreCheckSpec) *checking {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	c := &checking{began: time.Now(), cancel: cancel, done: make(chan struct{}), s: tarn.StoreCheck{ID: spec.ID, Doing: "the page store", Findings: []tarn.StoreFinding{}}}
	go func() {
		defer close(c.done)
		err := c.run(ctx, s)
		if b, ok := s.(bucketed); ok && err == nil && m.o.Remote.Store != nil && !spec.Local {
			err = (&bucketCheck{checking: c, of: m, store: b, spec: spec}).run(ctx)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.s.Done, c.s.Doing, c.s.Took = true, "", time.Since(c.began)
		if err != nil {
			c.s.Err = err.Error()
		}
	}()
	return c
}

func (c *checking) run(ctx context.Context, s inspected) error {
	sum, err := s.Check(ctx, func(f pagestore.Finding) { c.find(finding(f)) })
	c.mu.Lock()
	defer c.mu.Unlock()
	c.s.Timelines, c.s.Points, c.s.Maps, c.s.Tables, c.s.Heads, c.s.Pages, c.s.Bytes = sum.Timelines, sum.Points, sum.Maps, sum.Tables, sum.Heads, sum.Pages, sum.Bytes
	return err
}

func (c *checking) find(f tarn.StoreFinding) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.s.Findings = append(c.s.Findings, f)
}

func (c *checking) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

func (c *checking) state() tarn.StoreCheck {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.s
	s.Findings = slices.Clone(s.Findings)
	if !s.Done {
		s.Took = time.Since(c.began)
	}
	return s
}

// stop ends a check that runs and waits for it. No call enters any more.
func (i *inspector) stop(why error) {
	i.mu.Lock()
	c := i.running
	i.mu.Unlock()
	if c != nil {
		c.cancel(why)
		<-c.done
	}
}

// finding says in words for people what the store found.
func finding(f pagestore.Finding) tarn.StoreFinding {
	out := tarn.StoreFinding{Timeline: f.Timeline, Message: f.Err.Error(),
		Hint: "what does not read there is unharmed; see whether a branch from before it reads (tarn branch create --at), or put the data directory back from a backup"}
	if c, ok := errors.AsType[*layer.CorruptError](f.Err); ok {
		out.File, out.Offset = c.File, c.Offset
		out.Hint = "what does not read this file there is unharmed. Keep a copy of it, stop Tarn, put the file back from a backup and check again; " +
			"or go on with a branch made at a moment before the damage (tarn branch create --at), and delete the one that reads it"
	}
	return out
}

// CheckStore verifies the page store of a data directory that has one and on which
// no node runs.
func CheckStore(ctx context.Context, dir string, log *slog.Logger) (s tarn.StoreCheck, err error) {
	p, err := pagestore.Open(ctx, filepath.Join(dir, "store"), pagestore.Options{Log: log})
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	c := beginCheck(ctx, new(machine), p, tarn.StoreCheckSpec{})
	defer c.cancel(nil)
	select {
	case <-c.done:
	case <-ctx.Done():
		c.cancel(context.Cause(ctx))
		<-c.done
		return s, context.Cause(ctx)
	}
	return c.state(), nil
}
