package controldb

import (
	"context"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
)

// InsertFeed records a feed and returns it as recorded, with its time and,
// where they were empty, its UID, id and database. It is KindConflict when the
// id, or the Postgres schema, is taken, and KindNotFound when the branch is
// not there or on its way out. Its tables are recorded by UpsertFeedTable.
func InsertFeed(ctx context.Context, c Conn, f tarn.Feed) (tarn.Feed, error) {
	if f.UID == "" {
		f.UID = uuid.NewString()
	}
	if f.ID == "" {
		f.ID = f.PostgresSchema
	}
	if f.Database == "" {
		f.Database = tarn.DefaultDatabase
	}
	if f.PipelineID == "" {
		f.PipelineID = uuid.NewString()
	}
	out, err := within(ctx, c, func(c Conn) (tarn.Feed, error) {
		if err := holdLiveBranch(ctx, c, f.Branch); err != nil {
			return tarn.Feed{}, err
		}
		return scanFeed(c.querier().QueryRow(ctx, insertFeed, f.UID, f.Branch.Project, f.Branch.Branch, f.ID,
			f.Database, f.PostgresSchema, f.Catalog, f.Schema, f.Message,
			texts(f.Include), texts(f.Exclude), f.Flush, f.MaxWAL, f.Paused, f.Derived, f.PipelineID))
	})
	switch {
	case tarn.KindOf(err) != tarn.KindInternal:
		return tarn.Feed{}, err
	case constraint(err) == "feeds_project_branch_database_postgres_schema_key":
		return tarn.Feed{}, tarn.Conflict("Postgres schema %s in database %s of %s is already followed by another feed",
			f.PostgresSchema, f.Database, f.Branch)
	}
	return out, fault(err, "feed %q of %s", f.ID, f.Branch)
}

const insertFeed = `
INSERT INTO feeds (uid, project, branch, id, database, postgres_schema, catalog, schema, message,
	include, exclude, flush, max_wal, paused, derived, pipeline_id)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
RETURNING ` + feedColumns

const feedColumns = `uid, project, branch, id, database, postgres_schema, catalog, schema, message, created,
	include, exclude, flush, max_wal, paused, derived, wal_held, pipeline_id`

// texts is a list for a text[] column, where nil must be {} and not NULL.
func texts(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

func scanFeed(r pgx.Row) (f tarn.Feed, err error) {
	err = r.Scan(&f.UID, &f.Branch.Project, &f.Branch.Branch, &f.ID, &f.Database, &f.PostgresSchema,
		&f.Catalog, &f.Schema, &f.Message, (*stamp)(&f.CreateTime),
		&f.Include, &f.Exclude, &f.Flush, &f.MaxWAL, &f.Paused, &f.Derived, &f.WALHeld, &f.PipelineID)
	if len(f.Include) == 0 {
		f.Include = nil // as it was asked for
	}
	if len(f.Exclude) == 0 {
		f.Exclude = nil
	}
	return f, err
}

// GetFeed reads a feed with its tables.
func GetFeed(ctx context.Context, c Conn, b tarn.BranchName, id string) (tarn.Feed, error) {
	f, err := scanFeed(c.querier().QueryRow(ctx, getFeed, b.Project, b.Branch, id))
	if err != nil {
		return tarn.Feed{}, fault(err, "feed %q of %s", id, b)
	}
	f.Tables, err = ListFeedTables(ctx, c, f.UID)
	return f, err
}

const getFeed = `SELECT ` + feedColumns + ` FROM feeds WHERE project = $1 AND branch = $2 AND id = $3`

// ListFeeds gives the feeds of one branch, the zero name = all, with their
// tables.
func ListFeeds(ctx context.Context, c Conn, b tarn.BranchName) ([]tarn.Feed, error) {
	feeds, err := list(ctx, c, scanFeed, listFeeds, b.Project, b.Branch)
	if err != nil {
		return nil, fault(err, "feeds of %s", b)
	}
	for i := range feeds {
		if feeds[i].Tables, err = ListFeedTables(ctx, c, feeds[i].UID); err != nil {
			return nil, err
		}
	}
	return feeds, nil
}

const listFeeds = `SELECT ` + feedColumns + ` FROM feeds
WHERE $1 = '' OR (project = $1 AND branch = $2) ORDER BY project, branch, id`

// SetFeedMessage records why a feed is not moving; "" = it is well.
func SetFeedMessage(ctx context.Context, c Conn, uid, message string) error {
	return fault(exec(ctx, c, setFeedMessage, uid, message), "feed with uid %s", uid)
}

const setFeedMessage = `UPDATE feeds SET message = $2 WHERE uid = $1`

// SetFeedSettings changes a feed's settings. KindNotFound when it is gone.
func SetFeedSettings(ctx context.Context, c Conn, uid string, s tarn.FeedSettings) error {
	return fault(exec(ctx, c, setFeedSettings, uid, texts(s.Include), texts(s.Exclude), s.Flush, s.MaxWAL, s.Paused, s.Derived),
		"feed with uid %s", uid)
}

const setFeedSettings = `UPDATE feeds SET include = $2, exclude = $3, flush = $4, max_wal = $5, paused = $6, derived = $7 WHERE uid = $1`

// SetFeedWAL records how many bytes of WAL a feed's slot holds back.
func SetFeedWAL(ctx context.Context, c Conn, uid string, bytes int64) error {
	return fault(exec(ctx, c, setFeedWAL, uid, bytes), "feed with uid %s", uid)
}

const setFeedWAL = `UPDATE feeds SET wal_held = $2 WHERE uid = $1`

// FeedOfPipeline reads the feed with that pipeline id. KindNotFound.
func FeedOfPipeline(ctx context.Context, c Conn, id string) (tarn.Feed, error) {
	f, err := scanFeed(c.querier().QueryRow(ctx, feedOfPipeline, id))
	if err != nil {
		return tarn.Feed{}, fault(err, "feed with pipeline %q", id)
	}
	f.Tables, err = ListFeedTables(ctx, c, f.UID)
	return f, err
}

const feedOfPipeline = `SELECT ` + feedColumns + ` FROM feeds WHERE pipeline_id = $1`

// DeleteFeed removes a feed and its tables' rows. KindNotFound when it is gone.
func DeleteFeed(ctx context.Context, c Conn, uid string) error {
	return fault(exec(ctx, c, deleteFeed, uid), "feed with uid %s", uid)
}

const deleteFeed = `DELETE FROM feeds WHERE uid = $1`

// UpsertFeedTable records the status of one table of the feed with that UID.
// KindNotFound when the feed is gone.
func UpsertFeedTable(ctx context.Context, c Conn, feedUID string, t tarn.FeedTable) error {
	err := exec(ctx, c, upsertFeedTable, feedUID, t.PostgresTable, t.Target.Catalog, t.Target.Schema, t.Target.Table,
		t.State, position(t.CommittedLSN), stamp(t.LastSync), t.Detail, t.Rows, t.DeadLetters, t.Copied, t.CopyRows)
	if constraint(err) == "feed_tables_feed_fkey" {
		return tarn.NotFound("feed with uid %s does not exist", feedUID)
	}
	return fault(err, "table %s of feed with uid %s", t.PostgresTable, feedUID)
}

const upsertFeedTable = `
INSERT INTO feed_tables (feed, postgres_table, target_catalog, target_schema, target_table, state, committed_lsn, last_sync, detail,
	rows, dead_letters, copied, copy_rows)
VALUES ($1, $2, $3, $4, $5, $6, $7::text::pg_lsn, $8, $9, $10, $11, $12, $13)
ON CONFLICT (feed, postgres_table) DO UPDATE SET
	target_catalog = excluded.target_catalog, target_schema = excluded.target_schema, target_table = excluded.target_table,
	state = excluded.state, committed_lsn = excluded.committed_lsn, last_sync = excluded.last_sync, detail = excluded.detail,
	rows = excluded.rows, dead_letters = excluded.dead_letters, copied = excluded.copied, copy_rows = excluded.copy_rows`

// ListFeedTables gives the tables of the feed with that UID, by name.
func ListFeedTables(ctx context.Context, c Conn, feedUID string) ([]tarn.FeedTable, error) {
	v, err := list(ctx, c, scanFeedTable, listFeedTables, feedUID)
	return v, fault(err, "tables of feed with uid %s", feedUID)
}

const listFeedTables = `
SELECT postgres_table, target_catalog, target_schema, target_table, state, committed_lsn::text, last_sync, detail,
	rows, dead_letters, copied, copy_rows
FROM feed_tables WHERE feed = $1 ORDER BY postgres_table`

func scanFeedTable(r pgx.Row) (t tarn.FeedTable, err error) {
	err = r.Scan(&t.PostgresTable, &t.Target.Catalog, &t.Target.Schema, &t.Target.Table, &t.State,
		(*position)(&t.CommittedLSN), (*stamp)(&t.LastSync), &t.Detail,
		&t.Rows, &t.DeadLetters, &t.Copied, &t.CopyRows)
	return t, err
}
