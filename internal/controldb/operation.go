package controldb

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
)

// InsertOperation records an operation that is to be worked on.
func InsertOperation(ctx context.Context, c Conn, o tarn.Operation) (tarn.Operation, error) {
	out, err := scanOperation(c.querier().QueryRow(ctx, insertOperation, o.Name, o.Verb, o.Target))
	return out, fault(err, "operation %s", o.Name)
}

const insertOperation = `INSERT INTO operations (name, verb, target) VALUES ($1, $2, $3) RETURNING ` + operationColumns

const operationColumns = `name, verb, target, done, error_kind, error, created, updated`

func scanOperation(r pgx.Row) (o tarn.Operation, err error) {
	var kind int16
	err = r.Scan(&o.Name, &o.Verb, &o.Target, &o.Done, &kind, &o.Error, (*stamp)(&o.CreateTime), (*stamp)(&o.UpdateTime))
	o.ErrorKind = tarn.Kind(kind)
	return o, err
}

// GetOperation reads an operation.
func GetOperation(ctx context.Context, c Conn, name string) (tarn.Operation, error) {
	o, err := scanOperation(c.querier().QueryRow(ctx, getOperation, name))
	return o, fault(err, "operation %s", name)
}

const getOperation = `SELECT ` + operationColumns + ` FROM operations WHERE name = $1`

// GetOpenOperation reads the operation of that verb on that target that is not
// done.
func GetOpenOperation(ctx context.Context, c Conn, verb, target string) (tarn.Operation, error) {
	o, err := scanOperation(c.querier().QueryRow(ctx, getOpenOperation, verb, target))
	return o, fault(err, "open operation to %s %s", verb, target)
}

const getOpenOperation = `SELECT ` + operationColumns + ` FROM operations
WHERE NOT done AND verb = $1 AND target = $2 ORDER BY seq LIMIT 1`

// ClaimOperation takes the next operation that may be worked on and holds it
// until the transaction ends; a process that dies lets go of it. Operations on
// one thing, and on what it holds or is held by, come one at a time and in the
// order in which they were asked.
func ClaimOperation(ctx context.Context, tx *Tx) (o tarn.Operation, attempt int, ok bool, err error) {
	var kind int16
	err = tx.tx.QueryRow(ctx, claimOperation).Scan(&o.Name, &o.Verb, &o.Target, &o.Done, &kind, &o.Error,
		(*stamp)(&o.CreateTime), (*stamp)(&o.UpdateTime), &attempt)
	if errors.Is(err, pgx.ErrNoRows) {
		return tarn.Operation{}, 0, false, nil
	}
	return o, attempt, err == nil, fault(err, "next operation")
}

const claimOperation = `
SELECT ` + operationColumns + `, attempts FROM operations o
WHERE NOT done AND next_try <= now() AND NOT EXISTS (
	SELECT FROM operations older WHERE NOT older.done AND older.seq < o.seq AND (older.target = o.target
		OR starts_with(o.target, older.target || '/') OR starts_with(older.target, o.target || '/')))
ORDER BY seq LIMIT 1
FOR UPDATE SKIP LOCKED`

// FinishOperation records how an operation ended; "" = well.
func FinishOperation(ctx context.Context, c Conn, name string, kind tarn.Kind, message string) error {
	return fault(exec(ctx, c, finishOperation, name, int16(kind), message), "operation %s", name)
}

const finishOperation = `
UPDATE operations SET done = true, error_kind = $2, error = $3, attempts = attempts + 1, updated = now() WHERE name = $1`

// DeferOperation has an operation tried again after a while, measured on the
// database's clock like everything that ClaimOperation compares.
func DeferOperation(ctx context.Context, c Conn, name string, after time.Duration) error {
	return fault(exec(ctx, c, deferOperation, name, after), "operation %s", name)
}

const deferOperation = `
UPDATE operations SET attempts = attempts + 1, next_try = now() + $2::interval, updated = now() WHERE name = $1`

// PruneOperations forgets operations that were done before t.
func PruneOperations(ctx context.Context, c Conn, t time.Time) error {
	_, err := c.querier().Exec(ctx, pruneOperations, t)
	return fault(err, "old operations")
}

const pruneOperations = `DELETE FROM operations WHERE done AND updated < $1`
