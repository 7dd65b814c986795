package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"golang.org/x/sync/errgroup"

	"github.com/tarndb/tarn/internal/token"
)

// pooledConfig leads to the pooler of the first endpoint.
func (s *site) pooledConfig(t *testing.T, user, password string, more ...string) *pgx.ConnConfig {
	t.Helper()
	c := s.config(t, user, password, more...)
	c.RuntimeParams["options"] = strings.TrimSpace(c.RuntimeParams["options"] + " endpoint=ep-shop-pooler")
	return c
}

func (s *site) pooled(t *testing.T, user, password string, more ...string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.ConnectConfig(t.Context(), s.pooledConfig(t, user, password, more...))
	if err != nil {
		t.Fatalf("%s: %v", user, err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func (s *site) app(t *testing.T, more ...string) *pgx.Conn {
	return s.pooled(t, "app", "sécret of app", more...)
}

const sqlBackend = `SELECT pg_backend_pid()`

func testPooler(t *testing.T, s *site) {
	for name, f := range map[string]func(*testing.T, *site){
		"shared": testPoolShared, "statements": testPoolStatements, "settings": testPoolSettings, "pins": testPoolPins,
		"refusals": testPoolRefusals, "errors": testPoolErrors, "copy": testPoolCopy, "wire": testPoolWire, "cancel": testPoolCancel, "logins": testPoolLogins,
		"limits": testPoolLimits, "many": testPoolMany, "asleep": testPoolAsleep, "drain": testPoolDrain,
	} {
		t.Run(name, func(t *testing.T) { f(t, s) })
	}
}

// testPoolShared: clients that take turns need one server connection, and an
// open transaction keeps its own.
func testPoolShared(t *testing.T, s *site) {
	a, b := s.app(t), s.app(t)
	pa, pb := one[int](t, a, sqlBackend), one[int](t, b, sqlBackend)
	if pa != pb {
		t.Errorf("two clients that take turns have backends %d and %d", pa, pb)
	}
	tx, err := a.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	run(t, a, `CREATE TABLE IF NOT EXISTS turns (n int)`)
	inside := one[int](t, a, sqlBackend)
	if other := one[int](t, b, sqlBackend); other == inside {
		t.Error("another client got the connection of an open transaction")
	}
	if again := one[int](t, a, sqlBackend); again != inside {
		t.Errorf("a transaction went from backend %d to %d", inside, again)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := one[int](t, b, `SELECT count(*) FROM pg_class WHERE relname = 'turns'`); n != 0 {
		t.Error("the rollback did not happen")
	}
	// A client that dies in a transaction leaves nothing.
	c := s.app(t)
	run(t, c, "BEGIN")
	run(t, c, `CREATE TABLE turns (n int)`)
	c.PgConn().Conn().Close()
	until(t, "the dead client's transaction is gone", func() bool {
		return one[int](t, s.admin, `SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state LIKE 'idle in%'`) == 0
	})
	all := s.Sessions()
	if len(all) < 2 || !all[0].Pooled {
		t.Errorf("sessions: %+v", all)
	}
}

// until asks again until something holds.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	end := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		if time.Now().After(end) {
			t.Fatalf("not so after 20 s: %s", what)
		}
		<-tick.C
	}
}

// testPoolStatements: every client has its own statements whatever connection
// it gets.
func testPoolStatements(t *testing.T, s *site) {
	const clients = 12
	var g errgroup.Group
	for i := range clients {
		c := s.app(t)
		g.Go(func() error {
			for n := range 40 {
				for _, q := range []string{
					fmt.Sprintf("SELECT $1::int + %d", i), // own text
					"SELECT $1::int * 2",                  // everybody's text
				} {
					var got int
					if err := c.QueryRow(t.Context(), q, n).Scan(&got); err != nil {
						return fmt.Errorf("client %d: %s: %w", i, q, err)
					}
					if want := map[bool]int{true: n + i, false: 2 * n}[strings.Contains(q, "+")]; got != want {
						return fmt.Errorf("client %d: %s of %d is %d", i, q, n, got)
					}
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}

	a, b := s.app(t), s.app(t)
	ctx := t.Context()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(a.Prepare(ctx, "x", "SELECT 'of a'"))
	must(b.Prepare(ctx, "x", "SELECT 'of b'"))
	if v := one[string](t, a, "x") + one[string](t, b, "x"); v != "of aof b" {
		t.Errorf("same name, two statements: %q", v)
	}
	_, err := a.PgConn().Prepare(ctx, "x", "SELECT 1", nil)
	wantCode(t, err, "42P05")
	must(nil, a.PgConn().Deallocate(ctx, "x")) // Close
	_, err = a.PgConn().ExecPrepared(ctx, "x", nil, nil, nil).Close()
	wantCode(t, err, "26000")
	must(b.Exec(ctx, "DEALLOCATE x"))
	_, err = b.PgConn().ExecPrepared(ctx, "x", nil, nil, nil).Close()
	wantCode(t, err, "26000")
	for _, all := range []string{"DEALLOCATE ALL", "DISCARD ALL"} {
		must(a.PgConn().Prepare(ctx, "y", "SELECT 'first'", nil))
		must(a.PgConn().Exec(ctx, all).ReadAll())
		_, err = a.PgConn().ExecPrepared(ctx, "y", nil, nil, nil).Close()
		wantCode(t, err, "26000")
		must(a.PgConn().Prepare(ctx, "y", "SELECT 'second'", nil))
		if r := a.PgConn().ExecPrepared(ctx, "y", nil, nil, nil).Read(); r.Err != nil || string(r.Rows[0][0]) != "second" {
			t.Errorf("after %s: %+v", all, r)
		}
		must(nil, a.PgConn().Deallocate(ctx, "y"))
	}
	// A statement that does not parse is not one, and a pipeline goes on after it.
	_, err = a.PgConn().Prepare(ctx, "z", "SELEC 1", nil)
	wantCode(t, err, "42601")
	must(a.PgConn().Prepare(ctx, "z", "SELECT 3", nil))
	if r := a.PgConn().ExecPrepared(ctx, "z", nil, nil, nil).Read(); r.Err != nil || string(r.Rows[0][0]) != "3" {
		t.Errorf("z: %+v", r)
	}
	// More statements than a server connection keeps.
	for i := range 300 {
		must(a.PgConn().Prepare(ctx, fmt.Sprintf("m%d", i), fmt.Sprintf("SELECT %d", i), nil))
	}
	for i := range 300 {
		r := a.PgConn().ExecPrepared(ctx, fmt.Sprintf("m%d", i), nil, nil, nil).Read()
		if r.Err != nil || string(r.Rows[0][0]) != fmt.Sprint(i) {
			t.Fatalf("m%d: %+v", i, r)
		}
	}
}

func wantCode(t *testing.T, err error, code string) *pgconn.PgError {
	t.Helper()
	var e *pgconn.PgError
	if !errors.As(err, &e) || e.Code != code {
		t.Errorf("error %v, want SQLSTATE %s", err, code)
		return &pgconn.PgError{}
	}
	return e
}

// testPoolSettings: what a client sets follows it and stays with it.
func testPoolSettings(t *testing.T, s *site) {
	run(t, s.admin, `DROP ROLE IF EXISTS reader`)
	run(t, s.admin, `CREATE ROLE reader; GRANT reader TO app`)
	a := s.app(t, "application_name=a", "options='-c geqo=off -c work_mem=3MB'", "timezone=Asia/Tokyo")
	b := s.app(t, "application_name=b")
	const sqlAll = `SELECT current_setting('application_name') || ' ' || current_setting('geqo') || ' ' || current_setting('work_mem') || ' ' ||
		current_setting('timezone') || ' ' || current_setting('search_path') || ' ' || coalesce(current_setting('app.tenant', true), '') || ' ' || current_user`
	check := func(c *pgx.Conn, what, want string) {
		t.Helper()
		if got := one[string](t, c, sqlAll); got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	zone := one[string](t, s.admin, "SHOW timezone")
	plain := "b on 4MB " + zone + ` "$user", public  app`
	for range 2 {
		check(a, "a at first", `a off 3MB Asia/Tokyo "$user", public  app`)
		check(b, "b at first", plain)
	}
	run(t, a, `SET search_path = pg_catalog; SET app.tenant TO 'seven'`)
	run(t, a, `SET ROLE reader`)
	if _, err := a.Exec(t.Context(), `SELECT set_config($1, '5MB', false)`, "work_mem"); err != nil {
		t.Fatal(err)
	}
	run(t, b, `BEGIN; SET LOCAL work_mem = '9MB'; COMMIT`)
	for range 2 {
		check(b, "b beside a's settings", plain)
		check(a, "a after SET", `a off 5MB Asia/Tokyo pg_catalog seven reader`)
	}
	run(t, a, `BEGIN; SET geqo = on; ROLLBACK`)
	check(a, "a after a rollback", `a off 5MB Asia/Tokyo pg_catalog seven reader`)
	run(t, a, `RESET ROLE; RESET ALL; RESET app.tenant`)
	check(b, "b after a's RESET", plain)
	check(a, "a after RESET ALL", `a off 3MB Asia/Tokyo "$user", public  app`)
	// What a function sets and Postgres reports is seen too.
	if v := one[string](t, b, `SELECT set_config('DateStyle', 'German', false)`); v == "" {
		t.Error("no value")
	}
	if got := b.PgConn().ParameterStatus("DateStyle"); !strings.HasPrefix(got, "German") {
		t.Errorf("DateStyle reported as %q", got)
	}
	if v := one[string](t, a, "SHOW DateStyle") + one[string](t, b, "SHOW DateStyle"); !strings.HasPrefix(v, "ISO, MDYGerman") {
		t.Errorf("DateStyle of a and b: %q", v)
	}
	until(t, "the session list has the name", func() bool {
		for _, x := range s.Sessions() {
			if x.ApplicationName == "a" {
				return true
			}
		}
		return false
	})
	_, err := pgx.ConnectConfig(t.Context(), s.pooledConfig(t, "app", "sécret of app", "nosuch=1"))
	wantCode(t, err, "42704")
	_, err = pgx.ConnectConfig(t.Context(), s.pooledConfig(t, "app", "sécret of app", "work_mem=much"))
	wantCode(t, err, "22023")
}

// testPoolPins: a client with objects of its session keeps its connection, and
// gives it back clean.
func testPoolPins(t *testing.T, s *site) {
	for name, c := range map[string]struct{ make, use, drop string }{
		"temporary table": {`CREATE TEMP TABLE mine AS SELECT 1 AS n`, `SELECT n FROM mine`, `DROP TABLE mine`},
		"select into":     {`SELECT 1 AS n INTO TEMPORARY mine`, `SELECT n FROM mine`, `DROP TABLE mine`},
		"advisory lock":   {`SELECT pg_advisory_lock(7)`, `SELECT count(*)::int FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()`, `SELECT pg_advisory_unlock(7)`},
		"cursor":          {`BEGIN; DECLARE held CURSOR WITH HOLD FOR SELECT 1; COMMIT`, `SELECT count(*)::int FROM pg_cursors WHERE name = 'held'`, `CLOSE held`},
		"SQL PREPARE":     {`PREPARE mine AS SELECT 1`, `EXECUTE mine`, `DEALLOCATE mine`},
		"in a block":      {`DO $$ BEGIN CREATE TEMP TABLE mine AS SELECT 1 AS n; END $$`, `SELECT n FROM mine`, `DROP TABLE mine`},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := s.app(t), s.app(t)
			simple := func(c *pgx.Conn, sql string) string {
				t.Helper()
				r, err := c.PgConn().Exec(t.Context(), sql).ReadAll()
				if err != nil {
					t.Fatalf("%s: %v", sql, err)
				}
				if last := r[len(r)-1]; len(last.Rows) > 0 {
					return string(last.Rows[0][0])
				}
				return ""
			}
			simple(a, c.make)
			for range 3 {
				if v := simple(a, c.use); v != "1" {
					t.Errorf("%s: %q", c.use, v)
				}
				if one[int](t, a, sqlBackend) == one[int](t, b, sqlBackend) {
					t.Error("another client got the pinned connection")
				}
			}
			pinned := one[int](t, a, sqlBackend)
			simple(a, c.drop)
			// Free again: somebody else gets that connection, among others.
			tx, err := b.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer tx.Rollback(t.Context())
			if held := one[int](t, b, sqlBackend); one[int](t, s.app(t), sqlBackend) != pinned && held != pinned {
				t.Errorf("backend %d is still pinned", pinned)
			}
		})
	}
	// Left behind: cleaned before the next.
	a := s.app(t)
	run(t, a, `CREATE TEMP TABLE mine (n int)`)
	run(t, a, `SET work_mem = '7MB'`)
	pinned := one[int](t, a, sqlBackend)
	a.Close(t.Context())
	until(t, "the connection came back", func() bool {
		return one[int](t, s.admin, `SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND query = 'DISCARD ALL' AND state = 'idle'`, pinned) == 1
	})
	for range 50 { // transactions that stay open, until one has that connection
		b := s.app(t)
		run(t, b, "BEGIN")
		if one[int](t, b, sqlBackend) != pinned {
			continue
		}
		if n := one[int](t, b, `SELECT count(*)::int FROM pg_class WHERE relname = 'mine'`); n != 0 || one[string](t, b, `SHOW work_mem`) != "4MB" {
			t.Error("the next client found what another left behind")
		}
		return
	}
	t.Error("nobody got the connection that came back")
}

func testPoolRefusals(t *testing.T, s *site) {
	a := s.app(t)
	for _, c := range []func() error{
		func() error { _, err := a.Exec(t.Context(), "LISTEN news"); return err },
		func() error {
			_, err := a.PgConn().Exec(t.Context(), "SELECT 1; /* x */ listen news").ReadAll()
			return err
		},
		func() error { _, err := a.Prepare(t.Context(), "l", "LISTEN news"); return err },
	} {
		e := wantCode(t, c(), "0A000")
		if !strings.Contains(e.Message, "LISTEN") || !strings.Contains(e.Hint, "direct") {
			t.Errorf("%q, hint %q", e.Message, e.Hint)
		}
		if n := one[int](t, a, "SELECT 1"); n != 1 {
			t.Error("the session is broken")
		}
	}
	run(t, a, "BEGIN")
	_, err := a.Exec(t.Context(), "LISTEN news")
	wantCode(t, err, "0A000")
	_, err = a.Exec(t.Context(), "SELECT 1") // the transaction is aborted, as after any error
	wantCode(t, err, "25P02")
	run(t, a, "ROLLBACK")
	if v := one[string](t, a, "SELECT 'LISTEN x'"); v != "LISTEN x" {
		t.Errorf("%q", v)
	}
	c := s.pooledConfig(t, "mover", "of mover")
	c.RuntimeParams["replication"] = "database"
	_, err = pgx.ConnectConfig(t.Context(), c)
	wantCode(t, err, "0A000")
}

// testPoolErrors: after an error Postgres skips up to Sync, and the pool's
// bookkeeping with it.
func testPoolErrors(t *testing.T, s *site) {
	a := s.app(t)
	for range 3 {
		p := a.PgConn().StartPipeline(t.Context())
		p.SendQueryParams("SELECT 1", nil, nil, nil, nil)
		p.SendQueryParams("SELECT 1/0", nil, nil, nil, nil)
		p.SendPrepare("later", "SELECT 2", nil) // skipped
		p.SendQueryParams("SELECT 3", nil, nil, nil, nil)
		if err := p.Sync(); err != nil {
			t.Fatal(err)
		}
		p.SendQueryParams("SELECT 4", nil, nil, nil, nil)
		if err := p.Sync(); err != nil {
			t.Fatal(err)
		}
		var seen []string
		for {
			r, err := p.GetResults()
			var e *pgconn.PgError
			switch {
			case errors.As(err, &e):
				seen = append(seen, e.Code)
			case err != nil:
				t.Fatal(err)
			}
			if rr, ok := r.(*pgconn.ResultReader); ok {
				res := rr.Read()
				if errors.As(res.Err, &e) {
					seen = append(seen, e.Code)
				} else {
					seen = append(seen, string(res.Rows[0][0]))
				}
			}
			if r == nil && err == nil {
				break
			}
		}
		if err := p.Close(); err != nil {
			var e *pgconn.PgError
			if !errors.As(err, &e) {
				t.Fatal(err)
			}
		}
		if got := strings.Join(seen, " "); !strings.Contains(got, "22012") || !strings.HasSuffix(got, "4") || strings.Contains(got, " 3 ") {
			t.Errorf("the pipeline answered %q", got)
		}
		_, err := a.PgConn().ExecPrepared(t.Context(), "later", nil, nil, nil).Close()
		wantCode(t, err, "26000")
	}
	// Deferred constraints fail at Sync.
	run(t, a, `CREATE TABLE IF NOT EXISTS once (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)`)
	_, err := a.Exec(t.Context(), `INSERT INTO once SELECT 1 FROM generate_series(1, $1::int)`, 2)
	wantCode(t, err, "23505")
	run(t, a, `DROP TABLE once`)
}

func testPoolCopy(t *testing.T, s *site) {
	a, b := s.app(t), s.app(t)
	run(t, a, `CREATE TABLE IF NOT EXISTS copied (n int, v text)`)
	defer run(t, s.admin, `DROP TABLE copied`)
	n, err := a.CopyFrom(t.Context(), pgx.Identifier{"copied"}, []string{"n", "v"}, pgx.CopyFromSlice(20_000, func(i int) ([]any, error) {
		return []any{i, strings.Repeat("x", i%200)}, nil
	}))
	if err != nil || n != 20_000 {
		t.Fatalf("%d rows, %v", n, err)
	}
	// One that fails in the middle.
	_, err = b.PgConn().CopyFrom(t.Context(), strings.NewReader("1\tx\nno number\ty\n"), `COPY copied FROM STDIN`)
	wantCode(t, err, "22P02")
	var out strings.Builder
	if _, err := b.PgConn().CopyTo(t.Context(), &out, `COPY copied TO STDOUT`); err != nil || strings.Count(out.String(), "\n") != 20_000 {
		t.Errorf("%d lines, %v", strings.Count(out.String(), "\n"), err)
	}
	// A large value both ways, in a statement and as a parameter.
	big := strings.Repeat("y", 3<<20)
	if v := one[string](t, a, `SELECT $1::text`, big); v != big {
		t.Error("a large parameter came back changed")
	}
	r, err := b.PgConn().Exec(t.Context(), "SELECT '"+big+"'").ReadAll()
	if err != nil || string(r[0].Rows[0][0]) != big {
		t.Errorf("a large statement: %v", err)
	}
	if res := a.PgConn().ExecParams(t.Context(), "SELECT '"+big+"'", nil, nil, nil, nil).Read(); res.Err != nil || string(res.Rows[0][0]) != big {
		t.Errorf("a large unnamed statement: %v", res.Err)
	}
	if one[int](t, a, "SELECT 1") != 1 || one[int](t, b, "SELECT 1") != 1 {
		t.Error("sessions are broken")
	}
}

// testPoolWire plays message sequences that libraries send.
func testPoolWire(t *testing.T, s *site) {
	open := func() *pgproto3.Frontend {
		w := secure(t, s.main, "")
		w.say(startup(v30, "user", ada, "database", "postgres", "options", "endpoint=ep-shop-pooler"))
		if k, _ := w.message(); k != 'R' {
			t.Fatalf("message %q", k)
		}
		w.say(append([]byte{'p', 0, 0, byte((len(s.token(t, token.Claims{Subject: ada})) + 5) >> 8), byte(len(s.token(t, token.Claims{Subject: ada})) + 5)}, s.token(t, token.Claims{Subject: ada})+"\x00"...))
		for {
			k, b := w.message()
			if k == 'E' {
				t.Fatalf("%q", b)
			}
			if k == 'Z' {
				break
			}
		}
		return pgproto3.NewFrontend(w, w)
	}
	kinds := func(f *pgproto3.Frontend, end string) string {
		t.Helper()
		got := ""
		for !strings.HasSuffix(got, end) {
			m, err := f.Receive()
			if err != nil {
				t.Fatalf("after %q: %v", got, err)
			}
			got += strings.TrimPrefix(fmt.Sprintf("%T ", m), "*pgproto3.")
		}
		return got
	}
	a, b := open(), open()
	send := func(f *pgproto3.Frontend, m ...pgproto3.FrontendMessage) {
		t.Helper()
		for _, x := range m {
			f.Send(x)
		}
		if err := f.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	parse := func(name, q string) *pgproto3.Parse { return &pgproto3.Parse{Name: name, Query: q} }
	bind := func(name string) *pgproto3.Bind { return &pgproto3.Bind{PreparedStatement: name} }
	describe := func(name string) *pgproto3.Describe { return &pgproto3.Describe{ObjectType: 'S', Name: name} }

	// Flush without Sync: Postgres's answers come at once, also for a
	// statement the connection has.
	for _, f := range []*pgproto3.Frontend{a, b, a} {
		send(f, parse("s", "SELECT 7"), &pgproto3.Flush{})
		kinds(f, "ParseComplete ")
		send(f, describe("s"), &pgproto3.Flush{})
		kinds(f, "RowDescription ")
		send(f, bind("s"), &pgproto3.Execute{}, &pgproto3.Close{ObjectType: 'S', Name: "s"}, &pgproto3.Sync{})
		if got := kinds(f, "ReadyForQuery "); got != "BindComplete DataRow CommandComplete CloseComplete ReadyForQuery " {
			t.Error(got)
		}
	}
	// Parse and Describe in one round, Bind in the next, another client between.
	send(a, parse("", "SELECT 'a'"), describe(""), &pgproto3.Sync{})
	kinds(a, "ReadyForQuery ")
	send(b, parse("", "SELECT 'b'"), describe(""), &pgproto3.Sync{})
	kinds(b, "ReadyForQuery ")
	for f, want := range map[*pgproto3.Frontend]string{a: "a", b: "b"} {
		send(f, bind(""), &pgproto3.Execute{}, &pgproto3.Sync{})
		for {
			m, err := f.Receive()
			if err != nil {
				t.Fatal(err)
			}
			if d, ok := m.(*pgproto3.DataRow); ok && string(d.Values[0]) != want {
				t.Errorf("the unnamed statement of %s answered %q", want, d.Values[0])
			}
			if _, ok := m.(*pgproto3.ReadyForQuery); ok {
				break
			}
		}
	}
	// A failed unnamed Parse leaves no statement, not another client's.
	send(a, parse("", "SELEC"), &pgproto3.Sync{})
	kinds(a, "ReadyForQuery ")
	send(a, bind(""), &pgproto3.Execute{}, &pgproto3.Sync{})
	if got := kinds(a, "ReadyForQuery "); got != "ErrorResponse ReadyForQuery " {
		t.Error(got)
	}
	// Syncs ahead of their answers, an error among them.
	send(a, bind("none"), &pgproto3.Sync{}, parse("", "SELECT 1"), bind(""), &pgproto3.Execute{}, &pgproto3.Sync{}, &pgproto3.Sync{})
	if got := kinds(a, "CommandComplete ReadyForQuery ReadyForQuery "); strings.Count(got, "Error") != 1 {
		t.Error(got)
	}
	// COPY in the extended protocol: the Sync before its end is ignored.
	send(a, &pgproto3.Query{String: "CREATE TEMP TABLE w (n int)"})
	kinds(a, "ReadyForQuery ")
	for _, ahead := range []bool{false, true} {
		send(a, parse("", "COPY w FROM STDIN"), bind(""), &pgproto3.Execute{}, &pgproto3.Sync{})
		if !ahead {
			kinds(a, "CopyInResponse ")
		}
		send(a, &pgproto3.CopyData{Data: []byte("1\n")}, &pgproto3.CopyDone{}, &pgproto3.Sync{})
		kinds(a, "CommandComplete ReadyForQuery ")
	}
	send(a, &pgproto3.Query{String: "DROP TABLE w"})
	kinds(a, "ReadyForQuery ")
	// Late CopyData after an error belongs to nobody.
	send(a, &pgproto3.Query{String: "COPY nowhere FROM STDIN"}, &pgproto3.CopyData{Data: []byte("1\n")}, &pgproto3.CopyDone{}, &pgproto3.Query{String: "SELECT 1"})
	if got := kinds(a, "CommandComplete ReadyForQuery "); !strings.HasPrefix(got, "ErrorResponse ReadyForQuery RowDescription") {
		t.Error(got)
	}
	run(t, s.admin, `GRANT CREATE ON SCHEMA public TO "ada@example.com"`)
	// A goodbye right behind a query: it is carried out.
	send(a, &pgproto3.Query{String: "CREATE TABLE IF NOT EXISTS last_will ()"}, &pgproto3.Terminate{})
	until(t, "the last will is carried out", func() bool {
		return one[int](t, s.admin, "SELECT count(*) FROM pg_class WHERE relname = 'last_will'") == 1
	})
	run(t, s.admin, "DROP TABLE last_will")
	// Bare Sync and Flush need no server.
	send(b, &pgproto3.Flush{}, &pgproto3.Sync{})
	kinds(b, "ReadyForQuery ")
}

func testPoolCancel(t *testing.T, s *site) {
	a, b := s.app(t), s.app(t)
	for range 10 {
		slept := make(chan error, 1)
		go func() {
			_, err := a.PgConn().Exec(context.Background(), "SELECT pg_sleep(60)").ReadAll()
			slept <- err
		}()
		until(t, "a sleeps", func() bool {
			return one[int](t, s.admin, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND wait_event = 'PgSleep'") == 1
		})
		if err := a.PgConn().CancelRequest(t.Context()); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		wantCode(t, <-slept, "57014")
		// A key of one who sleeps hits nobody.
		if err := a.PgConn().CancelRequest(t.Context()); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		if n := one[int](t, b, "SELECT 1 FROM pg_sleep(0.01)"); n != 1 {
			t.Error("b was hit")
		}
	}
}

// testPoolLogins: tokens and passwords, and names that lead to the pooler.
func testPoolLogins(t *testing.T, s *site) {
	tok := s.token(t, token.Claims{Subject: ada})
	c := s.pooled(t, ada, tok)
	if v := one[string](t, c, "SELECT current_user || session_user"); v != ada+ada {
		t.Errorf("logged in as %q", v)
	}
	cfg := s.config(t, ada, tok)
	cfg.Host, cfg.Port, cfg.TLSConfig.ServerName = "ep-shop-pooler."+domain, s.main.Port(), "ep-shop-pooler."+domain
	cfg.LookupFunc = func(context.Context, string) ([]string, error) { return []string{s.main.Addr().String()}, nil }
	byName, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer byName.Close(t.Context())
	if one[int](t, byName, sqlBackend) != one[int](t, c, sqlBackend) {
		t.Error("the name does not lead to the pool")
	}
	_, err = pgx.ConnectConfig(t.Context(), s.pooledConfig(t, ada, "wrong"))
	wantCode(t, err, "28P01")
	bad := s.pooledConfig(t, "app", "sécret of app")
	bad.Database = "nowhere"
	_, err = pgx.ConnectConfig(t.Context(), bad)
	wantCode(t, err, "3D000")
	if direct := s.connect(t, "app", "sécret of app"); one[int](t, direct, sqlBackend) == 0 {
		t.Error("no direct connection")
	}
}
