package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/bench/report"
	"github.com/tarndb/tarn/internal/postgres"
)

// branchCases measure from the wish for a branch of a database under load to
// the first answered query on it. The peer is what one does without a page
// store: an online backup of the data directory, and Postgres on the copy.
func (b *bench) branchCases() []report.Case {
	return []report.Case{{
		Name: "branch-first-query", Unit: "ms", PeerName: "online copy, ext4", Direction: report.LessIsBetter,
		Ours: func(ctx context.Context) (float64, error) {
			s, err := b.sides(ctx)
			if err != nil {
				return 0, err
			}
			return b.underLoad(ctx, s.store, func(ctx context.Context) (time.Duration, error) {
				return s.store.branch(ctx, tarn.TimelineSpec{Source: s.store.spec.Timeline}, nil)
			})
		},
		Peer: func(ctx context.Context) (float64, error) {
			s, err := b.sides(ctx)
			if err != nil {
				return 0, err
			}
			return b.underLoad(ctx, s.native, func(ctx context.Context) (time.Duration, error) {
				began := time.Now()
				dir := filepath.Join(b.dir, "copy")
				if err := s.native.backup(ctx, dir); err != nil {
					return 0, err
				}
				err := s.native.serveCopy(ctx, dir, nil, nil)
				return time.Since(began), errors.Join(err, os.RemoveAll(dir))
			})
		},
	}}
}

// underLoad measures f while TPC-B runs, in milliseconds.
func (b *bench) underLoad(ctx context.Context, s side, f func(context.Context) (time.Duration, error)) (float64, error) {
	if err := checkpoint(ctx, s); err != nil {
		return 0, err
	}
	loading, stop := context.WithCancel(ctx)
	var load sync.WaitGroup
	var loadErr error
	load.Go(func() {
		_, loadErr = b.runPgbench(loading, s, "-M", "prepared", "-n", "-c", "4", "-j", "1", "-T", "600")
	})
	// Some work must have been done, or there is no load.
	before, err := transactions(ctx, s)
	for now := before; err == nil && now < before+2000 && loadErr == nil; {
		now, err = transactions(ctx, s)
	}
	var took time.Duration
	if err == nil {
		took, err = f(ctx)
	}
	stop()
	load.Wait()
	return took.Seconds() * 1000, err
}

// branch makes a branch, wakes it and asks it one thing, after which check may
// look at it. It is gone afterwards.
func (s *storeSide) branch(ctx context.Context, t tarn.TimelineSpec, check func(context.Context, *pgx.Conn) error) (took time.Duration, err error) {
	t.ID, t.PGVersion = newTimeline(), s.spec.PGVersion
	spec := s.spec
	spec.Endpoint, spec.Timeline = "ep-branch", t.ID
	began := time.Now()
	if _, err := s.fleet.CreateTimeline(ctx, t); err != nil {
		return 0, err
	}
	defer func() {
		clean := context.WithoutCancel(ctx)
		err = errors.Join(err, s.fleet.Suspend(clean, spec.Endpoint), s.fleet.DeleteTimeline(clean, t.ID))
	}()
	st, err := s.fleet.Wake(ctx, spec)
	if err != nil {
		return 0, err
	}
	return took, firstQuery(ctx, st.SocketDir, st.Port, func() { took = time.Since(began) }, check)
}

// firstQuery connects, asks, tells that it was answered, and checks.
func firstQuery(ctx context.Context, dir string, port int, answered func(), check func(context.Context, *pgx.Conn) error) error {
	c, err := pgx.Connect(ctx, fmt.Sprintf("host=%s port=%d user=%s dbname=%s", dir, port, superuser, database))
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	var one int
	if err := c.QueryRow(ctx, "SELECT 1").Scan(&one); err != nil {
		return err
	}
	if answered != nil {
		answered()
	}
	if check != nil {
		return check(ctx, c)
	}
	return nil
}

// backup copies the data directory of a running server as Postgres's manual
// says, WAL included. Files that vanish meanwhile are no harm.
func (s *nativeSide) backup(ctx context.Context, dir string) error {
	c, err := connect(ctx, s, "postgres")
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	if _, err := c.Exec(ctx, "SELECT pg_backup_start('bench', true)"); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "cp", "-a", "--reflink=auto", s.cfg.DataDir, dir).CombinedOutput(); err != nil && ctx.Err() != nil {
		return fmt.Errorf("cp: %w: %s", err, out)
	}
	var label string
	if err := c.QueryRow(ctx, "SELECT labelfile FROM pg_backup_stop(false)").Scan(&label); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "cp", "-a", filepath.Join(s.cfg.DataDir, "pg_wal")+"/.", filepath.Join(dir, "pg_wal")).CombinedOutput(); err != nil && ctx.Err() != nil {
		return fmt.Errorf("cp: %w: %s", err, out)
	}
	return s.writeOwned(filepath.Join(dir, "backup_label"), label)
}

func (s *nativeSide) writeOwned(path, text string) error {
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil || s.cfg.RunAs == nil {
		return err
	}
	return os.Chown(path, int(s.cfg.RunAs.UID), int(s.cfg.RunAs.GID))
}

// serveCopy starts Postgres on a copy, asks it one thing, tells when that was
// answered through check, and stops it.
func (s *nativeSide) serveCopy(ctx context.Context, dir string, settings map[string]string, check func(context.Context, *pgx.Conn) error) error {
	c := s.cfg
	c.DataDir, c.SocketDir = dir, s.cfg.SocketDir+"-copy"
	c.LogFile, c.PIDFile = s.cfg.LogFile+".copy", s.cfg.PIDFile+".copy"
	c.Settings = map[string]string{"shared_buffers": sharedBuffers}
	for name, value := range settings {
		c.Settings[name] = value
	}
	server, err := postgres.Start(ctx, c)
	if err != nil {
		return err
	}
	defer server.Kill() // its directory goes at once
	return firstQuery(ctx, c.SocketDir, 5432, nil, check)
}

func pgbenchTransactions(n int) []string {
	return []string{"-M", "prepared", "-n", "-c", strconv.Itoa(clients), "-j", "2", "-t", strconv.Itoa(n / clients)}
}
