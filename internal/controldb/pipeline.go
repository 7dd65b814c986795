package controldb

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
)

// Retention of a pipeline's records. The newest are kept however old.
const (
	PipelineRetention = 30 * 24 * time.Hour
	KeptUpdates       = 100
	KeptEvents        = 1000
)

// SetPipeline records a pipeline, or the new name of one there is, and returns
// it as recorded. With an empty ID it gets one.
func SetPipeline(ctx context.Context, c Conn, p tarn.Pipeline) (tarn.Pipeline, error) {
	if p.ID == "" {
		p.ID = uuid.NewString()
	}
	out, err := scanPipeline(c.querier().QueryRow(ctx, setPipeline, p.ID, p.Kind, p.Name, p.Owner, p.Project, p.Creator))
	return out, fault(err, "pipeline %s", p.ID)
}

const setPipeline = `INSERT INTO pipelines (id, kind, name, owner, project, creator) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (id) DO UPDATE SET name = $3, owner = $4, project = $5 RETURNING ` + pipelineColumns

const pipelineColumns = `id, kind, name, owner, project, creator, created`

func scanPipeline(r pgx.Row) (p tarn.Pipeline, err error) {
	err = r.Scan(&p.ID, &p.Kind, &p.Name, &p.Owner, &p.Project, &p.Creator, (*stamp)(&p.CreateTime))
	return p, err
}

// GetPipeline reads one. KindNotFound.
func GetPipeline(ctx context.Context, c Conn, id string) (tarn.Pipeline, error) {
	p, err := scanPipeline(c.querier().QueryRow(ctx, getPipeline, id))
	return p, fault(err, "pipeline %q", id)
}

const getPipeline = `SELECT ` + pipelineColumns + ` FROM pipelines WHERE id = $1`

// ListPipelines gives all, by name.
func ListPipelines(ctx context.Context, c Conn) ([]tarn.Pipeline, error) {
	v, err := list(ctx, c, scanPipeline, listPipelines)
	return v, fault(err, "pipelines")
}

const listPipelines = `SELECT ` + pipelineColumns + ` FROM pipelines ORDER BY name, id`

// DeletePipeline removes a pipeline with its updates and events; one that is
// gone is no error.
func DeletePipeline(ctx context.Context, c Conn, id string) error {
	_, err := c.querier().Exec(ctx, deletePipeline, id)
	return fault(err, "pipeline %q", id)
}

const deletePipeline = `DELETE FROM pipelines WHERE id = $1`

// InsertUpdate records a run, QUEUED unless it says otherwise, and the event of
// its creation. KindNotFound when the pipeline is gone.
func InsertUpdate(ctx context.Context, c Conn, u tarn.PipelineUpdate) (tarn.PipelineUpdate, error) {
	if u.ID == "" {
		u.ID = uuid.NewString()
	}
	if u.State == "" {
		u.State = tarn.UpdateQueued
	}
	if u.Refresh == "" {
		u.Refresh = tarn.RefreshNew
	}
	out, err := within(ctx, c, func(c Conn) (tarn.PipelineUpdate, error) {
		out, err := scanUpdate(c.querier().QueryRow(ctx, insertUpdate, u.ID, u.PipelineID, u.State, u.Cause, u.Refresh, u.Message, u.Rows))
		if err != nil {
			return out, err
		}
		return out, InsertEvent(ctx, c, tarn.PipelineEvent{PipelineID: u.PipelineID, UpdateID: u.ID, Type: tarn.EventCreateUpdate,
			Message: "Update " + u.ID + " created by " + string(u.Cause) + "."})
	})
	if sqlState(err) == "23503" {
		return out, tarn.NotFound("pipeline %q does not exist", u.PipelineID)
	}
	return out, fault(err, "update %s", u.ID)
}

const insertUpdate = `INSERT INTO pipeline_updates (id, pipeline, state, cause, refresh, message, rows)
VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING ` + updateColumns

const updateColumns = `id, pipeline, state, cause, refresh, message, rows, created, updated`

func scanUpdate(r pgx.Row) (u tarn.PipelineUpdate, err error) {
	err = r.Scan(&u.ID, &u.PipelineID, &u.State, &u.Cause, &u.Refresh, &u.Message, &u.Rows, (*stamp)(&u.CreateTime), (*stamp)(&u.UpdateTime))
	return u, err
}

// MoveUpdate takes an update that has not ended to another state; rows are
// those moved so far. It tells whether the update was still to be moved.
func MoveUpdate(ctx context.Context, c Conn, id string, to tarn.UpdateState, message string, rows int64) (bool, error) {
	tag, err := c.querier().Exec(ctx, moveUpdate, id, to, message, rows, tarn.UpdateCompleted, tarn.UpdateFailed, tarn.UpdateCanceled)
	return tag.RowsAffected() == 1, fault(err, "update %s", id)
}

const moveUpdate = `UPDATE pipeline_updates SET state = $2, message = $3, rows = $4, updated = now()
WHERE id = $1 AND state NOT IN ($5, $6, $7)`

// GetUpdate reads one update of a pipeline. KindNotFound.
func GetUpdate(ctx context.Context, c Conn, pipeline, id string) (tarn.PipelineUpdate, error) {
	u, err := scanUpdate(c.querier().QueryRow(ctx, getUpdate, pipeline, id))
	return u, fault(err, "update %q of pipeline %q", id, pipeline)
}

const getUpdate = `SELECT ` + updateColumns + ` FROM pipeline_updates WHERE pipeline = $1 AND id = $2`

// ListUpdates gives a pipeline's updates, newest first.
func ListUpdates(ctx context.Context, c Conn, pipeline string, limit int) ([]tarn.PipelineUpdate, error) {
	v, err := list(ctx, c, scanUpdate, listUpdates, pipeline, limit)
	return v, fault(err, "updates of pipeline %q", pipeline)
}

const listUpdates = `SELECT ` + updateColumns + ` FROM pipeline_updates WHERE pipeline = $1 ORDER BY number DESC LIMIT $2`

// InsertEvent records an event; its id, number and time are given here. An
// event of a pipeline that is gone is dropped.
func InsertEvent(ctx context.Context, c Conn, e tarn.PipelineEvent) error {
	if e.Level == "" {
		e.Level = tarn.EventInfo
	}
	_, err := c.querier().Exec(ctx, insertEvent, uuid.NewString(), e.PipelineID, e.UpdateID, e.Level, e.Type, e.Message, e.Error)
	return fault(err, "event of pipeline %q", e.PipelineID)
}

const insertEvent = `INSERT INTO pipeline_events (id, pipeline, update_id, level, type, message, error)
SELECT $1, p.id, $3, $4, $5, $6, $7 FROM pipelines p WHERE p.id = $2`

// ListEvents gives a pipeline's events, newest first: those before a number, 0
// = from the newest.
func ListEvents(ctx context.Context, c Conn, pipeline string, before int64, limit int) ([]tarn.PipelineEvent, error) {
	v, err := list(ctx, c, scanEvent, listEvents, pipeline, before, limit)
	return v, fault(err, "events of pipeline %q", pipeline)
}

const listEvents = `SELECT id, number, pipeline, update_id, created, level, type, message, error FROM pipeline_events
WHERE pipeline = $1 AND ($2 = 0 OR number < $2) ORDER BY number DESC LIMIT $3`

func scanEvent(r pgx.Row) (e tarn.PipelineEvent, err error) {
	err = r.Scan(&e.ID, &e.Sequence, &e.PipelineID, &e.UpdateID, (*stamp)(&e.Time), &e.Level, &e.Type, &e.Message, &e.Error)
	return e, err
}

// TrimPipelines removes updates and events that are over their retention, and
// those beyond the number that is kept.
func TrimPipelines(ctx context.Context, c Conn, now time.Time) error {
	for _, q := range []struct {
		sql  string
		keep int
	}{{trimUpdates, KeptUpdates}, {trimEvents, KeptEvents}} {
		if _, err := c.querier().Exec(ctx, q.sql, q.keep, now.Add(-PipelineRetention)); err != nil {
			return fault(err, "records of pipelines")
		}
	}
	return nil
}

const (
	trimUpdates = `DELETE FROM pipeline_updates u USING (
	SELECT id, row_number() OVER (PARTITION BY pipeline ORDER BY number DESC) AS nth FROM pipeline_updates) o
WHERE o.id = u.id AND (o.nth > $1 OR o.nth > 1 AND u.updated < $2) AND u.state IN ('COMPLETED', 'FAILED', 'CANCELED')`
	trimEvents = `DELETE FROM pipeline_events e USING (
	SELECT id, row_number() OVER (PARTITION BY pipeline ORDER BY number DESC) AS nth FROM pipeline_events) o
WHERE o.id = e.id AND (o.nth > $1 OR o.nth > 1 AND e.created < $2)`
)
