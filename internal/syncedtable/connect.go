package syncedtable

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// connect opens a connection, waking the compute. That it cannot is never the
// asker's fault, unless the database does not exist.
func (w *worker) connect(ctx context.Context) (*pgx.Conn, error) {
	conn, err := w.k.computes.Connect(ctx, w.row.Branch, w.row.Database, configure)
	if err != nil {
		return nil, tarn.Unavailable("connect: %w", err)
	}
	return conn, nil
}

// useEvery is below any sensible time after which an idle compute is suspended.
const useEvery = 2 * time.Second

// keepAwake uses the compute until the returned func is called: our own
// sessions do not count as use, and a long load would be cut off again and
// again.
func (w *worker) keepAwake(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for pause(ctx, useEvery); ctx.Err() == nil; pause(ctx, useEvery) {
			if conn, err := w.connect(ctx); err == nil {
				closeConn(conn)
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

const fenceSQL = `SELECT pg_try_advisory_lock(hashtextextended('tarn synced table ' || $1, 0))`

// fence keeps a connection of a killed process from writing beside us: the
// lock is freed when Postgres notices that its client is gone.
func (w *worker) fence(ctx context.Context, conn *pgx.Conn) error {
	for deadline := time.Now().Add(10 * time.Second); ; {
		var ok bool
		if err := conn.QueryRow(ctx, fenceSQL, w.row.UID).Scan(&ok); err != nil {
			return fmt.Errorf("lock the synced table: %w", err)
		}
		if ok {
			return nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return errBusy
		}
		pause(ctx, 100*time.Millisecond)
	}
}

// mayReplace finds what has the table's name now and refuses what is not ours
// to replace. A table that a synced table of another branch made was forked
// with the data: nobody keeps it here.
func (w *worker) mayReplace(ctx context.Context, conn *pgx.Conn) (target, error) {
	t, err := findTarget(ctx, conn, w.row.Name)
	if err != nil || t.oid == 0 || t.holder == w.row.UID {
		return t, err
	}
	if t.holder != "" {
		all, err := controldb.ListSyncedTables(ctx, w.k.db, w.row.Branch.Project)
		if err != nil {
			return t, err
		}
		for _, o := range all {
			if o.UID == t.holder && o.Branch == w.row.Branch {
				return t, taken(w.row.Name)
			}
		}
		return t, nil
	}
	return t, taken(w.row.Name)
}
