package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	accounts       = 50
	initialBalance = 1000
	pages          = 3000 // rows of table pages, about ten on a page of 8 KiB
)

// makeBank makes the tables. Each row of pages can be recomputed from its
// version, and an index that every change touches keeps changes from staying on
// one page.
func makeBank() string {
	return fmt.Sprintf(`
CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL);
CREATE TABLE transfers (stream int, n int, source int NOT NULL REFERENCES accounts, target int NOT NULL REFERENCES accounts,
	amount bigint NOT NULL, PRIMARY KEY (stream, n));
CREATE TABLE pages (id int PRIMARY KEY, version bigint NOT NULL, body text NOT NULL);
CREATE INDEX ON pages (version);
INSERT INTO accounts SELECT i, %d FROM generate_series(1, %d) i;
INSERT INTO pages SELECT i, 0, repeat(md5(i || ':0'), 20) FROM generate_series(1, %d) i`, initialBalance, accounts, pages)
}

const (
	moveMoney = `UPDATE accounts SET balance = balance + $2 WHERE id = $1`
	noteMove  = `INSERT INTO transfers (stream, n, source, target, amount) VALUES ($1, $2, $3, $4, $5)`
	turnPage  = `UPDATE pages SET version = version + 1, body = repeat(md5(id || ':' || version + 1), 20) WHERE id = $1`
)

// transfer moves money, turns a page and notes it, in one transaction.
func transfer(ctx context.Context, c *pgx.Conn, r *rand.Rand, k key) error {
	from := 1 + r.IntN(accounts)
	to := 1 + (from+r.IntN(accounts-1))%accounts
	amount := 1 + r.IntN(20)
	// Always the smaller account first, so that tellers do not deadlock.
	low, high, change := from, to, -amount
	if from > to {
		low, high, change = to, from, amount
	}
	return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
		var b pgx.Batch
		b.Queue(moveMoney, low, change)
		b.Queue(moveMoney, high, -change)
		b.Queue(turnPage, 1+r.IntN(pages))
		b.Queue(noteMove, k.stream, k.n, from, to, amount)
		return tx.SendBatch(ctx, &b).Close()
	})
}

// sums are what must hold on every branch at every moment.
type sums struct {
	balance    int64 // of all accounts
	unbalanced int64 // accounts whose balance is not what the transfers say
	turns      int64 // of all pages
	torn       int64 // pages that do not hold what their version says
	pages      int64
}

const readSums = `
SELECT (SELECT sum(balance) FROM accounts),
	(SELECT count(*) FROM accounts a
		LEFT JOIN (SELECT source, sum(amount) AS amount FROM transfers GROUP BY source) gave ON gave.source = a.id
		LEFT JOIN (SELECT target, sum(amount) AS amount FROM transfers GROUP BY target) got ON got.target = a.id
		WHERE balance <> $1 - coalesce(gave.amount, 0) + coalesce(got.amount, 0)),
	(SELECT sum(version) FROM pages),
	(SELECT count(*) FROM pages WHERE body <> repeat(md5(id || ':' || version), 20)),
	(SELECT count(*) FROM pages)`

func (s sums) judge(transfers int) (wrong []string) {
	for _, c := range []struct {
		what      string
		got, want int64
	}{
		{"sum of balances", s.balance, accounts * initialBalance},
		{"accounts whose balance is not what the transfers say", s.unbalanced, 0},
		{"pages turned", s.turns, int64(transfers)},
		{"pages that do not hold what their version says", s.torn, 0},
		{"pages", s.pages, pages},
	} {
		if c.got != c.want {
			wrong = append(wrong, fmt.Sprintf("%s: %d, want %d", c.what, c.got, c.want))
		}
	}
	return wrong
}

// read reads what a branch holds, in one snapshot.
func read(ctx context.Context, c *pgx.Conn) (got content, err error) {
	asked := time.Now()
	err = pgx.BeginTxFunc(ctx, c, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) error {
		got, err = readIn(ctx, tx)
		return err
	})
	got.asked = asked
	return got, err
}

func readIn(ctx context.Context, tx pgx.Tx) (content, error) {
	got := content{transfers: map[key]struct{}{}}
	s := &got.sums
	if err := tx.QueryRow(ctx, readSums, initialBalance).Scan(&s.balance, &s.unbalanced, &s.turns, &s.torn, &s.pages); err != nil {
		return got, err
	}
	rows, err := tx.Query(ctx, "SELECT stream, n FROM transfers")
	if err != nil {
		return got, err
	}
	var k key
	_, err = pgx.ForEachRow(rows, []any{&k.stream, &k.n}, func() error {
		got.transfers[k] = struct{}{}
		return nil
	})
	return got, err
}
