package delta_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tarndb/tarn/internal/blob/memory"
	"github.com/tarndb/tarn/internal/delta"
)

// tri is a truth of SQL; nil = unknown.
type tri *bool

func known(b bool) tri { return &b }

// whereRow is a row as the test knows it; nil = null.
type whereRow struct {
	id   int
	n    *int
	s    *string
	part int
	ts   time.Time
}

func (r whereRow) json() string {
	n, s := "null", "null"
	if r.n != nil {
		n = fmt.Sprint(*r.n)
	}
	if r.s != nil {
		s = fmt.Sprintf("%q", *r.s)
	}
	return fmt.Sprintf(`{"id":%d,"n":%s,"s":%s,"part":%d,"ts":%q,"st":{"x":%s}}`, r.id, n, s, r.part, r.ts.Format("2006-01-02T15:04:05.000000Z"), n)
}

// randomPredicate gives a predicate and what it means.
func randomPredicate(r *rand.Rand, depth int) (delta.Predicate, func(whereRow) tri) {
	if depth > 0 && r.IntN(2) == 0 {
		a, fa := randomPredicate(r, depth-1)
		b, fb := randomPredicate(r, depth-1)
		switch r.IntN(3) {
		case 0:
			return delta.Not(a), func(w whereRow) tri {
				if v := fa(w); v != nil {
					return known(!*v)
				}
				return nil
			}
		case 1:
			return delta.And(a, b), func(w whereRow) tri { return both(fa(w), fb(w), false) }
		default:
			return delta.Or(a, b), func(w whereRow) tri { return both(fa(w), fb(w), true) }
		}
	}
	compare := []func(string, any) delta.Predicate{delta.Eq, delta.Ne, delta.Lt, delta.Le, delta.Gt, delta.Ge}
	truths := []func(int) bool{
		func(c int) bool { return c == 0 }, func(c int) bool { return c != 0 }, func(c int) bool { return c < 0 },
		func(c int) bool { return c <= 0 }, func(c int) bool { return c > 0 }, func(c int) bool { return c >= 0 },
	}
	k, v := r.IntN(6), r.IntN(40)
	text := fmt.Sprintf("s%02d", v)
	at := time.UnixMicro(int64(v)*1_000_700 + int64(r.IntN(2))).UTC()
	ofN := func(f func(int) tri) func(whereRow) tri {
		return func(w whereRow) tri {
			if w.n == nil {
				return nil
			}
			return f(*w.n)
		}
	}
	switch r.IntN(8) {
	case 0:
		return compare[k]("n", v), ofN(func(n int) tri { return known(truths[k](n - v)) })
	case 1:
		return compare[k]("st.x", int64(v)), ofN(func(n int) tri { return known(truths[k](n - v)) })
	case 2:
		return compare[k]("s", text), func(w whereRow) tri {
			if w.s == nil {
				return nil
			}
			return known(truths[k](strings.Compare(*w.s, text)))
		}
	case 3:
		v %= 5
		return compare[k]("part", v), func(w whereRow) tri { return known(truths[k](w.part - v)) }
	case 4:
		return compare[k]("ts", at), func(w whereRow) tri { return known(truths[k](w.ts.Compare(at))) }
	case 5:
		return delta.IsNull("n"), func(w whereRow) tri { return known(w.n == nil) }
	case 6:
		return delta.NotNull("st.x"), func(w whereRow) tri { return known(w.n != nil) }
	default:
		return delta.In("n", v, v+1, v+7), ofN(func(n int) tri { return known(n == v || n == v+1 || n == v+7) })
	}
}

// both joins two truths; by or, when one true is enough.
func both(a, b tri, or bool) tri {
	switch {
	case a != nil && *a == or, b != nil && *b == or:
		return known(or)
	case a == nil || b == nil:
		return nil
	}
	return known(!or)
}

// Files that are left out by their statistics or partition hold no row that is
// asked for, and the rest is filtered as SQL does it.
func TestWhere(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 1))
	defer func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	}()
	schema := delta.Schema{Fields: []delta.Field{
		{Name: "id", Type: "long"}, {Name: "n", Type: "integer", Nullable: true}, {Name: "s", Type: "string", Nullable: true},
		{Name: "part", Type: "short", Nullable: true}, {Name: "ts", Type: "timestamp", Nullable: true},
		{Name: "st", Type: `{"type":"struct","fields":[{"name":"x","type":"integer","nullable":true,"metadata":{}}]}`, Nullable: true},
	}}
	tab := create(t, memory.New(), delta.Metadata{Schema: schema, PartitionBy: []string{"part"}})
	var all []whereRow
	for range 12 {
		var objects []string
		from := r.IntN(35)
		for range 1 + r.IntN(6) {
			w := whereRow{id: len(all), part: r.IntN(3), ts: time.UnixMicro(int64(from) * 1_000_700).UTC()}
			if r.IntN(4) > 0 {
				n := from + r.IntN(5)
				w.n = &n
			}
			if r.IntN(4) > 0 {
				s := fmt.Sprintf("s%02d", from+r.IntN(5))
				w.s = &s
			}
			all = append(all, w)
			objects = append(objects, w.json())
		}
		write(t, tab, objects...)
	}
	s := latest(t, tab)
	for range 150 {
		p, truth := randomPredicate(r, 3)
		var want []string
		for _, w := range all {
			if v := truth(w); v != nil && *v {
				want = append(want, fmt.Sprint(w.id))
			}
		}
		got, err := scan(t.Context(), s, delta.ScanOptions{Columns: []string{"id"}, Where: p, BatchRows: 3})
		if err != nil {
			t.Fatalf("%s: %v", p, err)
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s gives %v, want %v", p, got, want)
		}
	}
	for _, p := range []delta.Predicate{
		delta.Eq("nope", 1), delta.Eq("n", "x"), delta.Eq("s", 1), delta.Eq("n", true), delta.Eq("st", 1), delta.Eq("st.y", 1), delta.Eq("ts", "then"), delta.Eq("`n", 1),
	} {
		if _, err := scan(t.Context(), s, delta.ScanOptions{Where: p}); err == nil {
			t.Errorf("%s is not refused", p)
		}
	}
	got := content(t, s, delta.ScanOptions{Columns: []string{"st.x", "id"}, Where: delta.Eq("id", 0)})
	x := "null"
	if all[0].n != nil {
		x = fmt.Sprint(*all[0].n)
	}
	equal(t, "a field of a struct", got, []string{"0|{\"x\":" + x + "}"})
}

// A file that cannot hold a row is not even opened.
func TestWhereSkipsFiles(t *testing.T) {
	store := memory.New()
	tab := create(t, store, delta.Metadata{Schema: people(), PartitionBy: []string{"town"}})
	write(t, tab, person(1, "a", "x"))
	write(t, tab, person(2, "b", "x"))
	write(t, tab, person(3, "c", "y"))
	s := latest(t, tab)
	for o := range store.List(t.Context(), "t/town=x", "") {
		if err := store.Delete(t.Context(), o.Key); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []delta.Predicate{delta.Eq("town", "y"), delta.Gt("id", 2), delta.And(delta.Ge("name", "c"), delta.NotNull("id"))} {
		equal(t, p.String(), content(t, s, delta.ScanOptions{Where: p}), []string{"3|c|y"})
	}
	if _, err := scan(t.Context(), s, delta.ScanOptions{Where: delta.Lt("id", 3)}); err == nil {
		t.Error("a file that is gone was read")
	}
}

// A table at a time is the newest version committed by then.
func TestAtTime(t *testing.T) {
	tab := create(t, memory.New(), delta.Metadata{Schema: people()})
	var times []time.Time
	for i := range 5 {
		if i > 0 {
			write(t, tab, person(i, "n", "x"))
		}
		at := latest(t, tab).Time()
		if i > 0 && !at.After(times[i-1]) {
			t.Skip("the clock is too coarse for this test")
		}
		times = append(times, at)
	}
	for i, at := range times {
		for _, c := range []struct {
			at   time.Time
			want int64
		}{{at, int64(i)}, {at.Add(-time.Microsecond), int64(i - 1)}} {
			s, err := tab.AtTime(t.Context(), c.at)
			if c.want < 0 {
				if !errors.Is(err, delta.ErrNoVersion) {
					t.Errorf("before the table: %v, %v", s, err)
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			if s.Version() != c.want {
				t.Errorf("at %v is version %d, want %d", c.at, s.Version(), c.want)
			}
		}
	}
	if s, err := tab.AtTime(t.Context(), times[4].Add(time.Hour)); err != nil || s.Version() != 4 {
		t.Errorf("later: %v, %v", s, err)
	}
}

// A compacted log stands for its commits; a damaged one is passed by.
func TestCompactedLog(t *testing.T) {
	store := memory.New()
	tab := create(t, store, delta.Metadata{Schema: people()})
	for i := 1; i <= 5; i++ {
		write(t, tab, person(i, "n", "x"))
	}
	want := content(t, latest(t, tab), delta.ScanOptions{})
	var sum bytes.Buffer
	for v := 1; v <= 3; v++ {
		r, err := store.Get(t.Context(), fmt.Sprintf("t/_delta_log/%020d.json", v), 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sum.ReadFrom(r); err != nil {
			t.Fatal(err)
		}
		r.Close()
	}
	put := func(key, text string) {
		t.Helper()
		if err := store.Put(t.Context(), key, strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
	}
	compacted := fmt.Sprintf("t/_delta_log/%020d.%020d.compacted.json", 1, 3)
	put(compacted, sum.String())
	// A commit it covers is damaged: only the compaction can be read.
	damaged := fmt.Sprintf("t/_delta_log/%020d.json", 2)
	r, err := store.Get(t.Context(), damaged, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	var whole bytes.Buffer
	if _, err := whole.ReadFrom(r); err != nil {
		t.Fatal(err)
	}
	r.Close()
	put(damaged, "{")
	open := func() *delta.Snapshot {
		t.Helper()
		again, err := delta.Open(t.Context(), store, "t")
		if err != nil {
			t.Fatal(err)
		}
		return latest(t, again)
	}
	equal(t, "by the compaction", content(t, open(), delta.ScanOptions{}), want)
	put(damaged, whole.String())
	put(compacted, "{")
	equal(t, "past a damaged compaction", content(t, open(), delta.ScanOptions{}), want)
}
