package feed_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/blob/faulty"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/feed"
	"github.com/tarndb/tarn/internal/postgres"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
)

// TestFeed runs every case in databases of its own on one server a version.
func TestFeed(t *testing.T) {
	eachVersion(t, func(t *testing.T, in postgres.Install) {
		l := newLab(t, in)
		for _, c := range cases() {
			if c.on == bothVersions || in.Major == pgtest.Newest(t).Major {
				t.Run(c.name, func(t *testing.T) { c.run(t, l.world(t)) })
			}
		}
	})
}

type versions int

const (
	bothVersions versions = iota
	newestOnly
)

type testCase struct {
	name string
	run  func(*testing.T, *world)
	on   versions
}

func cases() []testCase {
	return []testCase{
		{"FirstRows", firstRows, newestOnly},
		{"HistoryUnderLoad", historyUnderLoad, bothVersions},
		{"ChangeWhilePilotIsMade", changeWhilePilotIsMade, newestOnly},
		{"ChangeWhileSlotIsMade", changeWhileSlotIsMade, bothVersions},
		{"UndecodableSlot", undecodableSlot, bothVersions},
		{"Kills", kills, bothVersions},
		{"TablesComeAndGo", tablesComeAndGo, bothVersions},
		{"ColumnsChange", columnsChange, newestOnly},
		{"LostIdentity", lostIdentity, newestOnly},
		{"LargeTransaction", largeTransaction, newestOnly},
		{"Partitions", partitions, newestOnly},
		{"SlotIsLost", slotIsLost, newestOnly},
		{"BranchGoes", branchGoes, newestOnly},
		{"Types", types, bothVersions},
		{"ComputeSleeps", computeSleeps, newestOnly},
		{"Delete", deletion, newestOnly},
		{"CreateRefusals", createRefusals, newestOnly},
		{"Settings", settings, newestOnly},
		{"HeldTooMuch", heldTooMuch, newestOnly},
		{"CopyInChunks", copyInChunks, newestOnly},
		{"VerifyFinds", verifyFinds, newestOnly},
		{"Derived", derived, newestOnly},
		{"PartitionsMove", partitionsMove, bothVersions},
		{"GeneratedColumns", generatedColumns, bothVersions},
	}
}

// TestGiant is a transaction of TARN_FEED_TX_MB megabytes, whose bound on memory
// only a large one can show; 1024 takes minutes.
func TestGiant(t *testing.T) {
	mb, err := strconv.Atoi(os.Getenv("TARN_FEED_TX_MB"))
	if err != nil {
		t.Skip("set TARN_FEED_TX_MB, e.g. to 1024")
	}
	giant(t, newLab(t, pgtest.Newest(t)).world(t), mb)
}

// TestServerStops has a server of its own to stop.
func TestServerStops(t *testing.T) {
	serverStops(t, newLab(t, pgtest.Newest(t)).world(t))
}

func firstRows(t *testing.T, w *world) {
	w.exec(`CREATE SCHEMA s; CREATE TABLE s.users (id int PRIMARY KEY, name text); INSERT INTO s.users VALUES (1, 'ada'), (2, NULL)`)
	w.start()
	w.follow("s")
	w.caughtUp("s", "users")
	w.exec(`UPDATE s.users SET name = 'grace' WHERE id = 2`)
	w.exec(`BEGIN; INSERT INTO s.users VALUES (3, 'lin'); DELETE FROM s.users WHERE id = 1; COMMIT`)
	w.exec(`TRUNCATE s.users`)
	w.caughtUp("s", "users")
	var got []string
	for _, c := range w.history("s", "users") {
		got = append(got, c.kind()+" "+c.source())
	}
	want := []string{
		"insert id=1|name=ada", "insert id=2", "update_preimage id=2", "update_postimage id=2|name=grace",
		"insert id=3|name=lin", "delete id=1|name=ada", "truncate ",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Fatalf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, c := range w.history("s", "users")[2:] {
		if c["_pg_lsn"] == "" || c["_pg_xid"] == "" || c["_timestamp"] == "" || c["_pg_commit_lsn"] <= c["_pg_lsn"] {
			t.Errorf("system columns of %v", c)
		}
	}
	w.verified("s", "users")
	if f := w.feed("s"); f.Message != "" || len(f.Tables) != 1 || f.Tables[0].LastSync.IsZero() {
		t.Errorf("feed %+v", f)
	}
}

// workload runs writers against tables of schema s: with and without key,
// TOASTed values, key changes, savepoints, rollbacks and truncates.
type workload struct {
	w    *world
	stop chan struct{}
	g    sync.WaitGroup
	done atomic.Int64 // transactions committed
}

const workloadSchema = `CREATE SCHEMA s;
CREATE TABLE s.wide (id int PRIMARY KEY, v text, n numeric(12,3), at timestamptz DEFAULT now());
ALTER TABLE s.wide ALTER v SET STORAGE EXTERNAL;
CREATE TABLE s.bag (x int, y text);
CREATE TABLE s.pair (a int, b int, v jsonb, PRIMARY KEY (a, b));
INSERT INTO s.wide SELECT i, repeat(i::text, 2000), i FROM generate_series(1, 20) i;
INSERT INTO s.bag SELECT i, 'bag ' || i FROM generate_series(1, 20) i`

func (w *world) work(writers int) *workload {
	l := &workload{w: w, stop: make(chan struct{})}
	for i := range writers {
		conn := w.connect()
		seed := rand.Uint64()
		w.t.Logf("writer %d has seed %d", i, seed)
		l.g.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			for {
				select {
				case <-l.stop:
					return
				default:
				}
				if err := l.transaction(conn, r); err == nil {
					l.done.Add(1)
				} else if !expected(err) {
					w.t.Errorf("writer %d: %v", i, err)
					return
				}
			}
		})
	}
	return l
}

var errRollback = errors.New("rolled back on purpose")

func expected(err error) bool {
	var pg *pgconn.PgError
	return errors.Is(err, errRollback) || errors.As(err, &pg) && (pg.Code == "40P01" || pg.Code == "23505" || pg.Code == "25P02")
}

func (l *workload) transaction(conn *pgx.Conn, r *rand.Rand) error {
	ctx := context.Background()
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		for range 1 + r.IntN(5) {
			if r.IntN(4) > 0 {
				if err := statement(ctx, tx, r); err != nil {
					return err
				}
				continue
			}
			err := pgx.BeginFunc(ctx, tx, func(sp pgx.Tx) error {
				if err := statement(ctx, sp, r); err != nil {
					return err
				}
				if r.IntN(2) == 0 {
					return errRollback
				}
				return statement(ctx, sp, r)
			})
			if err != nil && !expected(err) {
				return err
			}
		}
		if r.IntN(10) == 0 {
			return errRollback
		}
		return nil
	})
}

func statement(ctx context.Context, tx pgx.Tx, r *rand.Rand) error {
	id, big := r.IntN(60), strings.Repeat(fmt.Sprintf("%x", r.Uint64()), 1+200*r.IntN(2))
	var err error
	switch r.IntN(14) {
	case 0, 1, 2:
		_, err = tx.Exec(ctx, `INSERT INTO s.wide (id, v, n) VALUES ($1, $2, random() * 1000) ON CONFLICT (id) DO UPDATE SET v = excluded.v`, id, big)
	case 3, 4:
		_, err = tx.Exec(ctx, `UPDATE s.wide SET n = n + 1 WHERE id % 7 = $1`, id%7) // v stays TOASTed
	case 5:
		_, err = tx.Exec(ctx, `UPDATE s.wide SET id = $1 WHERE id = $2`, 60+r.IntN(60), id)
	case 6:
		_, err = tx.Exec(ctx, `DELETE FROM s.wide WHERE id = $1`, id)
	case 7, 8:
		_, err = tx.Exec(ctx, `INSERT INTO s.bag SELECT i, $1 FROM generate_series(1, $2) i`, big, 1+r.IntN(20))
	case 9:
		_, err = tx.Exec(ctx, `UPDATE s.bag SET y = y || '+' WHERE x = $1`, 1+r.IntN(20))
	case 10:
		if r.IntN(4) == 0 {
			_, err = tx.Exec(ctx, `TRUNCATE s.bag`)
			return err
		}
		_, err = tx.Exec(ctx, `DELETE FROM s.bag WHERE x > $1`, r.IntN(20))
	case 11, 12:
		_, err = tx.Exec(ctx, `INSERT INTO s.pair VALUES ($1, $2, jsonb_build_object('k', $1::int)) ON CONFLICT (a, b) DO UPDATE SET v = NULL`, id%5, id%7)
	case 13:
		_, err = tx.Exec(ctx, `UPDATE s.pair SET b = b + 100 WHERE a = $1 AND b = $2`, id%5, id%7)
	}
	return err
}

func (l *workload) end() {
	close(l.stop)
	l.g.Wait()
}

// sameAsTables compares every history with its table.
func (l *workload) sameAsTables() {
	l.w.t.Helper()
	l.w.caughtUp("s", "wide", "bag", "pair")
	// timestamptz is printed by Arrow in its own way: left out here.
	for _, table := range []struct {
		name    string
		columns []string
	}{{"wide", []string{"id", "v", "n"}}, {"bag", []string{"x", "y"}}, {"pair", []string{"a", "b", "v"}}} {
		h := l.w.history("s", table.name)
		for i := range h {
			delete(h[i], "at")
			if n, ok := h[i]["n"]; ok {
				h[i]["n"] = threeDigits(n)
			}
		}
		got, want := replay(l.w.t, table.name, h), l.w.rowsOf("s."+table.name, table.columns...)
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			l.w.t.Fatalf("%s: the history ends with %d rows, the table has %d\nhistory:\n%s\ntable:\n%s",
				table.name, len(got), len(want), brief(got), brief(want))
		}
		l.w.t.Logf("%s: %d changes, %d rows", table.name, len(h), len(want))
	}
	l.w.verified("s", "wide", "bag", "pair")
}

// threeDigits writes a decimal as numeric(12,3) is printed.
func threeDigits(s string) string {
	whole, frac, _ := strings.Cut(s, ".")
	return whole + "." + frac + strings.Repeat("0", 3-len(frac))
}

func historyUnderLoad(t *testing.T, w *world) {
	w.exec(workloadSchema)
	l := w.work(4)
	w.start()
	w.follow("s")
	eventually(t, "500 transactions", func() any { return l.done.Load() }, func() bool {
		return l.done.Load() > 500 && w.table("s", "wide").State == tarn.FeedStreaming
	})
	l.end()
	l.sameAsTables()
}

// TestKills kills the keeper again and again: at a random time, or at a random
// call to the store, before or after it took effect, or with its answer lost.
func kills(t *testing.T, w *world) {
	w.exec(workloadSchema)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	l := w.work(2)
	var died atomic.Int64
	w.start()
	w.follow("s")
	w.kill()
	for round := range 16 {
		faults := []faulty.Fault{faulty.DieBefore, faulty.DieAfter, faulty.Lost, faulty.Unsent, faulty.Fail}
		plan := faulty.At(5+r.IntN(120), faults[r.IntN(len(faults))])
		struck := make(chan struct{})
		w.open = once(plan, struck, &died)
		w.start()
		limit := time.NewTimer(time.Duration(100+r.IntN(1200)) * time.Millisecond)
		select {
		case <-struck:
			// Let it notice, sometimes.
			if r.IntN(2) == 0 {
				<-limit.C
			}
		case <-limit.C:
		}
		limit.Stop()
		w.kill()
		t.Logf("round %d: %d transactions", round, l.done.Load())
	}
	w.open = openDir
	w.start()
	l.end()
	l.sameAsTables()
	if died.Load() == 0 {
		t.Error("no fault struck")
	}
}

// once opens stores that share one plan, so that a fault strikes at the n-th
// call of the keeper, whichever table it is for.
func once(plan faulty.Plan, struck chan struct{}, died *atomic.Int64) func(context.Context, string) (blob.Store, error) {
	var mu sync.Mutex
	n := 0
	dead := faulty.None
	return func(ctx context.Context, url string) (blob.Store, error) {
		s, err := openDir(ctx, url)
		if err != nil {
			return nil, err
		}
		return faulty.New(s, func(c faulty.Call) faulty.Fault {
			mu.Lock()
			defer mu.Unlock()
			if dead != faulty.None {
				return dead
			}
			c.N = n
			n++
			f := plan(c)
			if f != faulty.None {
				died.Add(1)
				close(struck)
			}
			if f == faulty.DieBefore || f == faulty.DieAfter {
				dead = faulty.DieBefore
			}
			return f
		}), nil
	}
}

func tablesComeAndGo(t *testing.T, w *world) {
	w.exec(`CREATE SCHEMA s; CREATE SCHEMA other; CREATE TABLE other.moved (id int); INSERT INTO other.moved VALUES (1), (2)`)
	w.start()
	w.follow("s")
	eventually(t, "a running feed", func() any { return w.feed("s") }, func() bool {
		var n int
		check(t, w.conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_replication_slots WHERE active AND NOT temporary AND confirmed_flush_lsn IS NOT NULL AND database = current_database()`).Scan(&n))
		return n == 1
	})
	// All in one transaction, without a key: every change of it counts.
	w.exec(`BEGIN; CREATE TABLE s.fresh (id int, v text); INSERT INTO s.fresh VALUES (1, 'a'), (2, 'b');
		UPDATE s.fresh SET v = 'c' WHERE id = 1; DELETE FROM s.fresh WHERE id = 2; COMMIT`)
	// By somebody who is no superuser, too.
	w.exec(`GRANT ALL ON SCHEMA s TO dev; SET ROLE dev; CREATE TABLE s.made AS SELECT 1 AS id; UPDATE s.made SET id = 2; RESET ROLE`)
	// A synced table takes its place ready made, and does not go back.
	w.exec(`CREATE TABLE other.synced (id int); INSERT INTO other.synced VALUES (1);
		CREATE FUNCTION other.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
		CREATE TRIGGER tarn_read_only BEFORE INSERT ON other.synced FOR EACH STATEMENT EXECUTE FUNCTION other.f();
		ALTER TABLE other.synced SET SCHEMA s; INSERT INTO s.synced VALUES (2)`)
	w.exec(`CREATE TABLE s.empty (id int)`)
	w.exec(`ALTER TABLE other.moved SET SCHEMA s`)
	w.caughtUp("s", "fresh", "made", "empty", "moved")
	if h := w.history("s", "fresh"); len(h) != 5 {
		t.Errorf("fresh has %d changes, want 5: %v", len(h), h)
	}
	w.sameRows("s", "s", "fresh", "id", "v")
	w.sameRows("s", "s", "made", "id")
	w.sameRows("s", "s", "empty", "id")
	w.exec(`UPDATE s.moved SET id = id + 10`)
	w.caughtUp("s", "moved")
	if x := w.table("s", "synced"); x != (tarn.FeedTable{}) {
		t.Errorf("a synced table is followed: %+v", x)
	}
	if h := w.history("s", "made"); len(h) != 3 {
		t.Errorf("made has %d changes, want 3: %v", len(h), h)
	}
	w.sameRows("s", "s", "moved", "id")

	w.exec(`DROP TABLE s.fresh`)
	eventually(t, "fresh terminated", func() any { return w.feed("s") }, func() bool { return w.table("s", "fresh").State == tarn.FeedTerminated })
	w.exec(`CREATE TABLE s.fresh (id int, v text); INSERT INTO s.fresh VALUES (7, 'again')`)
	w.caughtUp("s", "fresh")

	// A keeper that comes late learns what was born while it was away.
	w.kill()
	w.exec(`CREATE TABLE s.later (id int); INSERT INTO s.later VALUES (1); UPDATE s.later SET id = 2`)
	w.exec(`INSERT INTO s.made VALUES (99)`)
	w.exec(`DROP TABLE s.made`)
	w.start()
	w.caughtUp("s", "later", "fresh", "moved", "empty")
	if h := w.history("s", "later"); len(h) != 3 {
		t.Errorf("later has %d changes, want 3: %v", len(h), h)
	}
	w.sameRows("s", "s", "later", "id")
	w.sameRows("s", "s", "moved", "id")
	// And what one that is gone did before it went.
	eventually(t, "made terminated", func() any { return w.feed("s") }, func() bool { return w.table("s", "made").State == tarn.FeedTerminated })
	eventually(t, "the last row of made", func() any { return w.history("s", "made") }, func() bool {
		h := w.history("s", "made")
		return len(h) == 4 && h[3]["id"] == "99"
	})
}

func columnsChange(t *testing.T, w *world) {
	w.exec(`CREATE SCHEMA s; CREATE TABLE s.t (id int PRIMARY KEY, v text); CREATE TABLE s.calm (id int); INSERT INTO s.t VALUES (1, 'a')`)
	w.start()
	w.follow("s")
	w.caughtUp("s", "t", "calm")
	w.exec(`INSERT INTO s.t VALUES (2, 'b')`)
	w.exec(`ALTER TABLE s.t ADD COLUMN n numeric(5,1) DEFAULT 7.5; INSERT INTO s.t VALUES (3, 'c', 1.5)`)
	w.caughtUp("s", "t")
	w.exec(`BEGIN; INSERT INTO s.t VALUES (4, 'd', 2.5); ALTER TABLE s.t ADD COLUMN "odd name" bool; INSERT INTO s.t VALUES (5, 'e', 3.5, true); COMMIT`)
	w.exec(`ALTER TABLE s.t DROP COLUMN v; INSERT INTO s.t VALUES (6, 4.5, false)`)
	w.caughtUp("s", "t")
	var got []string
	for _, c := range w.history("s", "t") {
		got = append(got, c.kind()+" "+c.source())
	}
	// A column that has a value for the rows that were there: a new copy.
	want := []string{"insert id=1|v=a", "insert id=2|v=b", "truncate ", "insert id=1|n=7.5|v=a", "insert id=2|n=7.5|v=b", "insert id=3|n=1.5|v=c",
		"insert id=4|n=2.5|v=d", "insert id=5|n=3.5|odd_name=true|v=e", "insert id=6|n=4.5|odd_name=false"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Fatalf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}

	// A type that does not fit goes on in a column of its own.
	w.exec(`INSERT INTO s.t VALUES (7, 5.5, NULL)`)
	w.exec(`ALTER TABLE s.t ALTER id TYPE bigint; INSERT INTO s.t VALUES (8000000000, 6.5, NULL)`)
	w.exec(`UPDATE s.t SET n = 7.5 WHERE id = 7`)
	w.exec(`DELETE FROM s.t WHERE id > 7; ALTER TABLE s.t ALTER id TYPE int; INSERT INTO s.t VALUES (9, 8.5, NULL)`)
	w.caughtUp("s", "t", "calm")
	got = nil
	for _, c := range w.history("s", "t")[9:] {
		got = append(got, c.kind()+" "+c.source())
	}
	want = []string{"insert id=7|n=5.5", "insert id_2=8000000000|n=6.5", "update_preimage id_2=7|n=5.5", "update_postimage id_2=7|n=7.5",
		"delete id_2=8000000000|n=6.5", "insert id_2=9|n=8.5"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	// After a restart, too.
	w.kill()
	w.exec(`INSERT INTO s.t VALUES (10, 9.5, NULL)`)
	w.start()
	w.caughtUp("s", "t")
	if h := w.history("s", "t"); len(h) != 16 || h[15]["id_2"] != "10" {
		t.Errorf("after a restart the history ends with %v", h[len(h)-1])
	}
	w.verified("s", "t", "calm")
}

// Without full replica identity a TOASTed value may be missing from the
// stream: the table is copied again rather than a NULL written.
func lostIdentity(t *testing.T, w *world) {
	w.exec(`CREATE SCHEMA s; CREATE TABLE s.t (id int PRIMARY KEY, v text, n int); ALTER TABLE s.t ALTER v SET STORAGE EXTERNAL;
		INSERT INTO s.t VALUES (1, repeat('x', 5000), 1), (2, 'short', 1)`)
	w.start()
	w.follow("s")
	w.caughtUp("s", "t")
	w.exec(`BEGIN; ALTER TABLE s.t REPLICA IDENTITY DEFAULT; UPDATE s.t SET n = 2; COMMIT`)
	w.exec(`UPDATE s.t SET n = 3 WHERE id = 2`)
	w.caughtUp("s", "t")
	w.sameRows("s", "s", "t", "id", "v", "n")
	eventually(t, "full replica identity again", func() any { return nil }, func() bool {
		var identity string
		check(t, w.conn.QueryRow(t.Context(), `SELECT relreplident::text FROM pg_class WHERE oid = 's.t'::regclass`).Scan(&identity))
		return identity == "f"
	})
}

func partitions(t *testing.T, w *world) {
	w.exec(`CREATE SCHEMA s; CREATE SCHEMA elsewhere;
		CREATE TABLE s.p (id int, v text) PARTITION BY RANGE (id);
		CREATE TABLE s.p1 PARTITION OF s.p FOR VALUES FROM (0) TO (10);
		CREATE TABLE elsewhere.p2 (v text, id int); ALTER TABLE s.p ATTACH PARTITION elsewhere.p2 FOR VALUES FROM (10) TO (20);
		INSERT INTO s.p VALUES (1, 'a'), (11, 'b')`)
	w.start()
	w.follow("s")
	w.caughtUp("s", "p")
	w.exec(`INSERT INTO s.p VALUES (2, 'c'), (12, 'd'); UPDATE s.p SET v = 'e' WHERE id = 11; UPDATE s.p SET id = 13 WHERE id = 1; DELETE FROM s.p WHERE id = 2`)
	w.caughtUp("s", "p")
	w.sameRows("s", "s", "p", "id", "v")
	if f := w.feed("s"); len(f.Tables) != 1 {
		t.Errorf("partitions became tables: %+v", f.Tables)
	}
}

// A server that stops is not held up by the feed, and has sent it everything.
func serverStops(t *testing.T, w *world) {
	w.exec(`CREATE SCHEMA s; CREATE TABLE s.t (id int)`)
	w.start()
	w.follow("s")
	w.caughtUp("s", "t")
	streams := func() {
		t.Helper()
		eventually(t, "the feed streams", func() any { return w.feed("s") }, func() bool {
			var n int
			check(t, w.conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_replication_slots WHERE active AND NOT temporary AND confirmed_flush_lsn IS NOT NULL AND database = current_database()`).Scan(&n))
			return n == 1
		})
	}
	streams() // what has no stream is not waited for
	for i := range 3 {
		w.exec(`INSERT INTO s.t VALUES ($1)`, i)
		w.computes.set(tarn.ComputeStopping)
		check(t, w.conn.Close(t.Context()))
		before := time.Now()
		check(t, w.lab.server.Stop(t.Context(), postgres.Fast))
		if took := time.Since(before); took > 15*time.Second {
			t.Errorf("the server took %s to stop", took)
		}
		if h := w.history("s", "t"); len(h) != i+1 {
			t.Errorf("after stop %d the history has %d rows", i, len(h))
		}
		s, err := postgres.Start(t.Context(), w.computes.config)
		check(t, err)
		t.Cleanup(s.Kill)
		w.lab.server = s
		w.computes.set(tarn.ComputeActive)
		w.conn = w.connect()
		streams()
	}
	w.caughtUp("s", "t")
	w.sameRows("s", "s", "t", "id")
}

// A slot that is gone is made again; the history says that it begins anew.
func slotIsLost(t *testing.T, w *world) {
	w.exec(`CREATE SCHEMA s; CREATE TABLE s.t (id int); INSERT INTO s.t VALUES (1), (2)`)
	w.start()
	w.follow("s")
	w.caughtUp("s", "t")
	w.kill()
	w.exec(`SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE active AND database = current_database()`)
	w.exec(`SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()`)
	w.exec(`DELETE FROM s.t WHERE id = 1; INSERT INTO s.t VALUES (3)`)
	w.start()
	w.caughtUp("s", "t")
	w.sameRows("s", "s", "t", "id")
	if h := w.history("s", "t"); len(h) != 5 || h[2].kind() != "truncate" {
		t.Errorf("history %v, want two rows, a truncate and two rows", h)
	}
}

// A feed lets a branch go that is being deleted.
func branchGoes(t *testing.T, w *world) {
	w.exec(`CREATE SCHEMA s; CREATE TABLE s.t (id int)`)
	w.start()
	w.follow("s")
	w.caughtUp("s", "t")
	check(t, controldb.MarkDeleted(t.Context(), w.db, w.branch))
	eventually(t, "no feed", func() any { return nil }, func() bool {
		all, err := w.keeper.List(t.Context(), tarn.BranchName{})
		check(t, err)
		return len(all) == 0
	})
}

func types(t *testing.T, w *world) {
	w.exec(`CREATE SCHEMA s; SET search_path = s; CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN pos AS int CHECK (VALUE > 0);
		CREATE TYPE pt AS (x int, y text);
		CREATE TABLE t (b bool, i2 int2, i4 int4, i8 int8, f4 float4, f8 float8, o oid, n numeric(10,2), big numeric, neg numeric(3,-2),
			tx text, vc varchar(5), c char(4), nm name, by bytea, d date, ts timestamp, tz timestamptz, tm time, ttz timetz, iv interval,
			u uuid, j json, jb jsonb, ia int[], ta text[], na numeric(5,1)[], m mood, dm pos, co pt, rg int4range, ip inet, bt bit(3), mo money, x xml,
			gen int GENERATED ALWAYS AS (i4 * 2) STORED)`)
	w.exec(`SET search_path = s; SET datestyle = 'German'; SET intervalstyle = 'sql_standard'; SET timezone = 'Asia/Tokyo'; SET extra_float_digits = 0`)
	const values = `(true, -1, 2, 9007199254740993, 0.1, 1e300, 4294967295, -12.30, 123456789012345678901234567890.5, 1200,
			'tést', 'ab', 'ab', 'nm', '\x00ff', '2024-02-29', '2024-02-29 01:02:03.000004', '2024-02-29 01:02:03+09', '04:05:06.7', '04:05:06+02', '1 year 2 days 3.5 seconds',
			'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"a": 1}', '{"b":2}', '{1,NULL}', '{"x,y",""}', '{1.5}', 'ok', 5, '(1,"a b")', '[1,5)', '10.0.0.1/8', '101', '12.34', '<a/>')`
	w.exec(`INSERT INTO s.t VALUES ` + values)
	w.start()
	w.follow("s")
	w.caughtUp("s", "t")
	w.exec(`INSERT INTO s.t VALUES ` + values)
	w.exec(`INSERT INTO s.t DEFAULT VALUES`)
	w.exec(`INSERT INTO s.t (n, d, ts, tz, f8, ia) VALUES ('NaN', 'infinity', '0044-03-15 BC', '-infinity', 'NaN', '{{1,2},{3,4}}')`)
	w.caughtUp("s", "t")
	h := w.history("s", "t")
	if len(h) != 4 {
		t.Fatalf("%d changes, want 4", len(h))
	}
	want := change{
		"b": "true", "i2": "-1", "i4": "2", "i8": "9007199254740993", "f4": "0.1", "f8": "1e+300", "o": "4294967295",
		"big": "123456789012345678901234567890.5", "neg": "1200", "tx": "tést", "vc": "ab", "c": "ab  ", "nm": "nm", "by": "AP8=",
		"d": "2024-02-29", "ts": "2024-02-29T01:02:03.000004", "tz": "2024-02-28T16:02:03Z", "tm": "04:05:06.7", "ttz": "04:05:06+02",
		"iv": "P1Y2DT3.5S", "u": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "j": `{"a": 1}`, "jb": `{"b": 2}`, "ia": "[1,null]", "ta": `["x,y",""]`,
		"m": "ok", "dm": "5", "co": `(1,"a b")`, "rg": "[1,5)", "ip": "10.0.0.1/8", "bt": "101", "mo": "$12.34", "x": "<a/>",
	}
	for i := range 2 {
		for k, v := range want {
			if h[i][k] != v {
				t.Errorf("row %d: %s is %q, want %q", i, k, h[i][k], v)
			}
		}
		if threeDigits(h[i]["n"]) != "-12.300" {
			t.Errorf("row %d: n is %q", i, h[i]["n"])
		}
	}
	if got := h[2].source(); got != "" {
		t.Errorf("a row of NULLs came as %s", got)
	}
	if got := h[3].source(); got != "f8=NaN" {
		t.Errorf("values without a Delta form came as %s", got)
	}
	if d := w.table("s", "t").Detail; !strings.Contains(d, "5 values") {
		t.Errorf("detail %q does not count 5 lost values", d)
	}
	// Nothing is lost: the dead letters have the values.
	var letters []string
	for _, l := range w.read("s", "feed_dead_letters") {
		if l["_sort_by"] != h[3]["_sort_by"] || l["table_name"] != "t" {
			t.Errorf("dead letter %v is not of the row %v", l, h[3])
		}
		letters = append(letters, l["column_name"]+"|"+l["pg_type"]+"|"+l["value"]+"|"+l["reason"])
	}
	wantLetters := []string{"n|numeric(10,2)|NaN|nan has no form in decimal(10,2)", "d|date|infinity|infinity has no form in date",
		"ts|timestamp without time zone|0044-03-15 00:00:00 BC|before the year 1", "tz|timestamp with time zone|-infinity|-infinity has no form in timestamp",
		"ia|integer[]|{{1,2},{3,4}}|an array of several dimensions, with other bounds than 1, or with an element that has no form"}
	slices.Sort(letters)
	slices.Sort(wantLetters)
	if !slices.Equal(letters, wantLetters) {
		t.Errorf("dead letters\n%s\nwant\n%s", strings.Join(letters, "\n"), strings.Join(wantLetters, "\n"))
	}
	if x := w.table("s", "t"); x.DeadLetters != 5 {
		t.Errorf("%d dead letters are counted", x.DeadLetters)
	}
}

// A sleeping compute is left asleep, and nothing is said of a feed that is well.
func computeSleeps(t *testing.T, w *world) {
	w.exec(`CREATE SCHEMA s; CREATE TABLE s.t (id int)`)
	w.computes.set(tarn.ComputeStopped)
	w.start()
	w.follow("s")
	eventually(t, "a message", func() any { return w.feed("s") }, func() bool { return strings.Contains(w.feed("s").Message, "stopped") })
	w.computes.mu.Lock()
	woken := w.computes.woken
	w.computes.mu.Unlock()
	if woken != 0 {
		t.Errorf("the feed woke the compute %d times", woken)
	}
	w.computes.set(tarn.ComputeActive)
	w.caughtUp("s", "t")
	eventually(t, "no message", func() any { return w.feed("s") }, func() bool { return w.feed("s").Message == "" })
}

func deletion(t *testing.T, w *world) {
	w.exec(`CREATE SCHEMA s; CREATE TABLE s.t (id int); INSERT INTO s.t VALUES (1)`)
	w.start()
	w.follow("s")
	w.caughtUp("s", "t")
	target := w.table("s", "t").Target
	count := func(sql string) int {
		var n int
		check(t, w.conn.QueryRow(t.Context(), sql).Scan(&n))
		return n
	}
	const things = `SELECT (SELECT count(*) FROM pg_replication_slots WHERE database = current_database()) + (SELECT count(*) FROM pg_publication) + (SELECT count(*) FROM pg_event_trigger)`
	if n := count(things); n != 3 {
		t.Fatalf("%d slots, publications and triggers, want 3", n)
	}
	check(t, w.keeper.Delete(t.Context(), w.branch, "s", feed.KeepTables))
	if n := count(things); n != 0 {
		t.Errorf("%d slots, publications and triggers are left", n)
	}
	if _, err := w.keeper.Get(t.Context(), w.branch, "s"); tarn.KindOf(err) != tarn.KindNotFound {
		t.Errorf("the feed is still there: %v", err)
	}
	if _, err := w.catalog.Table(t.Context(), target); err != nil {
		t.Errorf("the kept table is gone: %v", err)
	}

	// A new feed goes on with the old history.
	w.exec(`INSERT INTO s.t VALUES (2)`)
	w.follow("s")
	w.caughtUp("s", "t")
	w.sameRows("s", "s", "t", "id")
	check(t, w.keeper.Delete(t.Context(), w.branch, "s", feed.PurgeTables))
	if _, err := w.catalog.Table(t.Context(), target); tarn.KindOf(err) != tarn.KindNotFound {
		t.Errorf("the purged table is still there: %v", err)
	}
}

func createRefusals(t *testing.T, w *world) {
	w.exec(`CREATE SCHEMA s`)
	w.start()
	w.follow("s")
	for _, c := range []struct {
		spec tarn.FeedSpec
		kind tarn.Kind
	}{
		{tarn.FeedSpec{Branch: w.branch, Database: w.database, PostgresSchema: "s", Catalog: "lake", Schema: "x", ID: "other"}, tarn.KindConflict},
		{tarn.FeedSpec{Branch: w.branch, PostgresSchema: "u", Catalog: "lake", Schema: "s_history"}, tarn.KindConflict},
		{tarn.FeedSpec{Branch: w.branch, PostgresSchema: "u", Catalog: "nowhere", Schema: "x"}, tarn.KindNotFound},
		{tarn.FeedSpec{Branch: w.branch.Parent().Branch("nope"), PostgresSchema: "u", Catalog: "lake", Schema: "x"}, tarn.KindNotFound},
		{tarn.FeedSpec{Branch: w.branch, PostgresSchema: "pg_catalog", Catalog: "lake", Schema: "x", ID: "x"}, tarn.KindInvalid},
		{tarn.FeedSpec{Branch: w.branch, PostgresSchema: "", Catalog: "lake", Schema: "x"}, tarn.KindInvalid},
		{tarn.FeedSpec{Branch: w.branch, PostgresSchema: "Mixed Case", Catalog: "lake", Schema: "x"}, tarn.KindInvalid},
	} {
		if _, err := w.keeper.Create(t.Context(), tarn.Principal{}, c.spec); tarn.KindOf(err) != c.kind {
			t.Errorf("%+v: error %v, want kind %s", c.spec, err, c.kind)
		}
	}
	// A schema that is not there yet is waited for.
	_, err := w.keeper.Create(t.Context(), tarn.Principal{}, tarn.FeedSpec{Branch: w.branch, Database: w.database, PostgresSchema: "soon", Catalog: "lake", Schema: "soon"})
	check(t, err)
	eventually(t, "a message", func() any { return w.feed("soon") }, func() bool { return strings.Contains(w.feed("soon").Message, "soon") })
	w.exec(`CREATE SCHEMA soon; CREATE TABLE soon.t (id int)`)
	w.caughtUp("soon", "t")
}
