package compute

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/postgres"
	"github.com/tarndb/tarn/internal/wal"
)

// rebuildMissing makes the WAL of complete timelines that have none on this
// computer, because it is a new one: pages and records came back from
// elsewhere, WAL comes from the object store. One that cannot be brought back
// does not keep the others: it is tried again at the next Open, and does not
// start until then.
func (k copier) rebuildMissing(ctx context.Context) error {
	if k.o.Remote == nil {
		return nil
	}
	for _, id := range k.records.ids() {
		_, err := os.Lstat(k.path("wal", string(id)))
		if err == nil {
			continue
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		began := time.Now()
		p, err := k.rebuild(ctx, id)
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			k.log.Error("timeline not brought back", "timeline", string(id), "err", err)
			continue
		}
		k.log.Info("timeline brought back", "timeline", string(id), "lsn", p.To.String(), "version", p.Time.Format(time.RFC3339), "took", time.Since(began))
	}
	return nil
}

// rebuild makes the WAL of a timeline behind its pages, as far as the object
// store has it without a gap. The next start recovers from the one to the other.
//
//  1. Read where the pages' recovery begins.
//  2. Demand recovery: the pages may be of a clean shutdown that more followed.
//     Crash: so they say, and there is no WAL yet; Open begins again.
//  3. Rebuild the WAL in a directory of another name. Crash: litter, which Open
//     removes.
//  4. Give it its name.
func (k copier) rebuild(ctx context.Context, id tarn.TimelineID) (p wal.Position, err error) {
	v, err := k.store.OpenVolume(ctx, id)
	if err != nil {
		return p, err
	}
	b, err := v.ReadFile(controlFile)
	if err := errors.Join(err, v.Close()); err != nil {
		return p, err
	}
	c, err := postgres.ParseControl(b)
	if err != nil {
		return p, err
	}
	if p, err = k.o.Remote.Position(ctx, id, wal.Start{TLI: c.TLI, LSN: c.Redo, SegmentBytes: c.SegmentBytes}); err != nil {
		return p, err
	}
	if err := k.coversPages(ctx, id, c, p); err != nil {
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
	if err := k.o.Remote.Rebuild(ctx, id, fresh, wal.Range{TLI: c.TLI, From: c.Redo, To: p.To, SegmentBytes: c.SegmentBytes}); err != nil {
		return p, err
	}
	if err := os.Rename(k.path("wal", string(id)+".new"), k.path("wal", string(id))); err != nil {
		return p, err
	}
	return p, syncDir(k.path("wal"))
}

// coversPages refuses WAL that ends before the pages: from there they cannot
// become what they were at one moment.
func (k copier) coversPages(ctx context.Context, id tarn.TimelineID, c postgres.Control, p wal.Position) error {
	st, err := k.store.Stat(ctx, id)
	if err != nil {
		return err
	}
	need := c.Checkpoint + 1
	for _, m := range st.Marks {
		need = max(need, m.LSN)
	}
	if p.To < need {
		return tarn.Unavailable("the object store has its WAL from %s to %s, and its pages need it up to %s", p.From, p.To, need)
	}
	return nil
}

// writeControl replaces pg_control.
func (k copier) writeControl(ctx context.Context, id tarn.TimelineID, b []byte) error {
	v, err := k.store.OpenVolume(ctx, id)
	if err != nil {
		return err
	}
	return errors.Join(v.WriteFile(controlFile, b, k.newFile(unix.S_IFREG|0o600, "")), v.Close())
}
