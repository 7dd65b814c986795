package syncedtable

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// ask records an update of a table that is at rest.
func ask(ctx context.Context, tx *controldb.Tx, t tarn.SyncedTable, cause tarn.UpdateCause, r tarn.Refresh) (tarn.SyncedTable, error) {
	was := t.State
	t.UpdateID, t.Refresh, t.State, t.Message = uuid.NewString(), r, asked(t), ""
	if _, err := controldb.InsertUpdate(ctx, tx, tarn.PipelineUpdate{ID: t.UpdateID, PipelineID: t.PipelineID, Cause: cause, Refresh: r}); err != nil {
		return t, err
	}
	return t, controldb.AskSyncedTable(ctx, tx, t, was)
}

// Refresh asks for an update and gives its id. RefreshNew brings what changed:
// nothing when the newest version is there. KindConflict while an update runs.
func (k *Keeper) Refresh(ctx context.Context, n tarn.TableName, r tarn.Refresh) (update string, err error) {
	return k.refresh(ctx, n, tarn.CauseAsked, r)
}

func (k *Keeper) refresh(ctx context.Context, n tarn.TableName, cause tarn.UpdateCause, r tarn.Refresh) (update string, err error) {
	t, err := k.Get(ctx, n)
	if err != nil {
		return "", err
	}
	switch {
	case t.State.Due():
		return "", tarn.Conflict("refresh synced table %s: an active update %s already exists", n, t.UpdateID).WithHint("wait for it, or stop it: tarn sync stop " + n.String())
	case t.State == tarn.SyncContinuing && r != tarn.RefreshFull:
		k.watchOf(t.UID).hurry()
		k.wake()
		return t.UpdateID, nil
	}
	err = k.db.InTx(ctx, func(tx *controldb.Tx) (err error) {
		if t.UpdateID != "" { // CONTINUOUS has one update until it is asked for another
			if _, err := controldb.MoveUpdate(ctx, tx, t.UpdateID, tarn.UpdateCanceled, "another update was asked for", t.RowsSynced); err != nil {
				return err
			}
		}
		t, err = ask(ctx, tx, t, cause, r)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("refresh synced table %s: %w", n, err)
	}
	k.wake()
	return t.UpdateID, nil
}

// Stop ends the update that runs; a CONTINUOUS table stays as it is until it is
// refreshed. Stopping a table at rest is no error.
func (k *Keeper) Stop(ctx context.Context, n tarn.TableName) error {
	t, err := k.Get(ctx, n)
	if err != nil {
		return err
	}
	w, err := k.claim(ctx, t)
	if err != nil {
		return err
	}
	defer k.release(w)
	if t, err = k.Get(ctx, n); err != nil {
		return err
	}
	if !t.State.Due() && t.State != tarn.SyncContinuing {
		return nil
	}
	t.State, t.Message = halted(t), "the pipeline was stopped"
	err = k.db.InTx(ctx, func(tx *controldb.Tx) error {
		if _, err := controldb.MoveUpdate(ctx, tx, t.UpdateID, tarn.UpdateCanceled, t.Message, t.RowsSynced); err != nil {
			return err
		}
		if err := controldb.InsertEvent(ctx, tx, tarn.PipelineEvent{PipelineID: t.PipelineID, UpdateID: t.UpdateID, Type: tarn.EventUserAction, Message: "The pipeline was stopped."}); err != nil {
			return err
		}
		if err := controldb.UpdateSyncedTable(ctx, tx, t); err != nil {
			return err
		}
		return controldb.AnswerSyncedTable(ctx, tx, t.UID, t.UpdateID)
	})
	if err != nil {
		return fmt.Errorf("stop synced table %s: %w", n, err)
	}
	return nil
}

// Change gives a synced table another policy or other settings, in place: its
// rows and position stay. KindInvalid, KindConflict while an update runs.
func (k *Keeper) Change(ctx context.Context, n tarn.TableName, p tarn.SyncPolicy, s tarn.SyncSettings) (tarn.SyncedTable, error) {
	t, err := k.Get(ctx, n)
	if err != nil {
		return t, err
	}
	if err := k.change(ctx, t, p, s); err != nil {
		return t, fmt.Errorf("change synced table %s: %w", n, err)
	}
	k.wake()
	return k.Get(ctx, n)
}

func (k *Keeper) change(ctx context.Context, t tarn.SyncedTable, p tarn.SyncPolicy, s tarn.SyncSettings) error {
	if err := checkSettings(p, s); err != nil {
		return err
	}
	if p.Follows() && p != t.Policy {
		_, snap, err := k.source(ctx, t.SyncedTableSpec.Source)
		if err != nil {
			return err
		}
		if err := checkFeed(snap, t.SyncedTableSpec.Source, p); err != nil {
			return err
		}
	}
	w, err := k.claim(ctx, t)
	if err != nil {
		return err
	}
	defer k.release(w)
	if t, err = k.Get(ctx, t.Name); err != nil {
		return err
	}
	return k.db.InTx(ctx, func(tx *controldb.Tx) error {
		if err := controldb.SetSyncSettings(ctx, tx, t.UID, p, s); err != nil || p == t.Policy {
			return err
		}
		if err := controldb.InsertEvent(ctx, tx, tarn.PipelineEvent{PipelineID: t.PipelineID, UpdateID: t.UpdateID, Type: tarn.EventUserAction,
			Message: fmt.Sprintf("The scheduling policy was changed from %s to %s.", t.Policy, p)}); err != nil {
			return err
		}
		if t.State != tarn.SyncOnline && t.State != tarn.SyncContinuing && t.State != tarn.SyncStopped {
			return nil // what it does or waits for goes on under the new policy
		}
		if _, err := controldb.MoveUpdate(ctx, tx, t.UpdateID, tarn.UpdateCanceled, "the scheduling policy was changed", t.RowsSynced); err != nil {
			return err
		}
		was := t.State
		t.Policy = p
		t.UpdateID, t.Refresh, t.State, t.Message = uuid.NewString(), tarn.RefreshNew, tarn.SyncUpdatingResources, ""
		if _, err := controldb.InsertUpdate(ctx, tx, tarn.PipelineUpdate{ID: t.UpdateID, PipelineID: t.PipelineID, Cause: tarn.CauseAsked}); err != nil {
			return err
		}
		return controldb.AskSyncedTable(ctx, tx, t, was)
	})
}

// endUpdate ends the update that a table ran for, with an event.
func endUpdate(ctx context.Context, tx *controldb.Tx, t tarn.SyncedTable, state tarn.UpdateState) error {
	if t.UpdateID == "" {
		return nil
	}
	moved, err := controldb.MoveUpdate(ctx, tx, t.UpdateID, state, t.Message, t.RowsSynced)
	if err != nil || !moved {
		return err
	}
	e := tarn.PipelineEvent{PipelineID: t.PipelineID, UpdateID: t.UpdateID, Type: tarn.EventUpdateProgress, Message: fmt.Sprintf("Update %s is %s.", t.UpdateID, state)}
	if state == tarn.UpdateFailed {
		e.Level, e.Error = tarn.EventError, t.Message
	}
	return controldb.InsertEvent(ctx, tx, e)
}

// event records what happened; it decides nothing.
func (w *worker) event(ctx context.Context, e tarn.PipelineEvent) {
	e.PipelineID, e.UpdateID = w.row.PipelineID, w.row.UpdateID
	if err := controldb.InsertEvent(ctx, w.k.db, e); err != nil && ctx.Err() == nil {
		w.log.Error("record event", "err", err)
	}
}

// flowEvery is how often a CONTINUOUS table says that it applied changes.
const flowEvery = time.Minute

func (w *worker) flowed(ctx context.Context, message string) {
	if w.row.Policy == tarn.SyncContinuous && !w.k.watchOf(w.row.UID).mayFlow(time.Now()) {
		return
	}
	w.event(ctx, tarn.PipelineEvent{Level: tarn.EventMetrics, Type: tarn.EventFlowProgress, Message: message})
}
