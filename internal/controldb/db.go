// Package controldb holds the tables, queries and migrations of the control
// plane: what was asked of projects, branches, endpoints, catalogs and movers,
// kept in one Postgres. It decides nothing: it does not know what a state
// means, who may ask, nor how that Postgres is run.
package controldb

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/tern/v2/migrate"

	"github.com/tarndb/tarn"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Conn is where a query runs: a *DB, or the *Tx that DB.InTx hands out. SQL
// itself stays in this room.
type Conn interface{ querier() querier }

// querier is what pools, connections and transactions of pgx have in common.
type querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// DB is the control plane's database. It is safe for concurrent use.
type DB struct{ pool *pgxpool.Pool }

func (d *DB) querier() querier { return d.pool }

// Tx is a transaction of a DB.
type Tx struct{ tx pgx.Tx }

func (t *Tx) querier() querier { return t.tx }

// Open connects and brings the tables up to date; many may open at once.
func Open(ctx context.Context, connString string) (*DB, error) {
	cfg, err := pgxpool.ParseConfig(connString)
	if err != nil {
		return nil, tarn.Invalid("open control database: read connection string: %w", err)
	}
	if cfg.ConnConfig.RuntimeParams["application_name"] == "" {
		cfg.ConnConfig.RuntimeParams["application_name"] = "tarn control"
	}
	// Workers each hold one connection while they work and use a second.
	cfg.MaxConns = max(cfg.MaxConns, minConns)
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open control database: %w", err)
	}
	if err := migrateUp(ctx, pool); err != nil {
		pool.Close()
		return nil, fmt.Errorf("open control database: %w", err)
	}
	return &DB{pool}, nil
}

const minConns = 16

// Close closes every connection and waits for those in use.
func (d *DB) Close() { d.pool.Close() }

func migrateUp(ctx context.Context, pool *pgxpool.Pool) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	return pool.AcquireFunc(ctx, func(c *pgxpool.Conn) error {
		// tern makes its version table outside of its own lock; ours makes
		// two first starts at once wait for each other.
		if _, err := c.Exec(ctx, lockMigrations); err != nil {
			return fmt.Errorf("migrate: take lock: %w", err)
		}
		defer c.Exec(context.WithoutCancel(ctx), unlockMigrations)
		m, err := migrate.NewMigrator(ctx, c.Conn(), "public.schema_version")
		if err != nil {
			return fmt.Errorf("migrate: %w", err)
		}
		if err := m.LoadMigrations(files); err != nil {
			return fmt.Errorf("migrate: %w", err)
		}
		if err := m.Migrate(ctx); err != nil {
			return fmt.Errorf("migrate: %w", err)
		}
		return nil
	})
}

const (
	lockMigrations   = `SELECT pg_advisory_lock(7022891455139)`
	unlockMigrations = `SELECT pg_advisory_unlock(7022891455139)`
)

// InTx runs f in a transaction and commits it when f returns nil. f may run
// again when Postgres broke a deadlock, so it must not touch anything else.
func (d *DB) InTx(ctx context.Context, f func(*Tx) error) error {
	const tries = 4
	var err error
	for range tries {
		err = pgx.BeginFunc(ctx, d.pool, func(tx pgx.Tx) error { return f(&Tx{tx}) })
		if code := sqlState(err); code != "40P01" && code != "40001" {
			return err
		}
	}
	return err
}

// fault gives the errors that the schema makes on purpose their kind: a row
// that is not there, a name that is taken, a row others still refer to.
// what names the thing, e.g. `project "shop"`.
func fault(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	what := fmt.Sprintf(format, args...)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return tarn.NotFound("%s does not exist", what)
	case sqlState(err) == "23505":
		return tarn.Conflict("%s already exists", what)
	case sqlState(err) == "23503":
		return tarn.Conflict("%s: %w", what, err)
	}
	return fmt.Errorf("control database: %s: %w", what, err)
}

func sqlState(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// constraint is the name of the constraint err violates, or "".
func constraint(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.ConstraintName
	}
	return ""
}

// exec runs a statement that must meet exactly one row.
func exec(ctx context.Context, c Conn, sql string, args ...any) error {
	tag, err := c.querier().Exec(ctx, sql, args...)
	if err == nil && tag.RowsAffected() == 0 {
		return pgx.ErrNoRows
	}
	return err
}

// list runs a query and reads every row with scan.
func list[T any](ctx context.Context, c Conn, scan func(pgx.Row) (T, error), sql string, args ...any) ([]T, error) {
	rows, err := c.querier().Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(r pgx.CollectableRow) (T, error) { return scan(r) })
}

// within runs f in c when c is a transaction, and in one of its own otherwise.
func within[T any](ctx context.Context, c Conn, f func(Conn) (T, error)) (T, error) {
	db, ok := c.(*DB)
	if !ok {
		return f(c)
	}
	var out T
	err := db.InTx(ctx, func(tx *Tx) (err error) {
		out, err = f(tx)
		return err
	})
	return out, err
}
