package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/bench/report"
	"github.com/tarndb/tarn/internal/catalog"
	"github.com/tarndb/tarn/internal/delta"
	"github.com/tarndb/tarn/internal/feed"
)

// A row has 1 KB: five columns, most of it text that does not repeat.
const tableSQL = `CREATE TABLE %s (id bigint PRIMARY KEY, a int, b timestamptz DEFAULT now(), c numeric(12,2), v text)`

// fill commits rows in transactions of 1,000. It takes about as long as a run
// is to last.
func (b *bench) fill(ctx context.Context, table string, rows int) error {
	for from := 0; from < rows; from += 1000 {
		_, err := b.conn.Exec(ctx, `INSERT INTO `+table+` (id, a, c, v)
			SELECT i, i % 1000, i * 0.01, (SELECT string_agg(md5(i::text || k), '') FROM generate_series(1, 30) k) FROM generate_series($1::int, $2::int) i`,
			pgx.QueryExecModeExec, from+1, min(from+1000, rows))
		if err != nil {
			return fmt.Errorf("write rows: %w", err)
		}
	}
	return nil
}

// rows of one run: 10,000 for each second asked for; the default is a run of
// 100 MB.
func (b *bench) rows() int { return 10_000 * b.o.Seconds }

func (b *bench) position(ctx context.Context) (tarn.LSN, error) {
	var text string
	if err := b.conn.QueryRow(ctx, `SELECT pg_current_wal_lsn()::text`).Scan(&text); err != nil {
		return 0, err
	}
	return tarn.ParseLSN(text)
}

// follow begins a feed of a new schema with one table and waits for its copy.
func (b *bench) follow(ctx context.Context, schema string, flush time.Duration) error {
	for _, sql := range []string{"CREATE SCHEMA " + schema, fmt.Sprintf(tableSQL, schema+".t")} {
		if _, err := b.conn.Exec(ctx, sql); err != nil {
			return err
		}
	}
	_, err := b.keeper.Create(ctx, tarn.Principal{Name: "bench"}, tarn.FeedSpec{Branch: b.branch, Database: "app", PostgresSchema: schema,
		Catalog: catalog.Default, Schema: schema, FeedSettings: tarn.FeedSettings{Flush: flush}})
	if err != nil {
		return err
	}
	lsn, err := b.position(ctx)
	if err != nil {
		return err
	}
	return b.await(ctx, schema, lsn)
}

// await waits until the feed of a schema has everything up to lsn.
func (b *bench) await(ctx context.Context, schema string, lsn tarn.LSN) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		f, err := b.keeper.Get(ctx, b.branch, schema)
		if err != nil {
			return err
		}
		if len(f.Tables) == 1 && f.Tables[0].State == tarn.FeedStreaming && f.Tables[0].CommittedLSN >= lsn {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (b *bench) unique(name string) string { return fmt.Sprintf("%s_%d", name, time.Now().UnixNano()) }

// drainOurs pauses a feed, writes, and times it until every row is in Delta.
func (b *bench) drainOurs(ctx context.Context) (float64, error) {
	schema := b.unique("ours")
	if err := b.follow(ctx, schema, 0); err != nil {
		return 0, err
	}
	if _, err := b.keeper.Update(ctx, b.branch, schema, tarn.FeedSettings{Paused: true}); err != nil {
		return 0, err
	}
	if err := b.fill(ctx, schema+".t", b.rows()); err != nil {
		return 0, err
	}
	lsn, err := b.position(ctx)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if _, err := b.keeper.Update(ctx, b.branch, schema, tarn.FeedSettings{}); err != nil {
		return 0, err
	}
	if err := b.await(ctx, schema, lsn); err != nil {
		return 0, err
	}
	took := time.Since(began)
	n, err := b.count(ctx, schema)
	if err == nil && n != int64(b.rows()) {
		err = fmt.Errorf("the history has %d of %d rows", n, b.rows())
	}
	if err != nil {
		return 0, err
	}
	if err := b.keeper.Delete(ctx, b.branch, schema, feed.PurgeTables); err != nil {
		return 0, err
	}
	return float64(b.rows()) / took.Seconds(), b.drop(ctx, schema)
}

func (b *bench) drop(ctx context.Context, schema string) error {
	_, err := b.conn.Exec(ctx, "DROP SCHEMA "+schema+" CASCADE")
	return err
}

func (b *bench) table(ctx context.Context, schema string) (*delta.Snapshot, *delta.Table, error) {
	e, err := b.catalog.Table(ctx, tarn.TableName{Catalog: catalog.Default, Schema: schema, Table: "lb_t_history"})
	if err != nil {
		return nil, nil, err
	}
	s, err := openStore(ctx, e.Location)
	if err != nil {
		return nil, nil, err
	}
	d, err := delta.Open(ctx, s, "")
	if err != nil {
		return nil, nil, err
	}
	snap, err := d.Latest(ctx)
	return snap, d, err
}

func (b *bench) count(ctx context.Context, schema string) (int64, error) {
	snap, _, err := b.table(ctx, schema)
	if err != nil {
		return 0, err
	}
	return snap.Count(ctx)
}

// drainPeer writes the same rows and times pg_recvlogical until it has read them.
func (b *bench) drainPeer(ctx context.Context) (float64, error) {
	program, err := b.recvlogical()
	if err != nil {
		return 0, err
	}
	schema := b.unique("peer")
	for _, sql := range []string{
		"CREATE SCHEMA " + schema, fmt.Sprintf(tableSQL, schema+".t"), "ALTER TABLE " + schema + ".t REPLICA IDENTITY FULL",
		"CREATE PUBLICATION " + schema + " FOR TABLES IN SCHEMA " + schema, "SELECT pg_create_logical_replication_slot('" + schema + "', 'pgoutput')",
	} {
		if _, err := b.conn.Exec(ctx, sql); err != nil {
			return 0, err
		}
	}
	if err := b.fill(ctx, schema+".t", b.rows()); err != nil {
		return 0, err
	}
	lsn, err := b.position(ctx)
	if err != nil {
		return 0, err
	}
	// Something behind the end, where it stops.
	if _, err := b.conn.Exec(ctx, `SELECT pg_logical_emit_message(true, 'end', '')`); err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, program, "-h", b.cfg.SocketDir, "-p", fmt.Sprint(b.cfg.Port), "-U", tarn.Superuser, "-d", "app",
		"-S", schema, "--start", "-P", "pgoutput", "-o", "proto_version=1", "-o", "publication_names="+schema, "-f", os.DevNull, "-E", lsn.String(), "--no-loop")
	began := time.Now()
	out, err := cmd.CombinedOutput()
	took := time.Since(began)
	if err != nil {
		return 0, fmt.Errorf("pg_recvlogical: %w: %s", err, out)
	}
	for _, sql := range []string{"SELECT pg_drop_replication_slot('" + schema + "')", "DROP PUBLICATION " + schema} {
		if _, err := b.conn.Exec(ctx, sql); err != nil {
			return 0, err
		}
	}
	return float64(b.rows()) / took.Seconds(), b.drop(ctx, schema)
}

// lagFlush is the shortest interval a feed may have.
const lagFlush = time.Second

// lagCases are p50 and p99 of the time from a commit to its Delta commit, at
// a steady rate and an interval of one second, which is what they are held against.
func (b *bench) lagCases(rate int) []report.Case {
	interval := func(context.Context) (float64, error) { return lagFlush.Seconds(), nil }
	var lags []time.Duration
	measure := func(ctx context.Context) (float64, error) {
		var err error
		lags, err = b.lag(ctx, rate)
		return at(lags, 50), err
	}
	return []report.Case{
		{Name: fmt.Sprintf("lag-p50-%dk", rate/1000), Unit: "s", PeerName: "flush interval", Direction: report.LessIsBetter, Ours: measure, Peer: interval},
		{Name: fmt.Sprintf("lag-p99-%dk", rate/1000), Unit: "s", PeerName: "flush interval", Direction: report.LessIsBetter, Peer: interval,
			Ours: func(ctx context.Context) (float64, error) {
				if lags == nil {
					if _, err := measure(ctx); err != nil {
						return 0, err
					}
				}
				return at(lags, 99), nil
			}},
	}
}

func at(sorted []time.Duration, percent int) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)*percent/100, len(sorted)-1)].Seconds()
}

// lag writes ten transactions a second and reads from the history when each of
// their rows was committed in Postgres and in Delta.
func (b *bench) lag(ctx context.Context, rate int) ([]time.Duration, error) {
	schema := b.unique("lag")
	if err := b.follow(ctx, schema, lagFlush); err != nil {
		return nil, err
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for i := range 10 * b.o.Seconds {
		<-tick.C
		_, err := b.conn.Exec(ctx, `INSERT INTO `+schema+`.t (id, a, c, v) SELECT i, i, i, repeat(md5(i::text), 30) FROM generate_series($1::int, $2::int) i`,
			pgx.QueryExecModeExec, i*rate/10+1, (i+1)*rate/10)
		if err != nil {
			return nil, err
		}
	}
	lsn, err := b.position(ctx)
	if err != nil {
		return nil, err
	}
	if err := b.await(ctx, schema, lsn); err != nil {
		return nil, err
	}
	lags, err := b.lagsOf(ctx, schema)
	if err != nil {
		return nil, err
	}
	if len(lags) == 0 {
		return nil, errors.New("the history has no rows")
	}
	slices.Sort(lags)
	if err := b.keeper.Delete(ctx, b.branch, schema, feed.PurgeTables); err != nil {
		return nil, err
	}
	return lags, b.drop(ctx, schema)
}
