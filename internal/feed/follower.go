package feed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// follower looks after one feed for as long as it exists.
//
//	waiting (compute not active) ◀──▶ following
//	       │                            │ error: message, back off
//	       └──────────▶ gone ◀──────────┘ the branch is on its way out
type follower struct {
	k    *Keeper
	row  tarn.Feed
	log  *slog.Logger
	stop context.CancelCauseFunc // ends run
	done chan struct{}           // run has ended

	status  tarn.ComputeStatus // of the compute, when the session began
	owner   tarn.Principal     // of the Delta tables it makes
	broken  int                // streams in a row that Postgres could not decode
	message string             // last recorded
	tables  map[string]tarn.FeedTable
	update  string // id of the pipeline's update that this session is; "" = none
	rows    int64  // history rows committed by it
}

// errAsked ends a follower because its feed is being deleted.
var errAsked = errors.New("the feed was asked to end")

// errBranchGoing ends a session because its branch is on its way out.
var errBranchGoing = errors.New("the branch is being deleted")

func (f *follower) publication() string { return messagePrefix + "_" + f.row.UID }

// Run works until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	var g sync.WaitGroup
	defer g.Wait()
	tick := time.NewTicker(k.poll)
	defer tick.Stop()
	for {
		feeds, err := controldb.ListFeeds(ctx, k.db, tarn.BranchName{})
		if err != nil && ctx.Err() == nil {
			k.log.Error("list feeds", "err", err)
		}
		for _, row := range feeds {
			fctx, stop := context.WithCancelCause(ctx)
			f := k.newFollower(row, stop)
			if !k.admit(f) {
				stop(nil)
				continue
			}
			g.Go(func() {
				defer k.release(f)
				f.run(fctx)
			})
		}
		select {
		case <-k.changed:
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (k *Keeper) newFollower(row tarn.Feed, stop context.CancelCauseFunc) *follower {
	return &follower{k: k, row: row, stop: stop, done: make(chan struct{}),
		log: k.log.With("project", row.Branch.Project, "branch", row.Branch.Branch, "path", row.ID)}
}

// admit enters f unless somebody looks after its feed already.
func (k *Keeper) admit(f *follower) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.running[f.row.UID] != nil {
		return false
	}
	k.running[f.row.UID] = f
	return true
}

func (k *Keeper) release(f *follower) {
	f.stop(nil)
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.running, f.row.UID)
	close(f.done)
}

// claim takes a feed away from its follower, waiting for it to end.
func (k *Keeper) claim(ctx context.Context, row tarn.Feed) (*follower, error) {
	f := k.newFollower(row, func(error) {})
	for !k.admit(f) {
		k.mu.Lock()
		old := k.running[row.UID]
		k.mu.Unlock()
		if old == nil {
			continue
		}
		old.stop(errAsked)
		select {
		case <-old.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return f, nil
}

// run looks after the feed until it is gone or ctx ends.
func (f *follower) run(ctx context.Context) {
	failures := 0
	for ctx.Err() == nil {
		started := time.Now()
		gone, err := f.step(ctx)
		switch {
		case gone || ctx.Err() != nil:
			return
		case err == nil:
			failures = 0
			continue
		}
		if time.Since(started) > time.Minute {
			failures = 0
		}
		failures++
		f.log.Warn("feed stands still", "err", err, "count", failures)
		f.say(ctx, err.Error())
		pause(ctx, f.k.backoff(failures))
	}
}

// backoff doubles from one poll to a minute, with jitter.
func (k *Keeper) backoff(failures int) time.Duration {
	d := min(k.poll<<min(failures-1, 10), time.Minute)
	return d/2 + rand.N(d/2+1)
}

// pause waits, but not longer than ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// step does the next thing for the feed; gone = there is nothing left to do.
func (f *follower) step(ctx context.Context) (gone bool, err error) {
	row, err := controldb.GetFeed(ctx, f.k.db, f.row.Branch, f.row.ID)
	if tarn.KindOf(err) == tarn.KindNotFound || err == nil && row.UID != f.row.UID {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("read feed %s: %w", f.row.ID, err)
	}
	f.row, f.message, f.tables = row, row.Message, map[string]tarn.FeedTable{}
	for _, t := range row.Tables {
		f.tables[t.PostgresTable] = t
	}
	if going, err := f.branchGoing(ctx); err != nil || going {
		if err == nil {
			err = f.forget(ctx)
		}
		return err == nil, err
	}
	if row.Paused {
		return false, f.rest(ctx)
	}
	status, err := f.k.computes.ComputeOf(ctx, row.Branch)
	if err != nil {
		return false, fmt.Errorf("look at the compute: %w", err)
	}
	if status.State != tarn.ComputeActive {
		f.say(ctx, "waiting for the compute of the branch, which is "+string(status.State))
		pause(ctx, f.k.poll)
		return false, nil
	}
	if err := f.beginUpdate(ctx); err != nil {
		return false, err
	}
	err = f.follow(ctx, status)
	f.endUpdate(ctx, err)
	if errors.Is(err, errBranchGoing) {
		return false, nil
	}
	if undecodable(err) {
		f.broken++
	}
	if errors.Is(err, errHeldTooMuch) {
		f.log.Warn("give up slot", "bytes", f.row.WALHeld)
		return false, nil
	}
	if errors.Is(err, errStreamEnded) || isCode(err, codeShutdown) {
		f.log.Info("stream ended", "err", err)
		pause(ctx, f.k.poll)
		return false, nil
	}
	return false, err
}

// brokenStreams is how often a stream may break at one place before its slot is
// given up for a new one and a new copy. Postgres cannot always decode what it
// wrote ("could not map filenumber … to relation OID", filenode before 16, is
// met when tables are truncated while a slot is made), and then never will.
const brokenStreams = 3

// undecodable tells an error of a slot from one of a connection or a dying
// compute: WAL that is gone, a slot that was invalidated or dropped, and the
// one internal error that is known to stay.
func undecodable(err error) bool {
	var e *streamError
	var pg *pgconn.PgError
	if !errors.As(err, &e) || !errors.As(err, &pg) || pg.Severity != "ERROR" {
		return false
	}
	if pg.Code == "XX000" {
		return strings.Contains(pg.Message, "could not map filenode") || strings.Contains(pg.Message, "could not map filenumber")
	}
	return isCode(err, "58P01", "55000", codeUndefinedObject)
}

const codeShutdown = "57P01" // admin_shutdown

// branchGoing reports that the branch is on its way out: its slot goes with
// it, and the feed must let it go. It also reads who owns what the feed makes.
func (f *follower) branchGoing(ctx context.Context) (bool, error) {
	b, err := controldb.GetBranch(ctx, f.k.db, f.row.Branch)
	if tarn.KindOf(err) == tarn.KindNotFound {
		return true, nil
	}
	if err != nil || b.State == tarn.BranchDeleted {
		return err == nil, err
	}
	p, err := controldb.GetProject(ctx, f.k.db, f.row.Branch.Parent())
	f.owner = tarn.Principal{Name: p.Owner, Type: tarn.PrincipalUser, Admin: true}
	return false, err
}

// say records why the feed stands still; "" = it is well.
func (f *follower) say(ctx context.Context, message string) {
	if f.message == message {
		return
	}
	if err := controldb.SetFeedMessage(ctx, f.k.db, f.row.UID, message); err != nil {
		if ctx.Err() == nil {
			f.log.Error("record message", "err", err)
		}
		return
	}
	f.message = message
}

// remove ends the feed for good. Each step may be repeated.
//
//  1. slot and publication go     unless the branch goes with them
//  2. Delta tables go             when that was asked for
//  3. the rows go                 the feed no longer exists
func (f *follower) remove(ctx context.Context, r Retention) error {
	going, err := f.branchGoing(ctx)
	if err != nil {
		return err
	}
	if !going {
		if err := f.leave(ctx); err != nil {
			return err
		}
	}
	if r == PurgeTables {
		for _, n := range f.targets() {
			if err := f.purge(ctx, n); err != nil {
				return fmt.Errorf("purge %s: %w", n, err)
			}
		}
	}
	return f.forget(ctx)
}

// forget removes the rows of the feed and its pipeline.
func (f *follower) forget(ctx context.Context) error {
	if err := controldb.DeletePipeline(ctx, f.k.db, f.row.PipelineID); err != nil && tarn.KindOf(err) != tarn.KindNotFound {
		return err
	}
	err := controldb.DeleteFeed(ctx, f.k.db, f.row.UID)
	if tarn.KindOf(err) == tarn.KindNotFound {
		err = nil
	}
	return err
}

// targets are the Delta tables that the feed may have made.
func (f *follower) targets() []tarn.TableName {
	all := []tarn.TableName{{Catalog: f.row.Catalog, Schema: f.row.Schema, Table: deadLettersTable}}
	for _, t := range f.row.Tables {
		all = append(all, t.Target)
		for _, suffix := range []string{currentSuffix, intervalsSuffix} {
			n := t.Target
			n.Table = derivedName(n.Table, suffix)
			all = append(all, n)
		}
	}
	return all
}

// leave drops what the feed has in the branch, waking its compute.
func (f *follower) leave(ctx context.Context) error {
	conn, err := f.k.computes.Connect(ctx, f.row.Branch, f.row.Database, func(c *pgx.ConnConfig) { configure(c, "tarn feed "+f.row.ID) })
	if isCode(err, "3D000") {
		return nil // the database is gone, and the slot with it
	}
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer closeConn(conn)
	s := source{conn: conn, schema: f.row.PostgresSchema, publication: f.publication(), follows: f.row.Follows}
	return s.remove(ctx)
}

func (f *follower) purge(ctx context.Context, n tarn.TableName) error {
	t, err := f.k.catalog.Table(ctx, n)
	if tarn.KindOf(err) == tarn.KindNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	store, err := f.k.openStore(ctx, t.Location)
	if err != nil {
		return err
	}
	// The log last: what is left of an interrupted purge is still a table.
	var log, data []string
	for o, err := range store.List(ctx, "", "") {
		if err != nil {
			return err
		}
		if strings.HasPrefix(o.Key, "_delta_log/") {
			log = append(log, o.Key)
			continue
		}
		data = append(data, o.Key)
	}
	for _, keys := range [2][]string{data, log} {
		if len(keys) == 0 {
			continue
		}
		if err := store.Delete(ctx, keys...); err != nil {
			return err
		}
	}
	return f.k.catalog.DropTable(ctx, f.owner, n)
}
