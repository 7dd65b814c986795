package syncedtable

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
)

const (
	swapTries = 300
	// A waiting swap holds up new readers: better to step back often.
	swapLock  = "SET LOCAL lock_timeout = '1s'"
	swapPause = 500 * time.Millisecond
	// Sessions that took their snapshot before the rows were there. An error
	// here waits on; NULL = none.
	olderSQL = `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
AND backend_xmin IS NOT NULL AND age(backend_xmin) > age(($1::text::xid8)::xid)`
	oidSQL = `SELECT oid FROM pg_class WHERE oid = $1::text::regclass`
)

// swapPatiently swaps as soon as readers let it. A reader with an old snapshot
// would find a table empty that was filled over several connections: those are
// waited for, too, but not for ever.
func (s *session) swapPatiently(ctx context.Context, b built, next *position) error {
	for try := 1; ; try++ {
		older := 0
		if b.plain {
			if err := s.conn.QueryRow(ctx, olderSQL, b.horizon).Scan(&older); err != nil {
				return fmt.Errorf("look for older transactions: %w", err)
			}
		}
		if older == 0 || try == swapTries {
			err := pgx.BeginFunc(ctx, s.conn, func(tx pgx.Tx) error { return s.swap(ctx, tx, b, next) })
			if !isCode(err, "55P03", "40P01") || try >= swapTries {
				return err
			}
		}
		if try%4 == 0 {
			s.w.row.Message = "waiting for readers of the old rows to end"
			s.w.report(ctx)
		}
		if pause(ctx, swapPause); ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// swap makes the built table the partition and moves the position.
func (s *session) swap(ctx context.Context, tx pgx.Tx, b built, next *position) error {
	if _, err := tx.Exec(ctx, swapLock); err != nil {
		return fmt.Errorf("swap: %w", err)
	}
	old, err := s.w.mayReplace(ctx, tx.Conn())
	if err != nil {
		return err
	}
	place := pgx.Identifier{s.w.row.Name.Schema, s.w.row.Name.Table}.Sanitize()
	if old.oid != 0 && !old.partitioned { // made before synced tables were partitioned
		if _, err := tx.Exec(ctx, "DROP TABLE "+place); err != nil {
			if isCode(err, "2BP01") {
				return tarn.Conflict("views depend on %s, which becomes a partitioned table: %w", place, err).WithHint("drop them, refresh, and make them again")
			}
			return fmt.Errorf("swap: %w", err)
		}
		old.oid = 0
	}
	if old.oid == 0 {
		next.relation, err = s.makeTable(ctx, tx, b, place)
	} else {
		next.relation, err = old.oid, s.clearTable(ctx, tx, b, old.oid, place)
	}
	if err == nil {
		err = s.attach(ctx, tx, b, next, place)
	}
	if err != nil {
		return fmt.Errorf("swap: %w", err)
	}
	if _, err := tx.Exec(ctx, oldLettersSQL, s.w.row.UID, next.generation); err != nil {
		return fmt.Errorf("swap: %w", err)
	}
	if old.holder != "" && old.holder != s.w.row.UID {
		if _, err := tx.Exec(ctx, `DELETE FROM tarn_sync.position WHERE uid = $1`, old.holder); err != nil {
			return fmt.Errorf("swap: %w", err)
		}
	}
	return writePosition(ctx, tx, s.w.row.UID, s.w.row.Name, *next)
}

// makeTable makes the partitioned table.
func (s *session) makeTable(ctx context.Context, tx pgx.Tx, b built, place string) (oid uint32, err error) {
	first := b.layout.cols[b.layout.order[0]].id()
	pkey := pgx.Identifier{cut(s.w.row.Name.Table, maxIdentifier-5) + "_pkey"}.Sanitize()
	sql := "CREATE TABLE " + place + " (" + b.layout.definitions() + ", CONSTRAINT " + pkey + " PRIMARY KEY (" + b.layout.keyList() + ")) PARTITION BY LIST (" + first + ")"
	if _, err := tx.Exec(ctx, sql); err != nil {
		return 0, err
	}
	if err := s.dress(ctx, tx, place); err != nil {
		return 0, err
	}
	var exists bool
	if err := tx.QueryRow(ctx, roleSQL, tarn.SuperuserRole).Scan(&exists); err != nil {
		return 0, err
	}
	if exists {
		if _, err := tx.Exec(ctx, "GRANT SELECT ON "+place+" TO "+tarn.SuperuserRole); err != nil {
			return 0, err
		}
	}
	return oid, tx.QueryRow(ctx, oidSQL, place).Scan(&oid)
}

// lock holds the place and makes sure that it is still the table that was found
// there: the schema's owner may have put another one in.
func lock(ctx context.Context, tx pgx.Tx, old uint32, place, mode string) error {
	if _, err := tx.Exec(ctx, "LOCK TABLE "+place+" IN "+mode+" MODE"); err != nil {
		return err
	}
	var now uint32
	if err := tx.QueryRow(ctx, oidSQL, place).Scan(&now); err != nil {
		return err
	}
	if now != old {
		return tarn.Conflict("table %s was replaced by another meanwhile", place)
	}
	return nil
}

// clearTable takes the old partition away and gives the table the columns of
// the new one. Changes that are not additive were asked for, or refused before
// the load.
func (s *session) clearTable(ctx context.Context, tx pgx.Tx, b built, old uint32, place string) error {
	if err := lock(ctx, tx, old, place, "ACCESS EXCLUSIVE"); err != nil {
		return err
	}
	rows, err := tx.Query(ctx, partitionsSQL, old)
	if err != nil {
		return err
	}
	var oid uint32
	var schema, name string
	var steps []string
	if _, err := pgx.ForEachRow(rows, []any{&oid, &schema, &name}, func() error {
		p := pgx.Identifier{schema, name}.Sanitize()
		steps = append(steps, "ALTER TABLE "+place+" DETACH PARTITION "+p, "DROP TABLE "+p)
		return nil
	}); err != nil {
		return err
	}
	if err := tx.QueryRow(ctx, oidSQL, b.path()).Scan(&oid); err != nil {
		return err
	}
	have, err := columnTypes(ctx, tx, old)
	if err != nil {
		return err
	}
	want, err := columnTypes(ctx, tx, oid)
	if err != nil {
		return err
	}
	d := compare(have, want)
	for _, c := range d.drop {
		steps = append(steps, "ALTER TABLE "+place+" DROP COLUMN "+c)
	}
	for _, c := range d.retype {
		steps = append(steps, "ALTER TABLE "+place+" ALTER COLUMN "+c)
	}
	for _, c := range d.add {
		steps = append(steps, "ALTER TABLE "+place+" ADD COLUMN "+c)
	}
	for _, sql := range steps {
		if _, err := tx.Exec(ctx, sql); err != nil {
			if isCode(err, "2BP01", "0A000", "42P16", "23503") {
				return tarn.Conflict("%s cannot take the new rows as they are: %w", place, err).
					WithHint("drop the views or foreign keys that stand in the way, refresh, and make them again")
			}
			return err
		}
	}
	return nil
}

// attach moves the built table beside the partitioned one and makes it the
// partition.
func (s *session) attach(ctx context.Context, tx pgx.Tx, b built, next *position, place string) error {
	schema := s.w.row.Name.Schema
	name := fmt.Sprintf("%s_p%d", cut(s.w.row.Name.Table, maxIdentifier-12), next.generation)
	if free, err := nameFree(ctx, tx, schema, name); err != nil {
		return err
	} else if !free {
		name = b.name
	}
	moved, leaf := pgx.Identifier{schema, b.name}.Sanitize(), pgx.Identifier{schema, name}.Sanitize()
	steps := []string{"ALTER TABLE " + b.path() + " SET SCHEMA " + pgx.Identifier{schema}.Sanitize()}
	if name != b.name {
		steps = append(steps, "ALTER TABLE "+moved+" RENAME TO "+pgx.Identifier{name}.Sanitize())
	}
	steps = append(steps, "ALTER TABLE "+place+" ATTACH PARTITION "+leaf+" DEFAULT")
	for _, sql := range steps {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return err
		}
	}
	renames := []index{{name: cut(name, maxIdentifier-5) + "_pkey", made: b.pkey()}}
	for _, x := range append(renames, b.indexes...) {
		if x.name == "" {
			continue
		}
		// A name that another relation has stays the passing one.
		if free, err := nameFree(ctx, tx, schema, x.name); err != nil {
			return err
		} else if !free {
			continue
		}
		sql := "ALTER INDEX " + pgx.Identifier{schema, x.made}.Sanitize() + " RENAME TO " + pgx.Identifier{x.name}.Sanitize()
		if _, err := tx.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

func nameFree(ctx context.Context, tx pgx.Tx, schema, name string) (free bool, err error) {
	err = tx.QueryRow(ctx, `SELECT to_regclass($1) IS NULL`, pgx.Identifier{schema, name}.Sanitize()).Scan(&free)
	return free, err
}
