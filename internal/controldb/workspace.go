package controldb

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
)

// InsertWorkspace records the workspace; KindConflict when there is one.
func InsertWorkspace(ctx context.Context, c Conn, w tarn.Workspace, block int) error {
	_, err := c.querier().Exec(ctx, insertWorkspace, w.ID, w.Owner, block)
	return fault(err, "workspace")
}

const insertWorkspace = `INSERT INTO workspace (id, owner, block) VALUES ($1, $2, $3)`

// GetWorkspace reads the workspace and where its address block begins.
func GetWorkspace(ctx context.Context, c Conn) (w tarn.Workspace, block int, err error) {
	err = c.querier().QueryRow(ctx, getWorkspace).Scan(&w.ID, &w.Owner, &block)
	return w, block, fault(err, "workspace")
}

const getWorkspace = `SELECT id, owner, block FROM workspace`

// NextAddress counts to the number of the next address to hand out, 1 to most
// and around again, and keeps others from counting until the transaction ends.
func NextAddress(ctx context.Context, tx *Tx, most int) (int, error) {
	var n int
	err := tx.tx.QueryRow(ctx, nextAddress, most).Scan(&n)
	return n, fault(err, "workspace")
}

const nextAddress = `UPDATE workspace SET last_address = last_address % $1 + 1 RETURNING last_address`

// HostTaken says whether an endpoint has that address.
func HostTaken(ctx context.Context, c Conn, host string) (bool, error) {
	var one int
	err := c.querier().QueryRow(ctx, hostTaken, host).Scan(&one)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	return err == nil, fault(err, "address %s", host)
}

const hostTaken = `SELECT 1 FROM endpoints WHERE host = $1`
