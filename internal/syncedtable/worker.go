package syncedtable

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/delta"
)

// worker carries one synced table to its next resting state. Only it changes
// the state while it runs; tarn.SyncState draws the states.
//
// A passing fault (a compute that does not start, a store that does not
// answer) changes no state: it is said in the message and tried again.
type worker struct {
	k    *Keeper
	row  tarn.SyncedTable
	log  *slog.Logger
	stop context.CancelCauseFunc
	done chan struct{}
	line tarn.TimelineID // of the branch, when the step began

	columns []string // of the source, as last loaded

	damaged int // times the source read as damaged

	mu       sync.Mutex // not held across I/O
	reported time.Time  // when progress was last recorded
}

// asked is the state of a table whose update was asked for.
func asked(t tarn.SyncedTable) tarn.SyncState {
	if t.Version < 0 {
		return tarn.SyncProvisioning
	}
	return tarn.SyncUpdating
}

// failed is the state of a table whose update cannot succeed.
func failed(t tarn.SyncedTable) tarn.SyncState {
	if t.Version < 0 {
		return tarn.SyncOfflineFailed
	}
	return tarn.SyncPipelineFailed
}

// halted is the state of a table whose pipeline was stopped.
func halted(t tarn.SyncedTable) tarn.SyncState {
	switch {
	case t.Version < 0:
		return tarn.SyncOffline
	case t.Policy == tarn.SyncContinuous:
		return tarn.SyncStopped
	}
	return tarn.SyncOnline
}

var (
	errAsked       = errors.New("the synced table was asked to end")
	errBranchGoing = errors.New("the branch is being deleted")
)

// Run works until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	var g sync.WaitGroup
	defer g.Wait()
	tick := time.NewTicker(k.poll)
	defer tick.Stop()
	for {
		k.trim(ctx)
		tables, err := k.List(ctx, "")
		if err != nil && ctx.Err() == nil {
			k.log.Error("list synced tables", "err", err)
		}
		going := map[tarn.BranchName]bool{}
		for _, t := range tables {
			if _, known := going[t.Branch]; !known {
				going[t.Branch], err = k.branchGoing(ctx, t.Branch)
				if err != nil {
					k.log.Error("look at the branch", "err", err)
				}
			}
			if going[t.Branch] {
				k.halt(t.UID)
			}
			if !going[t.Branch] && !k.due(ctx, t) {
				continue
			}
			wctx, stop := context.WithCancelCause(ctx)
			w := k.newWorker(t, stop)
			if !k.admit(w) {
				stop(nil)
				continue
			}
			g.Go(func() {
				defer k.release(w)
				w.run(wctx)
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

func (k *Keeper) newWorker(t tarn.SyncedTable, stop context.CancelCauseFunc) *worker {
	return &worker{k: k, row: t, stop: stop, done: make(chan struct{}),
		log: k.log.With("project", t.Branch.Project, "branch", t.Branch.Branch, "path", t.Name.String())}
}

// admit enters w unless somebody works at its table already.
func (k *Keeper) admit(w *worker) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.running[w.row.UID] != nil {
		return false
	}
	k.running[w.row.UID] = w
	return true
}

func (k *Keeper) release(w *worker) {
	w.stop(nil)
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.running, w.row.UID)
	close(w.done)
}

// halt ends the worker of a table whose branch goes.
func (k *Keeper) halt(uid string) {
	k.mu.Lock()
	w := k.running[uid]
	k.mu.Unlock()
	if w != nil {
		w.stop(errBranchGoing)
	}
}

// claim takes a table away from its worker, waiting for it to end.
func (k *Keeper) claim(ctx context.Context, t tarn.SyncedTable) (*worker, error) {
	w := k.newWorker(t, func(error) {})
	for !k.admit(w) {
		k.mu.Lock()
		old := k.running[t.UID]
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
	return w, nil
}

// run loads the table, again and again until it is at rest.
func (w *worker) run(ctx context.Context) {
	for failures := 0; ctx.Err() == nil; {
		row, err := controldb.GetSyncedTable(ctx, w.k.db, w.row.Name)
		if tarn.KindOf(err) == tarn.KindNotFound || err == nil && row.UID != w.row.UID {
			return
		}
		if err == nil {
			w.row = row
			err = w.step(ctx)
		}
		if err == nil || ctx.Err() != nil {
			return
		}
		failures++
		w.log.Warn("synced table stands still", "err", err, "count", failures)
		w.row.Message = err.Error()
		w.report(ctx)
		d := min(w.k.poll<<min(failures-1, 10), time.Minute)
		pause(ctx, d/2+rand.N(d/2+1))
	}
}

// step does what the table's state asks for. An error is a passing fault.
func (w *worker) step(ctx context.Context) error {
	branch, err := controldb.GetBranch(ctx, w.k.db, w.row.Branch)
	if err != nil && tarn.KindOf(err) != tarn.KindNotFound {
		return err
	}
	if err != nil || branch.State == tarn.BranchDeleted {
		return controldb.DeleteSyncedTable(ctx, w.k.db, w.row.UID)
	}
	w.line = branch.Timeline
	if !w.row.State.Due() && w.row.State != tarn.SyncContinuing {
		return nil
	}
	select {
	case w.k.slots <- struct{}{}:
		defer func() { <-w.k.slots }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	err = w.sync(ctx)
	if err == nil || !final(err) || w.mayPass(err) {
		return err
	}
	w.log.Warn("synced table failed", "err", err)
	row := w.row
	row.State, row.Message = failed(w.row), withHint(err, w.row.Name)
	if err := w.rest(ctx, row, tarn.UpdateFailed); err != nil {
		return err
	}
	w.alert(ctx, "failed", row.Message)
	return nil
}

// damageTries is how often a source that reads as damaged is read again before
// it is believed: a store that breaks off in a file looks the same.
const damageTries = 8

func (w *worker) mayPass(err error) bool {
	var d *delta.DamagedError
	if !errors.As(err, &d) {
		return false
	}
	w.damaged++
	return w.damaged < damageTries
}

// withHint says an error with the command that helps.
func withHint(err error, n tarn.TableName) string {
	if hint := tarn.HintOf(err); hint != "" {
		return err.Error() + " (" + strings.ReplaceAll(hint, "NAME", n.String()) + ")"
	}
	return err.Error()
}

// rest records row, which is at rest, unless its branch was put on another
// timeline meanwhile (restored, reset): what was loaded is not there then, and
// the load that was asked for with that is still to come.
func (w *worker) rest(ctx context.Context, row tarn.SyncedTable, end tarn.UpdateState) error {
	err := w.k.db.InTx(ctx, func(tx *controldb.Tx) error {
		same, err := controldb.OnTimeline(ctx, tx, w.row.Branch, w.line)
		if err == nil && !same {
			err = errMoved
		}
		if err != nil {
			return err
		}
		if err := controldb.UpdateSyncedTable(ctx, tx, row); err != nil {
			return err
		}
		if end == tarn.UpdateCompleted {
			if err := controldb.RecordLineage(ctx, tx, tarn.LineageEdge{
				Source: row.Source, Target: row.Name, Kind: tarn.LineageSynced, Pipeline: row.PipelineID, Run: row.UpdateID, Columns: tarn.SameColumns(w.columns),
			}); err != nil {
				return err
			}
		}
		if row.State != tarn.SyncContinuing {
			if err := endUpdate(ctx, tx, row, end); err != nil {
				return err
			}
		}
		return controldb.AnswerSyncedTable(ctx, tx, row.UID, row.UpdateID)
	})
	if err == nil {
		w.row = row
	}
	return err
}

// report records progress and message; it decides nothing.
func (w *worker) report(ctx context.Context) {
	if err := controldb.ReportSyncedTable(ctx, w.k.db, w.row); err != nil && ctx.Err() == nil {
		w.log.Error("record progress", "err", err)
	}
}

// progress reports rows now and then. Copiers call it at once.
func (w *worker) progress(ctx context.Context, rows int64) {
	w.mu.Lock()
	now := time.Now()
	due := now.Sub(w.reported) > time.Second
	row := w.row
	if due {
		w.reported = now
	}
	w.mu.Unlock()
	if !due {
		return
	}
	row.RowsSynced = rows
	if err := controldb.ReportSyncedTable(ctx, w.k.db, row); err != nil && ctx.Err() == nil {
		w.log.Error("record progress", "err", err)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// configure prepares a connection for long work by the system.
func configure(c *pgx.ConnConfig) {
	for name, value := range map[string]string{
		"application_name": "tarn synced table", "client_encoding": "UTF8", "search_path": "pg_catalog",
		"statement_timeout": "0", "lock_timeout": "0", "idle_in_transaction_session_timeout": "0",
		"idle_session_timeout": "0", "default_transaction_isolation": "read committed",
		"default_transaction_read_only": "off", "datestyle": "ISO", "timezone": "UTC",
	} {
		c.RuntimeParams[name] = value
	}
	c.DefaultQueryExecMode = pgx.QueryExecModeExec
}

// closeConn says goodbye, briefly, also when the caller's context is over.
func closeConn(c *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c.Close(ctx) // nothing of ours depends on the answer
}
