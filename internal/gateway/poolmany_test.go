package gateway_test

import (
	"context"
	"errors"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/gateway"
)

// another is a second gateway before the same Postgres.
func (s *site) another(t *testing.T, change func(*gateway.Config)) *site {
	tw := &town{endpoints: []tarn.Endpoint{endpoint("shop")}}
	tw.wake = awake(s.status)
	return &site{gate: open(t, tw, change), admin: s.admin, kill: s.kill, status: s.status}
}

// awake answers with a compute that runs.
func awake(st tarn.ComputeStatus) func(context.Context, tarn.EndpointName) (tarn.ComputeStatus, error) {
	return func(context.Context, tarn.EndpointName) (tarn.ComputeStatus, error) { return st, nil }
}

// testPoolLimits: who finds no connection waits, then fails alone.
func testPoolLimits(t *testing.T, s *site) {
	s = s.another(t, func(c *gateway.Config) { c.Pool = gateway.Pool{Servers: 3, PerRole: 2, Queue: 400 * time.Millisecond} })
	a, b, c := s.app(t), s.app(t), s.app(t)
	run(t, a, "BEGIN")
	run(t, b, "BEGIN")
	_, err := c.PgConn().Exec(t.Context(), "SELECT 1").ReadAll() // simple protocol
	if e := wantCode(t, err, "53300"); e.Severity != "ERROR" || !strings.Contains(e.Hint, "--pool-size") {
		t.Errorf("%+v", e)
	}
	_, err = c.Exec(t.Context(), "SELECT $1::int", 1) // extended protocol
	wantCode(t, err, "53300")
	// Another role has a share of its own, though not more than is left.
	bob, bob2 := s.pooled(t, "bob", "of bob"), s.pooled(t, "bob", "of bob")
	run(t, bob, "BEGIN")
	_, err = bob2.Exec(t.Context(), "SELECT 1")
	wantCode(t, err, "53300")
	run(t, bob, "COMMIT")
	if n := one[int](t, bob2, "SELECT 2"); n != 2 {
		t.Error(n)
	}
	run(t, a, "COMMIT")
	if n := one[int](t, c, "SELECT 3"); n != 3 {
		t.Error(n)
	}
	run(t, b, "COMMIT")
	// A place that idles for one role is given to another that needs it.
	heir := s.pooled(t, "heir", "of heir")
	if n := one[int](t, heir, "SELECT 4"); n != 4 {
		t.Error(n)
	}
	// Postgres's own limit of a role comes through.
	_, err = pgx.ConnectConfig(t.Context(), s.pooledConfig(t, "single", "of single"))
	wantCode(t, err, "53300")
}

// testPoolMany: many clients on few connections. TARN_POOL_CLIENTS is how
// many; each needs two files here.
func testPoolMany(t *testing.T, s *site) {
	clients := 300
	if v := os.Getenv("TARN_POOL_CLIENTS"); v != "" {
		clients, _ = strconv.Atoi(v)
	}
	const servers = 20
	s = s.another(t, func(c *gateway.Config) { c.Pool.Servers = servers; c.MaxClients = clients + 10 })
	var memory runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&memory)
	before := memory.HeapInuse + memory.StackInuse
	conns := make([]*pgx.Conn, clients)
	var g errgroup.Group
	g.SetLimit(16)
	cfg := s.pooledConfig(t, "bob", "of bob")
	for i := range conns {
		g.Go(func() (err error) {
			conns[i], err = pgx.ConnectConfig(t.Context(), cfg.Copy())
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		for _, c := range conns {
			c.Close(context.Background())
		}
	}()
	runtime.GC()
	runtime.ReadMemStats(&memory)
	t.Logf("%d clients: %d bytes each, of gateway and client together", clients, int64(memory.HeapInuse+memory.StackInuse-before)/int64(clients))
	var seen sync.Map
	g = errgroup.Group{}
	for _, c := range conns {
		g.Go(func() error {
			for range 2 {
				var pid int
				if err := c.QueryRow(t.Context(), sqlBackend).Scan(&pid); err != nil {
					return err
				}
				seen.Store(pid, true)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	n := 0
	seen.Range(func(any, any) bool { n++; return true })
	if n > servers {
		t.Errorf("%d clients were served by %d connections, want at most %d", clients, n, servers)
	}
}

// testPoolAsleep: clients outlive their compute, and wait for it to wake.
func testPoolAsleep(t *testing.T, s *site) {
	s = s.another(t, nil)
	a := s.app(t, "application_name=sleeper")
	if _, err := a.Prepare(t.Context(), "kept", "SELECT current_setting('application_name') || current_setting('work_mem')"); err != nil {
		t.Fatal(err)
	}
	run(t, a, "SET work_mem = '5MB'")
	gone := make(chan struct{})
	s.town.set(func() {
		s.town.wake = func(ctx context.Context, _ tarn.EndpointName) (tarn.ComputeStatus, error) {
			select {
			case <-gone:
				return s.status, nil
			case <-ctx.Done():
				return tarn.ComputeStatus{}, context.Cause(ctx)
			}
		}
	})
	// Suspended: Postgres ends its sessions.
	run(t, s.admin, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
	until(t, "no session of app is left", func() bool {
		return s.metrics(t)["pool_servers{}"] == 0
	})
	woken := s.town.woken()
	answer := make(chan string, 1)
	go func() {
		var v string
		if err := a.QueryRow(context.Background(), "kept").Scan(&v); err != nil {
			v = err.Error()
		}
		answer <- v
	}()
	until(t, "the client's statement wakes the compute", func() bool {
		select {
		case v := <-answer:
			t.Fatalf("answered %q before", v)
		default:
		}
		return s.town.woken() > woken
	})
	select {
	case v := <-answer:
		t.Fatalf("answered %q by a compute that sleeps", v)
	default:
	}
	close(gone)
	if v := <-answer; v != "sleeper5MB" {
		t.Errorf("after waking: %q", v)
	}
	// A compute that ends in the middle of a transaction ends the session with
	// what Postgres said.
	run(t, a, "BEGIN")
	one[int](t, a, sqlBackend)
	run(t, s.admin, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
	_, err := a.Exec(t.Context(), "SELECT 1")
	wantCode(t, err, "57P01")
}

// testPoolDrain: at the end of the gateway idle clients go at once, a
// transaction has its time.
func testPoolDrain(t *testing.T, s *site) {
	s = s.another(t, func(c *gateway.Config) { c.Drain = 10 * time.Second })
	idle, busy := s.app(t), s.app(t)
	one[int](t, idle, "SELECT 1")
	run(t, busy, "BEGIN")
	stopped := make(chan struct{})
	go func() { defer close(stopped); s.stop() }()
	until(t, "the idle client was told", func() bool {
		_, err := idle.Exec(context.Background(), "SELECT 1")
		var e *pgconn.PgError // pgx may have read it before, and says only that it is closed
		if errors.As(err, &e) && e.Code != "57P01" {
			t.Error(err)
		}
		return err != nil
	})
	if n := one[int](t, busy, "SELECT 5"); n != 5 {
		t.Error(n)
	}
	run(t, busy, "COMMIT")
	<-stopped
	if _, err := busy.Exec(context.Background(), "SELECT 1"); err == nil {
		t.Error("the session goes on without a gateway")
	}
}
