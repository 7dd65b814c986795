package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/bench/report"
	"github.com/tarndb/tarn/internal/blob/s3"
	"github.com/tarndb/tarn/internal/compute"
	"github.com/tarndb/tarn/internal/pagestore"
	"github.com/tarndb/tarn/internal/wal"
)

// hydrateCases compare a branch of which a node has nothing but the bucket, on an
// S3 server of its own on loopback, with one whose files are there and in no
// cache: how long to the first answer from the wish for it, how fast a table is
// read for the first time, and TPC-B when all that is needed has come.
func (b *bench) hydrateCases() []report.Case {
	h := &hydrate{bench: b}
	pair := func(name, unit string, d report.Direction, f func(context.Context, *storeSide, time.Duration) (float64, error)) report.Case {
		return report.Case{Name: name, Unit: unit, PeerName: "local, cold", Direction: d,
			Ours: func(ctx context.Context) (float64, error) { return h.ours(ctx, f) },
			Peer: func(ctx context.Context) (float64, error) { return h.peers(ctx, f) }}
	}
	return []report.Case{
		pair("hydrate-first-query", "ms", report.LessIsBetter, func(_ context.Context, _ *storeSide, took time.Duration) (float64, error) {
			return took.Seconds() * 1000, nil
		}),
		pair("hydrate-scan", "MB/s", report.MoreIsBetter, func(ctx context.Context, s *storeSide, _ time.Duration) (float64, error) {
			return b.scan(ctx, s)
		}),
		pair("hydrate-steady", "tps", report.MoreIsBetter, func(ctx context.Context, s *storeSide, _ time.Duration) (float64, error) {
			if err := readAccounts(ctx, s); err != nil {
				return 0, err
			}
			return b.tps(ctx, s, "-M", "prepared")
		}),
	}
}

// readAccounts reads what TPC-B needs, so that it is there.
func readAccounts(ctx context.Context, s side) error {
	c, err := connect(ctx, s, database)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	_, err = c.Exec(ctx, "SELECT sum(abalance) FROM pgbench_accounts; SET enable_seqscan = off; SELECT count(aid) FROM pgbench_accounts")
	return err
}

// hydrate has a bucket with a filled branch in it.
type hydrate struct {
	bench  *bench
	remote compute.Remote
	spec   tarn.ComputeSpec
	rounds int
}

const hydrateNode = "00000000000000000000000000bec400"

// ours wakes the branch on a node with an empty directory.
func (h *hydrate) ours(ctx context.Context, f func(context.Context, *storeSide, time.Duration) (float64, error)) (v float64, err error) {
	if h.remote.Store == nil {
		if err := h.prepare(ctx); err != nil {
			return 0, fmt.Errorf("fill the bucket: %w", err)
		}
	}
	h.rounds++
	dir := filepath.Join(h.bench.dir, fmt.Sprintf("hydrated-%d", h.rounds))
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s, err := openFleetSide(ctx, dir, compute.Options{Remote: h.remote})
	if err != nil {
		return 0, err
	}
	defer func() {
		// What it wrote is in the bucket before the next one begins.
		err = errors.Join(err, s.fleet.Suspend(context.WithoutCancel(ctx), s.spec.Endpoint), s.close(ctx), h.upload(ctx, dir))
	}()
	if err := dropCaches(); err != nil {
		return 0, err
	}
	s.spec = h.spec
	return wakeAndAsk(ctx, s, f)
}

// peers wakes the local branch of the other cases.
func (h *hydrate) peers(ctx context.Context, f func(context.Context, *storeSide, time.Duration) (float64, error)) (float64, error) {
	p, err := h.bench.sides(ctx)
	if err != nil {
		return 0, err
	}
	if err := p.store.fleet.Suspend(ctx, p.store.spec.Endpoint); err != nil {
		return 0, err
	}
	if err := dropCaches(); err != nil {
		return 0, err
	}
	return wakeAndAsk(ctx, p.store, f)
}

// wakeAndAsk measures from the wish for a compute to its first answer.
func wakeAndAsk(ctx context.Context, s *storeSide, f func(context.Context, *storeSide, time.Duration) (float64, error)) (float64, error) {
	began := time.Now()
	var took time.Duration
	var err error
	if s.status, err = s.fleet.Wake(ctx, s.spec); err != nil {
		return 0, err
	}
	if err := firstQuery(ctx, s.status.SocketDir, s.status.Port, func() { took = time.Since(began) }, nil); err != nil {
		return 0, err
	}
	return f(ctx, s, took)
}

// prepare starts the S3 server and fills a branch, all of which is in the bucket
// afterwards.
func (h *hydrate) prepare(ctx context.Context) error {
	endpoint, err := h.bench.startS3(ctx)
	if err != nil {
		return err
	}
	store, err := s3.Open(ctx, s3.Options{Bucket: s3Bucket, Prefix: "bench", Endpoint: endpoint, Region: s3Region, AccessKey: s3Key, SecretKey: s3Secret})
	if err != nil {
		return err
	}
	h.bench.closers = append(h.bench.closers, func(context.Context) error { return store.Close() })
	remote := compute.Remote{Store: store, Node: hydrateNode, SealEvery: time.Hour}
	if remote.WAL, err = wal.NewRemote(store, wal.RemoteOptions{}); err != nil {
		return err
	}
	dir := filepath.Join(h.bench.dir, "hydrate")
	s, err := openStoreSide(ctx, dir, compute.Options{Remote: remote})
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "filling the bucket")
	err = h.bench.fill(ctx, s)
	if err == nil {
		err = s.fleet.Suspend(ctx, s.spec.Endpoint)
	}
	if err == nil {
		err = copied(ctx, s)
	}
	if err = errors.Join(err, s.close(ctx)); err != nil {
		return err
	}
	h.remote, h.spec = remote, s.spec
	return errors.Join(h.upload(ctx, dir), os.RemoveAll(dir))
}

// copied waits until the object store has all WAL of a branch that sleeps.
func copied(ctx context.Context, s *storeSide) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		t, err := s.fleet.Timeline(ctx, s.spec.Timeline)
		if err != nil {
			return err
		}
		if t.Copy == nil || !t.Copy.Waiting {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// upload brings what a fleet left of its pages to the bucket.
func (h *hydrate) upload(ctx context.Context, dir string) error {
	ctx = context.WithoutCancel(ctx)
	s, err := pagestore.Open(ctx, filepath.Join(dir, "store"), pagestore.Options{Remote: pagestore.Remote{Store: h.remote.Store, Node: h.remote.Node}})
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- s.Run(running) }() // its heart beats
	err = s.Upload(ctx, h.spec.Timeline)
	stop()
	return errors.Join(err, <-ended, s.Close())
}

const (
	s3Bucket = "bench"
	s3Region = "us-east-1"
	s3Key    = "tarn"
	s3Secret = tarn.Secret("tarn-bench")
)

// startS3 starts an S3 server on loopback that keeps its objects beside the
// other files, and gives its address.
func (b *bench) startS3(ctx context.Context) (string, error) {
	program, err := filepath.Abs("build/bin/versitygw")
	if err == nil {
		_, err = os.Stat(program)
	}
	if err != nil {
		return "", report.Skipped("no build/bin/versitygw: run scripts/setup.sh test")
	}
	dir := filepath.Join(b.dir, "s3")
	if err := os.MkdirAll(filepath.Join(dir, s3Bucket), 0o700); err != nil {
		return "", err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	addr := l.Addr().(*net.TCPAddr)
	if err := l.Close(); err != nil { // the server takes the port
		return "", err
	}
	where := net.JoinHostPort("127.0.0.1", strconv.Itoa(addr.Port))
	cmd := exec.Command(program, "--port", where, "--region", s3Region, "--keep-alive", "--quiet", "posix", dir)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+s3Key, "ROOT_SECRET_KEY="+s3Secret.Reveal())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("start the S3 server: %w", err)
	}
	b.closers = append(b.closers, func(context.Context) error {
		if err := cmd.Process.Kill(); err != nil {
			slog.Warn("end the S3 server", "err", err)
		}
		cmd.Wait() //nolint:errcheck // it was killed
		return nil
	})
	dialer := &net.Dialer{Timeout: time.Second}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range 1500 { // half a minute
		if c, err := dialer.DialContext(ctx, "tcp", where); err == nil {
			return "http://" + where, c.Close()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
	return "", fmt.Errorf("the S3 server does not answer at %s", where)
}
