// Command storage measures Postgres on Tarn's page store against the same
// Postgres on the file system the store itself lives on, at its stock settings
// (full_page_writes=on), with the same shared_buffers. It alternates the two in
// one run and prints ratios.
//
//	go run ./bench/storage [-json] [-case REGEX] [-seconds N] [-rounds N]
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn/bench/report"
	"github.com/tarndb/tarn/internal/compute"
)

const (
	scale         = 20 // of pgbench: 2 million accounts, about 300 MB
	clients       = 8
	sharedBuffers = "256MB"
	copyRows      = 400_000 // of about 500 bytes: 200 MB
	database      = "bench"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	work := run
	if into := os.Getenv(copyVariable); into != "" {
		work = func(ctx context.Context) error { return copyClient(ctx, into) }
	}
	if err := work(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench storage:", err)
		os.Exit(1)
	}
}

// side is one of the two databases under measurement.
type side interface {
	// socket gives the directory and port of the unix socket.
	socket() (dir string, port int)
	// restart stops Postgres cleanly and starts it again, with nothing of its
	// files in any cache where the machine allows that.
	restart(ctx context.Context) error
	close(ctx context.Context) error
}

func run(ctx context.Context) (err error) {
	o, err := report.ParseFlags()
	if err != nil {
		return err
	}
	pgbench, err := findPgbench()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(benchDir(), "tarn-bench-storage-")
	if err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := &bench{pgbench: pgbench, seconds: o.Seconds, dir: dir}
	// The cleanup must run although the benchmark was interrupted.
	defer func() { err = errors.Join(err, b.close(context.WithoutCancel(ctx))) }()
	cases := b.steadyCases()
	cases = append(cases, b.metadataCases()...)
	cases = append(cases, b.branchCases()...)
	cases = append(cases, b.restoreCases()...)
	cases = append(cases, b.hydrateCases()...)
	return report.Run(ctx, "storage", o, cases)
}

const ext4 = "ext4 fpw=on"

// steadyCases compare two databases that run.
func (b *bench) steadyCases() []report.Case {
	pair := func(name, unit string, d report.Direction, f func(context.Context, side) (float64, error)) report.Case {
		return report.Case{Name: name, Unit: unit, PeerName: ext4, Direction: d,
			Ours: func(ctx context.Context) (float64, error) {
				s, err := b.sides(ctx)
				if err != nil {
					return 0, err
				}
				return f(ctx, s.store)
			},
			Peer: func(ctx context.Context) (float64, error) {
				s, err := b.sides(ctx)
				if err != nil {
					return 0, err
				}
				return f(ctx, s.native)
			}}
	}
	return []report.Case{
		pair("tpcb-prepared", "tps", report.MoreIsBetter, func(ctx context.Context, s side) (float64, error) {
			return b.tps(ctx, s, "-M", "prepared")
		}),
		pair("tpcb-simple", "tps", report.MoreIsBetter, func(ctx context.Context, s side) (float64, error) {
			return b.tps(ctx, s, "-M", "simple")
		}),
		pair("tpcb-disk-limited", "tps", report.MoreIsBetter, b.limitedTPS),
		pair("select-only", "tps", report.MoreIsBetter, func(ctx context.Context, s side) (float64, error) {
			return b.tps(ctx, s, "-S", "-M", "prepared")
		}),
		pair("copy", "MB/s", report.MoreIsBetter, b.copy),
		pair("cold-scan", "MB/s", report.MoreIsBetter, b.coldScan),
		pair("wal-per-tx", "bytes", report.LessIsBetter, b.walPerTx),
	}
}

// benchDir is where both sides keep their files: a real disk that an
// unprivileged user can reach, not a temporary file system in memory.
func benchDir() string {
	if d := os.Getenv("TARN_BENCH_DIR"); d != "" {
		return d
	}
	return "/var/tmp"
}

func findPgbench() (string, error) {
	if p, err := exec.LookPath("pgbench"); err == nil {
		return p, nil
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/pgbench")
	if len(found) == 0 {
		return "", fmt.Errorf("pgbench is not installed: make setup (Debian package postgresql-contrib)")
	}
	return found[len(found)-1], nil
}

type bench struct {
	pgbench string
	seconds int
	dir     string
	pair    *pair // nil until a case needs it
	closers []func(context.Context) error
}

// pair is the two databases that most cases compare.
type pair struct {
	store  *storeSide
	native *nativeSide
}

// sides starts and fills both databases when the first case needs them.
func (b *bench) sides(ctx context.Context) (*pair, error) {
	if b.pair != nil {
		return b.pair, nil
	}
	store, err := openStoreSide(ctx, filepath.Join(b.dir, "store"), compute.Options{})
	if err != nil {
		return nil, fmt.Errorf("open Postgres on the page store: %w", err)
	}
	b.closers = append(b.closers, store.close)
	native, err := openNativeSide(ctx, filepath.Join(b.dir, "native"), nil)
	if err != nil {
		return nil, fmt.Errorf("open Postgres on the file system: %w", err)
	}
	b.closers = append(b.closers, native.close)
	fmt.Fprintln(os.Stderr, "filling the page store")
	if err := b.fill(ctx, store); err != nil {
		return nil, fmt.Errorf("fill the page store: %w", err)
	}
	fmt.Fprintln(os.Stderr, "filling the file system")
	if err := b.fill(ctx, native); err != nil {
		return nil, fmt.Errorf("fill the file system: %w", err)
	}
	b.pair = &pair{store, native}
	return b.pair, nil
}

// close ends what cases started, the last first.
func (b *bench) close(ctx context.Context) error {
	var errs []error
	for _, f := range slices.Backward(b.closers) {
		errs = append(errs, f(ctx))
	}
	return errors.Join(errs...)
}

func connect(ctx context.Context, s side, db string) (*pgx.Conn, error) {
	return pgx.Connect(ctx, address(s, db))
}

func address(s side, db string) string {
	dir, port := s.socket()
	return fmt.Sprintf("host=%s port=%d user=%s dbname=%s", dir, port, superuser, db)
}

func (b *bench) fill(ctx context.Context, s side) error {
	c, err := connect(ctx, s, "postgres")
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	if _, err := c.Exec(ctx, "CREATE DATABASE "+database); err != nil {
		return err
	}
	if _, err := b.runPgbench(ctx, s, "-i", "-q", "-s", strconv.Itoa(scale)); err != nil {
		return err
	}
	d, err := connect(ctx, s, database)
	if err != nil {
		return err
	}
	defer d.Close(ctx)
	for _, q := range []string{
		"CREATE TABLE scanned AS SELECT i AS id, repeat(md5(i::text), 15) AS body FROM generate_series(1, 400000) i",
		"VACUUM (FREEZE, ANALYZE) scanned",
		"CHECKPOINT",
	} {
		if _, err := d.Exec(ctx, q); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) runPgbench(ctx context.Context, s side, args ...string) (string, error) {
	dir, port := s.socket()
	args = append([]string{"-h", dir, "-p", strconv.Itoa(port), "-U", superuser}, append(args, database)...)
	out, err := exec.CommandContext(ctx, b.pgbench, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("pgbench %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

var tpsLine = regexp.MustCompile(`tps = ([0-9.]+) \(without initial connection time\)`)

func (b *bench) tps(ctx context.Context, s side, args ...string) (float64, error) {
	if err := checkpoint(ctx, s); err != nil {
		return 0, err
	}
	out, err := b.runPgbench(ctx, s, append(args, "-n", "-c", strconv.Itoa(clients), "-j", "2", "-T", strconv.Itoa(b.seconds))...)
	if err != nil {
		return 0, err
	}
	m := tpsLine.FindStringSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("pgbench printed no tps:\n%s", out)
	}
	return strconv.ParseFloat(m[1], 64)
}

func checkpoint(ctx context.Context, s side) error {
	c, err := connect(ctx, s, database)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	_, err = c.Exec(ctx, "CHECKPOINT")
	return err
}

// coldScan reads a table of 200 MB once after a restart with cold caches.
func (b *bench) coldScan(ctx context.Context, s side) (float64, error) {
	if err := s.restart(ctx); err != nil {
		return 0, err
	}
	return b.scan(ctx, s)
}

// scan reads that table once.
func (b *bench) scan(ctx context.Context, s side) (float64, error) {
	c, err := connect(ctx, s, database)
	if err != nil {
		return 0, err
	}
	defer c.Close(ctx)
	var bytes, sum int64
	if err := c.QueryRow(ctx, "SELECT pg_relation_size('scanned')").Scan(&bytes); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := c.QueryRow(ctx, "SELECT sum(length(body)) FROM scanned").Scan(&sum); err != nil {
		return 0, err
	}
	took := time.Since(began)
	if sum != 400_000*480 {
		return 0, fmt.Errorf("scan summed %d, want %d", sum, 400_000*480)
	}
	return float64(bytes) / 1e6 / took.Seconds(), nil
}

// walPerTx counts the WAL of TPC-B transactions from a checkpoint on.
func (b *bench) walPerTx(ctx context.Context, s side) (float64, error) {
	c, err := connect(ctx, s, database)
	if err != nil {
		return 0, err
	}
	defer c.Close(ctx)
	if _, err := c.Exec(ctx, "CHECKPOINT"); err != nil {
		return 0, err
	}
	const position = "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn, (SELECT count(*) FROM pgbench_history)"
	var wal0, wal1 float64
	var tx0, tx1 int64
	if err := c.QueryRow(ctx, position).Scan(&wal0, &tx0); err != nil {
		return 0, err
	}
	if _, err := b.runPgbench(ctx, s, "-M", "prepared", "-n", "-c", strconv.Itoa(clients), "-j", "2", "-T", strconv.Itoa(b.seconds)); err != nil {
		return 0, err
	}
	if err := c.QueryRow(ctx, position).Scan(&wal1, &tx1); err != nil {
		return 0, err
	}
	if tx1 == tx0 {
		return 0, fmt.Errorf("no transaction was run")
	}
	return (wal1 - wal0) / float64(tx1-tx0), nil
}
