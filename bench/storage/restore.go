package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/bench/report"
	"github.com/tarndb/tarn/internal/compute"
)

// restoreCases measure how long it takes to have a database as it was at an LSN
// in the past, by the TPC-B transactions between the mark before it and it: the
// work that Postgres's recovery must do again. The peer is a point-in-time
// recovery on ext4 from a base backup that was made where our mark is.
func (b *bench) restoreCases() []report.Case {
	r := &restore{bench: b}
	var all []report.Case
	for _, n := range []int{2_000, 20_000, 100_000} {
		all = append(all, report.Case{Name: fmt.Sprintf("restore-%dk-tx", n/1000), Unit: "ms", PeerName: "recovery of a backup, ext4", Direction: report.LessIsBetter,
			Ours: func(ctx context.Context) (float64, error) { return r.ours(ctx, n) },
			Peer: func(ctx context.Context) (float64, error) { return r.peers(ctx, n) }})
	}
	return all
}

// restore has databases of its own: their marks come when we say.
type restore struct {
	bench  *bench
	store  *storeSide
	native *nativeSide
}

func (r *restore) ours(ctx context.Context, n int) (float64, error) {
	if r.store == nil {
		var err error
		never := compute.Options{MarkEvery: 24 * time.Hour, MarkWAL: 1 << 50}
		if r.store, err = openStoreSide(ctx, filepath.Join(r.bench.dir, "restore-store"), never); err != nil {
			return 0, err
		}
		r.bench.closers = append(r.bench.closers, r.store.close)
		if err := r.bench.fill(ctx, r.store); err != nil {
			return 0, err
		}
	}
	s := r.store
	if err := checkpoint(ctx, s); err != nil {
		return 0, err
	}
	// A fork of now leaves a mark behind.
	if _, err := s.branch(ctx, tarn.TimelineSpec{Source: s.spec.Timeline}, nil); err != nil {
		return 0, err
	}
	target, want, err := r.work(ctx, s, n)
	if err != nil {
		return 0, err
	}
	lsn, err := tarn.ParseLSN(target)
	if err != nil {
		return 0, err
	}
	took, err := s.branch(ctx, tarn.TimelineSpec{Source: s.spec.Timeline, LSN: lsn}, holdsAll(want))
	return took.Seconds() * 1000, err
}

// work runs n transactions and gives the LSN behind them, and how many there
// are in all.
func (r *restore) work(ctx context.Context, s side, n int) (lsn string, all int64, err error) {
	if _, err := r.bench.runPgbench(ctx, s, pgbenchTransactions(n)...); err != nil {
		return "", 0, err
	}
	c, err := connect(ctx, s, database)
	if err != nil {
		return "", 0, err
	}
	defer c.Close(ctx)
	// The record of this statement is the one recovery stops before.
	const position = "SELECT pg_logical_emit_message(false, 'bench', '')::text, count(*) FROM pgbench_history"
	if err := c.QueryRow(ctx, position).Scan(&lsn, &all); err != nil {
		return "", 0, err
	}
	_, err = c.Exec(ctx, "CREATE TABLE IF NOT EXISTS bench_after (); DROP TABLE bench_after") // so that there is WAL behind it
	return lsn, all, err
}

// holdsAll checks that a restored database has what it should.
func holdsAll(want int64) func(context.Context, *pgx.Conn) error {
	return func(ctx context.Context, c *pgx.Conn) error {
		var got int64
		if err := c.QueryRow(ctx, "SELECT count(*) FROM pgbench_history").Scan(&got); err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("the restored database has %d transactions, want %d", got, want)
		}
		return nil
	}
}

func (r *restore) peers(ctx context.Context, n int) (ms float64, err error) {
	if r.native == nil {
		keep := map[string]string{"wal_keep_size": "8GB"}
		if r.native, err = openNativeSide(ctx, filepath.Join(r.bench.dir, "restore-native"), keep); err != nil {
			return 0, err
		}
		r.bench.closers = append(r.bench.closers, r.native.close)
		if err := r.bench.fill(ctx, r.native); err != nil {
			return 0, err
		}
	}
	s := r.native
	base, restored := filepath.Join(r.bench.dir, "base"), filepath.Join(r.bench.dir, "restored")
	defer func() { err = errors.Join(err, os.RemoveAll(base), os.RemoveAll(restored)) }()
	if err := s.backup(ctx, base); err != nil {
		return 0, err
	}
	target, want, err := r.work(ctx, s, n)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if out, err := exec.CommandContext(ctx, "cp", "-a", "--reflink=auto", base, restored).CombinedOutput(); err != nil {
		return 0, fmt.Errorf("cp: %w: %s", err, out)
	}
	if err := s.writeOwned(filepath.Join(restored, "recovery.signal"), ""); err != nil {
		return 0, err
	}
	settings := map[string]string{
		"restore_command":        "cp " + filepath.Join(s.cfg.DataDir, "pg_wal") + "/%f %p",
		"recovery_target_lsn":    target,
		"recovery_target_action": "promote",
		"hot_standby":            "off", // an answer is one of the restored database
	}
	check := holdsAll(want)
	err = s.serveCopy(ctx, restored, settings, func(ctx context.Context, c *pgx.Conn) error {
		ms = time.Since(began).Seconds() * 1000
		return check(ctx, c)
	})
	return ms, err
}
