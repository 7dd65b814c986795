package syncedtable_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/delta"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
	"github.com/tarndb/tarn/internal/syncedtable"
)

// TestFollow is of tables that apply changes. Cases of movers' regressions are
// named after their number.
func TestFollow(t *testing.T) {
	l := newLab(t, pgtest.Newest(t))
	for _, c := range []testCase{
		{name: "ChangesAreApplied", run: changesAreApplied},
		{name: "Case36_PrimaryKeyChange", run: primaryKeyChange},
		{name: "Case46_Truncate", run: truncated},
		{name: "Case47_InsertUpdateDeleteOfOneKey", run: oneKeyOften},
		{name: "Case48_SameKeyTwice", run: sameKeyTwice},
		{name: "Case49_UniqueValuesSwap", run: uniqueValuesSwap},
		{name: "Case50_BulkDeleteByCompositeKey", run: bulkDelete},
		{name: "Case51_ColumnAdded", run: columnAdded},
		{name: "Case52_ColumnDroppedAndAdded", run: columnReplaced},
		{name: "Case55_PoisonRow", run: poisonChange},
		{name: "Case13_SourceVacuumed", run: sourceVacuumed},
		{name: "Case09_SourceMadeAnew", run: sourceMadeAnew},
		{name: "Case03_PositionWithTheRows", run: positionWithTheRows},
		{name: "Case44_VersionLargerThanAChunk", run: largeVersion},
		{name: "StopAtBadRow", run: stopAtBadRow},
		{name: "TimeseriesKey", run: timeseriesKey},
		{name: "PolicyChangesInPlace", run: policyChanges},
		{name: "Continuous", run: continuous},
		{name: "ReloadWhenMuchChanged", run: reloadWhenMuchChanged},
		{name: "VerifyNamesKeys", run: verifyNamesKeys},
		{name: "Schedule", run: scheduled},
		{name: "SchemaOfItsOwn", run: schemaOfItsOwn},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := l.world(t)
			w.feed = "true"
			c.run(t, w)
		})
	}
}

// follow makes lake.gold.t (id long, v string) and a TRIGGERED table of it.
func (w *world) follow(rows string, fields ...delta.Field) *source {
	w.t.Helper()
	if fields == nil {
		fields = []delta.Field{col("id", "long"), col("v", "string")}
	}
	s := w.source("t", fields...)
	s.write(add, rows)
	w.create(w.triggered("id"))
	w.reaches("t", tarn.SyncOnline, 1)
	return s
}

func (w *world) triggered(key ...string) tarn.SyncedTableSpec {
	x := w.spec("t", key...)
	x.Policy = tarn.SyncTriggered
	return x
}

// brought refreshes t to the source's newest version and tells whether that was
// done by changes alone.
func (w *world) brought(s *source) (applied bool) {
	w.t.Helper()
	before := w.text(`SELECT generation::text FROM tarn_sync.position`)
	w.refresh(w.spec("t").Name)
	w.reaches("t", tarn.SyncOnline, s.version())
	return before == w.text(`SELECT generation::text FROM tarn_sync.position`)
}

func (s *source) version() int64 {
	s.w.t.Helper()
	snap, err := s.table.Latest(s.w.t.Context())
	check(s.w.t, err)
	return snap.Version()
}

// equal checks both sides row by row.
func (w *world) equal() syncedtable.Verification {
	w.t.Helper()
	v, err := w.keeper.Verify(w.t.Context(), w.spec("t").Name)
	check(w.t, err)
	if !v.Equal() || v.TargetRows != v.SourceRows {
		w.t.Errorf("both sides differ: %+v", v)
	}
	if x := w.get("t"); x.RowsSynced != v.TargetRows {
		w.t.Errorf("rows synced is %d, the table has %d", x.RowsSynced, v.TargetRows)
	}
	return v
}

func (w *world) rows() string {
	w.t.Helper()
	return w.text(`SELECT string_agg(id || coalesce(v::text, '-'), ' ' ORDER BY id) FROM public.t`)
}

func (w *world) want(rows string, s *source) {
	w.t.Helper()
	if !w.brought(s) {
		w.t.Errorf("the table was loaded whole: %s", w.get("t").Message)
	}
	if got := w.rows(); got != rows {
		w.t.Errorf("rows are %s, want %s", got, rows)
	}
	w.equal()
}

func changesAreApplied(t *testing.T, w *world) {
	s := w.follow(`{"id":1,"v":"a"}
		{"id":2,"v":"b"}`)
	s.write(add, `{"id":3,"v":"c"}`)
	s.write(add, `{"id":4,"v":null}`)
	w.want("1a 2b 3c 4-", s)
	s.write(replace, `{"id":1,"v":"A"}
		{"id":3,"v":"c"}
		{"id":5,"v":"e"}`)
	w.want("1A 3c 5e", s)
	x := w.get("t")
	if x.RowsSynced != 3 || x.Message != "" || x.Lag(time.Now()) != 0 {
		t.Errorf("status %+v", x)
	}
	us, err := controldb.ListUpdates(t.Context(), w.db, x.PipelineID, 10)
	check(t, err)
	if len(us) != 3 || us[0].State != tarn.UpdateCompleted || us[0].Rows != 3 || us[2].Cause != tarn.CauseCreated {
		t.Errorf("updates %+v", us)
	}
	es, err := controldb.ListEvents(t.Context(), w.db, x.PipelineID, 0, 10)
	check(t, err)
	if !slices.ContainsFunc(es, func(e tarn.PipelineEvent) bool {
		return e.Type == tarn.EventFlowProgress && strings.Contains(e.Message, "Applied versions 4 to 4")
	}) {
		t.Errorf("events %+v", es)
	}
	// A full refresh loads it whole.
	_, err = w.keeper.Refresh(t.Context(), x.Name, tarn.RefreshFull)
	check(t, err)
	w.reaches("t", tarn.SyncOnline, 4)
	if got := w.text(`SELECT generation::text FROM tarn_sync.position`); got != "2" {
		t.Errorf("generation %s", got)
	}
	w.equal()
}

func primaryKeyChange(t *testing.T, w *world) {
	s := w.follow(`{"id":1,"v":"a"}
		{"id":2,"v":"b"}`)
	s.write(replace, `{"id":7,"v":"a"}
		{"id":2,"v":"b"}`)
	w.want("2b 7a", s)
}

func truncated(t *testing.T, w *world) {
	s := w.follow(`{"id":1,"v":"a"}
		{"id":2,"v":"b"}`)
	s.write(replace, ``)
	w.want("NULL", s)
	s.write(add, `{"id":2,"v":"c"}`)
	w.want("2c", s)
}

func oneKeyOften(t *testing.T, w *world) {
	s := w.follow(`{"id":1,"v":"a"}`)
	for _, rows := range []string{`{"id":2,"v":"in"}`, ``, `{"id":2,"v":"again"}`, `{"id":2,"v":"last"}
		{"id":3,"v":"in"}`, `{"id":2,"v":"last"}`} {
		s.write(replace, `{"id":1,"v":"a"}
			`+rows)
	}
	w.want("1a 2last", s)
}

func sameKeyTwice(t *testing.T, w *world) {
	s := w.follow(`{"id":1,"v":"a"}`)
	s.write(add, `{"id":2,"v":"x"}
		{"id":2,"v":"y"}`)
	if !w.brought(s) || w.rows() != "1a 2y" {
		t.Errorf("rows are %s", w.rows())
	}
}

func uniqueValuesSwap(t *testing.T, w *world) {
	s := w.follow(`{"id":1,"v":"a"}
		{"id":2,"v":"b"}`)
	// A unique index of a partitioned table holds the partition's key; the
	// partition alone can be unique by another column.
	leaf := w.text(`SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'public.t'::regclass`)
	w.exec(`CREATE UNIQUE INDEX t_v ON ` + leaf + ` (v)`)
	s.write(replace, `{"id":1,"v":"b"}
		{"id":2,"v":"a"}`)
	w.want("1b 2a", s)
	// One that breaks it becomes a dead letter, until the index goes.
	s.write(add, `{"id":3,"v":"a"}`)
	if !w.brought(s) || w.rows() != "1b 2a" || w.get("t").Rejected != 1 {
		t.Errorf("rows are %s, status %+v", w.rows(), w.get("t"))
	}
	if got := w.text(`SELECT source_row->>'v' || key::text FROM tarn_sync.dead_letters`); got != `a\x000000080000000000000003` {
		t.Errorf("letter %s", got)
	}
	w.exec(`DROP INDEX t_v`)
	r, err := w.keeper.Replay(t.Context(), w.spec("t").Name, syncedtable.KeepText)
	check(t, err)
	if r.Stored != 1 || w.rows() != "1b 2a 3a" || w.get("t").Rejected != 0 || w.get("t").Message != "" {
		t.Errorf("replayed %+v, rows %s, %+v", r, w.rows(), w.get("t"))
	}
	w.equal()
}

func bulkDelete(t *testing.T, w *world) {
	s := w.source("t", col("a", "integer"), col("b", "string"), col("v", "string"))
	var rows []string
	for i := range 3000 {
		rows = append(rows, fmt.Sprintf(`{"a":%d,"b":"k%d","v":"x"}`, i%50, i))
	}
	s.write(add, strings.Join(rows, "\n"))
	w.create(w.triggered("b", "a"))
	w.reaches("t", tarn.SyncOnline, 1)
	s.write(replace, strings.Join(rows[:7], "\n"))
	if !w.brought(s) {
		t.Error("loaded whole")
	}
	if v := w.equal(); v.TargetRows != 7 {
		t.Errorf("%+v", v)
	}
}

// evolve commits a schema with rows under it.
func (s *source) evolve(fields []delta.Field, rows string) {
	s.w.t.Helper()
	snap, err := s.table.Latest(s.w.t.Context())
	check(s.w.t, err)
	tx := s.table.Begin(snap)
	check(s.w.t, tx.SetSchema(delta.Schema{Fields: fields}))
	_, err = tx.Commit(s.w.t.Context(), delta.CommitOptions{})
	check(s.w.t, err)
	s.write(add, rows)
}

func columnAdded(t *testing.T, w *world) {
	s := w.follow(`{"id":1,"v":"a"}`)
	w.exec(`CREATE VIEW seen AS SELECT * FROM public.t`)
	s.evolve([]delta.Field{col("id", "long"), col("v", "string"), col("n", "decimal(10,2)")}, `{"id":2,"v":"b","n":"1.50"}`)
	w.want("1a 2b", s)
	if got := w.text(`SELECT string_agg(id || coalesce(n::text, '-'), ' ' ORDER BY id) FROM public.t`); got != "1- 21.50" {
		t.Errorf("rows are %s", got)
	}
	if got := w.text(`SELECT count(*)::text FROM seen`); got != "2" {
		t.Errorf("the view shows %s", got)
	}
}

func columnReplaced(t *testing.T, w *world) {
	s := w.follow(`{"id":1,"v":"a"}`)
	// The source is made anew with v of another type: what a drop and an add
	// of one name comes to.
	s = s.anew(col("id", "long"), col("v", "long"))
	s.write(add, `{"id":1,"v":7}`)
	w.refresh(w.spec("t").Name)
	x := w.reaches("t", tarn.SyncPipelineFailed, 0)
	for _, say := range []string{"column v was text and is bigint now", "tarn sync resync lake.public.t"} {
		if !strings.Contains(x.Message, say) {
			t.Errorf("message %q does not say %q", x.Message, say)
		}
	}
	if got := w.rows(); got != "1a" {
		t.Errorf("rows are %s", got)
	}
	us, err := controldb.ListUpdates(t.Context(), w.db, x.PipelineID, 1)
	check(t, err)
	if us[0].State != tarn.UpdateFailed || !strings.Contains(us[0].Message, "bigint") {
		t.Errorf("update %+v", us[0])
	}
	_, err = w.keeper.Refresh(t.Context(), x.Name, tarn.RefreshFull)
	check(t, err)
	w.reaches("t", tarn.SyncOnline, 1)
	if got := w.rows(); got != "17" {
		t.Errorf("rows are %s", got)
	}
	w.equal()
}

// anew makes the source's Delta table again, in its folder.
func (s *source) anew(fields ...delta.Field) *source {
	s.w.t.Helper()
	ctx := s.w.t.Context()
	check(s.w.t, s.w.catalog.DropTable(ctx, tarn.Principal{}, lake("t")))
	return s.w.source("t", fields...)
}

func poisonChange(t *testing.T, w *world) {
	s := w.follow(`{"id":1,"v":"a"}
		{"id":2,"v":"b"}`)
	s.write(replace, `{"id":1,"v":"a"}
		{"id":2,"v":"nul\u0000here"}
		{"id":3,"v":"c"}
		{"id":null,"v":"no key"}`)
	if !w.brought(s) {
		t.Error("loaded whole")
	}
	// The old row of key 2 is not true any more.
	if got := w.rows(); got != "1a 3c" {
		t.Errorf("rows are %s", got)
	}
	x := w.get("t")
	if x.Rejected != 2 || !strings.Contains(x.Message, "2 rows could not be stored") {
		t.Errorf("status %+v", x)
	}
	if v := w.equal(); v.Rejected != 2 {
		t.Errorf("verification %+v", v)
	}
	ls, err := w.keeper.DeadLetters(t.Context(), x.Name, 0, 10)
	check(t, err)
	if len(ls) != 2 || ls[0].Version != 2 || ls[0].Reason == "" {
		t.Errorf("letters %+v", ls)
	}
	// Nothing changed: they stay. Replaced on request, and only then.
	r, err := w.keeper.Replay(t.Context(), x.Name, syncedtable.KeepText)
	check(t, err)
	if r.Stored != 0 || r.Left != 2 {
		t.Errorf("replayed %+v", r)
	}
	r, err = w.keeper.Replay(t.Context(), x.Name, syncedtable.ReplaceText)
	check(t, err)
	if r.Stored != 1 || r.Left != 1 || w.rows() != "1a 2nul\uFFFDhere 3c" {
		t.Errorf("replayed %+v, rows %s", r, w.rows())
	}
	// A change that can be stored settles the letter; so does the end of a row.
	s.write(replace, `{"id":1,"v":"a"}
		{"id":2,"v":"well"}`)
	w.want("1a 2well", s)
	if x := w.get("t"); x.Rejected != 0 || x.Message != "" {
		t.Errorf("status %+v", x)
	}
}

func sourceVacuumed(t *testing.T, w *world) {
	s := w.follow(`{"id":1,"v":"a"}`)
	s.write(replace, `{"id":1,"v":"b"}`)
	s.write(replace, `{"id":1,"v":"c"}`)
	s.vacuum()
	if w.brought(s) {
		t.Error("changes were applied whose files are gone")
	}
	if x := w.get("t"); !strings.Contains(x.Message, "loaded whole") || !strings.Contains(x.Message, "vacuumed") {
		t.Errorf("message %q", x.Message)
	}
	w.equal()
}

func sourceMadeAnew(t *testing.T, w *world) {
	s := w.follow(`{"id":1,"v":"a"}`)
	s = s.anew(col("id", "long"), col("v", "string"))
	s.write(add, `{"id":9,"v":"z"}`) // the same version as before
	if w.brought(s) || w.rows() != "9z" || !strings.Contains(w.get("t").Message, "made anew") {
		t.Errorf("rows are %s, message %q", w.rows(), w.get("t").Message)
	}
	w.equal()
}

// The branch goes back in time: the position goes with the rows.
func positionWithTheRows(t *testing.T, w *world) {
	s := w.follow(`{"id":1,"v":"a"}`)
	s.write(add, `{"id":2,"v":"b"}`)
	w.want("1a 2b", s)
	w.kill()
	w.saveDatabase()
	w.start()
	s.write(replace, `{"id":2,"v":"B"}
		{"id":3,"v":"c"}`)
	w.want("2B 3c", s)
	s.write(add, `{"id":4,"v":"d"}`)
	w.kill()
	w.restoreDatabase()
	if got := w.rows(); got != "1a 2b" {
		t.Fatalf("restored rows are %s", got)
	}
	check(t, controldb.ReloadSyncedTables(t.Context(), w.db, w.branch, "restored"))
	w.start()
	w.reaches("t", tarn.SyncOnline, 4)
	if got := w.text(`SELECT generation::text FROM tarn_sync.position`); got != "1" || w.rows() != "2B 3c 4d" {
		t.Errorf("generation %s, rows %s", got, w.rows())
	}
	w.equal()
}

func largeVersion(t *testing.T, w *world) {
	w.kill()
	w.chunk = 100
	w.start()
	s := w.source("t", col("id", "long"), col("v", "string"))
	s.numbers(add, 2000, "a")
	w.create(w.triggered("id"))
	w.reaches("t", tarn.SyncOnline, 1)
	s.numbers(replace, 1000, "b") // 2000 rows go, 1000 come
	for i := range 5 {
		s.write(add, fmt.Sprintf(`{"id":%d,"v":"c"}`, 5000+i))
	}
	if !w.brought(s) {
		t.Errorf("loaded whole: %s", w.get("t").Message)
	}
	if v := w.equal(); v.TargetRows != 1005 {
		t.Errorf("%+v", v)
	}
	// Several connections.
	for i := range 5 {
		s.numbers(add, 0, "")
		var rows []string
		for j := range 60 {
			rows = append(rows, fmt.Sprintf(`{"id":%d,"v":"d%d"}`, 6000+100*i+j, i))
		}
		s.write(add, strings.Join(rows, "\n"))
	}
	if !w.brought(s) {
		t.Error("loaded whole")
	}
	if v := w.equal(); v.TargetRows != 1305 {
		t.Errorf("%+v", v)
	}
}

func stopAtBadRow(t *testing.T, w *world) {
	s := w.source("t", col("id", "long"), col("v", "string"))
	s.write(add, `{"id":1,"v":"a"}`)
	x := w.triggered("id")
	x.OnReject = tarn.RejectStop
	w.create(x)
	w.reaches("t", tarn.SyncOnline, 1)
	s.write(add, `{"id":2,"v":"nul\u0000here"}`)
	w.refresh(x.Name)
	got := w.reaches("t", tarn.SyncPipelineFailed, 0)
	if !strings.Contains(got.Message, "SYNCED_TABLE_USER_ERROR.CHARACTER_NOT_IN_REPERTOIRE") || w.rows() != "1a" {
		t.Errorf("message %q, rows %s", got.Message, w.rows())
	}
	x.OnReject = tarn.RejectContinue
	_, err := w.keeper.Change(t.Context(), x.Name, x.Policy, x.SyncSettings)
	check(t, err)
	w.want("1a", s)
}

func timeseriesKey(t *testing.T, w *world) {
	s := w.source("t", col("id", "long"), col("v", "string"), col("at", "timestamp"))
	s.write(add, `{"id":1,"v":"old","at":"2024-01-01T00:00:00Z"}
		{"id":1,"v":"new","at":"2024-02-01T00:00:00Z"}
		{"id":2,"v":"early","at":"1960-01-01T00:00:00Z"}`)
	x := w.triggered("id")
	x.TimeseriesKey = "AT"
	w.create(x)
	w.reaches("t", tarn.SyncOnline, 1)
	if got := w.rows(); got != "1new 2early" || w.get("t").Rejected != 0 {
		t.Errorf("rows are %s, %+v", got, w.get("t"))
	}
	s.write(add, `{"id":1,"v":"late","at":"2024-01-15T00:00:00Z"}
		{"id":2,"v":"later","at":"2024-01-15T00:00:00Z"}
		{"id":2,"v":"before","at":"2023-01-15T00:00:00Z"}`)
	w.want("1new 2later", s)
	// The newest goes: the one before it comes back.
	s.write(replace, `{"id":1,"v":"old","at":"2024-01-01T00:00:00Z"}
		{"id":2,"v":"later","at":"2024-01-15T00:00:00Z"}`)
	w.brought(s)
	if got := w.rows(); got != "1old 2later" {
		t.Errorf("rows are %s", got)
	}
	w.equal()
}

func policyChanges(t *testing.T, w *world) {
	s := w.follow(`{"id":1,"v":"a"}`)
	n := w.spec("t").Name
	_, err := w.keeper.Change(t.Context(), n, tarn.SyncContinuous, tarn.SyncSettings{Interval: time.Second})
	check(t, err)
	w.reaches("t", tarn.SyncContinuing, 1)
	s.write(add, `{"id":2,"v":"b"}`)
	w.reaches("t", tarn.SyncContinuing, 2)
	_, err = w.keeper.Change(t.Context(), n, tarn.SyncSnapshot, tarn.SyncSettings{})
	check(t, err)
	w.reaches("t", tarn.SyncOnline, 2)
	if got := w.text(`SELECT generation::text FROM tarn_sync.position`); got != "1" || w.rows() != "1a 2b" {
		t.Errorf("generation %s, rows %s", got, w.rows())
	}
	if _, err = w.keeper.Change(t.Context(), n, tarn.SyncSnapshot, tarn.SyncSettings{Interval: time.Minute}); tarn.KindOf(err) != tarn.KindInvalid {
		t.Errorf("an interval of SNAPSHOT: %v", err)
	}
}

func continuous(t *testing.T, w *world) {
	s := w.source("t", col("id", "long"), col("v", "string"))
	s.write(add, `{"id":1,"v":"a"}`)
	x := w.spec("t", "id")
	x.Policy, x.Interval = tarn.SyncContinuous, time.Second
	w.create(x)
	w.reaches("t", tarn.SyncContinuing, 1)
	for v := int64(2); v < 5; v++ {
		s.write(add, fmt.Sprintf(`{"id":%d,"v":"x"}`, v))
		w.reaches("t", tarn.SyncContinuing, v)
	}
	u, err := controldb.GetUpdate(t.Context(), w.db, w.get("t").PipelineID, w.get("t").UpdateID)
	check(t, err)
	if u.State != tarn.UpdateRunning {
		t.Errorf("update %+v", u)
	}
	check(t, w.keeper.Stop(t.Context(), x.Name))
	w.reaches("t", tarn.SyncStopped, 4)
	s.write(add, `{"id":9,"v":"y"}`)
	u, err = controldb.GetUpdate(t.Context(), w.db, w.get("t").PipelineID, u.ID)
	check(t, err)
	if u.State != tarn.UpdateCanceled || w.rows() != "1a 2x 3x 4x" {
		t.Errorf("update %+v, rows %s", u, w.rows())
	}
	w.refresh(x.Name)
	w.reaches("t", tarn.SyncContinuing, 5)
	_, err = w.keeper.Refresh(t.Context(), x.Name, tarn.RefreshFull)
	check(t, err)
	eventually(t, "another load", func() any { return w.get("t") }, func() bool {
		return w.get("t").State == tarn.SyncContinuing && w.text(`SELECT generation::text FROM tarn_sync.position`) == "2"
	})
	w.equal()
}

func reloadWhenMuchChanged(t *testing.T, w *world) {
	s := w.source("t", col("id", "long"), col("v", "string"))
	s.numbers(add, 30_000, "a")
	w.create(w.triggered("id"))
	w.reaches("t", tarn.SyncOnline, 1)
	s.numbers(replace, 30_000, "b")
	if w.brought(s) || !strings.Contains(w.get("t").Message, "rows changed, of 30000") {
		t.Errorf("changes were applied, message %q", w.get("t").Message)
	}
	s.write(add, `{"id":-1,"v":"c"}`)
	if !w.brought(s) {
		t.Error("the table was loaded for one row")
	}
	w.equal()
}

func verifyNamesKeys(t *testing.T, w *world) {
	s := w.follow(`{"id":1,"v":"a"}
		{"id":2,"v":"b"}
		{"id":3,"v":"c"}`)
	w.equal()
	w.exec(`DELETE FROM public.t WHERE id = 1`)
	w.exec(`UPDATE public.t SET v = 'x' WHERE id = 2`)
	w.exec(`INSERT INTO public.t VALUES (7, 'new')`)
	s.write(add, `{"id":4,"v":"not yet there"}`)
	v, err := w.keeper.Verify(t.Context(), w.spec("t").Name)
	check(t, err)
	want := []syncedtable.KeyDifference{{Key: `{"id": 1}`, What: "missing in Postgres"}, {Key: `{"id": 2}`, What: "different"}, {Key: `{"id": 7}`, What: "not in the source"}}
	if v.Version != 1 || !slices.Equal(v.Keys, want) {
		t.Errorf("verification %+v", v)
	}
}

func scheduled(t *testing.T, w *world) {
	s := w.source("t", col("id", "long"), col("v", "string"))
	s.write(add, `{"id":1,"v":"a"}`)
	x := w.triggered("id")
	x.Schedule.Cron = "* * * * *"
	w.create(x)
	w.reaches("t", tarn.SyncOnline, 1)
	s.write(add, `{"id":2,"v":"b"}`)
	// The last sync lies two minutes back, as after a pause of the service.
	row := w.get("t")
	w.kill()
	row.SyncEnd = row.SyncEnd.Add(-2 * time.Minute)
	check(t, controldb.UpdateSyncedTable(t.Context(), w.db, row))
	w.start()
	w.reaches("t", tarn.SyncOnline, 2)
	us, err := controldb.ListUpdates(t.Context(), w.db, row.PipelineID, 1)
	check(t, err)
	if us[0].Cause != tarn.CauseSchedule {
		t.Errorf("update %+v", us[0])
	}
}

// The Postgres schema is made, for the project's owner, and the changes find
// their way into it.
func schemaOfItsOwn(t *testing.T, w *world) {
	s := w.source("t", col("id", "long"), col("v", "string"))
	s.write(add, `{"id":1,"v":"a"}`)
	x := w.triggered("id")
	x.Name.Schema = "serving"
	w.create(x)
	at := func(v int64) {
		eventually(t, "online", func() any { return nil }, func() bool {
			row, err := w.keeper.Get(t.Context(), x.Name)
			check(t, err)
			if row.State.Failed() {
				t.Fatal(row.Message)
			}
			return row.State == tarn.SyncOnline && row.Version == v
		})
	}
	at(1)
	s.write(add, `{"id":2,"v":"b"}`)
	w.refresh(x.Name)
	at(2)
	if got := w.text(`SELECT count(*) || nspowner::regrole::text FROM serving.t, pg_namespace WHERE nspname = 'serving' GROUP BY nspowner`); got != `2"ada@example.com"` {
		t.Errorf("rows and owner %s", got)
	}
}

// TestFollowKills ends the mover and its sessions at any moment while a source
// changes; both sides are equal at the end.
func TestFollowKills(t *testing.T) {
	l := newLab(t, pgtest.Newest(t))
	w := l.world(t)
	w.feed, w.chunk = "true", 60
	w.kill()
	w.start()
	s := w.follow(`{"id":1,"v":"a"}`)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 2))
	rows := map[int]string{1: "a"}
	for round := range 25 {
		for range 1 + r.IntN(3) {
			var text []string
			if r.IntN(3) > 0 {
				for range r.IntN(80) {
					k := 1000*round + r.IntN(1000)
					if _, ok := rows[k]; !ok {
						rows[k] = fmt.Sprint(round)
						text = append(text, fmt.Sprintf(`{"id":%d,"v":"%d"}`, k, round))
					}
				}
				s.write(add, strings.Join(text, "\n"))
				continue
			}
			for k := range rows {
				switch r.IntN(4) {
				case 0:
					delete(rows, k)
				case 1:
					rows[k] = fmt.Sprintf("%d'", round)
				}
			}
			for k, v := range rows {
				text = append(text, fmt.Sprintf(`{"id":%d,"v":"%s"}`, k, v))
			}
			s.write(replace, strings.Join(text, "\n"))
		}
		if x := w.get("t"); !x.State.Due() {
			w.refresh(x.Name)
		}
		timer := time.NewTimer(time.Duration(r.IntN(120)) * time.Millisecond)
		<-timer.C
		if r.IntN(2) == 0 {
			w.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tarn synced table' AND datname = current_database()`)
		} else {
			w.kill()
			w.start()
		}
		// What is there is what the position says.
		if v, err := w.keeper.Verify(t.Context(), w.spec("t").Name); err == nil && !v.Equal() && w.oneConnection() {
			t.Fatalf("round %d: %+v", round, v)
		}
	}
	eventually(t, "rest", func() any { return w.get("t") }, func() bool { return !w.get("t").State.Due() })
	if w.get("t").Version != s.version() {
		w.brought(s)
	}
	w.reaches("t", tarn.SyncOnline, s.version())
	if v := w.equal(); v.TargetRows != int64(len(rows)) {
		t.Errorf("%d rows, want %d", v.TargetRows, len(rows))
	}
	t.Logf("%d versions, generation %s", s.version(), w.text(`SELECT generation::text FROM tarn_sync.position`))
}

// oneConnection tells that no part of a version can be seen before the rest.
func (w *world) oneConnection() bool { return w.chunk == 0 }
