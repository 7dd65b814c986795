package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/client"
	"github.com/tarndb/tarn/internal/blob/dir"
	"github.com/tarndb/tarn/internal/delta"
)

// change is one line of a history table, read straight from its files.
type change struct {
	order, kind string
	values      map[string]any // of the columns asked for
}

// readHistory reads columns of a history table in order of _sort_by.
func (in *instance) readHistory(ctx context.Context, t *testing.T, table string, columns ...string) []change {
	t.Helper()
	n, err := tarn.ParseTableName(table)
	if err != nil {
		t.Fatal(err)
	}
	entry, err := in.client().Tables().Get(ctx, n)
	if err != nil {
		t.Fatal(err)
	}
	store, err := dir.Open(strings.TrimPrefix(entry.StorageLocation, "file://"))
	if err != nil {
		t.Fatal(err)
	}
	tab, err := delta.Open(ctx, store, "")
	if err != nil {
		t.Fatal(err)
	}
	snap, err := tab.Latest(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var all []change
	for rec, err := range snap.Scan(ctx, delta.ScanOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		for i := range int(rec.NumRows()) {
			c := change{values: map[string]any{}}
			for j, f := range rec.Schema().Fields() {
				switch {
				case f.Name == "_sort_by":
					c.order = rec.Column(j).(*array.String).Value(i)
				case f.Name == "_pg_change_type":
					c.kind = rec.Column(j).(*array.String).Value(i)
				case slices.Contains(columns, f.Name) && rec.Column(j).IsValid(i):
					c.values[f.Name] = rec.Column(j).GetOneForMarshal(i)
				}
			}
			all = append(all, c)
		}
		rec.Release()
	}
	slices.SortStableFunc(all, func(a, b change) int { return strings.Compare(a.order, b.order) })
	return all
}

func (in *instance) client() *client.Client {
	in.t.Helper()
	p := in.profile()
	c, err := client.New(client.Options{Host: p.Host, Token: tarn.Secret(p.Token)})
	if err != nil {
		in.t.Fatal(err)
	}
	return c
}

// awaitStreaming waits until a feed has copied n tables and follows them.
func (in *instance) awaitStreaming(ctx context.Context, t *testing.T, b tarn.BranchName, feed string, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		tables, err := in.client().Feeds(b, "").Tables(ctx, feed)
		if err != nil {
			t.Fatal(err)
		}
		streaming := 0
		for _, table := range tables {
			if table.State == string(tarn.FeedStreaming) {
				streaming++
			}
		}
		if streaming >= n {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%d of %d tables stream", streaming, n)
		case <-tick.C:
		}
	}
}

// checkBankHistory waits for the feed and compares its history with the tables:
// every transfer is inserted exactly once, every update of an account is there
// once, and replaying the accounts gives the table.
func (in *instance) checkBankHistory(ctx context.Context, t *testing.T, b *bank) {
	t.Helper()
	c, err := pgx.Connect(ctx, b.url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	var transfers int
	if err := c.QueryRow(ctx, "SELECT count(*) FROM transfers").Scan(&transfers); err != nil {
		t.Fatal(err)
	}
	wait, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	var moved, balances []change
	for {
		moved = in.readHistory(ctx, t, "lake.bank.lb_transfers_history", "tag")
		balances = in.readHistory(ctx, t, "lake.bank.lb_accounts_history", "id", "balance")
		if len(moved) >= transfers && len(balances) >= accounts+4*transfers {
			break
		}
		select {
		case <-wait.Done():
			t.Fatalf("the feed has %d of %d transfers and %d of %d account rows", len(moved), transfers, len(balances), accounts+4*transfers)
		case <-tick.C:
		}
	}
	seen := map[string]int{}
	for _, ch := range moved {
		if ch.kind != "insert" {
			t.Errorf("the history of transfers holds a row of kind %s: %v", ch.kind, ch.values)
		}
		seen[fmt.Sprint(ch.values["tag"])]++
	}
	for tag, n := range seen {
		if n != 1 {
			t.Errorf("transfer %s stands %d times in the history", tag, n)
		}
	}
	if len(seen) != transfers {
		t.Errorf("the history has %d transfers, the table %d", len(seen), transfers)
	}
	replayed := map[string]string{}
	posts := 0
	for _, ch := range balances {
		id, balance := fmt.Sprint(ch.values["id"]), fmt.Sprint(ch.values["balance"])
		switch ch.kind {
		case "insert":
			replayed[id] = balance
		case "update_preimage":
			if replayed[id] != balance {
				t.Errorf("account %s: the history says %s before a change, after the last one it was %s", id, balance, replayed[id])
			}
		case "update_postimage":
			replayed[id] = balance
			posts++
		default:
			t.Errorf("the history of accounts holds a row of kind %s", ch.kind)
		}
	}
	if posts != 2*transfers {
		t.Errorf("the history has %d account updates, the transfers made %d", posts, 2*transfers)
	}
	rows, err := c.Query(ctx, "SELECT id::text, balance::text FROM accounts")
	if err != nil {
		t.Fatal(err)
	}
	type row struct{ ID, Balance string }
	table, err := pgx.CollectRows(rows, pgx.RowToStructByPos[row])
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range table {
		if replayed[r.ID] != r.Balance {
			t.Errorf("account %s: the history gives %s, the table has %s", r.ID, replayed[r.ID], r.Balance)
		}
	}
}
