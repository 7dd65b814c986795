package syncedtable

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// leave takes the synced table out of its database. Each step may be repeated.
func (w *worker) leave(ctx context.Context, r Retention) error {
	conn, err := w.connect(ctx)
	if isCode(err, "3D000") {
		return nil // the database is gone with everything in it
	}
	if err != nil {
		return err
	}
	defer closeConn(conn)
	if err := w.fence(ctx, conn); err != nil {
		return err
	}
	if err := prepareTracking(ctx, conn); err != nil {
		return err
	}
	if err := (&session{w: w, conn: conn}).clear(ctx); err != nil {
		return err
	}
	project, err := controldb.GetProject(ctx, w.k.db, w.row.Branch.Parent())
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		t, err := findTarget(ctx, tx.Conn(), w.row.Name)
		if err != nil {
			return err
		}
		if t.oid != 0 && t.holder == w.row.UID {
			if err := w.letGo(ctx, tx, t, r, project.Owner); err != nil {
				return err
			}
		}
		for _, sql := range []string{`DELETE FROM tarn_sync.position WHERE uid = $1`, `DELETE FROM tarn_sync.dead_letters WHERE uid = $1`} {
			if _, err := tx.Exec(ctx, sql, w.row.UID); err != nil {
				return fmt.Errorf("forget the position: %w", err)
			}
		}
		return nil
	})
}

func (w *worker) letGo(ctx context.Context, tx pgx.Tx, t target, r Retention, owner string) error {
	place := pgx.Identifier{w.row.Name.Schema, w.row.Name.Table}.Sanitize()
	if r == PurgeData {
		_, err := tx.Exec(ctx, "DROP TABLE "+place)
		if isCode(err, "2BP01") {
			return tarn.Conflict("views or other things depend on %s.%s: %w", w.row.Name.Schema, w.row.Name.Table, err).
				WithHint("drop them first")
		}
		return err
	}
	var exists bool
	if err := tx.QueryRow(ctx, roleSQL, owner).Scan(&exists); err != nil {
		return fmt.Errorf("look for role %s: %w", owner, err)
	}
	tables := []string{place}
	rows, err := tx.Query(ctx, partitionsSQL, t.oid)
	if err != nil {
		return fmt.Errorf("look for the partition: %w", err)
	}
	var oid uint32
	var schema, name string
	if _, err := pgx.ForEachRow(rows, []any{&oid, &schema, &name}, func() error {
		tables = append(tables, pgx.Identifier{schema, name}.Sanitize())
		return nil
	}); err != nil {
		return fmt.Errorf("look for the partition: %w", err)
	}
	for _, path := range tables {
		steps := []string{"DROP TRIGGER IF EXISTS " + readOnlyTrigger + " ON " + path, "REVOKE ALL ON " + path + " FROM " + writerRole}
		if exists {
			to := pgx.Identifier{owner}.Sanitize()
			steps = append(steps, "ALTER TABLE "+path+" OWNER TO "+to, "GRANT ALL ON "+path+" TO "+to)
		}
		for _, sql := range steps {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return fmt.Errorf("give the table to %s: %w", owner, err)
			}
		}
	}
	return nil
}
