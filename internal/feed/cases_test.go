package feed_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/blob/faulty"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
)

// TestCases are errors that other movers have had, by the numbers of the table
// in docs/movement.md, which says where those are tested that are not here.
func TestCases(t *testing.T) {
	l := newLab(t, pgtest.Newest(t))
	for _, c := range []struct {
		name string
		run  func(*testing.T, *world)
	}{
		{"Case01SlotMadeAnewBehindUs", case01},
		{"CameBackShortOfItsHistory", cameBack},
		{"Case03AcknowledgedBeforeWritten", case03},
		{"Case05And06And07Restarts", case05},
		{"Case12SlotDroppedWhileStreaming", case12},
		{"Case16Failover", case16},
		{"Case18And20IdleTablesPinNothing", case18},
		{"Case19And29OpenTransactions", case19},
		{"Case22SlowStore", case22},
		{"Case32Rewrites", case32},
		{"Case34And47ManyChangesOfOneKey", case34},
		{"Case36KeyChanges", case36},
		{"Case41Values", case41},
		{"Case46TruncateInTheMiddle", case46},
		{"Case52DropAndAdd", case52},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, l.world(t)) })
	}
}

// lines shows a history.
func lines(h []change) string {
	var b strings.Builder
	for _, c := range h {
		fmt.Fprintf(&b, "%s %s\n", c.kind(), c.source())
	}
	return b.String()
}

func (w *world) wantHistory(table string, want ...string) {
	w.t.Helper()
	w.caughtUp("s", table)
	if got := lines(w.history("s", table)); got != strings.Join(want, "\n")+"\n" {
		w.t.Errorf("%s: got\n%swant\n%s", table, got, strings.Join(want, "\n"))
	}
}

// slot reads one value of the feed's slot.
func (w *world) slot(expression string) (v string) {
	w.t.Helper()
	check(w.t, w.conn.QueryRow(w.t.Context(), `SELECT coalesce((SELECT (`+expression+`)::text FROM pg_replication_slots
		WHERE NOT temporary AND database = current_database()), '')`).Scan(&v))
	return v
}

func (w *world) confirmed() tarn.LSN {
	w.t.Helper()
	lsn, err := tarn.ParseLSN(w.slot(`coalesce(confirmed_flush_lsn, '0/0')`))
	check(w.t, err)
	return lsn
}

func (w *world) now() tarn.LSN {
	w.t.Helper()
	var text string
	check(w.t, w.conn.QueryRow(w.t.Context(), `SELECT pg_current_wal_lsn()::text`).Scan(&text))
	lsn, err := tarn.ParseLSN(text)
	check(w.t, err)
	return lsn
}

func case01(t *testing.T, w *world) {
	w.exec(`CREATE SCHEMA s; CREATE TABLE s.t (id int); INSERT INTO s.t VALUES (1)`)
	w.start()
	w.follow("s")
	w.caughtUp("s", "t")
	w.kill()
	name := w.slot("slot_name")
	w.exec(`SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE active AND slot_name = $1`, name)
	w.exec(`INSERT INTO s.t VALUES (2)`)
	w.exec(`SELECT pg_drop_replication_slot($1)`, name)
	w.exec(`SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, name)
	w.exec(`INSERT INTO s.t VALUES (3)`)
	w.start()
	eventually(t, "another slot", func() any { return w.feed("s") }, func() bool { n := w.slot("slot_name"); return n != "" && n != name })
	w.caughtUp("s", "t")
	w.wantHistory("t", "insert id=1", "truncate ", "insert id=1", "insert id=2", "insert id=3")
}

// A branch that came back from the object store ends before what its history
// has: the slot is as it was once, and what the history says that is no more is
// parted from what comes by a truncate row. When the history is not ahead, it goes on.
func cameBack(t *testing.T, w *world) {
	w.exec(`CREATE SCHEMA s; CREATE TABLE s.t (id int); INSERT INTO s.t VALUES (1)`)
	w.start()
	w.follow("s")
	w.caughtUp("s", "t")
	w.kill()
	name, old := w.slot("slot_name"), w.database+"_old"
	rewind := func() {
		w.exec(`SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE active AND slot_name = $1`, name)
		w.exec(`SELECT pg_drop_replication_slot($1)`, name)
		w.exec(`SELECT pg_copy_logical_replication_slot($1, $2)`, old, name)
	}
	w.exec(`SELECT pg_copy_logical_replication_slot($1, $2)`, name, old)
	back := w.now()
	w.exec(`INSERT INTO s.t VALUES (2)`)
	w.start()
	w.wantHistory("t", "insert id=1", "insert id=2")
	w.kill()
	w.back = w.now()
	rewind()
	w.exec(`INSERT INTO s.t VALUES (3)`)
	w.start()
	w.wantHistory("t", "insert id=1", "insert id=2", "insert id=3")
	w.kill()
	if got := w.slot("string_agg(slot_name, ' ' ORDER BY slot_name)"); got != name+" "+old && got != old+" "+name {
		t.Errorf("slots %s, want %s to go on", got, name)
	}
	w.back = back
	rewind()
	w.exec(`DELETE FROM s.t WHERE id > 1`)
	w.exec(`SELECT pg_drop_replication_slot($1)`, old)
	w.start()
	w.wantHistory("t", "insert id=1", "insert id=2", "insert id=3", "truncate ", "insert id=1")
	w.exec(`INSERT INTO s.t VALUES (4)`)
	w.kill()
	name = w.slot("slot_name")
	w.start()
	w.wantHistory("t", "insert id=1", "insert id=2", "insert id=3", "truncate ", "insert id=1", "insert id=4")
	if got := w.slot("slot_name"); got != name {
		t.Errorf("slot %s was made although %s is of after the loss", got, name)
	}
}

func case03(t *testing.T, w *world) {
	w.exec(`CREATE SCHEMA s; CREATE TABLE s.t (id int)`)
	down := make(chan struct{})
	w.open = func(ctx context.Context, url string) (blob.Store, error) {
		s, err := openDir(ctx, url)
		return faulty.New(s, func(faulty.Call) faulty.Fault {
			select {
			case <-down:
				return faulty.Fail
			default:
				return faulty.None
			}
		}), err
	}
	w.start()
	w.follow("s")
	w.caughtUp("s", "t")
	before := w.now()
	close(down)
	w.exec(`INSERT INTO s.t VALUES (1)`)
	eventually(t, "a message", func() any { return w.feed("s") }, func() bool { return w.feed("s").Message != "" })
	after := w.now()
	if lsn := w.confirmed(); lsn >= after || lsn > before+200 {
		t.Errorf("the slot is confirmed to %s: the row was written at %s and is nowhere", lsn, before)
	}
	w.kill()
	w.open = openDir
	w.start()
	w.wantHistory("t", "insert id=1")
}

// Transactions that overlap come in the order of their commits, each once,
// whatever restarts in between.
func case05(t *testing.T, w *world) {
	w.exec(`CREATE SCHEMA s; CREATE TABLE s.t (id int)`)
	w.start()
	w.follow("s")
	w.caughtUp("s", "t")
	early := w.connect()
	do := func(sql string) {
		t.Helper()
		_, err := early.Exec(t.Context(), sql)
		check(t, err)
	}
	do(`BEGIN`)
	do(`INSERT INTO s.t VALUES (1)`) // its records come first, its commit last
	w.exec(`INSERT INTO s.t VALUES (2)`)
	w.caughtUp("s", "t")
	w.kill()
	w.exec(`INSERT INTO s.t VALUES (3)`)
	do(`INSERT INTO s.t VALUES (4)`)
	w.start()
	w.caughtUp("s", "t")
	do(`COMMIT`)
	w.exec(`INSERT INTO s.t VALUES (5)`)
	want := []string{"insert id=2", "insert id=3", "insert id=1", "insert id=4", "insert id=5"}
	w.wantHistory("t", want...)
	h := w.history("s", "t")
	if h[2]["_pg_lsn"] >= h[0]["_pg_lsn"] && len(h[2]["_pg_lsn"]) == len(h[0]["_pg_lsn"]) {
		t.Errorf("the records did not go back, the test shows nothing: %v", h)
	}
	// The last transaction is not sent again as another one.
	for range 3 {
		w.kill()
		w.start()
		w.caughtUp("s", "t")
	}
	w.wantHistory("t", want...)
}

func case12(t *testing.T, w *world) {
	w.exec(`CREATE SCHEMA s; CREATE TABLE s.t (id int); INSERT INTO s.t VALUES (1), (2)`)
	w.start()
	w.follow("s")
	w.caughtUp("s", "t")
	name := w.slot("slot_name")
	eventually(t, "the slot is dropped", func() any { return w.feed("s") }, func() bool {
		// It comes back between the two, most times.
		_, _ = w.conn.Exec(t.Context(), `SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE active AND slot_name = $1`, name)
		_, err := w.conn.Exec(t.Context(), `SELECT pg_drop_replication_slot($1)`, name)
		return err == nil
	})
	w.exec(`DELETE FROM s.t WHERE id = 1`)
	eventually(t, "another slot", func() any { return w.feed("s") }, func() bool { n := w.slot("slot_name"); return n != "" && n != name })
	w.caughtUp("s", "t")
	w.sameRows("s", "s", "t", "id")
	w.verified("s", "t")
}

func case16(t *testing.T, w *world) {
	if w.lab.in.Major < 17 {
		t.Skip("failover slots begin with Postgres 17")
	}
	w.exec(`CREATE SCHEMA s; CREATE TABLE s.t (id int)`)
	w.start()
	w.follow("s")
	w.caughtUp("s", "t")
	if f := w.slot("failover"); f != "true" {
		t.Errorf("failover of the slot is %q", f)
	}
}

func case18(t *testing.T, w *world) {
	w.exec(`CREATE SCHEMA s; CREATE TABLE s.busy (id int); CREATE TABLE s.quiet (id int); CREATE TABLE noise (v text)`)
	w.start()
	w.follow("s")
	w.caughtUp("s", "busy", "quiet")
	w.exec(`INSERT INTO s.busy VALUES (1)`)
	w.exec(`INSERT INTO noise SELECT repeat('x', 1000) FROM generate_series(1, 1000)`) // no table of the feed
	w.lab.exec(t, `CREATE TABLE IF NOT EXISTS elsewhere AS SELECT generate_series(1, 10000)`)
	lsn := w.now()
	eventually(t, "the slot lets the WAL go", func() any { return w.confirmed() }, func() bool { return w.confirmed() >= lsn })
	w.caughtUp("s", "busy", "quiet")
}

func case19(t *testing.T, w *world) {
	w.exec(`CREATE SCHEMA s; CREATE TABLE s.t (id int, v text); CREATE TABLE s.other (id int)`)
	w.start()
	w.follow("s")
	w.caughtUp("s", "t", "other")
	open := w.connect()
	_, err := open.Exec(t.Context(), `BEGIN; INSERT INTO s.t SELECT i, repeat('x', 500) FROM generate_series(1, 2000) i`)
	check(t, err)
	for i := range 3 {
		w.exec(`INSERT INTO s.other VALUES ($1)`, i)
		lsn := w.now()
		eventually(t, "what is around it is confirmed", func() any { return w.confirmed() }, func() bool { return w.confirmed() >= lsn })
		w.kill()
		w.start()
	}
	_, err = open.Exec(t.Context(), `COMMIT`)
	check(t, err)
	w.caughtUp("s", "t", "other")
	if n := len(w.history("s", "t")); n != 2000 {
		t.Errorf("%d of 2000 rows came", n)
	}
}

// A store that answers late does not look like a client that is gone.
func case22(t *testing.T, w *world) {
	w.exec(`ALTER DATABASE ` + w.database + ` SET wal_sender_timeout = '7s'`)
	w.exec(`CREATE SCHEMA s; CREATE TABLE s.t (id int)`)
	slow := make(chan time.Duration, 1)
	w.open = func(ctx context.Context, url string) (blob.Store, error) {
		s, err := openDir(ctx, url)
		return faulty.New(s, func(faulty.Call) faulty.Fault {
			select {
			case d := <-slow:
				<-time.After(d)
			default:
			}
			return faulty.None
		}), err
	}
	w.start()
	w.follow("s")
	w.caughtUp("s", "t")
	eventually(t, "a stream", func() any { return w.feed("s") }, func() bool { return w.slot("active_pid") != "" })
	pid := w.slot("active_pid")
	slow <- 9 * time.Second
	w.exec(`INSERT INTO s.t VALUES (1)`)
	w.wantHistory("t", "insert id=1")
	if now := w.slot("active_pid"); now != pid {
		t.Errorf("the stream was begun again: process %s is %s now", pid, now)
	}
}

func case32(t *testing.T, w *world) {
	w.exec(`CREATE SCHEMA s; CREATE TABLE s.t (id int PRIMARY KEY, v text); INSERT INTO s.t SELECT i, repeat('x', 200) FROM generate_series(1, 2000) i`)
	w.start()
	w.follow("s")
	for i := range 6 {
		w.exec(`VACUUM FULL s.t`)
		w.exec(`UPDATE s.t SET v = $1 WHERE id % 10 = $2`, fmt.Sprint("round ", i), i)
		w.exec(`CLUSTER s.t USING t_pkey`)
	}
	w.caughtUp("s", "t")
	w.sameRows("s", "s", "t", "id", "v")
	w.verified("s", "t")
}

func case34(t *testing.T, w *world) {
	w.exec(`CREATE SCHEMA s; CREATE TABLE s.t (id int PRIMARY KEY, v text, n int); ALTER TABLE s.t ALTER v SET STORAGE EXTERNAL`)
	w.start()
	w.follow("s")
	w.caughtUp("s", "t")
	w.exec(`BEGIN; INSERT INTO s.t VALUES (1, repeat('y', 3000), 0); UPDATE s.t SET n = 1; UPDATE s.t SET n = 2; DELETE FROM s.t; INSERT INTO s.t VALUES (1, 'z', 3); COMMIT`)
	big := "v=" + strings.Repeat("y", 3000)
	w.wantHistory("t", "insert id=1|n=0|"+big, "update_preimage id=1|n=0|"+big, "update_postimage id=1|n=1|"+big,
		"update_preimage id=1|n=1|"+big, "update_postimage id=1|n=2|"+big, "delete id=1|n=2|"+big, "insert id=1|n=3|v=z")
}

func case36(t *testing.T, w *world) {
	w.exec(`CREATE SCHEMA s; CREATE TABLE s.t (id int PRIMARY KEY, v text); INSERT INTO s.t VALUES (1, 'a'), (2, 'b')`)
	w.start()
	w.follow("s")
	w.caughtUp("s", "t")
	w.exec(`UPDATE s.t SET id = 3 WHERE id = 1`)
	w.wantHistory("t", "insert id=1|v=a", "insert id=2|v=b", "update_preimage id=1|v=a", "update_postimage id=3|v=a")
}

func case41(t *testing.T, w *world) {
	w.exec(`CREATE SCHEMA s; CREATE TYPE s.mood AS ENUM ('sad', 'ok'); CREATE TABLE s.t (m s.mood PRIMARY KEY, b bytea, v text, j jsonb)`)
	w.exec(`INSERT INTO s.t VALUES ('sad', '', '', 'null'), ('ok', '\x00', NULL, NULL)`)
	w.start()
	w.follow("s")
	w.caughtUp("s", "t")
	w.exec(`UPDATE s.t SET j = '"s"'; DELETE FROM s.t WHERE m = 'sad'`)
	w.caughtUp("s", "t")
	var got []string
	for _, c := range w.history("s", "t") {
		_, hasV := c["v"]
		_, hasJ := c["j"]
		got = append(got, fmt.Sprintf("%s %s b=%q v=%q,%t j=%q,%t", c.kind(), c["m"], c["b"], c["v"], hasV, c["j"], hasJ))
	}
	want := []string{`insert sad b="" v="",true j="null",true`, `insert ok b="AA==" v="",false j="",false`,
		`update_preimage sad b="" v="",true j="null",true`, `update_postimage sad b="" v="",true j="\"s\"",true`,
		`update_preimage ok b="AA==" v="",false j="",false`, `update_postimage ok b="AA==" v="",false j="\"s\"",true`,
		`delete sad b="" v="",true j="\"s\"",true`}
	slices.Sort(got[:2]) // copied rows have no order that means anything
	slices.Sort(want[:2])
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func case46(t *testing.T, w *world) {
	w.exec(`CREATE SCHEMA s; CREATE TABLE s.t (id int); CREATE TABLE s.u (id int)`)
	w.start()
	w.follow("s")
	w.caughtUp("s", "t", "u")
	w.exec(`BEGIN; INSERT INTO s.t VALUES (1); INSERT INTO s.u VALUES (1); TRUNCATE s.t, s.u; INSERT INTO s.t VALUES (2); COMMIT`)
	w.wantHistory("t", "insert id=1", "truncate ", "insert id=2")
	w.wantHistory("u", "insert id=1", "truncate ")
}

func case52(t *testing.T, w *world) {
	w.exec(`CREATE SCHEMA s; CREATE TABLE s.t (id int, v text, k text); INSERT INTO s.t VALUES (1, 'a', 'b')`)
	w.start()
	w.follow("s")
	w.caughtUp("s", "t")
	w.exec(`ALTER TABLE s.t DROP COLUMN v; ALTER TABLE s.t ADD COLUMN v int; INSERT INTO s.t VALUES (2, 'c', 7)`)
	w.exec(`ALTER TABLE s.t DROP COLUMN k, ADD COLUMN k text; INSERT INTO s.t VALUES (3, 8, 'd')`)
	w.exec(`ALTER TABLE s.t RENAME COLUMN k TO r; INSERT INTO s.t VALUES (4, 9, 'e')`)
	w.wantHistory("t", "insert id=1|k=b|v=a", "insert id=2|k=c|v=7", "insert id=3|k=d|v=8", "insert id=4|r=e|v=9")
}
