package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/postgres"
)

const superuser = tarn.Superuser

// nativeSide is the peer: the same Postgres on the file system, stock settings.
type nativeSide struct {
	cfg    postgres.Config
	server *postgres.Server
}

// findPostgres takes the newest Postgres, packaged or installed.
func findPostgres(ctx context.Context) ([]postgres.Install, error) {
	bins, err := filepath.Glob("build/postgres-*/bin")
	if err != nil {
		return nil, err
	}
	for i := range bins {
		real, err := filepath.EvalSymlinks(bins[i])
		if err != nil {
			return nil, err
		}
		if bins[i], err = filepath.Abs(real); err != nil {
			return nil, err
		}
	}
	return postgres.Find(ctx, "", bins...)
}

// openNativeSide makes a data directory and starts Postgres on it, with these
// settings beside the stock ones.
func openNativeSide(ctx context.Context, dir string, settings map[string]string) (*nativeSide, error) {
	installs, err := findPostgres(ctx)
	if err != nil {
		return nil, err
	}
	runAs, err := postgres.DefaultRunAs()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	all := map[string]string{"shared_buffers": sharedBuffers}
	maps.Copy(all, settings)
	s := &nativeSide{cfg: postgres.Config{
		Install: installs[0], DataDir: filepath.Join(dir, "pgdata"), SocketDir: filepath.Join(dir, "socket"), RunAs: runAs,
		LogFile: filepath.Join(dir, "log"), PIDFile: filepath.Join(dir, "postgres.json"), Bond: postgres.Bound,
		Settings: all,
	}}
	if err := postgres.InitDB(ctx, installs[0], postgres.InitOptions{DataDir: s.cfg.DataDir, RunAs: runAs}); err != nil {
		return nil, err
	}
	s.server, err = postgres.Start(ctx, s.cfg)
	return s, err
}

func (s *nativeSide) socket() (string, int) { return s.cfg.SocketDir, 5432 }

func (s *nativeSide) restart(ctx context.Context) error {
	if err := s.server.Stop(ctx, postgres.Fast); err != nil {
		return err
	}
	if err := dropCaches(); err != nil {
		return err
	}
	server, err := postgres.Start(ctx, s.cfg)
	if err != nil {
		return err
	}
	s.server = server
	return nil
}

func (s *nativeSide) close(ctx context.Context) error { return s.server.Stop(ctx, postgres.Fast) }

// dropCaches empties the machine's page cache, for both sides alike.
func dropCaches() error {
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		return fmt.Errorf("drop the page cache (cold-scan needs root): %w", err)
	}
	return nil
}
