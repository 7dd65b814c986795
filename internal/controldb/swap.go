package controldb

import (
	"context"
	"time"

	"github.com/tarndb/tarn"
)

// Swap is what a restore or a reset does to its branch.
type Swap struct {
	Operation  string
	Source     tarn.TimelineID // forked at SourceTime or SourceLSN; neither = its head
	SourceTime time.Time
	SourceLSN  tarn.LSN
	Timeline   tarn.TimelineID // the fork: what the branch gets
	Replaced   tarn.TimelineID // what it had
	KeptAs     string          // id of the branch that goes on with Replaced; "" = it is removed
	Swapped    bool            // the branch has it
}

// InsertSwap records what an operation is to do.
func InsertSwap(ctx context.Context, c Conn, s Swap) error {
	_, err := c.querier().Exec(ctx, insertSwap, s.Operation, s.Source, stamp(s.SourceTime), position(s.SourceLSN), s.Timeline, s.Replaced, word(s.KeptAs))
	return fault(err, "swap of operation %s", s.Operation)
}

const insertSwap = `
INSERT INTO swaps (operation, source_timeline, source_time, source_lsn, timeline, replaced, kept_as)
VALUES ($1, $2, $3, $4::text::pg_lsn, $5, $6, $7)`

// GetSwap reads what an operation does.
func GetSwap(ctx context.Context, c Conn, operation string) (s Swap, err error) {
	err = c.querier().QueryRow(ctx, getSwap, operation).Scan(&s.Operation, &s.Source, (*stamp)(&s.SourceTime), (*position)(&s.SourceLSN),
		&s.Timeline, &s.Replaced, (*word)(&s.KeptAs), &s.Swapped)
	return s, fault(err, "swap of operation %s", operation)
}

const getSwap = `SELECT operation, source_timeline, source_time, source_lsn::text, timeline, replaced, kept_as, swapped FROM swaps WHERE operation = $1`

// SetSwapped records that a swap has happened.
func SetSwapped(ctx context.Context, c Conn, operation string) error {
	return fault(exec(ctx, c, setSwapped, operation), "swap of operation %s", operation)
}

const setSwapped = `UPDATE swaps SET swapped = true WHERE operation = $1`

// SetBranchTimeline puts a branch in state RESETTING on another timeline, READY;
// earlier is the branch that goes on with its past, "" = none. It is
// KindConflict when the branch is in another state or has another timeline than
// the one replaced.
func SetBranchTimeline(ctx context.Context, c Conn, n tarn.BranchName, replaced, timeline tarn.TimelineID, earlier string) error {
	tag, err := c.querier().Exec(ctx, setBranchTimeline, n.Project, n.Branch, replaced, timeline, word(earlier))
	if err == nil && tag.RowsAffected() == 0 {
		return tarn.Conflict("branch %q of project %q is no longer as it was", n.Branch, n.Project)
	}
	return fault(err, "branch %q of project %q", n.Branch, n.Project)
}

const setBranchTimeline = `
UPDATE branches SET timeline = $4, earlier = $5, line_began = now(), state = 'READY', message = '', state_changed = now(), updated = now()
WHERE project = $1 AND name = $2 AND timeline = $3 AND state = 'RESETTING'`

// SetBranchLine records since when a branch has its timeline and which branch
// has its past before.
func SetBranchLine(ctx context.Context, c Conn, n tarn.BranchName, began time.Time, earlier string) error {
	return fault(exec(ctx, c, setBranchLine, n.Project, n.Branch, began, word(earlier)), "branch %q of project %q", n.Branch, n.Project)
}

const setBranchLine = `UPDATE branches SET line_began = $3, earlier = $4 WHERE project = $1 AND name = $2`

// MoveChildren makes the branches that were made from one branch those of
// another of its project.
func MoveChildren(ctx context.Context, c Conn, n tarn.BranchName, to string) error {
	_, err := c.querier().Exec(ctx, moveChildren, n.Project, n.Branch, to)
	return fault(err, "children of branch %q of project %q", n.Branch, n.Project)
}

const moveChildren = `UPDATE branches SET source = $3 WHERE project = $1 AND source = $2 AND name <> $3`

// ReloadSyncedTables asks for a load of every synced table of a branch, whatever
// its row says was loaded.
func ReloadSyncedTables(ctx context.Context, c Conn, n tarn.BranchName, message string) error {
	_, err := c.querier().Exec(ctx, reloadSyncedTables, n.Project, n.Branch, tarn.SyncProvisioning, tarn.SyncUpdating, message)
	return fault(err, "synced tables of branch %q of project %q", n.Branch, n.Project)
}

const reloadSyncedTables = `
UPDATE synced_tables SET state = CASE WHEN version < 0 THEN $3 ELSE $4 END, message = $5, updated = now()
WHERE project = $1 AND branch = $2`

// OnTimeline tells whether a branch is on a timeline, and keeps it there until
// the transaction ends.
func OnTimeline(ctx context.Context, tx *Tx, n tarn.BranchName, id tarn.TimelineID) (bool, error) {
	var now tarn.TimelineID
	err := tx.tx.QueryRow(ctx, onTimeline, n.Project, n.Branch).Scan(&now)
	return err == nil && now == id, fault(err, "branch %q of project %q", n.Branch, n.Project)
}

const onTimeline = `SELECT timeline FROM branches WHERE project = $1 AND name = $2 FOR SHARE`

// ListProtected gives the ids of a project's protected branches.
func ListProtected(ctx context.Context, c Conn, n tarn.ProjectName) ([]string, error) {
	v, err := list(ctx, c, scanText, listProtected, n.Project)
	return v, fault(err, "protected branches of project %q", n.Project)
}

const listProtected = `SELECT name FROM branches WHERE project = $1 AND protected AND state <> 'DELETED' ORDER BY name`
