package compute

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/postgres"
	"github.com/tarndb/tarn/internal/postgres/cgroup"
	"github.com/tarndb/tarn/internal/volumefs"
)

// reconcile puts right what a killed process left. The page store is open, so
// nobody else works in this data directory.
func (k *maker) reconcile(ctx context.Context) error {
	if err := k.clearEngines(); err != nil {
		return err
	}
	if n, err := k.copies.fetch(ctx); err != nil {
		return err
	} else if n > 0 {
		k.records.fetched = true
		k.log.Info("records of timelines brought back", "count", n, "path", k.o.Remote.Store.URL())
	}
	if err := k.records.load(); err != nil {
		return err
	}
	return k.clearUnpublished(ctx)
}

// Clear ends what a killed node left running in a data directory: Postgres and
// mounts. Open does so by itself; Clear is for when no node is to run there
// again. The caller sees to it that none runs now.
func Clear(dir string, log *slog.Logger) error {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	m := &machine{o: Options{Dir: dir}, log: log}
	if err := m.clearEngines(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("clear away what a node left in %s: %w", dir, err)
	}
	return nil
}

// clearEngines kills every Postgres that still runs on a mount of ours and
// removes the mount. What such a Postgres acknowledged is in its WAL.
func (m *machine) clearEngines() error {
	groups := m.leftGroups()
	if err := cgroup.ThawAll(groups); err != nil {
		m.log.Warn("control groups not thawed", "err", err)
	}
	// Every engine has its directory in mnt from before its start until after
	// its end (sweep).
	entries, err := os.ReadDir(m.path("mnt"))
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if m.handedOver(entry.Name()) {
			continue
		}
		if err := m.clearEngine(entry.Name()); err != nil {
			return err
		}
		m.log.Info("left compute cleared away", "endpoint", entry.Name())
	}
	m.sweepGroups(groups)
	return m.clearRecords()
}

// clearRecords removes records of postmasters that were being written.
func (m *machine) clearRecords() error {
	entries, err := os.ReadDir(m.path("run"))
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".pid-") {
			err = errors.Join(err, removeFile(m.path("run", e.Name())))
		}
	}
	return err
}

// handedOver tells whether an engine was left to us by another fleet.
func (m *machine) handedOver(name string) bool {
	return m.o.Handed != nil && slices.ContainsFunc(m.o.Handed.Computes, func(c HandedCompute) bool { return c.Spec.Endpoint == name })
}

// clearEngine kills the Postgres of one engine and removes its mount. The
// processes go first: they could do nothing on a mount taken away, and they
// would keep it busy. What they still wait for is cut off before: whoever read
// it may not have ended yet.
func (m *machine) clearEngine(name string) error {
	dir := m.path("mnt", name)
	if err := volumefs.Abort(dir); err != nil {
		m.log.Warn("mount not aborted", "path", dir, "err", err)
	}
	if err := postgres.KillOrphans(dir, m.path("run", name+".pid")); err != nil {
		return err
	}
	if err := volumefs.UnmountStale(dir); err != nil {
		return err
	}
	if err := m.sweep(name); err != nil {
		return fmt.Errorf("clear away what is left of compute %s: %w", name, err)
	}
	return nil
}

// clearUnpublished removes timelines without a record, which a crash left half
// made or half deleted; never one that another computer has in the object store.
func (k *maker) clearUnpublished(ctx context.Context) error {
	all, err := k.store.Timelines(ctx)
	if err != nil {
		return err
	}
	stored := make(map[tarn.TimelineID]bool)
	for _, st := range all {
		if _, ok := k.records.known(st.ID); ok {
			if !k.records.isUnmade(st.ID) {
				stored[st.ID] = true
			} else if err := (rebuilder{k}).clearUnmade(ctx, st.ID); err != nil {
				return err
			}
			continue
		}
		if !(tenancy{k.machine}).leaseOf(st.ID).Held {
			// Made by another computer, which took over from this one.
			stored[st.ID] = true
			k.log.Warn("timeline of another node left alone", "timeline", string(st.ID))
			continue
		}
		if err := k.discard(ctx, st.ID); err != nil {
			return fmt.Errorf("clear away unfinished timeline %s: %w", st.ID, err)
		}
		k.log.Info("unfinished timeline cleared away", "timeline", string(st.ID))
	}
	for _, id := range k.records.ids() {
		if t, _ := k.records.known(id); !stored[id] && (rebuilder{k}).canRemake(t) {
			if err := k.records.unmake(id); err != nil {
				return err
			}
			continue
		}
		if !stored[id] && k.copies != nil {
			k.records.lose(id)
			k.log.Error("timeline not brought back", "timeline", string(id), "err", k.records.missing(id))
			continue
		}
		if !stored[id] {
			return (&tarn.Error{Msg: fmt.Sprintf("timeline %s is recorded in %s, but the page store does not have it", id, k.records.path(id))}).
				WithHint("bring the page store back, or remove that file to give the timeline up")
		}
	}
	return k.clearWAL(stored)
}

// clearWAL removes WAL of timelines that are no more, and of replays.
func (k *maker) clearWAL(stored map[tarn.TimelineID]bool) error {
	entries, err := os.ReadDir(k.path("wal"))
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		id := tarn.TimelineID(e.Name())
		if !stored[id] {
			errs = append(errs, k.walOf(id).Remove())
			continue
		}
		errs = append(errs, k.walOf(id).DropRestore())
	}
	return errors.Join(errs...)
}
