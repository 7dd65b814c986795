// Command feed measures how fast a feed brings changes from Postgres's log into
// Delta tables, beside pg_recvlogical, which reads the same log and throws it
// away, and how long a change takes at steady rates.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/bench/report"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/blob/dir"
	"github.com/tarndb/tarn/internal/catalog"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/feed"
	"github.com/tarndb/tarn/internal/postgres"
)

func main() {
	o, err := report.ParseFlags()
	if err == nil {
		err = run(context.Background(), o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-feed:", err)
		os.Exit(1)
	}
}

// bench is one server with the control database and the database that is
// followed.
type bench struct {
	o       report.Options
	dir     string
	cfg     postgres.Config
	db      *controldb.DB
	catalog *catalog.Catalog
	branch  tarn.BranchName
	conn    *pgx.Conn
	keeper  *feed.Keeper
}

// Connect and ComputeOf stand for the computes of a Tarn.
func (b *bench) Connect(ctx context.Context, _ tarn.BranchName, database string, cfg func(*pgx.ConnConfig)) (*pgx.Conn, error) {
	c, err := pgx.ParseConfig(b.connString(database))
	if err != nil {
		return nil, err
	}
	if cfg != nil {
		cfg(c)
	}
	return pgx.ConnectConfig(ctx, c)
}

// ComputeOf says where the server is.
func (b *bench) ComputeOf(context.Context, tarn.BranchName) (tarn.ComputeStatus, error) {
	return tarn.ComputeStatus{State: tarn.ComputeActive, Timeline: "0123456789abcdef0123456789abcdef", SocketDir: b.cfg.SocketDir, Port: b.cfg.Port}, nil
}

func (b *bench) connString(database string) string {
	return fmt.Sprintf("host=%s port=%d user=%s dbname=%s sslmode=disable", b.cfg.SocketDir, b.cfg.Port, tarn.Superuser, database)
}

func openStore(_ context.Context, location string) (blob.Store, error) {
	u, err := url.Parse(location)
	if err != nil {
		return nil, err
	}
	return dir.Open(u.Path)
}

func run(ctx context.Context, o report.Options) (err error) {
	b := &bench{o: o, branch: tarn.BranchName{Project: "bench", Branch: "production"}}
	if b.dir, err = os.MkdirTemp("", "tarn-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	if err := os.Chmod(b.dir, 0o755); err != nil {
		return err
	}
	server, err := b.startPostgres(ctx)
	if err != nil {
		return err
	}
	defer server.Kill()
	if err := b.open(ctx); err != nil {
		return err
	}
	defer b.db.Close()
	defer b.conn.Close(context.WithoutCancel(ctx))
	ctx, stop := context.WithCancelCause(ctx)
	done := make(chan error, 1)
	go func() { done <- b.keeper.Run(ctx) }()
	defer func() {
		stop(errors.New("the bench is over"))
		<-done
	}()
	cases := []report.Case{{
		Name: "feed-1kb", Unit: "rows/s", PeerName: "pg_recvlogical -f /dev/null", Ours: b.drainOurs, Peer: b.drainPeer,
	}}
	for _, rate := range []int{1000, 5000, 20000} {
		cases = append(cases, b.lagCases(rate)...)
	}
	return report.Run(ctx, "feed", o, cases)
}

func (b *bench) startPostgres(ctx context.Context) (*postgres.Server, error) {
	bins, err := filepath.Glob("build/postgres-*/bin")
	if err != nil {
		return nil, err
	}
	for i := range bins {
		if bins[i], err = filepath.Abs(bins[i]); err != nil {
			return nil, err
		}
	}
	installs, err := postgres.Find(ctx, "", bins...)
	if err != nil {
		return nil, err
	}
	runAs, err := postgres.DefaultRunAs()
	if err != nil {
		return nil, err
	}
	b.cfg = postgres.Config{
		Install: installs[0], DataDir: filepath.Join(b.dir, "data"), SocketDir: filepath.Join(b.dir, "s"), Port: 5432, RunAs: runAs,
		LogFile: filepath.Join(b.dir, "log"), Bond: postgres.Bound,
		Settings: map[string]string{"shared_buffers": "128MB", "wal_level": "logical", "max_wal_size": "4GB"},
	}
	if err := postgres.InitDB(ctx, installs[0], postgres.InitOptions{DataDir: b.cfg.DataDir, RunAs: runAs}); err != nil {
		return nil, err
	}
	return postgres.Start(ctx, b.cfg)
}

func (b *bench) open(ctx context.Context) error {
	admin, err := b.Connect(ctx, b.branch, "postgres", nil)
	if err != nil {
		return err
	}
	defer admin.Close(ctx)
	for _, sql := range []string{"CREATE DATABASE control", "CREATE DATABASE app"} {
		if _, err := admin.Exec(ctx, sql); err != nil {
			return err
		}
	}
	if b.db, err = controldb.Open(ctx, b.connString("control")); err != nil {
		return err
	}
	b.catalog = catalog.New(b.db)
	if err := b.catalog.EnsureDefault(ctx, "file://"+filepath.Join(b.dir, "lake")); err != nil {
		return err
	}
	_, err = controldb.InsertProject(ctx, b.db, tarn.Project{ProjectSpec: tarn.ProjectSpec{Name: b.branch.Parent(), PGVersion: b.cfg.Install.Major}, UID: uuid.NewString(), Owner: "bench"})
	if err != nil {
		return err
	}
	_, err = controldb.InsertBranch(ctx, b.db, tarn.Branch{BranchSpec: tarn.BranchSpec{Name: b.branch}, UID: uuid.NewString(), Default: true, Timeline: "0123456789abcdef0123456789abcdef"})
	if err != nil {
		return err
	}
	if b.conn, err = b.Connect(ctx, b.branch, "app", nil); err != nil {
		return err
	}
	b.keeper = feed.New(feed.Config{
		DB: b.db, Catalog: b.catalog, Computes: b, OpenStore: openStore, SpoolDir: b.dir,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Flush: time.Second, Poll: 50 * time.Millisecond,
	})
	return nil
}

// recvlogical is the peer's program: of the server's own version, or packaged.
func (b *bench) recvlogical() (string, error) {
	own := filepath.Join(b.cfg.Install.BinDir, "pg_recvlogical")
	if _, err := os.Stat(own); err == nil {
		return own, nil
	}
	found, err := exec.LookPath("pg_recvlogical")
	if err != nil {
		return "", report.Skipped("pg_recvlogical is not installed: apt-get install postgresql-client")
	}
	return found, nil
}
