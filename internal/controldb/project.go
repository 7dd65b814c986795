package controldb

import (
	"context"
	"net/netip"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
)

// InsertProject records a project and returns it with its times.
func InsertProject(ctx context.Context, c Conn, p tarn.Project) (tarn.Project, error) {
	out, err := scanProject(c.querier().QueryRow(ctx, insertProject, p.Name.Project, p.UID, p.Owner, p.DisplayName, p.PGVersion,
		idle(p.History), object(p.CustomTags), p.DisableNativeLogin, p.Endpoint.MinCU, p.Endpoint.MaxCU, idle(p.Endpoint.SuspendAfter),
		object(p.Endpoint.Settings), p.Instance.Capacity, p.Instance.NodeCount, p.Instance.Readable, p.Instance.Stopped, p.Instance.UsagePolicy,
		idle(p.Endpoint.FreezeAfter)))
	return out, fault(err, "project %q", p.Name.Project)
}

const insertProject = `
INSERT INTO projects (name, uid, owner, display_name, pg_version, history, custom_tags, disable_native_login,
	endpoint_min_cu, endpoint_max_cu, endpoint_suspend_after, endpoint_settings,
	capacity, node_count, readable, stopped, usage_policy, endpoint_freeze_after)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
RETURNING ` + projectColumns

const projectColumns = `name, uid, owner, display_name, pg_version, history, custom_tags, disable_native_login,
	endpoint_min_cu, endpoint_max_cu, endpoint_suspend_after, endpoint_settings,
	capacity, node_count, readable, stopped, usage_policy, endpoint_freeze_after, allowed, created, updated, deleted, purge`

func scanProject(r pgx.Row) (p tarn.Project, err error) {
	err = r.Scan(&p.Name.Project, &p.UID, &p.Owner, &p.DisplayName, &p.PGVersion, &p.History, &p.CustomTags, &p.DisableNativeLogin,
		&p.Endpoint.MinCU, &p.Endpoint.MaxCU, &p.Endpoint.SuspendAfter, &p.Endpoint.Settings,
		&p.Instance.Capacity, &p.Instance.NodeCount, &p.Instance.Readable, &p.Instance.Stopped, &p.Instance.UsagePolicy, &p.Endpoint.FreezeAfter, &p.Allowed,
		(*stamp)(&p.CreateTime), (*stamp)(&p.UpdateTime), (*stamp)(&p.DeleteTime), (*stamp)(&p.PurgeTime))
	p.CustomTags, p.Endpoint.Settings = noEmpty(p.CustomTags), noEmpty(p.Endpoint.Settings)
	if len(p.Allowed) == 0 {
		p.Allowed = nil // read as it was written
	}
	return p, err
}

// GetProject reads a project.
func GetProject(ctx context.Context, c Conn, n tarn.ProjectName) (tarn.Project, error) {
	p, err := scanProject(c.querier().QueryRow(ctx, getProject, n.Project))
	return p, fault(err, "project %q", n.Project)
}

const getProject = `SELECT ` + projectColumns + ` FROM projects WHERE name = $1`

// ProjectOfUID reads a project by its UID.
func ProjectOfUID(ctx context.Context, c Conn, uid string) (tarn.Project, error) {
	p, err := scanProject(c.querier().QueryRow(ctx, projectOfUID, uid))
	return p, fault(err, "project with UID %q", uid)
}

const projectOfUID = `SELECT ` + projectColumns + ` FROM projects WHERE uid = $1`

// LockProject reads a project and keeps others from changing it until the
// transaction ends.
func LockProject(ctx context.Context, tx *Tx, n tarn.ProjectName) (tarn.Project, error) {
	p, err := scanProject(tx.tx.QueryRow(ctx, lockProject, n.Project))
	return p, fault(err, "project %q", n.Project)
}

const lockProject = getProject + ` FOR UPDATE`

// ListProjects gives up to limit projects whose name comes after the given
// one, by name.
func ListProjects(ctx context.Context, c Conn, after string, limit int, show Deleted) ([]tarn.Project, error) {
	v, err := list(ctx, c, scanProject, listProjects, after, limit, bool(show))
	return v, fault(err, "projects")
}

const listProjects = `SELECT ` + projectColumns + ` FROM projects WHERE name > $1 AND ($3 OR purge IS NULL) ORDER BY name LIMIT $2`

// UpdateProject records what may change of a project.
func UpdateProject(ctx context.Context, c Conn, p tarn.Project) error {
	return fault(exec(ctx, c, updateProject, p.Name.Project, p.Owner, p.DisplayName, idle(p.History), object(p.CustomTags), p.DisableNativeLogin,
		p.Endpoint.MinCU, p.Endpoint.MaxCU, idle(p.Endpoint.SuspendAfter), object(p.Endpoint.Settings),
		p.Instance.Capacity, p.Instance.NodeCount, p.Instance.Readable, p.Instance.Stopped, p.Instance.UsagePolicy, idle(p.Endpoint.FreezeAfter), networks(p.Allowed)),
		"project %q", p.Name.Project)
}

const updateProject = `
UPDATE projects SET owner = $2, display_name = $3, history = $4, custom_tags = $5, disable_native_login = $6,
	endpoint_min_cu = $7, endpoint_max_cu = $8, endpoint_suspend_after = $9, endpoint_settings = $10,
	capacity = $11, node_count = $12, readable = $13, stopped = $14, usage_policy = $15, endpoint_freeze_after = $16, allowed = $17, updated = now()
WHERE name = $1`

// networks is never null.
func networks(list []netip.Prefix) []netip.Prefix {
	if list == nil {
		return []netip.Prefix{}
	}
	return list
}

// DeleteProject removes the row; its branches must be gone.
func DeleteProject(ctx context.Context, c Conn, n tarn.ProjectName) error {
	return fault(exec(ctx, c, deleteProject, n.Project), "project %q", n.Project)
}

const deleteProject = `DELETE FROM projects WHERE name = $1`
