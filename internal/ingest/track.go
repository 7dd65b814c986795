package ingest

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
)

// TrackChanges gives a table the column _xid, kept by a trigger and indexed, so
// that late rows are found without reading the whole table. It needs the table's
// owner; adding the column rewrites the table once, during which nobody else
// uses it. It may be repeated: what is there is left. A lock that is not had
// within 5 s is given up, so that others do not queue behind it.
//
//  1. function, column and trigger, in one transaction   crash: nothing, or all of them
//  2. the index, which holds up no writer                crash: an invalid index, replaced the next time
func TrackChanges(ctx context.Context, conn *pgx.Conn, table string) error {
	var schema, name string
	var invalid bool
	if err := conn.QueryRow(ctx, trackedSQL, table, trackIndex).Scan(&schema, &name, &invalid); err != nil {
		return fmt.Errorf("track changes of %s: %w", table, tarn.NotFound("there is no such table"))
	}
	t := pgx.Identifier{schema, name}.Sanitize()
	f := pgx.Identifier{schema, "tarn_row_changed"}.Sanitize()
	index := name + trackIndex
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		for _, sql := range []string{
			"SET LOCAL lock_timeout = '5s'",
			"CREATE OR REPLACE FUNCTION " + f + "() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS " + trackBody,
			"ALTER TABLE " + t + " ADD COLUMN IF NOT EXISTS _xid xid8 NOT NULL DEFAULT pg_current_xact_id()",
			"DROP TRIGGER IF EXISTS tarn_row_changed ON " + t,
			"CREATE TRIGGER tarn_row_changed BEFORE INSERT OR UPDATE ON " + t + " FOR EACH ROW EXECUTE FUNCTION " + f + "()",
		} {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("track changes of %s: %w", table, err)
	}
	steps := []string{"SET lock_timeout = '5s'"}
	if invalid {
		steps = append(steps, "DROP INDEX CONCURRENTLY "+pgx.Identifier{schema, index}.Sanitize())
	}
	steps = append(steps, "CREATE INDEX CONCURRENTLY IF NOT EXISTS "+pgx.Identifier{index}.Sanitize()+" ON "+t+" (_xid)", "RESET lock_timeout")
	for _, sql := range steps {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("index %s._xid: %w", table, err)
		}
	}
	return nil
}

const (
	trackIndex = "__xid_idx"
	trackBody  = `$$BEGIN NEW._xid := pg_current_xact_id(); RETURN NEW; END$$`
	trackedSQL = `SELECT n.nspname, c.relname, EXISTS (SELECT FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
	WHERE i.indrelid = c.oid AND NOT i.indisvalid AND x.relname = c.relname || $2)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1)`
)
