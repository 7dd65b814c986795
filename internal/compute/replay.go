package compute

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/postgres"
	"github.com/tarndb/tarn/internal/wal"
)

// replay says how a child gets from the mark it was forked at to its target.
type replay struct {
	from tarn.Mark
	to   target
}

// shortOfTarget is what Postgres says when the WAL ended before the target.
const shortOfTarget = "recovery ended before configured recovery target was reached"

// replay runs Postgres's own recovery on an equipped child, so that what is
// published needs nothing but an ordinary start, and an error is the error of
// the fork.
//
//  1. Write recovery.signal and start: Postgres replays the WAL in pg_wal, which
//     ends at the mark, then what restore_command hands out, to the target, and
//     promotes itself to a TLI of its own.
//  2. Where the WAL ended without a commit behind a target that is in the past,
//     everything there is belongs to the target: go on to the end instead.
//  3. Checkpoint and stop: the end mark is the child's first, on its own TLI.
//  4. Remove the WAL that was gathered for the replay.
//
// A crash leaves an unpublished child, which is discarded.
func (k *maker) replay(ctx context.Context, child timeline, r replay) (timeline, error) {
	began := time.Now()
	in, err := k.install(child.PGVersion)
	if err != nil {
		return child, err
	}
	e, err := k.openEngine(ctx, engineName(child.ID), child.ID)
	if err != nil {
		return child, err
	}
	child, err = k.replayOn(ctx, e, in, child, r)
	if err != nil {
		return child, errors.Join(fmt.Errorf("replay from %s: %w", r.from.LSN, err), e.wreck(ctx))
	}
	if err := e.stop(ctx); err != nil {
		return child, fmt.Errorf("replay from %s: %w", r.from.LSN, err)
	}
	if err := e.wal.DropRestore(); err != nil {
		return child, err
	}
	k.log.Info("timeline replayed", "timeline", string(child.ID), "lsn", child.ForkLSN.String(), "took", time.Since(began))
	return child, removeFile(e.logFile())
}

func (k *maker) replayOn(ctx context.Context, e *engine, in postgres.Install, child timeline, r replay) (timeline, error) {
	if err := e.pointWAL(); err != nil {
		return child, err
	}
	if err := e.writeFile("recovery.signal", ""); err != nil {
		return child, err
	}
	settings, err := k.ownSettings(child.ID)
	if err != nil {
		return child, err
	}
	maps.Copy(settings, map[string]string{
		"archive_mode":             "off", // what is replayed is the parent's
		"restore_command":          wal.RestoreCommand,
		"recovery_target_timeline": "current",
		"recovery_target_action":   "promote",
		"max_wal_size":             "16GB", // one checkpoint at the end, not many meanwhile
	})
	targeted := maps.Clone(settings)
	if r.to.lsn != 0 {
		// Up to the LSN: a record that begins there is not part of it.
		targeted["recovery_target_lsn"] = r.to.lsn.String()
		targeted["recovery_target_inclusive"] = "off"
	} else {
		targeted["recovery_target_time"] = r.to.time.Format("2006-01-02 15:04:05.000000-07:00")
	}
	err = e.run(ctx, in, targeted)
	if err != nil && strings.Contains(err.Error(), shortOfTarget) {
		if err = e.hide(ctx); err == nil {
			err = e.run(ctx, in, settings)
		}
	}
	if err != nil {
		return child, err
	}
	s, err := e.connect(ctx)
	if err != nil {
		return child, err
	}
	defer s.close(ctx)
	child.ForkTime = r.to.time
	var last time.Time
	if child.ForkLSN, last, err = s.replayed(ctx); err != nil {
		return child, err
	}
	if r.to.lsn != 0 {
		child.ForkTime = r.from.Time
		if last.After(child.ForkTime) {
			child.ForkTime = last
		}
	}
	return child, s.checkpoint(ctx)
}
