package feed

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/delta"
)

// A feed's pipeline has one update for each session that follows, and events
// for what one wants to know of it afterwards. They are for people: nothing is
// decided by them, and one that cannot be recorded is only logged.

// pipeline records that the feed has one; again after an older version.
func (f *follower) pipeline(ctx context.Context) error {
	_, err := controldb.SetPipeline(ctx, f.k.db, tarn.Pipeline{
		ID: f.row.PipelineID, Kind: tarn.PipelineFeed, Name: f.row.Catalog + "." + f.row.Schema, Owner: f.row.UID,
		Project: f.row.Branch.Project, CreateTime: f.row.CreateTime,
	})
	if err != nil {
		return fmt.Errorf("record the pipeline: %w", err)
	}
	return nil
}

// beginUpdate records that a session begins. One that never ended, because
// the program was killed, is ended first.
func (f *follower) beginUpdate(ctx context.Context) error {
	if err := f.pipeline(ctx); err != nil {
		return err
	}
	last, err := controldb.ListUpdates(ctx, f.k.db, f.row.PipelineID, 1)
	if err != nil {
		return err
	}
	cause := tarn.CauseCreated
	if len(last) == 1 {
		cause = tarn.CauseRetry
		if !last[0].State.Ended() {
			if _, err := controldb.MoveUpdate(ctx, f.k.db, last[0].ID, tarn.UpdateCanceled, "Tarn was stopped", last[0].Rows); err != nil {
				return err
			}
		}
	}
	u, err := controldb.InsertUpdate(ctx, f.k.db, tarn.PipelineUpdate{PipelineID: f.row.PipelineID, State: tarn.UpdateRunning, Cause: cause})
	f.update = u.ID
	return err
}

// endUpdate records how a session ended.
func (f *follower) endUpdate(ctx context.Context, err error) {
	state, message := tarn.UpdateCompleted, "the compute stopped"
	switch {
	case ctx.Err() != nil:
		state, message = tarn.UpdateCanceled, "stopped, paused or changed"
	case err != nil && !errors.Is(err, errStreamEnded) && !isCode(err, codeShutdown):
		state, message = tarn.UpdateFailed, err.Error()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if state == tarn.UpdateFailed {
		f.event(ctx, tarn.EventError, tarn.EventUpdateProgress, "%s", message)
	}
	if _, err := controldb.MoveUpdate(ctx, f.k.db, f.update, state, message, f.rows); err != nil {
		f.log.Warn("record the end of an update", "err", err)
	}
	f.update, f.rows = "", 0
}

// event records something that happened.
func (f *follower) event(ctx context.Context, level tarn.EventLevel, kind tarn.EventType, format string, args ...any) {
	err := controldb.InsertEvent(ctx, f.k.db, tarn.PipelineEvent{
		PipelineID: f.row.PipelineID, UpdateID: f.update, Level: level, Type: kind, Message: fmt.Sprintf(format, args...),
	})
	if err != nil && ctx.Err() == nil {
		f.log.Warn("record an event", "err", err)
	}
}

// tellChange records what is news about a table.
func (f *follower) tellChange(ctx context.Context, before, now tarn.FeedTable) {
	switch {
	case now.DeadLetters > before.DeadLetters:
		f.event(ctx, tarn.EventWarn, tarn.EventDeadLetters, "table %s: %d more values in %s", now.PostgresTable, now.DeadLetters-before.DeadLetters, deadLettersTable)
	case now.State == before.State:
	case now.State == tarn.FeedTerminated || now.State == tarn.FeedSkipped:
		f.event(ctx, tarn.EventWarn, tarn.EventFlowProgress, "table %s is not followed any more: %s", now.PostgresTable, now.Detail)
	default:
		f.event(ctx, tarn.EventInfo, tarn.EventFlowProgress, "table %s: %s %s", now.PostgresTable, now.State, now.Detail)
	}
}

// lineage is where the rows of a followed table go: into its history, and from
// there into what is derived from it.
func (f *follower) lineage(t tarn.FeedTable, schema delta.Schema) []tarn.LineageEdge {
	var columns []string
	for _, c := range sourceFields(schema) {
		columns = append(columns, c.Name)
	}
	e := tarn.LineageEdge{
		Source: tarn.TableName{Catalog: tarn.DatabaseCatalog(f.row.Branch, f.row.Database), Schema: f.row.PostgresSchema, Table: t.PostgresTable},
		Target: t.Target, Kind: tarn.LineageFeed, Pipeline: f.row.PipelineID, Run: f.update, Columns: tarn.SameColumns(columns),
	}
	all := []tarn.LineageEdge{e}
	for suffix, kept := range map[string]bool{currentSuffix: f.row.Derived.Current(), intervalsSuffix: f.row.Derived.Intervals()} {
		if kept {
			d := e
			d.Source, d.Target.Table = e.Target, derivedName(e.Target.Table, suffix)
			all = append(all, d)
		}
	}
	return all
}
