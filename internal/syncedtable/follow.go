package syncedtable

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/delta"
)

// errLarge means that one version alone has more changes than a chunk holds.
var errLarge = errors.New("the version is larger than a chunk")

// follow applies the changes up to the snapshot's version, some whole versions
// at a time.
//
//  1. columns that the source has more are added       again, it finds them there
//  2. changes of versions a…b are read and collapsed   nothing is changed yet
//  3. they are applied and the position moves from a-1 to b, in one transaction
//     the rows of a-1 with its position, or those of b with theirs
//  4. 2 and 3 until there are no more
//  5. the control database is told                     the next run finds the
//     position at the version
func (s *session) follow(ctx context.Context) error {
	started := time.Now().UTC()
	if err := s.evolve(ctx); err != nil {
		return err
	}
	a, err := s.applier(ctx)
	if err != nil {
		return err
	}
	defer a.close()
	to := s.snap.Version()
	first := s.pos
	for from := s.pos.version + 1; from <= to; from = s.pos.version + 1 {
		next := s.pos
		next.started = started
		c, err := s.gather(ctx, from, to, &next)
		switch {
		case errors.Is(err, errLarge):
			err = a.large(ctx, from, &next)
		case err == nil:
			err = a.apply(ctx, c, &next)
		}
		if err != nil {
			return err
		}
		s.pos = next
		s.pos.finished = time.Time{}
		s.w.row.Message = fmt.Sprintf("applied version %d of %d", s.pos.version, to)
		s.w.row.RowsSynced, s.w.row.RowsTotal = s.pos.rows, max(s.pos.rows, s.w.row.RowsTotal)
		s.w.report(ctx)
	}
	s.w.flowed(ctx, fmt.Sprintf("Applied versions %d to %d of %s: %d rows upserted, %d deleted, in %s.",
		first.version+1, to, s.w.row.Source, a.upserted, a.deleted, time.Since(started).Round(time.Millisecond)))
	return nil
}

// evolve adds the columns that the source has and Postgres has not. What is not
// additive was refused by the log of the source already, unless the Postgres
// side was changed by hand.
func (s *session) evolve(ctx context.Context) error {
	d, err := s.differences(ctx)
	if err != nil {
		return err
	}
	if len(d.changes) > 0 {
		return refusedColumns(s.w.row.Source, d.changes)
	}
	if len(d.add) == 0 {
		return nil
	}
	place := pgx.Identifier{s.w.row.Name.Schema, s.w.row.Name.Table}.Sanitize()
	for try := 1; ; try++ {
		err := pgx.BeginFunc(ctx, s.conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, swapLock); err != nil {
				return err
			}
			for _, c := range d.add {
				if _, err := tx.Exec(ctx, "ALTER TABLE "+place+" ADD COLUMN "+c); err != nil {
					return err
				}
			}
			return nil
		})
		if !isCode(err, "55P03", "40P01") || try >= swapTries {
			if err != nil {
				return fmt.Errorf("add columns: %w", err)
			}
			break
		}
		if pause(ctx, swapPause); ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	for _, c := range d.add {
		s.w.event(ctx, tarn.PipelineEvent{Type: tarn.EventFlowDefinition, Message: "Column added: " + c + "."})
	}
	return nil
}

// gather reads the changes of some whole versions from one on; next becomes the
// position after them. errLarge when the first version alone does not fit.
func (s *session) gather(ctx context.Context, from, to int64, next *position) (*chunk, error) {
	c := newChunk(s.layout, s.w.k.chunkRows)
	last := from // version of the change before
	var at time.Time
	for ch, err := range s.table.Changes(ctx, delta.ChangeOptions{From: from, To: to, BatchRows: batchRowsOf(s.snap)}) {
		if err != nil {
			return nil, s.changesGone(err)
		}
		if ch.Version > last && c.full() {
			ch.Rows.Release()
			next.version, next.time = last, at
			return c, nil
		}
		last, at = ch.Version, ch.Time
		stop := c.add(ch.Rows, ch.Version, ch.Type == delta.Deleted || ch.Type == delta.PreUpdated)
		ch.Rows.Release()
		if stop != nil && s.w.row.OnReject == tarn.RejectStop {
			return nil, stopped(ch.Version, stop)
		}
		if c.overfull() {
			if last == from {
				return nil, errLarge
			}
			return s.gather(ctx, from, last-1, next) // those fit: they have been read
		}
	}
	next.version, next.time = to, s.snap.Time()
	if to < s.snap.Version() {
		next.time = at
		if at.IsZero() {
			next.time = s.pos.time
		}
	}
	return c, nil
}

// changesGone makes a reload of changes that are found to be gone only as they
// are read.
func (s *session) changesGone(err error) error {
	if errors.Is(err, delta.ErrNoVersion) {
		return &reloadError{fmt.Sprintf("the changes from version %d on are not there any more (vacuumed or cleaned up)", s.pos.version+1)}
	}
	return refused(s.w.row.Source, err)
}

// wantedAppliers is how many connections apply changes.
func wantedAppliers() int { return min(maxConnections, max(2, runtime.GOMAXPROCS(0))) }
