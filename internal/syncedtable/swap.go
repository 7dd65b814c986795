package syncedtable

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// index is a user's index on the old table, made again on the new one under a
// passing name.
type index struct{ name, made string }

const (
	// What follows the table's name in an index's definition can be used for
	// another table as it is.
	indexesSQL = `SELECT c.relname, i.indisunique,
	substr(pg_get_indexdef(i.indexrelid), strpos(pg_get_indexdef(i.indexrelid), ' USING '))
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = $1 AND NOT i.indisprimary AND i.indisvalid
AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid)
ORDER BY c.relname`
	grantsSQL = `SELECT coalesce(r.rolname, ''), a.privilege_type, a.is_grantable
FROM pg_class c, aclexplode(c.relacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
WHERE c.oid = $1 AND a.grantee <> c.relowner AND (a.grantee = 0 OR r.oid IS NOT NULL)
AND a.privilege_type IN ('SELECT', 'REFERENCES', 'TRIGGER')`
	roleSQL = `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)`
)

// furnish gives the new table what readers of the old one rely on: who may
// read, the user's indexes, and the refusal to be written.
func (w *worker) furnish(ctx context.Context, conn *pgx.Conn, b built) ([]index, error) {
	project, err := controldb.GetProject(ctx, w.k.db, w.row.Branch.Parent())
	if err != nil {
		return nil, err
	}
	for _, role := range []string{tarn.SuperuserRole, project.Owner} {
		var exists bool
		if err := conn.QueryRow(ctx, roleSQL, role).Scan(&exists); err != nil {
			return nil, fmt.Errorf("look for role %s: %w", role, err)
		}
		if exists {
			if _, err := conn.Exec(ctx, "GRANT SELECT ON "+b.path()+" TO "+pgx.Identifier{role}.Sanitize()+" WITH GRANT OPTION"); err != nil {
				return nil, fmt.Errorf("grant to %s: %w", role, err)
			}
		}
	}
	if err := w.makeSchema(ctx, conn, project.Owner); err != nil {
		return nil, err
	}
	sql := "CREATE TRIGGER " + readOnlyTrigger + " BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON " + b.path() +
		" FOR EACH STATEMENT EXECUTE FUNCTION tarn_sync.refuse_write(" + quoteLiteral(w.row.Source.String()) + ")"
	if _, err := conn.Exec(ctx, sql); err != nil {
		return nil, fmt.Errorf("make it read-only: %w", err)
	}
	old, err := findTarget(ctx, conn, w.row.Name)
	if err != nil || old.oid == 0 {
		return nil, err
	}
	if err := regrant(ctx, conn, b, old.oid); err != nil {
		return nil, err
	}
	return w.reindex(ctx, conn, b, old.oid)
}

// quoteLiteral quotes a string for SQL that takes no arguments. Backslashes
// stand for themselves in standard_conforming_strings, Postgres's default and
// all we ever set.
func quoteLiteral(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// makeSchema makes the target's Postgres schema for the project's owner.
func (w *worker) makeSchema(ctx context.Context, conn *pgx.Conn, owner string) error {
	var exists bool
	if err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)`, w.row.Name.Schema).Scan(&exists); err != nil {
		return fmt.Errorf("look for Postgres schema %s: %w", w.row.Name.Schema, err)
	}
	if exists {
		return nil
	}
	sql := "CREATE SCHEMA IF NOT EXISTS " + pgx.Identifier{w.row.Name.Schema}.Sanitize()
	if err := conn.QueryRow(ctx, roleSQL, owner).Scan(&exists); err != nil {
		return fmt.Errorf("look for role %s: %w", owner, err)
	}
	if exists {
		sql += " AUTHORIZATION " + pgx.Identifier{owner}.Sanitize()
	}
	if _, err := conn.Exec(ctx, sql); err != nil {
		return fmt.Errorf("create Postgres schema %s: %w", w.row.Name.Schema, err)
	}
	return nil
}

func regrant(ctx context.Context, conn *pgx.Conn, b built, old uint32) error {
	type grant struct {
		role, privilege string
		option          bool
	}
	rows, err := conn.Query(ctx, grantsSQL, old)
	if err != nil {
		return fmt.Errorf("list grants: %w", err)
	}
	grants, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (g grant, err error) {
		return g, r.Scan(&g.role, &g.privilege, &g.option)
	})
	if err != nil {
		return fmt.Errorf("list grants: %w", err)
	}
	for _, g := range grants {
		to := "PUBLIC"
		if g.role != "" {
			to = pgx.Identifier{g.role}.Sanitize()
		}
		if g.option {
			to += " WITH GRANT OPTION"
		}
		if _, err := conn.Exec(ctx, "GRANT "+g.privilege+" ON "+b.path()+" TO "+to); err != nil {
			return fmt.Errorf("grant to %s again: %w", g.role, err)
		}
	}
	return nil
}

// reindex makes the user's indexes again. One that no longer fits, because its
// column went, is left out.
func (w *worker) reindex(ctx context.Context, conn *pgx.Conn, b built, old uint32) ([]index, error) {
	type definition struct {
		name   string
		unique bool
		rest   string
	}
	rows, err := conn.Query(ctx, indexesSQL, old)
	if err != nil {
		return nil, fmt.Errorf("list indexes: %w", err)
	}
	defs, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (d definition, err error) {
		return d, r.Scan(&d.name, &d.unique, &d.rest)
	})
	if err != nil {
		return nil, fmt.Errorf("list indexes: %w", err)
	}
	var made []index
	for i, d := range defs {
		x := index{name: d.name, made: fmt.Sprintf("%s_i%d", cut(b.name, maxIdentifier-8), i)}
		kind := "INDEX "
		if d.unique {
			kind = "UNIQUE INDEX "
		}
		_, err := conn.Exec(ctx, "CREATE "+kind+pgx.Identifier{x.made}.Sanitize()+" ON "+b.path()+d.rest)
		switch {
		case isCode(err, "42703", "23505", "42804", "42883", "0A000"):
			w.log.Warn("index left out", "path", d.name, "err", err)
			continue
		case err != nil:
			return nil, fmt.Errorf("make index %s again: %w", d.name, err)
		}
		made = append(made, x)
	}
	return made, nil
}

const (
	swapTries = 100
	// A waiting swap holds up new readers: better to step back often.
	swapLock  = "SET LOCAL lock_timeout = '2s'"
	swapPause = time.Second
)

// swapPatiently swaps as soon as readers let it.
func (w *worker) swapPatiently(ctx context.Context, conn *pgx.Conn, b built, next *position) error {
	for try := 1; ; try++ {
		err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return w.swap(ctx, tx, b, next) })
		if !isCode(err, "55P03", "40P01") || try == swapTries {
			return err
		}
		w.row.Message = "waiting for readers of the old table to end"
		w.report(ctx)
		pause(ctx, swapPause)
	}
}

const (
	// Views and foreign keys hang on the old table itself, not on its name.
	dependentsSQL = `SELECT count(*) FROM (
	SELECT 1 FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
	WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $1 AND r.ev_class <> $1
	UNION ALL SELECT 1 FROM pg_constraint WHERE confrelid = $1
	UNION ALL SELECT 1 FROM pg_inherits WHERE inhparent = $1) x`
	oidSQL = `SELECT oid FROM pg_class WHERE oid = $1::text::regclass`
)

// swap puts the new table in the old one's place and moves the position.
func (w *worker) swap(ctx context.Context, tx pgx.Tx, b built, next *position) error {
	if _, err := tx.Exec(ctx, swapLock); err != nil {
		return fmt.Errorf("swap: %w", err)
	}
	old, err := w.mayReplace(ctx, tx.Conn())
	if err != nil {
		return err
	}
	place := pgx.Identifier{w.row.Name.Schema, w.row.Name.Table}.Sanitize()
	inPlace := false
	if old.oid != 0 {
		var dependents int64
		if err := tx.QueryRow(ctx, dependentsSQL, old.oid).Scan(&dependents); err != nil {
			return fmt.Errorf("look for views of the table: %w", err)
		}
		inPlace = dependents > 0
	}
	if inPlace {
		err = w.replaceRows(ctx, tx, b, old.oid, place)
		next.relation = old.oid
	} else {
		err = w.replaceTable(ctx, tx, b, old.oid, place)
		if err == nil {
			err = tx.QueryRow(ctx, oidSQL, place).Scan(&next.relation)
		}
	}
	if err != nil {
		return fmt.Errorf("swap: %w", err)
	}
	if _, err := tx.Exec(ctx, oldLettersSQL, w.row.UID, next.version); err != nil {
		return fmt.Errorf("swap: %w", err)
	}
	if old.holder != "" && old.holder != w.row.UID {
		if _, err := tx.Exec(ctx, `DELETE FROM tarn_sync.position WHERE uid = $1`, old.holder); err != nil {
			return fmt.Errorf("swap: %w", err)
		}
	}
	return writePosition(ctx, tx, w.row.UID, w.row.Name, *next)
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

func (w *worker) replaceTable(ctx context.Context, tx pgx.Tx, b built, old uint32, place string) error {
	var steps []string
	if old != 0 {
		if err := lock(ctx, tx, old, place, "ACCESS EXCLUSIVE"); err != nil {
			return err
		}
		steps = append(steps, "DROP TABLE "+place)
	}
	moved := pgx.Identifier{w.row.Name.Schema, b.name}.Sanitize()
	table := pgx.Identifier{w.row.Name.Table}.Sanitize()
	steps = append(steps,
		"ALTER TABLE "+b.path()+" SET SCHEMA "+pgx.Identifier{w.row.Name.Schema}.Sanitize(),
		"ALTER TABLE "+moved+" RENAME TO "+table)
	for _, sql := range steps {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return err
		}
	}
	renames := append([]index{{name: cut(w.row.Name.Table, maxIdentifier-5) + "_pkey", made: b.pkey()}}, b.indexes...)
	for _, x := range renames {
		// A name that another relation has stays the passing one.
		var free bool
		if err := tx.QueryRow(ctx, `SELECT to_regclass($1) IS NULL`, pgx.Identifier{w.row.Name.Schema, x.name}.Sanitize()).Scan(&free); err != nil {
			return err
		}
		if !free {
			continue
		}
		sql := "ALTER INDEX " + pgx.Identifier{w.row.Name.Schema, x.made}.Sanitize() + " RENAME TO " + pgx.Identifier{x.name}.Sanitize()
		if _, err := tx.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

const columnsSQL = `SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped`

// replaceRows keeps the old table, on which views hang, and replaces its rows.
// Readers see the old ones until the commit. Columns can only be added.
func (w *worker) replaceRows(ctx context.Context, tx pgx.Tx, b built, old uint32, place string) error {
	have, err := columnTypes(ctx, tx, old)
	if err != nil {
		return err
	}
	var made uint32
	if err := tx.QueryRow(ctx, oidSQL, b.path()).Scan(&made); err != nil {
		return err
	}
	want, err := columnTypes(ctx, tx, made)
	if err != nil {
		return err
	}
	if err := lock(ctx, tx, old, place, "EXCLUSIVE"); err != nil {
		return err
	}
	var steps []string
	var names []string
	for _, c := range b.cols {
		id := pgx.Identifier{c.name}.Sanitize()
		names = append(names, id)
		switch t, ok := have[c.name]; {
		case !ok:
			steps = append(steps, "ALTER TABLE "+place+" ADD COLUMN "+id+" "+want[c.name])
		case t != want[c.name]:
			return tarn.Conflict("column %s of the source is %s now and views hang on %s.%s, where it is %s", c.delta, want[c.name], w.row.Name.Schema, w.row.Name.Table, t).
				WithHint("drop the views, refresh, and make them again")
		}
	}
	list := strings.Join(names, ", ")
	steps = append(steps, "DELETE FROM "+place, "INSERT INTO "+place+" ("+list+") SELECT "+list+" FROM "+b.path(), "DROP TABLE "+b.path())
	for _, sql := range steps {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

// columnTypes gives the type of each column by its name.
func columnTypes(ctx context.Context, tx pgx.Tx, oid uint32) (map[string]string, error) {
	rows, err := tx.Query(ctx, columnsSQL, oid)
	if err != nil {
		return nil, fmt.Errorf("list columns: %w", err)
	}
	types := map[string]string{}
	var name, typ string
	_, err = pgx.ForEachRow(rows, []any{&name, &typ}, func() error { types[name] = typ; return nil })
	return types, err
}

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
	if err := w.clear(ctx, conn); err != nil {
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
			if err := w.letGo(ctx, tx, r, project.Owner); err != nil {
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

func (w *worker) letGo(ctx context.Context, tx pgx.Tx, r Retention, owner string) error {
	place := pgx.Identifier{w.row.Name.Schema, w.row.Name.Table}.Sanitize()
	if r == PurgeData {
		_, err := tx.Exec(ctx, "DROP TABLE "+place)
		if isCode(err, "2BP01") {
			return tarn.Conflict("views or other things depend on %s.%s: %w", w.row.Name.Schema, w.row.Name.Table, err).
				WithHint("drop them first")
		}
		return err
	}
	if _, err := tx.Exec(ctx, "DROP TRIGGER IF EXISTS "+readOnlyTrigger+" ON "+place); err != nil {
		return fmt.Errorf("make the table writable: %w", err)
	}
	var exists bool
	if err := tx.QueryRow(ctx, roleSQL, owner).Scan(&exists); err != nil {
		return fmt.Errorf("look for role %s: %w", owner, err)
	}
	if !exists {
		return nil
	}
	if _, err := tx.Exec(ctx, "ALTER TABLE "+place+" OWNER TO "+pgx.Identifier{owner}.Sanitize()); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("give the table to %s: %w", owner, err)
	}
	return nil
}
