package compute

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/postgres"
)

// template is the timeline that new timelines of a Postgres version begin as a
// fork of. It is made once.
func (k *maker) template(ctx context.Context, major int) (tarn.TimelineID, error) {
	in, err := k.install(major)
	if err != nil {
		return "", err
	}
	release, err := k.holds.take(ctx, fmt.Sprintf("template %d", major))
	if err != nil {
		return "", err
	}
	defer release()
	if id, ok := k.records.template(major); ok {
		return id, nil
	}
	began := time.Now()
	id, err := newTimelineID()
	if err != nil {
		return "", err
	}
	err = k.buildTemplate(ctx, id, in)
	if err == nil {
		err = k.records.publish(timeline{ID: id, PGVersion: major, Template: true, ForkTime: time.Now().UTC()})
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("make the template of Postgres %d: %w", major, err), k.discard(context.WithoutCancel(ctx), id))
	}
	k.rest.add(id)
	k.log.Info("template made", "timeline", string(id), "version", in.Version, "took", time.Since(began))
	return id, nil
}

// makeTemplates makes the missing ones before anybody waits for them.
func (k *maker) makeTemplates(ctx context.Context) {
	for _, in := range k.o.Installs {
		if ctx.Err() != nil {
			return
		}
		if _, err := k.template(ctx, in.Major); err != nil && ctx.Err() == nil {
			k.log.Error("template not made", "version", in.Version, "err", err) // whoever needs it tries again
		}
	}
}

// What every database of every branch begins with. databricks_superuser is a
// group without any right to create roles or databases: the owner of a project
// gets those itself.
var templateSQL = [...]string{
	`CREATE ROLE databricks_superuser NOLOGIN`,
	`GRANT pg_read_all_data, pg_write_all_data, pg_monitor TO databricks_superuser`,
	`CREATE ROLE tarn_oauth NOLOGIN`,
	`CREATE DATABASE databricks_postgres`,
	// Without the marker nobody logs in with a token, the owner included, who may
	// drop roles it administers: a right that it cannot revoke keeps them.
	`GRANT CONNECT ON DATABASE postgres TO databricks_superuser, tarn_oauth`,
}

// unsafeRolesSQL is for Postgres 15, where whoever may create roles may grant itself
// every predefined one, and through these three become the user that runs
// Postgres: superuser of all computes. Postgres knows them by their oids, so
// without the rows nobody has them and nobody can be given them.
var unsafeRolesSQL = [...]string{
	`SET allow_system_table_mods = on`,
	`DELETE FROM pg_authid WHERE rolname IN ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files')`,
	`RESET allow_system_table_mods`,
}

// lastWithUnsafeRoles is the last version that lets them do so.
const lastWithUnsafeRoles = 15

// buildTemplate makes an unpublished timeline with initdb and the roles and
// database of templateSQL, shut down cleanly.
func (k *maker) buildTemplate(ctx context.Context, id tarn.TimelineID, in postgres.Install) error {
	if err := k.store.Create(ctx, id, k.newFile(unix.S_IFDIR|0o700, "")); err != nil {
		return err
	}
	if err := k.walOf(id).CreateBare(); err != nil {
		return err
	}
	e, err := k.openEngine(ctx, engineName(id), id)
	if err != nil {
		return err
	}
	if err := k.fillTemplate(ctx, e, in); err != nil {
		return errors.Join(err, e.wreck(ctx))
	}
	if err := e.stop(ctx); err != nil {
		return err
	}
	return errors.Join(e.wal.Sync(), removeFile(e.logFile()))
}

func (k *maker) fillTemplate(ctx context.Context, e *engine, in postgres.Install) error {
	if err := e.show(ctx); err != nil {
		return err
	}
	err := postgres.InitDB(ctx, in, postgres.InitOptions{
		DataDir: e.dataDir(), Place: postgres.Prepared, WALDir: e.wal.Dir(), RunAs: k.o.RunAs, Log: k.log,
		Checksums: k.store.PageWrites() == tornPages, // the page store has its own
	})
	if err == nil {
		err = e.hide(ctx)
	}
	if err != nil {
		return err
	}
	if err := e.writeFile("postgresql.conf", conf); err != nil {
		return err
	}
	settings, err := k.ownSettings(e.timeline)
	if err != nil {
		return err
	}
	if err := e.start(ctx, in, settings); err != nil {
		return err
	}
	s, err := e.connect(ctx)
	if err != nil {
		return err
	}
	defer s.close(ctx)
	statements := templateSQL[:]
	if in.Major <= lastWithUnsafeRoles {
		statements = append(unsafeRolesSQL[:], statements...)
	}
	for _, sql := range statements {
		if _, err := s.conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("run %q: %w", sql, err)
		}
	}
	return nil
}
