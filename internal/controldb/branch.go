package controldb

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
)

// InsertBranch records a branch in state INIT and returns it with its times.
func InsertBranch(ctx context.Context, c Conn, b tarn.Branch) (tarn.Branch, error) {
	out, err := scanBranch(c.querier().QueryRow(ctx, insertBranch, b.Name.Project, b.Name.Branch, b.UID, word(b.Source), stamp(b.SourceTime),
		position(b.SourceLSN), stamp(b.ExpireTime), b.Protected, b.Default, b.Timeline, word(b.SourceSnapshot)))
	return out, fault(err, "branch %q of project %q", b.Name.Branch, b.Name.Project)
}

const insertBranch = `
INSERT INTO branches (project, name, uid, source, source_time, source_lsn, expires, protected, is_default, timeline, source_snapshot, state)
VALUES ($1, $2, $3, $4, $5, $6::text::pg_lsn, $7, $8, $9, $10, $11, 'INIT')
RETURNING ` + branchColumns

const branchColumns = `project, name, uid, source, source_time, source_lsn::text, expires, protected, is_default, timeline,
	state, state_changed, logical_bytes, message, created, updated, source_snapshot, line_began, earlier, purge`

func scanBranch(r pgx.Row) (b tarn.Branch, err error) {
	err = r.Scan(&b.Name.Project, &b.Name.Branch, &b.UID, (*word)(&b.Source), (*stamp)(&b.SourceTime), (*position)(&b.SourceLSN),
		(*stamp)(&b.ExpireTime), &b.Protected, &b.Default, &b.Timeline,
		&b.State, (*stamp)(&b.StateChanged), &b.LogicalBytes, &b.StatusMessage, (*stamp)(&b.CreateTime), (*stamp)(&b.UpdateTime),
		(*word)(&b.SourceSnapshot), (*stamp)(&b.LineBegan), (*word)(&b.Earlier), (*stamp)(&b.PurgeTime))
	return b, err
}

// GetBranch reads a branch.
func GetBranch(ctx context.Context, c Conn, n tarn.BranchName) (tarn.Branch, error) {
	b, err := scanBranch(c.querier().QueryRow(ctx, getBranch, n.Project, n.Branch))
	return b, fault(err, "branch %q of project %q", n.Branch, n.Project)
}

const getBranch = `SELECT ` + branchColumns + ` FROM branches WHERE project = $1 AND name = $2`

// LockBranch reads a branch and keeps others from changing it until the
// transaction ends.
func LockBranch(ctx context.Context, tx *Tx, n tarn.BranchName) (tarn.Branch, error) {
	b, err := scanBranch(tx.tx.QueryRow(ctx, lockBranch, n.Project, n.Branch))
	return b, fault(err, "branch %q of project %q", n.Branch, n.Project)
}

const lockBranch = getBranch + ` FOR UPDATE`

// GetDefaultBranch reads the project's default branch.
func GetDefaultBranch(ctx context.Context, c Conn, n tarn.ProjectName) (tarn.Branch, error) {
	b, err := scanBranch(c.querier().QueryRow(ctx, getDefaultBranch, n.Project))
	return b, fault(err, "default branch of project %q", n.Project)
}

const getDefaultBranch = `SELECT ` + branchColumns + ` FROM branches WHERE project = $1 AND is_default`

// holdLiveBranch keeps the branch from being marked DELETED until the
// transaction ends, and is KindNotFound when it already is.
func holdLiveBranch(ctx context.Context, c Conn, n tarn.BranchName) error {
	var one int
	err := c.querier().QueryRow(ctx, holdBranch, n.Project, n.Branch).Scan(&one)
	return fault(err, "branch %q of project %q", n.Branch, n.Project)
}

const holdBranch = `SELECT 1 FROM branches WHERE project = $1 AND name = $2 AND state <> 'DELETED' FOR SHARE`

// ListBranches gives up to limit branches of a project whose name comes after
// the given one, by name.
func ListBranches(ctx context.Context, c Conn, n tarn.ProjectName, after string, limit int, show Deleted) ([]tarn.Branch, error) {
	v, err := list(ctx, c, scanBranch, listBranches, n.Project, after, limit, bool(show))
	return v, fault(err, "branches of project %q", n.Project)
}

const listBranches = `SELECT ` + branchColumns + ` FROM branches WHERE project = $1 AND name > $2 AND ($4 OR purge IS NULL) ORDER BY name LIMIT $3`

// LeavesFirst gives all branches of a project, each before its source.
func LeavesFirst(ctx context.Context, c Conn, n tarn.ProjectName) ([]tarn.Branch, error) {
	v, err := list(ctx, c, scanBranch, leavesFirst, n.Project)
	return v, fault(err, "branches of project %q", n.Project)
}

const leavesFirst = `
WITH RECURSIVE tree (branch, depth) AS (
	SELECT name, 0 FROM branches WHERE project = $1 AND source IS NULL
	UNION ALL
	SELECT b.name, t.depth + 1 FROM branches b JOIN tree t ON b.project = $1 AND b.source = t.branch
)
SELECT ` + branchColumns + ` FROM branches JOIN tree ON name = branch WHERE project = $1 ORDER BY depth DESC, name`

// ListChildren gives the ids of the branches made from a branch.
func ListChildren(ctx context.Context, c Conn, n tarn.BranchName) ([]string, error) {
	v, err := list(ctx, c, scanText, listChildren, n.Project, n.Branch)
	return v, fault(err, "children of branch %q of project %q", n.Branch, n.Project)
}

const listChildren = `SELECT name FROM branches WHERE project = $1 AND source = $2 ORDER BY name`

func scanText(r pgx.Row) (s string, err error) {
	err = r.Scan(&s)
	return s, err
}

// ListExpired gives the leaf branches whose time has come and for whose
// deletion nobody asked since the given time.
func ListExpired(ctx context.Context, c Conn, askedSince time.Time) ([]tarn.Branch, error) {
	v, err := list(ctx, c, scanBranch, listExpired, askedSince)
	return v, fault(err, "expired branches")
}

const listExpired = `
SELECT ` + branchColumns + ` FROM branches b
WHERE expires <= now() AND NOT protected AND NOT is_default AND purge IS NULL
	AND NOT EXISTS (SELECT FROM branches child WHERE child.project = b.project AND child.source = b.name)
	AND NOT EXISTS (SELECT FROM operations o WHERE o.verb = 'delete' AND o.created > $1
		AND o.target IN ('projects/' || b.project, 'projects/' || b.project || '/branches/' || b.name))
ORDER BY expires, name`

// UpdateBranch records what may change of a branch's spec.
func UpdateBranch(ctx context.Context, c Conn, b tarn.Branch) error {
	return fault(exec(ctx, c, updateBranch, b.Name.Project, b.Name.Branch, stamp(b.ExpireTime), b.Protected),
		"branch %q of project %q", b.Name.Branch, b.Name.Project)
}

const updateBranch = `UPDATE branches SET expires = $3, protected = $4, updated = now() WHERE project = $1 AND name = $2`

// SetBranchState moves a branch from one state to another and records why. It
// is KindConflict when the branch is in another state.
func SetBranchState(ctx context.Context, c Conn, n tarn.BranchName, from, to tarn.BranchState, message string) error {
	tag, err := c.querier().Exec(ctx, setBranchState, n.Project, n.Branch, from, to, message)
	if err == nil && tag.RowsAffected() == 0 {
		return tarn.Conflict("branch %q of project %q is no longer in state %s", n.Branch, n.Project, from)
	}
	return fault(err, "branch %q of project %q", n.Branch, n.Project)
}

const setBranchState = `
UPDATE branches SET state = $4, message = $5, state_changed = now(), updated = now()
WHERE project = $1 AND name = $2 AND state = $3`

// MarkDeleted marks branches of a project as on their way out: one, or with
// "" all. Marking again is not an error, and ends a stay of those that could
// have been brought back.
func MarkDeleted(ctx context.Context, c Conn, n tarn.BranchName) error {
	_, err := c.querier().Exec(ctx, markDeleted, n.Project, n.Branch)
	return fault(err, "branch %q of project %q", n.Branch, n.Project)
}

const markDeleted = `
UPDATE branches SET state = 'DELETED', message = '', purge = NULL, state_changed = now(), updated = now()
WHERE project = $1 AND ($2 = '' OR name = $2) AND (state <> 'DELETED' OR purge IS NOT NULL)`

// SetBranchMessage records why a branch stands where it stands.
func SetBranchMessage(ctx context.Context, c Conn, n tarn.BranchName, message string) error {
	_, err := c.querier().Exec(ctx, setBranchMessage, n.Project, n.Branch, message)
	return fault(err, "branch %q of project %q", n.Branch, n.Project)
}

const setBranchMessage = `UPDATE branches SET message = $3 WHERE project = $1 AND name = $2`

// ListHolds says what still holds a branch: the names of its synced tables and
// feeds.
func ListHolds(ctx context.Context, c Conn, n tarn.BranchName) ([]string, error) {
	v, err := list(ctx, c, scanText, listHolds, n.Project, n.Branch)
	return v, fault(err, "holds of branch %q of project %q", n.Branch, n.Project)
}

const listHolds = `
SELECT 'synced table ' || catalog || '.' || schema || '.' || name FROM synced_tables WHERE project = $1 AND branch = $2
UNION ALL
SELECT 'feed ' || id FROM feeds WHERE project = $1 AND branch = $2
ORDER BY 1`

// DeleteBranch removes the row and those of its endpoints; it must have no
// children and no holds.
func DeleteBranch(ctx context.Context, c Conn, n tarn.BranchName) error {
	return fault(exec(ctx, c, deleteBranch, n.Project, n.Branch), "branch %q of project %q", n.Branch, n.Project)
}

// The past of others that this branch has goes with it.
const deleteBranch = `
WITH others AS (UPDATE branches SET earlier = NULL WHERE project = $1 AND earlier = $2 AND name <> $2)
DELETE FROM branches WHERE project = $1 AND name = $2`
