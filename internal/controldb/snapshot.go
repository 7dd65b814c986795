package controldb

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
)

// InsertSnapshot records a snapshot in state INIT, to be forked from the given
// timeline, and returns it with its times.
func InsertSnapshot(ctx context.Context, c Conn, s tarn.Snapshot, source tarn.TimelineID) (tarn.Snapshot, error) {
	out, err := scanSnapshot(c.querier().QueryRow(ctx, insertSnapshot, s.Name.Project, s.Name.Snapshot, s.UID, s.Source,
		stamp(s.SourceTime), position(s.SourceLSN), source, stamp(s.ExpireTime), s.Timeline))
	return out, fault(err, "snapshot %q of project %q", s.Name.Snapshot, s.Name.Project)
}

const insertSnapshot = `
INSERT INTO snapshots (project, name, uid, source, source_time, source_lsn, source_timeline, expires, timeline, state)
VALUES ($1, $2, $3, $4, $5, $6::text::pg_lsn, $7, $8, $9, 'INIT')
RETURNING ` + snapshotColumns

const snapshotColumns = `project, name, uid, source, source_time, source_lsn::text, expires, state, timeline,
	point_time, point_lsn::text, message, created, updated`

func scanSnapshot(r pgx.Row) (s tarn.Snapshot, err error) {
	err = r.Scan(&s.Name.Project, &s.Name.Snapshot, &s.UID, &s.Source, (*stamp)(&s.SourceTime), (*position)(&s.SourceLSN),
		(*stamp)(&s.ExpireTime), &s.State, &s.Timeline, (*stamp)(&s.PointTime), (*position)(&s.PointLSN), &s.StatusMessage,
		(*stamp)(&s.CreateTime), (*stamp)(&s.UpdateTime))
	return s, err
}

// GetSnapshot reads a snapshot.
func GetSnapshot(ctx context.Context, c Conn, n tarn.SnapshotName) (tarn.Snapshot, error) {
	s, err := scanSnapshot(c.querier().QueryRow(ctx, getSnapshot, n.Project, n.Snapshot))
	return s, fault(err, "snapshot %q of project %q", n.Snapshot, n.Project)
}

const getSnapshot = `SELECT ` + snapshotColumns + ` FROM snapshots WHERE project = $1 AND name = $2`

// LockSnapshot reads a snapshot and keeps others from changing it until the
// transaction ends.
func LockSnapshot(ctx context.Context, tx *Tx, n tarn.SnapshotName) (tarn.Snapshot, error) {
	s, err := scanSnapshot(tx.tx.QueryRow(ctx, lockSnapshot, n.Project, n.Snapshot))
	return s, fault(err, "snapshot %q of project %q", n.Snapshot, n.Project)
}

const lockSnapshot = getSnapshot + ` FOR UPDATE`

// SnapshotSource is the timeline that a snapshot is to be forked from.
func SnapshotSource(ctx context.Context, c Conn, n tarn.SnapshotName) (id tarn.TimelineID, err error) {
	err = c.querier().QueryRow(ctx, snapshotSource, n.Project, n.Snapshot).Scan(&id)
	return id, fault(err, "snapshot %q of project %q", n.Snapshot, n.Project)
}

const snapshotSource = `SELECT source_timeline FROM snapshots WHERE project = $1 AND name = $2`

// ListSnapshots gives up to limit snapshots of a project whose name comes after
// the given one, by name.
func ListSnapshots(ctx context.Context, c Conn, n tarn.ProjectName, after string, limit int) ([]tarn.Snapshot, error) {
	v, err := list(ctx, c, scanSnapshot, listSnapshots, n.Project, after, limit)
	return v, fault(err, "snapshots of project %q", n.Project)
}

const listSnapshots = `SELECT ` + snapshotColumns + ` FROM snapshots WHERE project = $1 AND name > $2 ORDER BY name LIMIT $3`

// AllSnapshots gives every snapshot of a project.
func AllSnapshots(ctx context.Context, c Conn, n tarn.ProjectName) ([]tarn.Snapshot, error) {
	v, err := list(ctx, c, scanSnapshot, allSnapshots, n.Project)
	return v, fault(err, "snapshots of project %q", n.Project)
}

const allSnapshots = `SELECT ` + snapshotColumns + ` FROM snapshots WHERE project = $1 ORDER BY name`

// UnmadeSnapshots gives the ids of the snapshots that are being forked from a
// timeline.
func UnmadeSnapshots(ctx context.Context, c Conn, source tarn.TimelineID) ([]string, error) {
	v, err := list(ctx, c, scanText, unmadeSnapshots, source)
	return v, fault(err, "snapshots of timeline %s", source)
}

const unmadeSnapshots = `
SELECT s.name FROM snapshots s JOIN operations o ON o.target = 'projects/' || s.project || '/snapshots/' || s.name
WHERE s.source_timeline = $1 AND s.state = 'INIT' AND o.verb = 'create' AND NOT o.done ORDER BY s.name`

// SnapshotUsers says what is being forked from a snapshot: branches and
// restores.
func SnapshotUsers(ctx context.Context, c Conn, s tarn.Snapshot) ([]string, error) {
	v, err := list(ctx, c, scanText, snapshotUsers, s.Name.Project, s.Name.Snapshot, s.Timeline)
	return v, fault(err, "users of snapshot %q of project %q", s.Name.Snapshot, s.Name.Project)
}

const snapshotUsers = `
SELECT 'branch ' || b.name || ' is being made' FROM branches b JOIN operations o ON o.target = 'projects/' || b.project || '/branches/' || b.name
WHERE b.project = $1 AND b.source_snapshot = $2 AND b.state = 'INIT' AND o.verb = 'create' AND NOT o.done
UNION ALL
SELECT o.verb || ' of ' || o.target FROM swaps s JOIN operations o ON o.name = s.operation
WHERE NOT o.done AND NOT s.swapped AND s.source_timeline = $3
ORDER BY 1`

// SetSnapshotReady records that a snapshot is made, and what it holds. It is
// KindConflict when the snapshot is no longer INIT.
func SetSnapshotReady(ctx context.Context, c Conn, s tarn.Snapshot) error {
	tag, err := c.querier().Exec(ctx, setSnapshotReady, s.Name.Project, s.Name.Snapshot, stamp(s.PointTime), position(s.PointLSN))
	if err == nil && tag.RowsAffected() == 0 {
		return tarn.Conflict("snapshot %q of project %q is no longer in state %s", s.Name.Snapshot, s.Name.Project, tarn.BranchInit)
	}
	return fault(err, "snapshot %q of project %q", s.Name.Snapshot, s.Name.Project)
}

const setSnapshotReady = `
UPDATE snapshots SET state = 'READY', message = '', point_time = $3, point_lsn = $4::text::pg_lsn, updated = now()
WHERE project = $1 AND name = $2 AND state = 'INIT'`

// SetSnapshotMessage records why a snapshot stands where it stands.
func SetSnapshotMessage(ctx context.Context, c Conn, n tarn.SnapshotName, message string) error {
	_, err := c.querier().Exec(ctx, setSnapshotMessage, n.Project, n.Snapshot, message)
	return fault(err, "snapshot %q of project %q", n.Snapshot, n.Project)
}

const setSnapshotMessage = `UPDATE snapshots SET message = $3 WHERE project = $1 AND name = $2`

// MarkSnapshotDeleted marks snapshots of a project as on their way out: one, or
// with "" all. Marking again is not an error.
func MarkSnapshotDeleted(ctx context.Context, c Conn, n tarn.SnapshotName) error {
	_, err := c.querier().Exec(ctx, markSnapshotDeleted, n.Project, n.Snapshot)
	return fault(err, "snapshot %q of project %q", n.Snapshot, n.Project)
}

const markSnapshotDeleted = `
UPDATE snapshots SET state = 'DELETED', message = '', updated = now()
WHERE project = $1 AND ($2 = '' OR name = $2) AND state <> 'DELETED'`

// ListExpiredSnapshots gives the snapshots whose time has come and for whose
// deletion nobody asked yet.
func ListExpiredSnapshots(ctx context.Context, c Conn) ([]tarn.Snapshot, error) {
	v, err := list(ctx, c, scanSnapshot, listExpiredSnapshots)
	return v, fault(err, "expired snapshots")
}

const listExpiredSnapshots = `SELECT ` + snapshotColumns + ` FROM snapshots WHERE expires <= now() AND state <> 'DELETED' ORDER BY expires, name`

// DeleteSnapshot removes the row.
func DeleteSnapshot(ctx context.Context, c Conn, n tarn.SnapshotName) error {
	return fault(exec(ctx, c, deleteSnapshot, n.Project, n.Snapshot), "snapshot %q of project %q", n.Snapshot, n.Project)
}

const deleteSnapshot = `DELETE FROM snapshots WHERE project = $1 AND name = $2`
