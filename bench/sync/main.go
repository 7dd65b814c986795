// Command sync measures how fast synced tables move rows from Delta to Postgres
// against the least that such a move can be: `psql \copy` of the same rows into
// the same table, and a hand-written stage with INSERT ON CONFLICT. It alternates
// the two in one run, on one Postgres with its stock settings.
//
//	go run ./bench/sync [-json] [-case REGEX] [-rounds N]
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/bench/report"
	"github.com/tarndb/tarn/internal/postgres"
)

const (
	baseRows  = 300_000
	batchRows = 25_000 // of an incremental run: half new keys, half old ones
	padding   = 984    // bytes of text in a row, so that one has about 1 KB
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench sync:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	o, err := report.ParseFlags()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "tarn-bench-sync-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	b := &bench{dir: dir}
	// The cleanup must run although the benchmark was interrupted.
	defer func() { err = errors.Join(err, b.close(context.WithoutCancel(ctx))) }()
	if err := b.open(ctx); err != nil {
		return err
	}
	return report.Run(ctx, "sync", o, []report.Case{
		{Name: "initial", Unit: "rows/s", PeerName: `psql \copy`, Ours: b.initial, Peer: b.copyFile},
		{Name: "incremental", Unit: "rows/s", PeerName: "stage + ON CONFLICT", Ours: b.incremental, Peer: b.upsert},
	})
}

// bench is one Postgres with a lake beside it.
type bench struct {
	dir    string
	cfg    postgres.Config
	server *postgres.Server
	psql   string
	lake   *lake
	peer   *pgx.Conn
	loaded bool // the peer's table of incremental is there
	round  int
}

func (b *bench) open(ctx context.Context) error {
	bins, err := filepath.Glob("build/postgres-*/bin")
	if err != nil {
		return err
	}
	for i := range bins {
		if bins[i], err = filepath.EvalSymlinks(bins[i]); err != nil {
			return err
		}
		if bins[i], err = filepath.Abs(bins[i]); err != nil {
			return err
		}
	}
	installs, err := postgres.Find(ctx, "", bins...)
	if err != nil {
		return err
	}
	runAs, err := postgres.DefaultRunAs()
	if err != nil {
		return err
	}
	if b.psql, err = exec.LookPath("psql"); err != nil {
		return fmt.Errorf("psql is needed: apt-get install postgresql-client: %w", err)
	}
	b.cfg = postgres.Config{
		Install: installs[0], DataDir: filepath.Join(b.dir, "pgdata"), SocketDir: filepath.Join(b.dir, "socket"), RunAs: runAs,
		LogFile: filepath.Join(b.dir, "log"), PIDFile: filepath.Join(b.dir, "postgres.json"), Bond: postgres.Bound,
		Settings: map[string]string{"shared_buffers": "512MB", "max_wal_size": "8GB"},
	}
	if err := postgres.InitDB(ctx, installs[0], postgres.InitOptions{DataDir: b.cfg.DataDir, RunAs: runAs}); err != nil {
		return err
	}
	if b.server, err = postgres.Start(ctx, b.cfg); err != nil {
		return err
	}
	if b.peer, err = pgx.Connect(ctx, b.url("postgres")); err != nil {
		return err
	}
	for _, sql := range []string{"CREATE DATABASE control", "CREATE DATABASE target"} {
		if _, err := b.peer.Exec(ctx, sql); err != nil {
			return err
		}
	}
	if err := b.peer.Close(ctx); err != nil {
		return err
	}
	if b.peer, err = pgx.Connect(ctx, b.url("target")); err != nil {
		return err
	}
	b.lake, err = openLake(ctx, b)
	return err
}

func (b *bench) url(database string) string {
	return fmt.Sprintf("host=%s port=5432 user=%s dbname=%s sslmode=disable", b.cfg.SocketDir, tarn.Superuser, database)
}

func (b *bench) close(ctx context.Context) error {
	var err error
	if b.lake != nil {
		b.lake.close()
	}
	if b.peer != nil {
		err = b.peer.Close(ctx)
	}
	if b.server != nil {
		err = errors.Join(err, b.server.Stop(ctx, postgres.Fast))
	}
	return err
}
