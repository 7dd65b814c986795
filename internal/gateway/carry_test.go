package gateway_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"golang.org/x/sync/errgroup"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/postgres"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
)

// house is a compute that comes and goes: a wake starts it.
type house struct {
	*gate
	t      *testing.T
	config postgres.Config

	mu     sync.Mutex
	server *postgres.Server // nil while it sleeps
	status tarn.ComputeStatus
	starts int
}

func (h *house) wake(ctx context.Context, _ tarn.EndpointName) (tarn.ComputeStatus, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.server == nil {
		s, err := postgres.Start(ctx, h.config)
		if err != nil {
			return tarn.ComputeStatus{}, tarn.Unavailable("%w", err)
		}
		h.server = s
		h.starts++
		h.status = tarn.ComputeStatus{SocketDir: h.config.SocketDir, Port: h.config.Port, State: tarn.ComputeActive, StartTime: time.Now()}
	}
	return h.status, nil
}

// stop ends the compute as a suspend does, or with nothing as a crash of it all.
func (h *house) sleep(how func(*postgres.Server) error) {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := how(h.server); err != nil {
		h.t.Fatal(err)
	}
	h.server = nil
}

func (h *house) fast(s *postgres.Server) error { return s.Stop(h.t.Context(), postgres.Fast) }
func (h *house) crash(s *postgres.Server) error {
	s.Kill()
	return nil
}

func (h *house) connect(t *testing.T, more ...string) *pgx.Conn {
	t.Helper()
	return (&site{gate: h.gate}).connect(t, "app", "sécret of app", more...)
}

// admin connects past the gateway.
func (h *house) admin(t *testing.T) *pgx.Conn {
	t.Helper()
	if _, err := h.wake(t.Context(), tarn.EndpointName{}); err != nil {
		t.Fatal(err)
	}
	c, err := pgx.Connect(t.Context(), pgtest.ConnString(h.config, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

const sqlAsked = `SELECT count(*) FROM pg_stat_activity WHERE state = 'idle' AND starts_with(query, '/* tarn: what this session must')`

// known waits until the gateway has asked so many sessions what state they have.
func (h *house) known(t *testing.T, sessions int) {
	t.Helper()
	admin := h.admin(t)
	until(t, "the gateway asked the idle sessions", func() bool { return one[int](t, admin, sqlAsked) == sessions })
	admin.Close(t.Context())
}

// asked has the gateway ask the idle sessions now.
func (h *house) asked(t *testing.T, sessions int) {
	t.Helper()
	h.Hold(t.Context(), "ep-shop")()
	h.known(t, sessions)
}

func (h *house) parked() int {
	n := 0
	for _, x := range h.Sessions() {
		if x.Parked {
			n++
		}
	}
	return n
}

// TestCarried: sessions whose compute goes away go on with the next one.
func TestCarried(t *testing.T) {
	for _, in := range pgtest.Installs(t) {
		t.Run(strconv.Itoa(in.Major), func(t *testing.T) {
			t.Parallel()
			h := &house{t: t, config: pgtest.Config(t, in, pgtest.Options{Throwaway: true})}
			if err := postgres.InitDB(t.Context(), in, postgres.InitOptions{DataDir: h.config.DataDir, RunAs: h.config.RunAs, NoSync: true}); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if h.server != nil {
					h.server.Kill()
				}
			})
			admin := h.admin(t)
			makeRoles(t, pgtest.ConnString(h.config, "postgres"))
			run(t, admin, `CREATE ROLE reader; GRANT reader TO app`)
			admin.Close(t.Context())
			for name, f := range map[string]func(*testing.T, *house){
				"state": testCarriedState, "refused": testNotCarried, "ordered": testTerminated, "held": testHeld, "endings": testCarriedEndings,
			} {
				t.Run(name, func(t *testing.T) {
					tw := &town{endpoints: []tarn.Endpoint{endpoint("shop")}, wake: h.wake}
					one := &house{t: t, config: h.config, server: h.server, status: h.status}
					tw.wake = one.wake
					one.gate = open(t, tw, nil)
					f(t, one)
					one.gate.stop()
					h.server, h.status = one.server, one.status
				})
			}
		})
	}
}

// testCarriedState: settings, role and prepared statements are as they were,
// after a suspend and after a crash.
func testCarriedState(t *testing.T, h *house) {
	for name, how := range map[string]func(*postgres.Server) error{"suspended": h.fast, "killed": h.crash} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			c := h.connect(t, "application_name=first", "options='-c geqo=off'")
			run(t, c, `SET work_mem = '3MB'; SET search_path = "we, ird", public; SET TimeZone = 'Asia/Tokyo'; SET application_name = 'second'`)
			run(t, c, `SET app.tenant TO 'it''s "seven"'`)
			run(t, c, `/* as drivers do */ SELECT set_config('app.other', 'eight', false)`)
			run(t, c, `PREPARE gone AS SELECT 1; DEALLOCATE gone; CREATE TEMP TABLE gone (); DROP TABLE gone`)
			run(t, c, `SET ROLE reader`)
			for i := range 3 {
				if _, err := c.PgConn().Prepare(ctx, fmt.Sprintf("q%d", i), fmt.Sprintf("SELECT $1::int + %d /* q */", i), nil); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := c.PgConn().Prepare(ctx, "", "SELECT 'the unnamed one'", nil); err != nil {
				t.Fatal(err)
			}
			if name == "killed" {
				h.asked(t, 1)
			} else {
				h.known(t, 1) // by itself, after a second or two of silence
			}
			starts := h.starts
			h.sleep(how)
			until(t, "the session is parked", func() bool { return h.parked() == 1 })
			if r := c.PgConn().ExecPrepared(ctx, "", nil, nil, nil).Read(); r.Err != nil || string(r.Rows[0][0]) != "the unnamed one" {
				t.Fatalf("the unnamed statement: %+v", r)
			}
			if h.starts != starts+1 || h.parked() != 0 {
				t.Errorf("%d starts, %d parked", h.starts-starts, h.parked())
			}
			for i := range 3 {
				r := c.PgConn().ExecPrepared(ctx, fmt.Sprintf("q%d", i), [][]byte{[]byte("10")}, nil, nil).Read()
				if r.Err != nil || string(r.Rows[0][0]) != strconv.Itoa(10+i) {
					t.Errorf("q%d: %+v", i, r)
				}
			}
			const sqlState = `SELECT concat_ws('|', current_setting('work_mem'), current_setting('search_path'), current_setting('TimeZone'), current_setting('application_name'),
				current_setting('geqo'), current_setting('app.tenant'), current_setting('app.other'), current_user, session_user)`
			r, err := c.PgConn().Exec(ctx, sqlState).ReadAll()
			if err != nil {
				t.Fatal(err)
			}
			const want = `3MB|"we, ird", public|Asia/Tokyo|second|off|it's "seven"|eight|reader|app`
			if got := string(r[0].Rows[0][0]); got != want {
				t.Errorf("state %s, want %s", got, want)
			}
			if z, n := c.PgConn().ParameterStatus("TimeZone"), c.PgConn().ParameterStatus("application_name"); z != "Asia/Tokyo" || n != "second" {
				t.Errorf("reported: TimeZone %s, application_name %s", z, n)
			}
			run(t, c, `RESET work_mem; RESET ROLE`)
			if v := one[string](t, c, `SHOW work_mem`); v != "4MB" {
				t.Errorf("work_mem after RESET: %s", v)
			}
			// The key it was given at its login still cancels.
			done := make(chan error, 1)
			go func() {
				_, err := c.Exec(context.WithoutCancel(ctx), "SELECT pg_sleep(100)")
				done <- err
			}()
			admin := h.admin(t)
			until(t, "it sleeps", func() bool {
				return one[int](t, admin, `SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'`) == 1
			})
			if err := c.PgConn().CancelRequest(ctx); err != nil && !strings.Contains(err.Error(), "EOF") {
				t.Error(err)
			}
			wantCode(t, <-done, "57014")
		})
	}
}

// testNotCarried: a session with state that cannot be made anew, or that works,
// ends with the code of a shutdown.
func testNotCarried(t *testing.T, h *house) {
	lost := map[string]*pgx.Conn{}
	for _, sql := range []string{
		`CREATE TEMP TABLE mine ()`, `CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'`, `SELECT pg_advisory_lock(7)`, `LISTEN news`,
		`BEGIN; DECLARE held CURSOR WITH HOLD FOR SELECT 1; COMMIT`, `PREPARE mine AS SELECT 1`, `BEGIN`, `DO $$ BEGIN SET app.tenant = 7; END $$`,
		`SELECT set_config('app.' || 'tenant', 'x', false)`,
	} {
		c := h.connect(t)
		if _, err := c.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		lost[sql] = c
	}
	spoke := h.connect(t)
	h.known(t, len(lost)-3+1) // in a transaction, and what only the text tells, it does not ask
	wait := spoke.PgConn().Frontend()
	wait.SendParse(&pgproto3.Parse{Query: "SELECT 2"})
	if err := wait.Flush(); err != nil { // in the middle of a pipeline
		t.Fatal(err)
	}
	lost["a pipeline that has not ended"] = spoke
	until(t, "it is seen", func() bool {
		for _, x := range h.Sessions() {
			if x.Busy && x.Statements == 0 {
				return true
			}
		}
		return false
	})
	h.sleep(h.fast)
	for sql, c := range lost {
		_, err := c.PgConn().Exec(t.Context(), "SELECT 1").ReadAll()
		if wantCode(t, err, "57P01"); t.Failed() {
			t.Fatal(sql)
		}
	}
}

// testTerminated: who is sent away by name is not carried over.
func testTerminated(t *testing.T, h *house) {
	c := h.connect(t)
	run(t, c, "SET work_mem = '3MB'")
	h.asked(t, 1)
	admin := h.admin(t)
	run(t, admin, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'`)
	_, err := c.PgConn().Exec(t.Context(), "SELECT 1").ReadAll()
	if e := wantCode(t, err, "57P01"); !strings.Contains(e.Message, "administrator") {
		t.Errorf("%+v", e)
	}
	// A prepared statement whose table is gone cannot be made anew.
	c = h.connect(t)
	run(t, c, `CREATE TABLE brief ()`)
	if _, err := c.PgConn().Prepare(t.Context(), "q", "SELECT count(*) FROM brief", nil); err != nil {
		t.Fatal(err)
	}
	h.asked(t, 1)
	h.sleep(h.fast)
	run(t, h.admin(t), `DROP TABLE brief`)
	_, err = c.PgConn().ExecPrepared(t.Context(), "q", nil, nil, nil).Close()
	if e := wantCode(t, err, "57P01"); !strings.Contains(e.Message, "brief") {
		t.Errorf("%+v", e)
	}
}

// testHeld: clients that work all the time lose nothing over a stop that was
// announced.
func testHeld(t *testing.T, h *house) {
	const clients = 4
	var g errgroup.Group
	stop := make(chan struct{})
	rounds := make(chan struct{}, 1000)
	for range clients {
		c := h.connect(t)
		g.Go(func() error {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return nil
				default:
				}
				var got int
				if err := c.QueryRow(t.Context(), "SELECT $1::int + 1", n).Scan(&got); err != nil || got != n+1 {
					return fmt.Errorf("statement %d: %d, %w", n, got, err)
				}
				select {
				case rounds <- struct{}{}:
				default:
				}
			}
		})
	}
	for i := range 3 {
		for range 20 * clients {
			<-rounds
		}
		release := h.Hold(t.Context(), "ep-shop")
		h.sleep(h.fast)
		until(t, "all are parked", func() bool { return h.parked() == clients })
		release()
		until(t, "they go on", func() bool { return h.parked() == 0 })
		if h.starts != i+1 {
			t.Errorf("%d starts after %d stops", h.starts, i+1)
		}
		for len(rounds) > 0 {
			<-rounds
		}
	}
	close(stop)
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

// testCarriedEndings: parked sessions end with their clients, with the gateway,
// and with a compute that does not come.
func testCarriedEndings(t *testing.T, h *house) {
	leaves, lost, idle, fails := h.connect(t), h.connect(t), h.connect(t), h.connect(t)
	h.asked(t, 4)
	h.sleep(h.fast)
	until(t, "all are parked", func() bool { return h.parked() == 4 })
	starts := h.starts
	leaves.Close(t.Context())
	lost.PgConn().Conn().Close()
	until(t, "two have left", func() bool { return len(h.Sessions()) == 2 })
	if h.starts != starts {
		t.Error("taking leave woke the compute")
	}
	h.town.set(func() {
		h.town.wake = func(context.Context, tarn.EndpointName) (tarn.ComputeStatus, error) {
			return tarn.ComputeStatus{}, tarn.Unavailable("no room")
		}
	})
	_, err := fails.PgConn().Exec(t.Context(), "SELECT 1").ReadAll()
	wantCode(t, err, "57P01")
	h.gate.stop()
	_, err = idle.PgConn().Exec(t.Context(), "SELECT 1").ReadAll()
	if e := wantCode(t, err, "57P01"); !strings.Contains(e.Message, "gateway") {
		t.Errorf("%+v", e)
	}
}
