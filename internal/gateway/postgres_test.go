package gateway_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
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
	"github.com/tarndb/tarn/internal/postgres/pgtest"
	"github.com/tarndb/tarn/internal/token"
)

const ada = "ada@example.com"

var sqlRoles = []string{
	`CREATE ROLE tarn_oauth NOLOGIN`,
	`CREATE ROLE "ada@example.com" LOGIN IN ROLE tarn_oauth`,
	`CREATE ROLE bob LOGIN PASSWORD 'of bob' IN ROLE tarn_oauth`,
	`CREATE ROLE app LOGIN PASSWORD 'sécret of app'`,
	`CREATE ROLE heir LOGIN PASSWORD 'of heir' IN ROLE "ada@example.com"`,
	`CREATE ROLE over LOGIN PASSWORD 'of over' VALID UNTIL '2020-01-01'`,
	`CREATE ROLE endless LOGIN PASSWORD 'of endless' VALID UNTIL 'infinity'`,
	`CREATE ROLE closed NOLOGIN PASSWORD 'of closed'`,
	`CREATE ROLE bare LOGIN`,
	`CREATE ROLE chief LOGIN SUPERUSER PASSWORD 'of chief'`,
	`CREATE ROLE chiefess LOGIN SUPERUSER PASSWORD 'of chiefess' IN ROLE tarn_oauth`,
	`CREATE ROLE single LOGIN PASSWORD 'of single' CONNECTION LIMIT 0`,
	`CREATE ROLE mover LOGIN REPLICATION PASSWORD 'of mover'`,
	`CREATE ROLE "` + strings.Repeat("l", 63) + `" LOGIN PASSWORD 'of long'`,
	`GRANT CREATE ON SCHEMA public TO app`,
	`SET password_encryption = 'md5'`,
	`CREATE ROLE old LOGIN PASSWORD 'of old'`,
	`RESET password_encryption`,
}

// site is a gateway before a real Postgres.
type site struct {
	*gate
	admin  *pgx.Conn // as tarn_admin, past the gateway
	kill   func()
	status tarn.ComputeStatus
}

// TestPostgres runs every case against every installed version, each with a
// gateway of its own.
func TestPostgres(t *testing.T) {
	cases := []struct {
		name string
		run  func(*testing.T, *site)
	}{
		{"logins", testLogins},
		{"refusals", testRefusals},
		{"password change", testPasswordChange},
		{"suspended", testSuspended},
		{"sessions", testSessions},
		{"cancel", testCancel},
		{"long cancel key", testLongCancelKey},
		{"copy and bulk", testCopyAndBulk},
		{"pipeline and notify", testPipelineAndNotify},
		{"coming up", testComingUp},
		{"drain", testDrain},
		{"many clients", testManyClients},
		{"replication", testReplication},
		{"psql", testPsql},
		{"guessing", testGuessing},
		{"pooler", testPooler},
		{"telemetry", testTelemetry},
		{"siege", testSiege},
		{"endings", testEndings},
		// The last one kills the server.
	}
	for _, in := range pgtest.Installs(t) {
		t.Run(strconv.Itoa(in.Major), func(t *testing.T) {
			server, conn := pgtest.StartWith(t, in, pgtest.Options{Throwaway: true, Settings: map[string]string{"wal_level": "logical", "max_connections": "60"}})
			makeRoles(t, conn)
			for _, c := range cases {
				t.Run(c.name, func(t *testing.T) {
					admin, err := pgx.Connect(t.Context(), conn)
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { admin.Close(context.Background()) })
					run(t, admin, `ALTER ROLE app LOGIN PASSWORD 'sécret of app'`)
					a := admin.Config()
					status := tarn.ComputeStatus{SocketDir: a.Host, Port: int(a.Port), State: tarn.ComputeActive, StartTime: time.Now()}
					tw := &town{endpoints: []tarn.Endpoint{endpoint("shop"), endpoint("lab")}}
					tw.wake = func(context.Context, tarn.EndpointName) (tarn.ComputeStatus, error) { return status, nil }
					c.run(t, &site{gate: open(t, tw, nil), admin: admin, kill: server.Kill, status: status})
				})
			}
		})
	}
}

// makeRoles makes the roles that tests log in as.
func makeRoles(t *testing.T, conn string) {
	t.Helper()
	admin, err := pgx.Connect(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(t.Context())
	for _, q := range sqlRoles {
		run(t, admin, q)
	}
}

func (s *site) config(t *testing.T, user, password string, more ...string) *pgx.ConnConfig {
	t.Helper()
	text := fmt.Sprintf("host=%s port=%d user='%s' password='%s' dbname=postgres sslmode=verify-full sslrootcert=%s %s",
		s.own.Addr(), s.own.Port(), user, password, s.CAPath(), strings.Join(more, " "))
	c, err := pgx.ParseConfig(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (s *site) connect(t *testing.T, user, password string, more ...string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.ConnectConfig(t.Context(), s.config(t, user, password, more...))
	if err != nil {
		t.Fatalf("%s: %v", user, err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func (s *site) token(t *testing.T, c token.Claims) string {
	t.Helper()
	raw, err := s.signer.Sign(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return raw.Reveal()
}

// fails tries to log in and returns Postgres's error.
func (s *site) fails(t *testing.T, user, password, code string) *pgconn.PgError {
	t.Helper()
	conn, err := pgx.ConnectConfig(t.Context(), s.config(t, user, password))
	if err == nil {
		conn.Close(context.Background())
		t.Fatalf("%s is let in", user)
	}
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		t.Fatalf("%s: %v, want SQLSTATE %s", user, err, code)
	}
	if e.Code != code || e.Severity != "FATAL" {
		t.Errorf("%s: %v, want SQLSTATE %s", user, e, code)
	}
	return e
}

func one[T any](t *testing.T, c *pgx.Conn, sql string, args ...any) (v T) {
	t.Helper()
	if err := c.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func testLogins(t *testing.T, s *site) {
	who := func(c *pgx.Conn) string {
		return one[string](t, c, "SELECT current_user || ' ' || session_user || ' ' || current_database()")
	}
	for user, password := range map[string]string{
		ada:       s.token(t, token.Claims{Subject: ada}),
		"bob":     "of bob", // an OAuth role that has a password too
		"app":     "sécret of app",
		"heir":    "of heir", // member of an OAuth role, not one itself
		"endless": "of endless",
	} {
		if got, want := who(s.connect(t, user, password)), user+" "+user+" postgres"; got != want {
			t.Errorf("logged in as %q, want %q", got, want)
		}
	}
	s.connect(t, ada, s.token(t, token.Claims{Subject: ada, Endpoints: []string{"ep-x", "ep-shop"}}))
	s.connect(t, "bob", s.token(t, token.Claims{Subject: "bob"}))
	s.connect(t, "app", "sécret of app", "channel_binding=require")
	s.connect(t, "app", "sécret of app", "channel_binding=disable")

	// By server name, checked against the domain's certificate.
	c := s.config(t, "app", "sécret of app")
	c.Host, c.Port, c.TLSConfig.ServerName = "ep-lab."+domain, s.main.Port(), "ep-lab."+domain
	c.LookupFunc = func(context.Context, string) ([]string, error) { return []string{s.main.Addr().String()}, nil }
	byName, err := pgx.ConnectConfig(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer byName.Close(t.Context())
	// By an option, the rest of which reaches Postgres.
	c = s.config(t, "app", "sécret of app", `options='-c geqo=off endpoint=ep-shop'`, "application_name=shop/1.0")
	c.Host, c.Port, c.TLSConfig.ServerName = s.main.Addr().String(), s.main.Port(), "localhost"
	byOption, err := pgx.ConnectConfig(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer byOption.Close(t.Context())
	if v := one[string](t, byOption, "SHOW geqo") + one[string](t, byOption, "SHOW application_name"); v != "offshop/1.0" {
		t.Errorf("startup parameters became %q", v)
	}
}

func testRefusals(t *testing.T, s *site) {
	good := s.token(t, token.Claims{Subject: ada})
	for user, password := range map[string]string{
		"app":      "wrong",
		"nobody":   "wrong",
		"over":     "of over",
		"bare":     "any",
		"old":      "of old",
		"chief":    "of chief",
		"chiefess": s.token(t, token.Claims{Subject: "chiefess"}),
		"heir":     s.token(t, token.Claims{Subject: "heir"}), // not an OAuth role
		`a"b`:      "wrong",

		tarn.Superuser:                "any",
		strings.Repeat("l", 63) + "x": "of long",
	} {
		e := s.fails(t, user, password, "28P01")
		if want := `password authentication failed for user "` + user + `"`; e.Message != want || e.Hint != "" {
			t.Errorf("%s: message %q, hint %q", user, e.Message, e.Hint)
		}
	}
	if e := s.fails(t, "closed", "of closed", "28000"); e.Message != `role "closed" is not permitted to log in` {
		t.Errorf("NOLOGIN: %q", e.Message)
	}
	s.fails(t, "closed", "wrong", "28P01")
	s.fails(t, "app", "", "28P01")
	s.fails(t, ada, "", "28P01")

	end := time.Now().Add(-30 * time.Minute).Truncate(time.Second)
	e := s.fails(t, ada, s.token(t, token.Claims{Subject: ada, IssuedAt: end.Add(-time.Hour), Expiry: end}), "28P01")
	if !strings.Contains(e.Message, "expired") || !strings.Contains(e.Hint, end.UTC().Format(time.RFC3339)) {
		t.Errorf("expired token: %q, %q", e.Message, e.Hint)
	}
	for what, c := range map[string]struct{ token, hint string }{
		"another's token": {s.token(t, token.Claims{Subject: "bob"}), `belongs to "bob"`},
		"other endpoint":  {s.token(t, token.Claims{Subject: ada, Endpoints: []string{"ep-lab"}}), "ep-lab"},
		"forged token":    {good[:len(good)-8] + "AAAAAAAA", "not one of this workspace"},
		"no token":        {"secret", "OAuth token"},
	} {
		if e := s.fails(t, ada, c.token, "28P01"); !strings.Contains(e.Hint, c.hint) || strings.Contains(e.Message+e.Hint, c.token) {
			t.Errorf("%s: %q, hint %q", what, e.Message, e.Hint)
		}
	}
	// Postgres's own refusals come through.
	s.fails(t, "single", "of single", "53300")
	c := s.config(t, "app", "sécret of app")
	c.Database = "nowhere"
	_, err := pgx.ConnectConfig(t.Context(), c)
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || pe.Code != "3D000" {
		t.Errorf("unknown database: %v", err)
	}

	s.town.set(func() { s.town.logins = gateway.TokensOnly })
	s.fails(t, "app", "sécret of app", "28000")
	s.fails(t, "bob", "of bob", "28000")
	s.connect(t, ada, good)
}

// testPasswordChange: what a role says at login is never an old story.
func testPasswordChange(t *testing.T, s *site) {
	app := s.connect(t, "app", "sécret of app")
	run(t, app, `ALTER ROLE app PASSWORD 'new'`)
	s.fails(t, "app", "sécret of app", "28P01")
	s.connect(t, "app", "new")
}

func run(t *testing.T, c *pgx.Conn, sql string) {
	t.Helper()
	if _, err := c.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// testSuspended: for a compute that sleeps, a known role proves itself first;
// what a stranger says wakes it once, and never again for the same name.
func testSuspended(t *testing.T, s *site) {
	idle := func() { s.town.set(func() { s.town.endpoints[0].State = tarn.EndpointIdle; s.town.wakes = 0 }) }
	leave := func(c *pgx.Conn) {
		c.Close(t.Context())
		for len(s.Sessions()) > 0 {
			tick(t)
		}
	}
	leave(s.connect(t, "app", "sécret of app"))
	s.fails(t, "nobody", "x", "28P01")

	idle()
	s.fails(t, "nobody", "x", "28P01")
	s.fails(t, "nobody", "x", "28P01")
	s.fails(t, "app", "wrong", "28P01")
	if n := s.town.woken(); n != 0 {
		t.Errorf("strangers woke the compute %d times", n)
	}
	// After a failure the gateway does not trust what it knew of app.
	s.fails(t, "app", "wrong", "28P01")
	if n := s.town.woken(); n != 1 {
		t.Errorf("%d wakes after two wrong passwords, want 1", n)
	}
	idle()
	leave(s.connect(t, "app", "sécret of app"))
	if n := s.town.woken(); n == 0 {
		t.Error("a login without a wake")
	}
	// The password changed behind what the gateway knows: the old one is
	// proved against the old story, and still refused.
	run(t, s.admin, `ALTER ROLE app PASSWORD 'new'`)
	s.fails(t, "app", "sécret of app", "28P01")
	leave(s.connect(t, "app", "new"))
}

func testSessions(t *testing.T, s *site) {
	c := s.connect(t, "app", "sécret of app", "application_name=first/1")
	list := s.Sessions()
	if len(list) != 1 {
		t.Fatalf("sessions: %+v", list)
	}
	x := list[0]
	if x.Endpoint != "ep-shop" || x.Role != "app" || x.Database != "postgres" || x.ApplicationName != "first/1" ||
		!x.ClientAddr.Addr().IsLoopback() || x.PID != c.PgConn().PID() || time.Since(x.Started) > time.Minute {
		t.Errorf("session %+v", x)
	}
	if real := one[uint32](t, c, "SELECT pg_backend_pid()::int8"); real == x.PID {
		t.Error("the client was given the compute's process id")
	}
	// pgjdbc sets its name after connecting.
	run(t, c, "SET application_name = 'second/2'")
	if n := s.Sessions()[0].ApplicationName; n != "second/2" {
		t.Errorf("application_name %q after SET", n)
	}
	c.Close(t.Context())
	for len(s.Sessions()) > 0 {
		tick(t)
	}
}

func testCancel(t *testing.T, s *site) {
	run(t, s.admin, "SELECT pg_advisory_lock(7)")
	c := s.connect(t, "app", "sécret of app")
	other := s.connect(t, "app", "sécret of app") // must not be hit
	for _, how := range []string{"TLS", "plain"} {
		done := make(chan error, 1)
		go func() {
			_, err := c.Exec(t.Context(), "SELECT pg_advisory_lock(7)")
			done <- err
		}()
		for !one[bool](t, s.admin, "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)") {
			tick(t)
		}
		if how == "TLS" {
			if err := c.PgConn().CancelRequest(t.Context()); err != nil && !errors.Is(err, io.EOF) {
				t.Error(err)
			}
		} else {
			key := c.PgConn().SecretKey()
			w := dial(t, s.main)
			w.say(packet(codeCancel, string(be(c.PgConn().PID()))+string(key[:len(key)-1])+string(key[len(key)-1]^1)))
			w.closed() // a wrong key does nothing: the query still waits below
			select {
			case err := <-done:
				t.Fatalf("a wrong key ended the query: %v", err)
			default:
			}
			w = dial(t, s.main)
			w.say(packet(codeCancel, string(be(c.PgConn().PID()))+string(key)))
			w.closed()
		}
		var e *pgconn.PgError
		if err := <-done; !errors.As(err, &e) || e.Code != "57014" {
			t.Errorf("%s: %v, want a cancelled query", how, err)
		}
	}
	if one[int](t, other, "SELECT 1") != 1 {
		t.Error("another session was hit")
	}
}

func be(v uint32) []byte { return []byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)} }

func testLongCancelKey(t *testing.T, s *site) {
	run(t, s.admin, "SELECT pg_advisory_lock(7)")
	c := s.connect(t, "app", "sécret of app", "max_protocol_version=3.2")
	if n := len(c.PgConn().SecretKey()); n != 32 {
		t.Errorf("protocol 3.2 has a cancel key of %d bytes", n)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		for !one[bool](t, s.admin, "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)") {
			tick(t)
		}
		cancel(errors.New("enough"))
	}()
	done := make(chan error, 1)
	go func() {
		_, err := c.Exec(context.WithoutCancel(ctx), "SELECT pg_advisory_lock(7)")
		done <- err
	}()
	<-ctx.Done()
	if err := c.PgConn().CancelRequest(t.Context()); err != nil && !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	var e *pgconn.PgError
	if err := <-done; !errors.As(err, &e) || e.Code != "57014" {
		t.Errorf("%v, want a cancelled query", err)
	}
}

func testCopyAndBulk(t *testing.T, s *site) {
	c := s.connect(t, "app", "sécret of app")
	run(t, c, "CREATE TEMP TABLE bulk (n int, pad text)")
	const rows = 60_000
	pad := strings.Repeat("x", 200)
	n, err := c.CopyFrom(t.Context(), pgx.Identifier{"bulk"}, []string{"n", "pad"},
		pgx.CopyFromSlice(rows, func(i int) ([]any, error) { return []any{i, pad}, nil }))
	if err != nil || n != rows {
		t.Fatalf("copy in: %d rows, %v", n, err)
	}
	var out bytes.Buffer
	if _, err := c.PgConn().CopyTo(t.Context(), &out, "COPY bulk TO STDOUT"); err != nil {
		t.Fatal(err)
	}
	if lines := bytes.Count(out.Bytes(), []byte{'\n'}); lines != rows {
		t.Errorf("copy out: %d rows, %d bytes", lines, out.Len())
	}
	if sum := one[int64](t, c, "SELECT sum(n) FROM bulk WHERE length(pad) = 200"); sum != rows*(rows-1)/2 {
		t.Errorf("sum %d", sum)
	}
	// One value of 8 MB there and back.
	big := strings.Repeat("0123456789abcdef", 1<<19)
	if got := one[string](t, c, "SELECT $1::text", big); got != big {
		t.Errorf("a value of %d bytes came back with %d", len(big), len(got))
	}
}

// testPipelineAndNotify: the gateway forwards at once and in both directions
// without being asked.
func testPipelineAndNotify(t *testing.T, s *site) {
	c := s.connect(t, "app", "sécret of app")
	b := &pgx.Batch{}
	for i := range 200 {
		b.Queue("SELECT $1::int", i)
	}
	r := c.SendBatch(t.Context(), b)
	for i := range 200 {
		var n int
		if err := r.QueryRow().Scan(&n); err != nil || n != i {
			t.Fatalf("%d: %d, %v", i, n, err)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	// Describe with Flush and no Sync must be answered.
	w := s.rawSession(t, "app", "sécret of app")
	w.say(message('P', "\x00SELECT 1\x00\x00\x00"), message('D', "S\x00"), message('H', ""))
	for _, want := range "1tT" {
		if kind, body := w.message(); kind != byte(want) {
			t.Fatalf("message %q %q, want %q", kind, body, want)
		}
	}
	run(t, c, "LISTEN news")
	run(t, s.admin, "NOTIFY news, 'hot'")
	n, err := c.WaitForNotification(t.Context())
	if err != nil || n.Payload != "hot" {
		t.Errorf("%+v, %v", n, err)
	}
}

func message(kind byte, body string) []byte {
	return append(append([]byte{kind}, be(uint32(4+len(body)))...), body...)
}

// rawSession hijacks a connection that pgx opened.
func (s *site) rawSession(t *testing.T, user, password string) *wire {
	t.Helper()
	c, err := pgconn.ConnectConfig(t.Context(), &s.config(t, user, password).Config)
	if err != nil {
		t.Fatal(err)
	}
	h, err := c.Hijack()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Conn.Close() })
	h.Conn.SetDeadline(time.Now().Add(20 * time.Second))
	return &wire{t, h.Conn}
}

func testEndings(t *testing.T, s *site) {
	// A client that takes leave, or only closes, or only half.
	for _, end := range []func(w *wire){
		func(w *wire) { w.say(message('X', "")) },
		func(w *wire) { w.Close() },
		func(w *wire) { w.Conn.(interface{ CloseWrite() error }).CloseWrite() },
	} {
		w := s.rawSession(t, "app", "sécret of app")
		end(w)
		for len(s.Sessions()) > 0 {
			tick(t)
		}
	}
	// The rest of a half-closed session's answer arrives.
	w := s.rawSession(t, "app", "sécret of app")
	w.say(message('Q', "SELECT repeat('x', 3000000)\x00"))
	w.Conn.(interface{ CloseWrite() error }).CloseWrite()
	if b, err := io.ReadAll(w); len(b) < 3_000_000 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	// An oversized password is refused before it is read.
	for _, user := range []string{"app", ada} {
		w := secure(t, s.own, "")
		w.say(startup(v30, "user", user, "database", "postgres"))
		w.message()
		w.say([]byte{'p', 0x7f, 0xff, 0xff, 0xff})
		w.refused("08P01")
	}

	c := s.connect(t, "app", "sécret of app")
	run(t, s.admin, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
	_, err := c.Exec(t.Context(), "SELECT 1")
	var e *pgconn.PgError
	if !errors.As(err, &e) || e.Code != "57P01" || !strings.Contains(e.Message, "administrator") {
		t.Errorf("terminated: %v", err)
	}

	idle := s.rawSession(t, "app", "sécret of app")
	asking := s.rawSession(t, "app", "sécret of app")
	asking.say(message('Q', "SELECT pg_sleep(600)\x00"))
	for one[int](t, s.admin, "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND usename = 'app'") != 1 {
		tick(t)
	}
	s.kill() // the postmaster and all: nobody of Postgres says goodbye
	for _, w := range []*wire{idle, asking} {
		if e := w.refused("57P01"); e.Hint == "" {
			t.Error("no hint")
		}
	}
	s.town.set(func() {
		s.town.wake = func(context.Context, tarn.EndpointName) (tarn.ComputeStatus, error) {
			return tarn.ComputeStatus{}, tarn.Unavailable("compute crashed")
		}
	})
	s.fails(t, "app", "sécret of app", "57P03")
}

// testComingUp: a compute that is not there yet when the router says so is
// asked for again, until it is.
func testComingUp(t *testing.T, s *site) {
	var real tarn.ComputeStatus
	calls := 0
	s.town.set(func() {
		wake := s.town.wake
		s.town.wake = func(ctx context.Context, n tarn.EndpointName) (tarn.ComputeStatus, error) {
			st, err := wake(ctx, n)
			real = st
			s.town.set(func() { calls++ })
			if calls%3 != 0 {
				st.SocketDir += "/gone"
			}
			return st, err
		}
	})
	s.connect(t, "app", "sécret of app")
	if calls != 6 || real.SocketDir == "" { // three to look up, three to open
		t.Errorf("%d wakes", calls)
	}
}

func testDrain(t *testing.T, s *site) {
	idle := s.rawSession(t, "app", "sécret of app")
	busy := s.rawSession(t, "app", "sécret of app")
	run(t, s.admin, "SELECT pg_advisory_lock(7)")
	busy.say(message('Q', "SELECT pg_advisory_lock(7)\x00"))
	for !one[bool](t, s.admin, "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)") {
		tick(t)
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.stop()
	}()
	idle.refused("57P01")
	run(t, s.admin, "SELECT pg_advisory_unlock(7)") // now the busy one may end
	for _, want := range "TDCZ" {
		if kind, body := busy.message(); kind != byte(want) {
			t.Fatalf("message %q %q, want %q", kind, body, want)
		}
	}
	busy.refused("57P01")
	<-stopped
}

func testManyClients(t *testing.T, s *site) {
	tok := s.token(t, token.Claims{Subject: ada})
	var mu sync.Mutex
	seen := map[uint32]bool{}
	g, ctx := errgroup.WithContext(t.Context())
	for i := range 40 {
		user, password := ada, tok
		if i%2 == 0 {
			user, password = "app", "sécret of app"
		}
		config := s.config(t, user, password)
		g.Go(func() error {
			for range 3 {
				c, err := pgx.ConnectConfig(ctx, config.Copy())
				if err != nil {
					return err
				}
				mu.Lock()
				seen[c.PgConn().PID()] = true
				mu.Unlock()
				for n := range 20 {
					var got string
					if err := c.QueryRow(ctx, "SELECT session_user || $1::text", strconv.Itoa(n)).Scan(&got); err != nil {
						return err
					}
					if got != user+strconv.Itoa(n) {
						return fmt.Errorf("%s got %q", user, got)
					}
				}
				if err := c.Close(ctx); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if len(seen) != 120 {
		t.Errorf("%d different cancel keys for 120 sessions", len(seen))
	}
}

func testReplication(t *testing.T, s *site) {
	c, err := pgconn.ConnectConfig(t.Context(), &s.config(t, "mover", "of mover", "replication=database").Config)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	r, err := c.Exec(t.Context(), "IDENTIFY_SYSTEM").ReadAll()
	if err != nil || len(r) != 1 || string(r[0].Rows[0][3]) != "postgres" {
		t.Errorf("%v, %v", r, err)
	}
}

func testPsql(t *testing.T, s *site) {
	psql, err := exec.LookPath("psql")
	if err != nil {
		t.Skip("psql is not installed")
	}
	tok := s.token(t, token.Claims{Subject: ada})
	root := "sslrootcert=" + s.CAPath()
	own := fmt.Sprintf("host=%s port=%d", s.own.Addr(), s.own.Port())
	byName := fmt.Sprintf("host=ep-shop.%s hostaddr=%s port=%d", domain, s.main.Addr(), s.main.Port())
	shared := fmt.Sprintf("host=localhost hostaddr=%s port=%d", s.main.Addr(), s.main.Port())
	for _, c := range []struct {
		name, conn, user, password string
		says                       string // in its output; an error when it begins with "error:"
	}{
		{"token", own + " sslmode=verify-full " + root, ada, tok, ada},
		{"password", own + " sslmode=verify-full " + root, "app", "sécret of app", "app"},
		{"channel binding", own + " sslmode=require channel_binding=require", "app", "sécret of app", "app"},
		{"no channel binding", own + " sslmode=require channel_binding=disable", "app", "sécret of app", "app"},
		{"server name", byName + " sslmode=verify-full " + root, "app", "sécret of app", "app"},
		{"option", shared + " sslmode=verify-full options=endpoint%3Dep-shop " + root, "app", "sécret of app", "app"},
		{"option, not encoded", shared + " sslmode=verify-full options=endpoint=ep-shop " + root, "app", "sécret of app", "app"},
		{"prefer", own + " sslmode=prefer gssencmode=prefer", "app", "sécret of app", "app"},
		{"disable", own + " sslmode=disable", "app", "sécret of app", "error:SSL required"},
		{"wrong password", own + " sslmode=require", "app", "wrong", `error:FATAL:  password authentication failed for user "app"`},
		{"token with binding", own + " sslmode=require channel_binding=require", ada, tok, "error:channel binding"},
		{"unknown endpoint", shared + " sslmode=require options=endpoint=ep-none", "app", "x", `error:FATAL:  endpoint "ep-none" does not exist`},
		{"hint", shared + " sslmode=require options=endpoint=ep-none", "app", "x", "error:HINT:  List endpoints with: tarn endpoint list"},
	} {
		cmd := exec.CommandContext(t.Context(), psql, "-XAtqc", "SELECT session_user", c.conn+" dbname=postgres user="+c.user)
		cmd.Env = []string{"PGPASSWORD=" + c.password, "HOME=/nonexistent", "PATH=/usr/bin:/bin"}
		out, err := cmd.CombinedOutput()
		want, fails := strings.CutPrefix(c.says, "error:")
		if fails != (err != nil) || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v\n%s", c.name, err, out)
		}
	}
}

// testGuessing: after a few free failures guessing becomes slow for that role
// and address, and the right password ends it.
func testGuessing(t *testing.T, s *site) {
	took := func(user, password string) time.Duration {
		began := time.Now()
		s.fails(t, user, password, "28P01")
		return time.Since(began)
	}
	var all []time.Duration
	for range 7 {
		all = append(all, took("endless", "wrong"))
	}
	if all[5] < 250*time.Millisecond || all[6] < 500*time.Millisecond {
		t.Errorf("seven failures took %v", all)
	}
	if d := took("app", "wrong"); d > slices.Max(all[5:]) {
		t.Errorf("another role waited %v", d)
	}
}
