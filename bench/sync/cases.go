package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/syncedtable"
)

func sequence(from, n int) []int64 {
	keys := make([]int64, n)
	for i := range keys {
		keys[i] = int64(from + i)
	}
	return keys
}

const columns = "id bigint, n bigint, x double precision, name text, pad text"

func initialName(kind string) tarn.TableName {
	return tarn.TableName{Catalog: "lake", Schema: kind, Table: "initial"}
}

// prepareInitial writes the rows once as a Delta table and once as a file for
// COPY.
func (b *bench) prepareInitial(ctx context.Context) error {
	file := filepath.Join(b.dir, "rows.bin")
	if _, err := os.Stat(file); err == nil {
		return nil
	}
	t, err := b.lake.table(ctx, "initial")
	if err != nil {
		return err
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(out, 1<<20)
	w.WriteString(copyHeader) // the writer keeps its first error for Flush
	const commits = 4         // files
	for i := range commits {
		recs, err := b.lake.append(ctx, t, sequence(i*baseRows/commits, baseRows/commits))
		if err != nil {
			return err
		}
		for _, r := range recs {
			w.Write(encode(nil, r))
			r.Release()
		}
	}
	w.Write([]byte{0xff, 0xff})
	return errors.Join(w.Flush(), out.Close())
}

// initial loads the rows as a synced table, with everything that belongs to it:
// key, statistics, swap, status.
func (b *bench) initial(ctx context.Context) (float64, error) {
	if err := b.prepareInitial(ctx); err != nil {
		return 0, err
	}
	n := initialName("ours")
	began := time.Now()
	_, err := b.lake.keeper.Create(ctx, tarn.Principal{Name: "bench"}, tarn.SyncedTableSpec{
		Name: n, Source: tarn.TableName{Catalog: "lake", Schema: "bench", Table: "initial"}, PrimaryKey: []string{"id"}, Branch: b.lake.branch, Database: "target"})
	if err != nil {
		return 0, err
	}
	if _, err := b.lake.settle(ctx, n, 4); err != nil {
		return 0, err
	}
	took := time.Since(began)
	if err := b.count(ctx, "ours.initial", baseRows); err != nil {
		return 0, err
	}
	return baseRows / took.Seconds(), b.lake.keeper.Delete(ctx, n, syncedtable.PurgeData)
}

func (b *bench) copyFile(ctx context.Context) (float64, error) {
	if err := b.prepareInitial(ctx); err != nil {
		return 0, err
	}
	if _, err := b.peer.Exec(ctx, "CREATE TABLE copied ("+columns+", PRIMARY KEY (id))"); err != nil {
		return 0, err
	}
	began := time.Now()
	cmd := exec.CommandContext(ctx, b.psql, "-X", "-q", "-d", b.url("target"), "-c", `\copy copied FROM '`+filepath.Join(b.dir, "rows.bin")+`' (FORMAT binary)`)
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("psql: %w: %s", err, out)
	}
	took := time.Since(began)
	if err := b.count(ctx, "copied", baseRows); err != nil {
		return 0, err
	}
	_, err := b.peer.Exec(ctx, "DROP TABLE copied")
	return baseRows / took.Seconds(), err
}

func (b *bench) count(ctx context.Context, table string, want int) error {
	var n int
	if err := b.peer.QueryRow(ctx, "SELECT count(*) FROM "+table).Scan(&n); err != nil {
		return err
	}
	if n != want {
		return fmt.Errorf("table %s has %d rows, want %d", table, n, want)
	}
	return nil
}

// keysOf gives the keys of one incremental batch: every other one is new.
func (b *bench) keysOf(from int) []int64 {
	keys := make([]int64, batchRows)
	for i := range keys {
		if i%2 == 0 {
			keys[i] = int64(from + i)
		} else {
			keys[i] = b.lake.rows.Int64N(baseRows)
		}
	}
	return keys
}

// incremental applies one commit of changed rows. Updates are appended rows of
// keys that are there: what is measured is the way into Postgres, which is the
// same for rows of change files.
func (b *bench) incremental(ctx context.Context) (float64, error) {
	n := tarn.TableName{Catalog: "lake", Schema: "ours", Table: "incremental"}
	l := b.lake
	if l.source == nil {
		t, err := l.table(ctx, "incremental")
		if err != nil {
			return 0, err
		}
		recs, err := l.append(ctx, t, sequence(0, baseRows))
		if err != nil {
			return 0, err
		}
		for _, r := range recs {
			r.Release()
		}
		if _, err := l.keeper.Create(ctx, tarn.Principal{Name: "bench"}, tarn.SyncedTableSpec{Policy: tarn.SyncTriggered,
			Name: n, Source: tarn.TableName{Catalog: "lake", Schema: "bench", Table: "incremental"}, PrimaryKey: []string{"id"}, Branch: l.branch, Database: "target"}); err != nil {
			return 0, err
		}
		if _, err := l.settle(ctx, n, 1); err != nil {
			return 0, err
		}
		l.source, l.made = t, 1
	}
	recs, err := l.append(ctx, l.source, b.keysOf(baseRows*(1+l.made)))
	if err != nil {
		return 0, err
	}
	for _, r := range recs {
		r.Release()
	}
	l.made++
	began := time.Now()
	if _, err := l.keeper.Refresh(ctx, n, tarn.RefreshNew); err != nil {
		return 0, err
	}
	t, err := l.settle(ctx, n, int64(l.made))
	if err != nil {
		return 0, err
	}
	if t.Message != "" {
		return 0, fmt.Errorf("the changes were not applied: %s", t.Message)
	}
	return batchRows / time.Since(began).Seconds(), nil
}

// upsert does the same by hand: rows that are encoded already, a temporary
// table, one statement, one transaction.
func (b *bench) upsert(ctx context.Context) (float64, error) {
	if err := b.prepareInitial(ctx); err != nil {
		return 0, err
	}
	if !b.loaded {
		for _, sql := range []string{"CREATE TABLE byhand (" + columns + ", PRIMARY KEY (id))", "CREATE TEMP TABLE stage (" + columns + ") ON COMMIT DELETE ROWS"} {
			if _, err := b.peer.Exec(ctx, sql); err != nil {
				return 0, err
			}
		}
		f, err := os.Open(filepath.Join(b.dir, "rows.bin"))
		if err != nil {
			return 0, err
		}
		_, err = b.peer.PgConn().CopyFrom(ctx, f, "COPY byhand FROM STDIN (FORMAT binary)")
		if err := errors.Join(err, f.Close()); err != nil {
			return 0, err
		}
		if _, err := b.peer.Exec(ctx, "ANALYZE byhand"); err != nil {
			return 0, err
		}
		b.loaded = true
	}
	b.round++
	rec := b.lake.batch(schemaOfRows(), b.keysOf(baseRows*(1+b.round)))
	defer rec.Release()
	data := append(encode([]byte(copyHeader), rec), 0xff, 0xff)
	began := time.Now()
	err := pgx.BeginFunc(ctx, b.peer, func(tx pgx.Tx) error {
		if _, err := tx.Conn().PgConn().CopyFrom(ctx, &bytesReader{data}, "COPY stage FROM STDIN (FORMAT binary)"); err != nil {
			return err
		}
		// Of equal keys in a batch the last would win; here they are distinct
		// enough that DISTINCT ON costs what collapsing costs us.
		_, err := tx.Exec(ctx, `INSERT INTO byhand SELECT DISTINCT ON (id) * FROM stage ON CONFLICT (id) DO UPDATE SET n = excluded.n, x = excluded.x, name = excluded.name, pad = excluded.pad`)
		return err
	})
	return batchRows / time.Since(began).Seconds(), err
}

type bytesReader struct{ rest []byte }

func (r *bytesReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func schemaOfRows() *arrow.Schema {
	return arrow.NewSchema([]arrow.Field{
		{Name: "id", Type: arrow.PrimitiveTypes.Int64}, {Name: "n", Type: arrow.PrimitiveTypes.Int64}, {Name: "x", Type: arrow.PrimitiveTypes.Float64},
		{Name: "name", Type: arrow.BinaryTypes.String}, {Name: "pad", Type: arrow.BinaryTypes.String},
	}, nil)
}

const copyHeader = "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// encode writes rows as COPY's binary format has them.
func encode(d []byte, r arrow.RecordBatch) []byte {
	field := func(v []byte) {
		d = binary.BigEndian.AppendUint32(d, uint32(len(v)))
		d = append(d, v...)
	}
	for i := range int(r.NumRows()) {
		d = binary.BigEndian.AppendUint16(d, 5)
		field(binary.BigEndian.AppendUint64(nil, uint64(r.Column(0).(*array.Int64).Value(i))))
		field(binary.BigEndian.AppendUint64(nil, uint64(r.Column(1).(*array.Int64).Value(i))))
		field(binary.BigEndian.AppendUint64(nil, math.Float64bits(r.Column(2).(*array.Float64).Value(i))))
		field([]byte(r.Column(3).(*array.String).Value(i)))
		field([]byte(r.Column(4).(*array.String).Value(i)))
	}
	return d
}
