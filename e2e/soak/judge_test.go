package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn/internal/postgres/pgtest"
)

// A soak that cannot fail shows nothing: each kind of damage must be noticed.

// story is a parent with four acknowledged transfers, a second apart, and one
// whose end is unknown.
func story() (*branch, *ledger, time.Time) {
	zero := time.Now().Add(-time.Minute)
	at := func(second float64) int64 { return zero.Add(time.Duration(second * float64(time.Second))).UnixNano() }
	l := &ledger{streams: [][]entry{
		{{begun: at(0), acked: at(0.1)}, {begun: at(1), acked: at(1.1)}, {begun: at(2), acked: at(2.1)}, {begun: at(2.2)}},
		{{begun: at(3), acked: at(3.1)}},
	}}
	return &branch{name: "parent", base: map[key]struct{}{{9, 1}: {}}, streams: []int32{0, 1}}, l, zero
}

func holds(keys ...key) content {
	c := content{transfers: map[key]struct{}{}, asked: time.Now()}
	for _, k := range keys {
		c.transfers[k] = struct{}{}
	}
	c.sums = sums{balance: accounts * initialBalance, turns: int64(len(keys)), pages: pages}
	return c
}

func TestJudgeChild(t *testing.T) {
	all := []key{{9, 1}, {0, 1}, {0, 2}, {0, 3}, {1, 1}}
	for name, c := range map[string]struct {
		second float64 // of the moment
		found  []key
		want   string // "" = nothing is wrong
	}{
		"right":                  {2.5, all[:4], ""},
		"unknown end, there":     {2.5, append([]key{{0, 4}}, all[:4]...), ""},
		"acknowledged, lost":     {2.5, all[:3], "before the moment and is missing"},
		"too new":                {2.5, all, "after the moment and is there"},
		"hole":                   {3.05, []key{{9, 1}, {0, 1}, {0, 3}, {1, 1}}, "is missing"},
		"the beginning lost":     {2.5, all[1:4], "of what the parent began with is missing"},
		"from nowhere":           {2.5, append([]key{{0, 7}}, all[:4]...), "was never sent"},
		"from another beginning": {2.5, append([]key{{8, 7}}, all[:4]...), "not of what the parent began with"},
	} {
		t.Run(name, func(t *testing.T) {
			parent, l, zero := story()
			moment := zero.Add(time.Duration(c.second * float64(time.Second)))
			child := &branch{name: "child", from: &origin{parent: parent, surely: moment, never: moment}}
			got := strings.Join(child.judge(holds(c.found...), l), "; ")
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("found %q, want %q", got, c.want)
			}
			if child.known() != (c.want == "") {
				t.Errorf("the child is known: %t", child.known())
			}
		})
	}
}

// A fork of now has no exact moment, but never a hole.
func TestJudgeNow(t *testing.T) {
	parent, l, zero := story()
	o := &origin{parent: parent, surely: zero.Add(1500 * time.Millisecond), never: zero.Add(time.Minute)}
	for want, found := range map[string][]key{
		"":                              {{9, 1}, {0, 1}, {0, 2}},
		"before another began":          {{9, 1}, {0, 1}, {0, 2}, {1, 1}}, // 3 of stream 0 was acknowledged before 1 of stream 1 began
		"before the moment and is miss": {{9, 1}, {0, 1}},
	} {
		child := &branch{name: "child", from: o}
		if got := strings.Join(child.judge(holds(found...), l), "; "); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("found %q, want %q", got, want)
		}
	}
}

func TestJudgeAgain(t *testing.T) {
	l := &ledger{streams: [][]entry{{{begun: 1, acked: 2}, {begun: 3}}}}
	b := &branch{name: "b", base: map[key]struct{}{{9, 1}: {}}, streams: []int32{0}}
	for want, found := range map[string][]key{
		"":                           {{9, 1}, {0, 1}},
		"acknowledged and missing":   {{9, 1}},
		"branch began with is miss":  {{0, 1}},
		"not of what the branch beg": {{9, 1}, {0, 1}, {9, 2}},
		"was never sent":             {{9, 1}, {0, 1}, {0, 3}},
	} {
		if got := strings.Join(b.judge(holds(found...), l), "; "); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("found %q, want %q", got, want)
		}
	}
}

// The sums are read from a real Postgres in which something was falsified.
func TestJudgeSums(t *testing.T) {
	ctx := t.Context()
	_, url := pgtest.Start(t, pgtest.Newest(t))
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	if _, err := c.Exec(ctx, makeBank()); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 1))
	for n := range int32(20) {
		if err := transfer(ctx, c, r, key{0, n + 1}); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []struct{ falsify, want string }{
		{"SELECT 1", ""},
		{"UPDATE accounts SET balance = balance + 1 WHERE id = 1", "sum of balances: 50001, want 50000"},
		{"UPDATE accounts SET balance = balance + CASE id WHEN 1 THEN 1 ELSE -1 END WHERE id IN (1, 2)", "accounts whose balance is not what the transfers say: 2, want 0"},
		{"DELETE FROM transfers WHERE n = 7", "pages turned: 20, want 19"},
		{"UPDATE pages SET body = 'x' || body WHERE id = 7", "pages that do not hold what their version says: 1, want 0"},
		{"DELETE FROM pages WHERE version = 0 AND id < 100", "pages: "},
	} {
		tx, err := c.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(ctx, f.falsify); err != nil {
			t.Fatal(err)
		}
		got, err := readIn(ctx, tx)
		if err != nil {
			t.Fatal(err)
		}
		if wrong := fmt.Sprint(got.sums.judge(len(got.transfers))); f.want == "" && wrong != "[]" || !strings.Contains(wrong, f.want) {
			t.Errorf("after %s: found %s, want %q", f.falsify, wrong, f.want)
		}
		if err := tx.Rollback(ctx); err != nil {
			t.Fatal(err)
		}
	}
}
