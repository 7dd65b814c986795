package controldb

import (
	"context"
	"encoding/json"

	"github.com/jackc/pgx/v5"
)

// InsertSystemRow keeps a row for a table of catalog system, called
// schema.table, until it is in Delta.
func InsertSystemRow(ctx context.Context, c Conn, target string, row json.RawMessage) error {
	_, err := c.querier().Exec(ctx, insertSystemRow, target, row)
	return fault(err, "row of system.%s", target)
}

const insertSystemRow = `INSERT INTO system_rows (target, row) VALUES ($1, $2)`

// ClaimSystemRows gives the rows of a batch; unless it has some, the oldest that
// are in none are put into it, at most limit. A batch never changes after that.
func ClaimSystemRows(ctx context.Context, c Conn, target string, batch int64, limit int) ([]json.RawMessage, error) {
	scan := func(r pgx.Row) (row json.RawMessage, err error) {
		err = r.Scan(&row)
		return row, err
	}
	return within(ctx, c, func(c Conn) ([]json.RawMessage, error) {
		rows, err := list(ctx, c, scan, systemBatch, target, batch)
		if err == nil && len(rows) == 0 {
			if _, err = c.querier().Exec(ctx, claimSystemRows, target, batch, limit); err == nil {
				rows, err = list(ctx, c, scan, systemBatch, target, batch)
			}
		}
		return rows, fault(err, "rows of system.%s", target)
	})
}

const (
	systemBatch     = `SELECT row FROM system_rows WHERE target = $1 AND batch = $2 ORDER BY seq`
	claimSystemRows = `UPDATE system_rows SET batch = $2
WHERE seq IN (SELECT seq FROM system_rows WHERE target = $1 AND batch IS NULL ORDER BY seq LIMIT $3 FOR UPDATE)`
)

// DropSystemRows forgets the rows of batches up to one, which are in Delta.
func DropSystemRows(ctx context.Context, c Conn, target string, batch int64) error {
	_, err := c.querier().Exec(ctx, dropSystemRows, target, batch)
	return fault(err, "rows of system.%s", target)
}

const dropSystemRows = `DELETE FROM system_rows WHERE target = $1 AND batch <= $2`
