package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/postgres"
)

// controlDatabase is the database of the control plane in its own Postgres.
const controlDatabase = "tarn"

// extraPGBins are the directories beside the usual ones where Postgres may
// have been put: build/postgres-* beside this binary (`make` puts both there)
// and under the working directory.
func extraPGBins() []string {
	var dirs []string
	if exe, err := os.Executable(); err == nil {
		if real, err := filepath.EvalSymlinks(exe); err == nil {
			dirs = append(dirs, filepath.Dir(real))
		}
	}
	dirs = append(dirs, "build")
	var found []string
	for _, d := range dirs {
		bins, _ := filepath.Glob(filepath.Join(d, "postgres-*", "bin"))
		for _, b := range bins {
			// The real path: Postgres's user may not be able to walk a link's.
			if real, err := filepath.EvalSymlinks(b); err == nil {
				if abs, err := filepath.Abs(real); err == nil {
					found = append(found, abs)
				}
			}
		}
	}
	return found
}

// controlPostgres is the Postgres that keeps the control plane's own state. It
// outlives a control that is killed, and the next one adopts it.
type controlPostgres struct {
	server *postgres.Server
	url    string
}

// openControlPostgres makes the data directory at the first start:
//
//  1. initdb into pgdata.new    crash: removed at the next start
//  2. rename it to pgdata       crash: complete
//  3. start, create the database if it is missing
func openControlPostgres(ctx context.Context, c serverConfig, installs []postgres.Install, log *slog.Logger) (*controlPostgres, error) {
	runAs, err := postgres.DefaultRunAs()
	if err != nil {
		return nil, err
	}
	home := filepath.Join(c.Data, "control")
	pgdata := filepath.Join(home, "pgdata")
	if err := os.MkdirAll(home, 0o755); err != nil {
		return nil, err
	}
	install := installs[0]
	version, err := os.ReadFile(filepath.Join(pgdata, "PG_VERSION"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := initControlPostgres(ctx, install, pgdata, runAs, log); err != nil {
			return nil, fmt.Errorf("make the control database: %w", err)
		}
	case err != nil:
		return nil, err
	default:
		if install, err = installOf(installs, strings.TrimSpace(string(version))); err != nil {
			return nil, err
		}
	}
	cfg := postgres.Config{
		Install: install, DataDir: pgdata, SocketDir: c.socketDir("control"), RunAs: runAs,
		LogFile: filepath.Join(c.Data, "log", "control-postgres.log"),
		PIDFile: c.controlPIDFile(),
		Settings: map[string]string{
			"shared_buffers": "32MB", "max_connections": "60", "max_wal_size": "256MB", "jit": "off",
			"autovacuum_naptime": "5min", "max_wal_senders": "0", "wal_level": "minimal",
			// What a control that was killed still holds is let go of soon, whatever its session waits for.
			"client_connection_check_interval": "2s",
		},
		Log: log,
	}
	server, err := postgres.Adopt(ctx, cfg, 0)
	if tarn.KindOf(err) == tarn.KindNotFound {
		server, err = postgres.Start(ctx, cfg)
	}
	if err != nil {
		return nil, fmt.Errorf("start the control database: %w", err)
	}
	p := &controlPostgres{server: server}
	if err := p.createDatabase(ctx, cfg); err != nil {
		return nil, errors.Join(err, server.Stop(context.WithoutCancel(ctx), postgres.Fast))
	}
	return p, nil
}

func initControlPostgres(ctx context.Context, in postgres.Install, pgdata string, runAs *postgres.RunAs, log *slog.Logger) error {
	tmp := pgdata + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := postgres.InitDB(ctx, in, postgres.InitOptions{DataDir: tmp, RunAs: runAs, Log: log}); err != nil {
		return err
	}
	return os.Rename(tmp, pgdata)
}

func installOf(installs []postgres.Install, version string) (postgres.Install, error) {
	major, _ := strconv.Atoi(version)
	for _, in := range installs {
		if in.Major == major {
			return in, nil
		}
	}
	return postgres.Install{}, tarn.Unavailable("the control database was made by Postgres %s, which is not installed any more", version).
		WithHint("install Postgres " + version + " or name its programs with --pg-bin")
}

func (p *controlPostgres) createDatabase(ctx context.Context, c postgres.Config) error {
	conn, err := pgx.Connect(ctx, socketURL(c.SocketDir, c.Port, "postgres"))
	if err != nil {
		return fmt.Errorf("connect to the control database: %w", err)
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{controlDatabase}.Sanitize())
	var pg *pgconn.PgError
	if err != nil && !(errors.As(err, &pg) && pg.Code == "42P04") { // duplicate_database
		return fmt.Errorf("create the control database: %w", err)
	}
	p.url = socketURL(c.SocketDir, c.Port, controlDatabase)
	return nil
}

func socketURL(dir string, port int, database string) string {
	if port == 0 {
		port = 5432
	}
	q := url.Values{"host": {dir}, "port": {strconv.Itoa(port)}, "user": {tarn.Superuser}}
	return "postgres:///" + url.PathEscape(database) + "?" + q.Encode()
}

// close stops the control database with control. A control that is killed
// leaves it running for the next one.
func (p *controlPostgres) close(ctx context.Context, log *slog.Logger) {
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	if err := p.server.Stop(end, postgres.Fast); err != nil {
		log.Error("control database did not stop cleanly", "err", err)
	}
}

func (c *serverConfig) controlPIDFile() string {
	return filepath.Join(c.Data, "control", "postgres.json")
}
