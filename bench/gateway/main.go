// Command gateway measures Tarn's gateway against Debian's pgbouncer before the
// same compute, both with TLS: processor time for each small query and
// transactions per second, directly (pgbouncer's session mode) and through the
// pooler (transaction mode), connections per second, memory of idle clients,
// and how long a client waits for a compute that sleeps. It alternates the two
// in one run and prints ratios.
//
//	go run ./bench/gateway [-json] [-case REGEX] [-seconds N] [-rounds N] [-wakes N]
//
// It needs build/tarn, pgbench and pgbouncer (Debian: apt-get install
// postgresql-contrib pgbouncer).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/tarndb/tarn/bench/report"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench gateway:", err)
		os.Exit(1)
	}
}

// Targets of a wake, milliseconds at the client.
const (
	wakeP50 = 100
	wakeP99 = 300
	thawP50 = 10
)

func run(ctx context.Context) (err error) {
	wakes := flag.Int("wakes", 200, "how often a stopped compute is woken for wake-p50 and wake-p99")
	o, err := report.ParseFlags()
	if err != nil {
		return err
	}
	s, err := open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	relay := func(url string, pid int, f func(load) float64, args ...string) func(context.Context) (float64, error) {
		return func(ctx context.Context) (float64, error) {
			l, err := s.pgbench(ctx, url, pid, o.Seconds, args...)
			return f(l), err
		}
	}
	cpu := func(l load) float64 { return l.cpu.Seconds() * 1e6 / l.transactions }
	tps := func(l load) float64 { return l.tps }
	query := []string{"-S", "-M", "prepared", "-c", "8", "-j", "2"}
	// Debian 12's pgbouncer (1.18) knows no prepared statements in transaction mode.
	unnamed := []string{"-S", "-M", "extended", "-c", "8", "-j", "2"}
	connect := []string{"-S", "-C", "-c", "4", "-j", "2"}
	target := func(ms float64) func(context.Context) (float64, error) {
		return func(context.Context) (float64, error) { return ms, nil }
	}
	bouncer := s.bouncer.Process.Pid
	return report.Run(ctx, "gateway", o, []report.Case{
		{Name: "session-relay-cpu", Unit: "µs/tx", PeerName: "pgbouncer session", Direction: report.LessIsBetter,
			Ours: relay(s.direct, s.control, cpu, query...), Peer: relay(s.peerSession, bouncer, cpu, query...)},
		{Name: "session-relay-tps", Unit: "tps", PeerName: "pgbouncer session",
			Ours: relay(s.direct, s.control, tps, query...), Peer: relay(s.peerSession, bouncer, tps, query...)},
		{Name: "pool-cpu", Unit: "µs/tx", PeerName: "pgbouncer transaction", Direction: report.LessIsBetter,
			Ours: relay(s.pooled, s.control, cpu, unnamed...), Peer: relay(s.peerPooled, bouncer, cpu, unnamed...)},
		{Name: "pool-tps", Unit: "tps", PeerName: "pgbouncer transaction",
			Ours: relay(s.pooled, s.control, tps, unnamed...), Peer: relay(s.peerPooled, bouncer, tps, unnamed...)},
		// The gateway takes no connection without TLS; pgbouncer's are plain here.
		{Name: "connect-rate", Unit: "connections/s", PeerName: "pgbouncer without TLS",
			Ours: relay(s.pooled, s.control, tps, connect...), Peer: relay(s.peerPlain, bouncer, tps, connect...)},
		{Name: "connect-rate-tls", Unit: "connections/s", PeerName: "pgbouncer",
			Ours: relay(s.pooled, s.control, tps, connect...), Peer: relay(s.peerPooled, bouncer, tps, connect...)},
		{Name: "idle-memory", Unit: "KB/client", PeerName: "pgbouncer", Direction: report.LessIsBetter,
			Ours: s.idle(s.pooled, s.control), Peer: s.idle(s.peerPooled, bouncer)},
		{Name: "wake-p50", Unit: "ms", PeerName: "target", Direction: report.LessIsBetter, Ours: s.wakes(0.5, *wakes), Peer: target(wakeP50)},
		{Name: "wake-p99", Unit: "ms", PeerName: "target", Direction: report.LessIsBetter, Ours: s.wakes(0.99, *wakes), Peer: target(wakeP99)},
		{Name: "thaw-p50", Unit: "ms", PeerName: "target", Direction: report.LessIsBetter, Ours: s.thaws, Peer: target(thawP50)},
	})
}
