package controldb

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// StatementRetention is how long statements are remembered.
const StatementRetention = 30 * 24 * time.Hour

// SQLStatement is a statement that a warehouse ran.
type SQLStatement struct {
	ID, Principal, Text, Kind, State, Error string
	Submitted                               time.Time
	Begun                                   *time.Time // nil = never
	Ended                                   time.Time
	Rows, Bytes                             int64
}

// InsertStatement records one that has ended, and forgets those that are too old.
// Recording it again changes nothing.
func InsertStatement(ctx context.Context, c Conn, s SQLStatement) error {
	if _, err := c.querier().Exec(ctx, insertStatement, s.ID, s.Principal, s.Text, s.Kind, s.State, s.Error, s.Submitted, s.Begun, s.Ended, s.Rows, s.Bytes); err != nil {
		return fault(err, "statement %s", s.ID)
	}
	_, err := c.querier().Exec(ctx, forgetStatements, time.Now().Add(-StatementRetention))
	return fault(err, "old statements")
}

const insertStatement = `INSERT INTO sql_statements (id, principal, statement, kind, state, error, submitted, begun, ended, row_count, byte_count)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (id) DO NOTHING`

const forgetStatements = `DELETE FROM sql_statements WHERE submitted < $1`

// ListStatements gives the newest that were submitted before a time; principal ""
// = everybody's.
func ListStatements(ctx context.Context, c Conn, principal string, before time.Time, limit int) ([]SQLStatement, error) {
	v, err := list(ctx, c, func(r pgx.Row) (s SQLStatement, err error) {
		return s, r.Scan(&s.ID, &s.Principal, &s.Text, &s.Kind, &s.State, &s.Error, &s.Submitted, &s.Begun, &s.Ended, &s.Rows, &s.Bytes)
	}, listStatements, principal, before, limit)
	return v, fault(err, "statements")
}

const listStatements = `SELECT id, principal, statement, kind, state, error, submitted, begun, ended, row_count, byte_count FROM sql_statements
WHERE ($1 = '' OR principal = $1) AND submitted < $2 ORDER BY submitted DESC, id LIMIT $3`
