package compute

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/postgres"
	"github.com/tarndb/tarn/internal/wal"
)

// away are complete timelines that are in the object store and not on this
// computer, because it is a new one. One is brought back when it is wanted, or
// before by the copier; who does so holds it.
//
//	away ──present──▶ here
//	  └──────────────▶ away, with the reason; tried again when it is wanted next
type away struct {
	mu  sync.Mutex // guards why; not held across I/O
	why map[tarn.TimelineID]error
}

func newAway() *away { return &away{why: map[tarn.TimelineID]error{}} }

// has tells whether a timeline is away, and why it could not be brought back;
// nil before somebody has tried.
func (a *away) has(id tarn.TimelineID) (why error, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	why, ok = a.why[id]
	return why, ok
}

func (a *away) note(id tarn.TimelineID, why error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.why[id] = why
}

func (a *away) remove(id tarn.TimelineID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.why, id)
}

// rebuilder brings timelines back.
type rebuilder struct{ *maker }

// findAway notes the complete timelines that have no WAL on this computer: pages
// and records came back from elsewhere, WAL comes from the object store.
func (k rebuilder) findAway() error {
	if k.o.Remote.WAL == nil {
		return nil
	}
	for _, id := range k.records.ids() {
		_, err := os.Lstat(k.path("wal", string(id)))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			k.away.note(id, nil)
		case err != nil:
			return err
		}
	}
	return nil
}

// present brings a timeline back that is away, or that another computer had; one
// that is here is left alone.
// The caller holds it.
func (k *maker) present(ctx context.Context, id tarn.TimelineID) error {
	if _, ok := k.away.has(id); !ok {
		if err := k.regain(ctx, id); err != nil {
			return err
		}
		if _, ok := k.away.has(id); !ok {
			return nil
		}
	}
	began := time.Now()
	var p wal.Position
	var err error
	if k.records.isUnmade(id) {
		p, err = rebuilder{k}.remake(ctx, id)
	} else if p, err = (rebuilder{k}).rebuild(ctx, id); err == nil {
		err = rebuilder{k}.cameBack(id, p)
	}
	if err != nil {
		if tarn.KindOf(err) == tarn.KindUnavailable && tarn.HintOf(err) == "" {
			err = tarn.Unavailable("%w", err).WithHint("tarn branch show tells what is missing")
		}
		err = fmt.Errorf("bring timeline %s back from the object store: %w", id, err)
		if ctx.Err() == nil {
			k.away.note(id, err)
			k.log.Error("timeline not brought back", "timeline", string(id), "err", err)
		}
		return err
	}
	k.away.remove(id)
	k.log.Info("timeline brought back", "timeline", string(id), "lsn", p.To.String(), "version", p.Time.Format(time.RFC3339), "took", time.Since(began))
	return nil
}

// cameBack records how far a timeline came back.
func (k rebuilder) cameBack(id tarn.TimelineID, p wal.Position) error {
	t, ok := k.records.known(id)
	if !ok {
		return tarn.NotFound("timeline %s does not exist", id)
	}
	t.BackLSN, t.BackTime = p.To, p.Time
	if t.BackTime.IsZero() { // nothing was written since it was forked
		t.BackTime = t.ForkTime
	}
	return k.records.publish(t)
}

// rebuild makes the WAL of a timeline behind its pages, as far as the object
// store has it without a gap. The next start recovers from the one to the other.
//
//  1. Rewind the pages to the newest mark that the WAL covers, and read where
//     their recovery begins. What they were last is of no use without its WAL,
//     and nobody knows how much of that they need. Crash: Open begins again.
//  2. Demand recovery: the pages may be of a clean shutdown that more followed.
//     Crash: so they say, and there is no WAL yet; Open begins again.
//  3. Rebuild the WAL in a directory of another name. Crash: litter, which Open
//     removes.
//  4. Give it its name.
func (k rebuilder) rebuild(ctx context.Context, id tarn.TimelineID) (p wal.Position, err error) {
	b, c, p, err := k.rewind(ctx, id)
	if err != nil {
		return p, err
	}
	if err := k.partShort(id, p); err != nil {
		return p, err
	}
	// Behind a clean shutdown the log ends with its checkpoint, and nothing needs
	// to be recovered; then this does no harm either.
	if c.State == postgres.StateShutDown {
		err := postgres.DemandRecovery(b)
		if err == nil {
			err = k.writeControl(ctx, id, b)
		}
		if err != nil {
			return p, err
		}
	}
	fresh := wal.New(k.path("wal", string(id)+".new"), k.owner())
	if err := fresh.Remove(); err != nil {
		return p, err
	}
	if err := k.o.Remote.WAL.Rebuild(ctx, id, fresh, wal.Range{TLI: c.TLI, From: c.Redo, To: p.To, SegmentBytes: c.SegmentBytes}); err != nil {
		return p, err
	}
	if now := (tenancy{k.machine}).leaseOf(id); now.Epoch != 0 {
		if err := fresh.Lease().Write(now.Epoch); err != nil {
			return p, err
		}
	}
	if err := os.Rename(k.path("wal", string(id)+".new"), k.path("wal", string(id))); err != nil {
		return p, err
	}
	return p, syncDir(k.path("wal"))
}

// rewinder is storage that can make an earlier mark the head again.
type rewinder interface {
	Rewind(ctx context.Context, id tarn.TimelineID, to tarn.Mark) error
}

// rewind makes the newest mark the head that the WAL covers, and reads
// pg_control there and how far the WAL goes.
func (k rebuilder) rewind(ctx context.Context, id tarn.TimelineID) (b []byte, c postgres.Control, p wal.Position, err error) {
	for {
		st, err := k.store.Stat(ctx, id)
		if err != nil {
			return nil, c, p, err
		}
		newest, atEnd := endMark(st.Marks, st.Head)
		if s, ok := k.store.(rewinder); ok && !atEnd && newest.Seq != 0 {
			if err := s.Rewind(ctx, id, newest); err != nil {
				return nil, c, p, err
			}
		}
		if b, c, err = k.headControl(ctx, id); err != nil {
			return nil, c, p, err
		}
		if p, err = k.o.Remote.WAL.Position(ctx, id, wal.Start{TLI: c.TLI, LSN: c.Redo, SegmentBytes: c.SegmentBytes}); err != nil {
			return nil, c, p, err
		}
		short := coversPages(newest, c, p)
		if short == nil {
			return b, c, p, nil
		}
		older := slices.DeleteFunc(slices.Clone(st.Marks), func(m tarn.Mark) bool { return m.LSN >= newest.LSN })
		s, ok := k.store.(rewinder)
		if !ok || len(older) == 0 {
			return nil, c, p, short
		}
		m := slices.MaxFunc(older, func(a, b tarn.Mark) int { return cmp.Compare(a.Seq, b.Seq) })
		k.log.Warn("pages are ahead of the WAL in the object store; going back", "timeline", string(id), "lsn", m.LSN.String(), "err", short)
		if err := s.Rewind(ctx, id, m); err != nil {
			return nil, c, p, err
		}
	}
}

func (k rebuilder) headControl(ctx context.Context, id tarn.TimelineID) (b []byte, c postgres.Control, err error) {
	v, err := k.store.OpenVolume(ctx, id)
	if err != nil {
		return nil, c, err
	}
	b, err = v.ReadFile(controlFile)
	if err := errors.Join(err, v.Close()); err != nil {
		return nil, c, err
	}
	c, err = postgres.ParseControl(b)
	return b, c, err
}

// coversPages refuses WAL that ends before the pages: from there they cannot
// become what they were at one moment.
func coversPages(at tarn.Mark, c postgres.Control, p wal.Position) error {
	need := max(c.Checkpoint+1, at.LSN)
	if p.To < need {
		return tarn.Unavailable("the object store has its WAL from %s to %s, and its pages need it up to %s", p.From, p.To, need)
	}
	return nil
}

// writeControl replaces pg_control.
func (k rebuilder) writeControl(ctx context.Context, id tarn.TimelineID, b []byte) error {
	v, err := k.store.OpenVolume(ctx, id)
	if err != nil {
		return err
	}
	return errors.Join(v.WriteFile(controlFile, b, k.newFile(unix.S_IFREG|0o600, "")), v.Close())
}
