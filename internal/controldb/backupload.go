package controldb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/tern/v2/migrate"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
)

// Restored says what Restore brought back.
type Restored struct {
	Time time.Time // everything committed before it is there
	Rows int64
}

// Restore fills an empty database with the last copy in a store, before Open.
// KindNotFound: there is no copy. KindConflict: the database is in use already,
// which is the ordinary case of a start, and nothing was changed.
//
// connString must be a superuser's: rows come in without their references being
// checked one by one.
//
//  1. Make the tables as they were at the copy's migration. Crash: they are
//     empty, and Restore begins again.
//  2. Fill them, set the counters and write the lineage, in one transaction.
func Restore(ctx context.Context, connString string, store blob.Store, o BackupOptions) (Restored, error) {
	o.fill()
	cfg, err := pgxpool.ParseConfig(connString)
	if err != nil {
		return Restored{}, tarn.Invalid("restore control database: read connection string: %w", err)
	}
	conn, err := pgx.ConnectConfig(ctx, cfg.ConnConfig)
	if err != nil {
		return Restored{}, fmt.Errorf("restore control database: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	out, err := restore(ctx, conn, store, o)
	if err != nil {
		return out, fmt.Errorf("restore control database: %w", err)
	}
	return out, nil
}

const (
	hasWorkspaceTable = `SELECT to_regclass('public.workspace') IS NOT NULL`
	hasWorkspace      = `SELECT EXISTS (SELECT 1 FROM public.workspace)`
)

func restore(ctx context.Context, conn *pgx.Conn, store blob.Store, o BackupOptions) (Restored, error) {
	if used, err := inUse(ctx, conn); err != nil || used {
		if used {
			err = tarn.Conflict("there is a workspace in it already")
		}
		return Restored{}, err
	}
	last, err := lastCopy(ctx, store, o.Prefix, o.Log)
	if err != nil {
		return Restored{}, err
	}
	if err := migrateTo(ctx, conn, last.meta.Schema); err != nil {
		return Restored{}, err
	}
	out := Restored{Time: last.meta.Time}
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if used, err := inUse(ctx, conn); err != nil || used {
			return errors.Join(err, tarn.Conflict("somebody else made a workspace in it"))
		}
		out.Rows, err = last.load(ctx, tx)
		if err != nil {
			return err
		}
		return writeLineage(ctx, tx, last.meta.Lineage, "")
	})
	return out, err
}

func inUse(ctx context.Context, conn *pgx.Conn) (used bool, err error) {
	if err := conn.QueryRow(ctx, hasWorkspaceTable).Scan(&used); err != nil || !used {
		return false, err
	}
	err = conn.QueryRow(ctx, hasWorkspace).Scan(&used)
	return used, err
}

func migrateTo(ctx context.Context, conn *pgx.Conn, version int32) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	m, err := migrate.NewMigrator(ctx, conn, "public.schema_version")
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	if err := m.LoadMigrations(files); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	if int(version) > len(m.Migrations) {
		return tarn.Unavailable("the copy is of a newer Tarn: migration %d, this one knows %d", version, len(m.Migrations)).
			WithHint("install the newer Tarn")
	}
	if err := m.MigrateTo(ctx, version); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

const (
	// References were whole in the copy, which is of one moment.
	loadUnchecked = `SET LOCAL session_replication_role = replica`
	setCounter    = `SELECT setval($1::regclass, $2)`
)

// load fills empty tables. Rows that a migration puts in are replaced.
func (d dump) load(ctx context.Context, tx pgx.Tx) (rows int64, err error) {
	if _, err := tx.Exec(ctx, loadUnchecked); err != nil {
		return 0, err
	}
	for i, t := range d.meta.Tables {
		if _, err := tx.Exec(ctx, "DELETE FROM "+pgx.Identifier{"public", t.Name}.Sanitize()); err != nil {
			return rows, fmt.Errorf("table %s: %w", t.Name, err)
		}
		var tag pgconn.CommandTag
		if tag, err = tx.Conn().PgConn().CopyFrom(ctx, bytes.NewReader(d.tables[i]), t.copyIn()); err != nil {
			return rows, fmt.Errorf("table %s: %w", t.Name, err)
		}
		rows += tag.RowsAffected()
	}
	for _, s := range d.meta.Sequences {
		if s.Last == nil {
			continue
		}
		if _, err := tx.Exec(ctx, setCounter, pgx.Identifier{"public", s.Name}.Sanitize(), *s.Last); err != nil {
			return rows, fmt.Errorf("counter %s: %w", s.Name, err)
		}
	}
	return rows, nil
}
