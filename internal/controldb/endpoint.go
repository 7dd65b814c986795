package controldb

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
)

// InsertEndpoint records an endpoint and returns it with its times. Its port,
// state and last activity are not recorded here: they belong to the process.
func InsertEndpoint(ctx context.Context, c Conn, e tarn.Endpoint) (tarn.Endpoint, error) {
	out, err := scanEndpoint(c.querier().QueryRow(ctx, insertEndpoint, e.Name.Project, e.Name.Branch, e.Name.Endpoint, e.UID,
		e.Type, e.MinCU, e.MaxCU, idle(e.SuspendAfter), e.Disabled, object(e.Settings), e.Host, idle(e.FreezeAfter)))
	if constraint(err) == "endpoints_read_write" {
		return tarn.Endpoint{}, tarn.Conflict("branch %q of project %q already has a read-write endpoint", e.Name.Branch, e.Name.Project)
	}
	return out, fault(err, "endpoint %s", e.Name)
}

const insertEndpoint = `
INSERT INTO endpoints (project, branch, name, uid, type, min_cu, max_cu, suspend_after, disabled, settings, host, freeze_after)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
RETURNING ` + endpointColumns

const endpointColumns = `project, branch, name, uid, type, min_cu, max_cu, suspend_after, disabled, settings, host, freeze_after,
	last_active, created, updated`

func scanEndpoint(r pgx.Row) (e tarn.Endpoint, err error) {
	err = r.Scan(&e.Name.Project, &e.Name.Branch, &e.Name.Endpoint, &e.UID, &e.Type, &e.MinCU, &e.MaxCU, &e.SuspendAfter,
		&e.Disabled, &e.Settings, &e.Host, &e.FreezeAfter, (*stamp)(&e.LastActive), (*stamp)(&e.CreateTime), (*stamp)(&e.UpdateTime))
	e.Settings = noEmpty(e.Settings)
	return e, err
}

// GetEndpoint reads an endpoint.
func GetEndpoint(ctx context.Context, c Conn, n tarn.EndpointName) (tarn.Endpoint, error) {
	e, err := scanEndpoint(c.querier().QueryRow(ctx, getEndpoint, n.Project, n.Branch, n.Endpoint))
	return e, fault(err, "endpoint %s", n)
}

const getEndpoint = `SELECT ` + endpointColumns + ` FROM endpoints WHERE project = $1 AND branch = $2 AND name = $3`

// LockEndpoint reads an endpoint and keeps others from changing it until the
// transaction ends.
func LockEndpoint(ctx context.Context, tx *Tx, n tarn.EndpointName) (tarn.Endpoint, error) {
	e, err := scanEndpoint(tx.tx.QueryRow(ctx, lockEndpoint, n.Project, n.Branch, n.Endpoint))
	return e, fault(err, "endpoint %s", n)
}

const lockEndpoint = getEndpoint + ` FOR UPDATE`

// GetReadWriteEndpoint reads the one endpoint of a branch that writes.
func GetReadWriteEndpoint(ctx context.Context, c Conn, b tarn.BranchName) (tarn.Endpoint, error) {
	e, err := scanEndpoint(c.querier().QueryRow(ctx, getReadWriteEndpoint, b.Project, b.Branch))
	return e, fault(err, "read-write endpoint of branch %q of project %q", b.Branch, b.Project)
}

const getReadWriteEndpoint = `SELECT ` + endpointColumns + ` FROM endpoints
WHERE project = $1 AND branch = $2 AND type = 'ENDPOINT_TYPE_READ_WRITE'`

// ListEndpoints gives up to limit endpoints of a branch whose name comes after
// the given one, by name.
func ListEndpoints(ctx context.Context, c Conn, b tarn.BranchName, after string, limit int) ([]tarn.Endpoint, error) {
	v, err := list(ctx, c, scanEndpoint, listEndpoints, b.Project, b.Branch, after, limit)
	return v, fault(err, "endpoints of branch %q of project %q", b.Branch, b.Project)
}

const listEndpoints = `SELECT ` + endpointColumns + ` FROM endpoints
WHERE project = $1 AND branch = $2 AND name > $3 ORDER BY name LIMIT $4`

// AllEndpoints gives every endpoint of one project, "" = of all.
func AllEndpoints(ctx context.Context, c Conn, project string) ([]tarn.Endpoint, error) {
	v, err := list(ctx, c, scanEndpoint, allEndpoints, project)
	return v, fault(err, "endpoints of project %q", project)
}

const allEndpoints = `SELECT ` + endpointColumns + ` FROM endpoints WHERE $1 = '' OR project = $1 ORDER BY project, branch, name`

// Wakeable is what decides whether an endpoint may run, and how.
type Wakeable struct {
	Endpoint  tarn.Endpoint
	State     tarn.BranchState // of its branch
	Timeline  tarn.TimelineID  // of its branch
	PGVersion int              // of its project
	Stopped   bool             // its project is, as an instance
	Message   string           // of its branch
	Primary   string           // UID of its branch's READ_WRITE endpoint
}

// GetWakeable reads, at one moment, all that a start of an endpoint needs.
func GetWakeable(ctx context.Context, c Conn, n tarn.EndpointName) (Wakeable, error) {
	w, err := scanWakeable(c.querier().QueryRow(ctx, getWakeable, n.Project, n.Branch, n.Endpoint))
	return w, fault(err, "endpoint %s", n)
}

const getWakeable = selectWakeable + ` WHERE e.project = $1 AND e.branch = $2 AND e.name = $3`

// ListWakeables reads the same of every endpoint.
func ListWakeables(ctx context.Context, c Conn) ([]Wakeable, error) {
	v, err := list(ctx, c, scanWakeable, selectWakeable)
	return v, fault(err, "endpoints")
}

const selectWakeable = `
SELECT e.project, e.branch, e.name, e.uid, e.type, e.min_cu, e.max_cu, e.suspend_after, e.disabled, e.settings, e.host, e.freeze_after,
	e.last_active, e.created, e.updated, b.state, b.timeline, p.pg_version, p.stopped, b.message,
	(SELECT r.uid FROM endpoints r WHERE r.project = e.project AND r.branch = e.branch AND r.type = 'ENDPOINT_TYPE_READ_WRITE')
FROM endpoints e
	JOIN branches b ON b.project = e.project AND b.name = e.branch
	JOIN projects p ON p.name = e.project`

func scanWakeable(r pgx.Row) (w Wakeable, err error) {
	e := &w.Endpoint
	err = r.Scan(&e.Name.Project, &e.Name.Branch, &e.Name.Endpoint, &e.UID, &e.Type, &e.MinCU, &e.MaxCU, &e.SuspendAfter,
		&e.Disabled, &e.Settings, &e.Host, &e.FreezeAfter, (*stamp)(&e.LastActive), (*stamp)(&e.CreateTime), (*stamp)(&e.UpdateTime),
		&w.State, &w.Timeline, &w.PGVersion, &w.Stopped, &w.Message, (*word)(&w.Primary))
	e.Settings = noEmpty(e.Settings)
	return w, err
}

// UpdateEndpoint records what may change of an endpoint's spec.
func UpdateEndpoint(ctx context.Context, c Conn, e tarn.Endpoint) error {
	return fault(exec(ctx, c, updateEndpoint, e.Name.Project, e.Name.Branch, e.Name.Endpoint,
		e.MinCU, e.MaxCU, idle(e.SuspendAfter), e.Disabled, object(e.Settings), idle(e.FreezeAfter)), "endpoint %s", e.Name)
}

const updateEndpoint = `
UPDATE endpoints SET min_cu = $4, max_cu = $5, suspend_after = $6, disabled = $7, settings = $8, freeze_after = $9, updated = now()
WHERE project = $1 AND branch = $2 AND name = $3`

// SetLastActive records when an endpoint's last client statement was seen.
func SetLastActive(ctx context.Context, c Conn, uid string, t time.Time) error {
	_, err := c.querier().Exec(ctx, setLastActive, uid, t)
	return fault(err, "endpoint with uid %s", uid)
}

const setLastActive = `UPDATE endpoints SET last_active = $2 WHERE uid = $1 AND (last_active IS NULL OR last_active < $2)`

// DeleteEndpoint removes the row of a READ_ONLY endpoint.
func DeleteEndpoint(ctx context.Context, tx *Tx, n tarn.EndpointName) error {
	return fault(exec(ctx, tx, deleteEndpoint, n.Project, n.Branch, n.Endpoint), "endpoint %s", n)
}

const deleteEndpoint = `DELETE FROM endpoints WHERE project = $1 AND branch = $2 AND name = $3 AND type = 'ENDPOINT_TYPE_READ_ONLY'`
