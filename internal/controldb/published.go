package controldb

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
)

// PutDataAPI records the Data API of a database. It is KindConflict when there is
// one.
func PutDataAPI(ctx context.Context, c Conn, d tarn.DataAPI) (tarn.DataAPI, error) {
	out, err := scanDataAPI(c.querier().QueryRow(ctx, putDataAPI, d.Branch.Project, d.Branch.Branch, d.Database, d.UID, d.Spec))
	return out, fault(err, "data API of database %q of %s", d.Database, d.Branch)
}

const (
	dataAPIColumns = `project, branch, database, uid, spec, created, updated`
	putDataAPI     = `INSERT INTO data_apis (project, branch, database, uid, spec) VALUES ($1, $2, $3, $4, $5) RETURNING ` + dataAPIColumns
)

func scanDataAPI(r pgx.Row) (d tarn.DataAPI, err error) {
	err = r.Scan(&d.Branch.Project, &d.Branch.Branch, &d.Database, &d.UID, &d.Spec, (*stamp)(&d.CreateTime), (*stamp)(&d.UpdateTime))
	return d, err
}

// GetDataAPI reads the Data API of a database.
func GetDataAPI(ctx context.Context, c Conn, b tarn.BranchName, database string) (tarn.DataAPI, error) {
	d, err := scanDataAPI(c.querier().QueryRow(ctx, getDataAPI, b.Project, b.Branch, database))
	return d, fault(err, "data API of database %q of %s", database, b)
}

const getDataAPI = `SELECT ` + dataAPIColumns + ` FROM data_apis WHERE project = $1 AND branch = $2 AND database = $3`

// LockDataAPI reads it and keeps others from changing it until the transaction
// ends.
func LockDataAPI(ctx context.Context, tx *Tx, b tarn.BranchName, database string) (tarn.DataAPI, error) {
	d, err := scanDataAPI(tx.tx.QueryRow(ctx, getDataAPI+` FOR UPDATE`, b.Project, b.Branch, database))
	return d, fault(err, "data API of database %q of %s", database, b)
}

// UpdateDataAPI records what is now asked of it.
func UpdateDataAPI(ctx context.Context, c Conn, d tarn.DataAPI) error {
	return fault(exec(ctx, c, updateDataAPI, d.Branch.Project, d.Branch.Branch, d.Database, d.Spec), "data API of database %q of %s", d.Database, d.Branch)
}

const updateDataAPI = `UPDATE data_apis SET spec = $4, updated = now() WHERE project = $1 AND branch = $2 AND database = $3`

// DeleteDataAPI removes it.
func DeleteDataAPI(ctx context.Context, c Conn, b tarn.BranchName, database string) error {
	return fault(exec(ctx, c, deleteDataAPI, b.Project, b.Branch, database), "data API of database %q of %s", database, b)
}

const deleteDataAPI = `DELETE FROM data_apis WHERE project = $1 AND branch = $2 AND database = $3`

// InsertDatabaseTable records a name of the catalog for a Postgres table.
func InsertDatabaseTable(ctx context.Context, c Conn, t tarn.DatabaseTable) error {
	return fault(exec(ctx, c, insertDatabaseTable, t.Name.Catalog, t.Name.Schema, t.Name.Table, t.Branch.Project, t.Branch.Branch, t.Database), "table %s", t.Name)
}

const insertDatabaseTable = `INSERT INTO database_tables (catalog, schema, name, project, branch, database) VALUES ($1, $2, $3, $4, $5, $6)`

// GetDatabaseTable reads what a name of the catalog means.
func GetDatabaseTable(ctx context.Context, c Conn, n tarn.TableName) (t tarn.DatabaseTable, err error) {
	t.Name = n
	err = c.querier().QueryRow(ctx, getDatabaseTable, n.Catalog, n.Schema, n.Table).Scan(&t.Branch.Project, &t.Branch.Branch, &t.Database)
	return t, fault(err, "table %s", n)
}

const getDatabaseTable = `SELECT project, branch, database FROM database_tables WHERE catalog = $1 AND schema = $2 AND name = $3`

// DeleteDatabaseTable forgets a name of the catalog.
func DeleteDatabaseTable(ctx context.Context, c Conn, n tarn.TableName) error {
	return fault(exec(ctx, c, deleteDatabaseTable, n.Catalog, n.Schema, n.Table), "table %s", n)
}

const deleteDatabaseTable = `DELETE FROM database_tables WHERE catalog = $1 AND schema = $2 AND name = $3`

// InsertChildInstance records an instance that is a branch of another's project.
func InsertChildInstance(ctx context.Context, c Conn, i tarn.ChildInstance) error {
	return fault(exec(ctx, c, insertChildInstance, i.Name, i.Branch.Project, i.Branch.Branch, i.Parent, i.ParentUID, stamp(i.BranchTime), position(i.LSN), i.Creator,
		object(i.CustomTags), i.Instance.Capacity, i.Instance.NodeCount, i.Instance.Readable, i.Instance.UsagePolicy), "instance %q", i.Name)
}

const insertChildInstance = `
INSERT INTO child_instances (name, project, branch, parent, parent_uid, branch_time, lsn, creator, custom_tags, capacity, node_count, readable, usage_policy)
VALUES ($1, $2, $3, $4, $5, $6, $7::text::pg_lsn, $8, $9, $10, $11, $12, $13)`

func scanChildInstance(r pgx.Row) (i tarn.ChildInstance, err error) {
	err = r.Scan(&i.Name, &i.Branch.Project, &i.Branch.Branch, &i.Parent, &i.ParentUID, (*stamp)(&i.BranchTime), (*position)(&i.LSN), &i.Creator,
		&i.CustomTags, &i.Instance.Capacity, &i.Instance.NodeCount, &i.Instance.Readable, &i.Instance.UsagePolicy)
	return i, err
}

const selectChildInstances = `
SELECT c.name, c.project, c.branch, c.parent, c.parent_uid, c.branch_time, c.lsn::text, c.creator, c.custom_tags, c.capacity, c.node_count, c.readable, c.usage_policy
FROM child_instances c JOIN branches b ON b.project = c.project AND b.name = c.branch AND b.purge IS NULL`

// GetChildInstance reads one by its name.
func GetChildInstance(ctx context.Context, c Conn, name string) (tarn.ChildInstance, error) {
	i, err := scanChildInstance(c.querier().QueryRow(ctx, getChildInstance, name))
	return i, fault(err, "instance %q", name)
}

const getChildInstance = selectChildInstances + ` WHERE c.name = $1`

// ChildInstances lists those of a project, by name; "" = of all.
func ChildInstances(ctx context.Context, c Conn, project string) ([]tarn.ChildInstance, error) {
	v, err := list(ctx, c, scanChildInstance, childInstances, project)
	return v, fault(err, "child instances")
}

const childInstances = selectChildInstances + ` WHERE $1 = '' OR c.project = $1 ORDER BY c.name`

// UpdateChildInstance records what may change of one.
func UpdateChildInstance(ctx context.Context, c Conn, i tarn.ChildInstance) error {
	return fault(exec(ctx, c, updateChildInstance, i.Name, object(i.CustomTags), i.Instance.Capacity, i.Instance.NodeCount, i.Instance.Readable, i.Instance.UsagePolicy),
		"instance %q", i.Name)
}

const updateChildInstance = `
UPDATE child_instances SET custom_tags = $2, capacity = $3, node_count = $4, readable = $5, usage_policy = $6 WHERE name = $1`

// PutSnapshotSchedule records when snapshots of a branch are taken; without
// cadences there is no schedule.
func PutSnapshotSchedule(ctx context.Context, c Conn, s tarn.SnapshotSchedule) error {
	if len(s.Cadences) == 0 {
		_, err := c.querier().Exec(ctx, dropSnapshotSchedule, s.Branch.Project, s.Branch.Branch)
		return fault(err, "snapshot schedule of %s", s.Branch)
	}
	return fault(exec(ctx, c, putSnapshotSchedule, s.Branch.Project, s.Branch.Branch, s.Cadences, s.Next), "snapshot schedule of %s", s.Branch)
}

const (
	dropSnapshotSchedule = `DELETE FROM snapshot_schedules WHERE project = $1 AND branch = $2`
	putSnapshotSchedule  = `
INSERT INTO snapshot_schedules (project, branch, cadences, next) VALUES ($1, $2, $3, $4)
ON CONFLICT (project, branch) DO UPDATE SET cadences = EXCLUDED.cadences, next = EXCLUDED.next`
)

func scanSnapshotSchedule(r pgx.Row) (s tarn.SnapshotSchedule, err error) {
	err = r.Scan(&s.Branch.Project, &s.Branch.Branch, &s.Cadences, (*stamp)(&s.Next))
	return s, err
}

const selectSnapshotSchedules = `
SELECT s.project, s.branch, s.cadences, s.next FROM snapshot_schedules s
JOIN branches b ON b.project = s.project AND b.name = s.branch AND b.state = 'READY'`

// GetSnapshotSchedule reads the schedule of a branch.
func GetSnapshotSchedule(ctx context.Context, c Conn, b tarn.BranchName) (tarn.SnapshotSchedule, error) {
	s, err := scanSnapshotSchedule(c.querier().QueryRow(ctx, getSnapshotSchedule, b.Project, b.Branch))
	return s, fault(err, "snapshot schedule of %s", b)
}

const getSnapshotSchedule = selectSnapshotSchedules + ` WHERE s.project = $1 AND s.branch = $2`

// DueSnapshotSchedules gives those of branches that are there by which a
// snapshot is due at t.
func DueSnapshotSchedules(ctx context.Context, c Conn, t time.Time) ([]tarn.SnapshotSchedule, error) {
	v, err := list(ctx, c, scanSnapshotSchedule, dueSnapshotSchedules, t)
	return v, fault(err, "due snapshots")
}

const dueSnapshotSchedules = selectSnapshotSchedules + ` WHERE s.next <= $1 ORDER BY s.next`

// SetNextSnapshot records when the next snapshot is due, unless the schedule
// changed since s was read.
func SetNextSnapshot(ctx context.Context, c Conn, s tarn.SnapshotSchedule, next time.Time) error {
	_, err := c.querier().Exec(ctx, setNextSnapshot, s.Branch.Project, s.Branch.Branch, s.Next, next)
	return fault(err, "snapshot schedule of %s", s.Branch)
}

const setNextSnapshot = `UPDATE snapshot_schedules SET next = $4 WHERE project = $1 AND branch = $2 AND next = $3`
