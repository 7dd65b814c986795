package controldb

import (
	"context"
	"time"

	"github.com/tarndb/tarn"
)

// Deleted says whether a listing shows what was deleted and can be brought
// back.
type Deleted bool

// The two kinds of listing.
const (
	HideDeleted Deleted = false
	ShowDeleted Deleted = true
)

// HideBranch marks a branch deleted, to be purged at a time.
func HideBranch(ctx context.Context, tx *Tx, n tarn.BranchName, purge time.Time) error {
	return fault(exec(ctx, tx, hideBranch, n.Project, n.Branch, purge), "branch %q of project %q", n.Branch, n.Project)
}

const hideBranch = `
UPDATE branches SET state = 'DELETED', message = '', purge = $3, state_changed = now(), updated = now()
WHERE project = $1 AND name = $2`

// HideProject marks a project deleted, to be purged at a time, and with it its
// branches that are not.
func HideProject(ctx context.Context, tx *Tx, n tarn.ProjectName, purge time.Time) error {
	if _, err := tx.tx.Exec(ctx, hideBranches, n.Project, purge); err != nil {
		return fault(err, "branches of project %q", n.Project)
	}
	return fault(exec(ctx, tx, hideProject, n.Project, purge), "project %q", n.Project)
}

const (
	hideBranches = `
UPDATE branches SET state = 'DELETED', message = '', purge = $2, state_changed = now(), updated = now()
WHERE project = $1 AND state <> 'DELETED'`
	hideProject = `UPDATE projects SET deleted = now(), purge = $2, updated = now() WHERE name = $1`
)

// ShowBranch takes back the deletion of a branch.
func ShowBranch(ctx context.Context, tx *Tx, n tarn.BranchName) error {
	return fault(exec(ctx, tx, showBranch, n.Project, n.Branch), "branch %q of project %q", n.Branch, n.Project)
}

const showBranch = `
UPDATE branches SET state = 'READY', purge = NULL, expires = CASE WHEN expires > now() THEN expires END, state_changed = now(), updated = now()
WHERE project = $1 AND name = $2 AND purge IS NOT NULL`

// ShowProject takes back the deletion of a project, and of the branches that
// were deleted with it.
func ShowProject(ctx context.Context, tx *Tx, n tarn.ProjectName) error {
	if _, err := tx.tx.Exec(ctx, showBranches, n.Project); err != nil {
		return fault(err, "branches of project %q", n.Project)
	}
	return fault(exec(ctx, tx, showProject, n.Project), "project %q", n.Project)
}

const (
	showBranches = `
UPDATE branches b SET state = 'READY', purge = NULL, expires = CASE WHEN expires > now() THEN expires END, state_changed = now(), updated = now()
FROM projects p WHERE p.name = $1 AND b.project = p.name AND b.purge = p.purge`
	showProject = `UPDATE projects SET deleted = NULL, purge = NULL, updated = now() WHERE name = $1`
)

// ForgetHidden has a project that is removed no longer wait for its purge.
func ForgetHidden(ctx context.Context, tx *Tx, n tarn.ProjectName) error {
	return fault(exec(ctx, tx, showProject, n.Project), "project %q", n.Project)
}

// ListPurges gives what must be removed now: projects, and branches that are
// not gone with theirs and from which no branch is left, for whose deletion
// nobody asked since the given time.
func ListPurges(ctx context.Context, c Conn, askedSince time.Time) ([]string, error) {
	v, err := list(ctx, c, scanText, listPurges, askedSince)
	return v, fault(err, "what is to be purged")
}

const listPurges = `
WITH due AS (
	SELECT 'projects/' || name AS name, purge FROM projects WHERE purge <= now()
	UNION ALL
	SELECT 'projects/' || b.project || '/branches/' || b.name, b.purge
	FROM branches b JOIN projects p ON p.name = b.project
	WHERE b.purge <= now() AND p.purge IS NULL
		AND NOT EXISTS (SELECT FROM branches child WHERE child.project = b.project AND child.source = b.name)
)
SELECT name FROM due WHERE NOT EXISTS (
	SELECT FROM operations o WHERE o.verb = 'delete' AND o.target = due.name AND (NOT o.done OR o.created > $1 AND o.created > due.purge))
ORDER BY name`

// LiveChildren gives the ids of the branches made from a branch that are not
// deleted.
func LiveChildren(ctx context.Context, c Conn, n tarn.BranchName) ([]string, error) {
	v, err := list(ctx, c, scanText, liveChildren, n.Project, n.Branch)
	return v, fault(err, "children of branch %q of project %q", n.Branch, n.Project)
}

const liveChildren = `SELECT name FROM branches WHERE project = $1 AND source = $2 AND purge IS NULL ORDER BY name`
