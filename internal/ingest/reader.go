package ingest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/delta"
	"github.com/tarndb/tarn/internal/pgvalue"
)

// Problem is a value that Delta has no form for; it is NULL in its row.
type Problem struct {
	Key    string `json:"key"`    // of the row: its values with commas
	Column string `json:"column"` //
	Value  string `json:"value"`  // as Postgres prints it
}

// Batch is rows that were not read before.
type Batch struct {
	Rows     arrow.RecordBatch // Release it
	Problems []Problem
	Cursor   Cursor // behind the rows
}

// reader reads one table over one connection.
type reader struct {
	conn   *pgx.Conn
	source *source
	schema delta.Schema
	system string    // identifier of the server; "?" = not to be known
	lateAt time.Time // when late rows were last looked for
	every  time.Duration
}

func newReader(ctx context.Context, conn *pgx.Conn, o Options) (*reader, error) {
	s, err := describe(ctx, conn, o)
	if err != nil {
		return nil, err
	}
	r := &reader{conn: conn, source: s, every: o.LateEvery}
	for _, c := range s.columns {
		// Postgres may add a row whose column is NULL later, whatever it is now.
		r.schema.Fields = append(r.schema.Fields, delta.Field{Name: c.name, Type: c.typ.Delta, Nullable: true, Metadata: map[string]any{"tarn.pgType": c.typ.Name}})
	}
	err = conn.QueryRow(ctx, "SELECT system_identifier::text FROM pg_catalog.pg_control_system()").Scan(&r.system)
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		r.system, err = "?", nil
	}
	return r, err
}

const (
	// Text forms that read back as the same value, whatever the session's settings are.
	beginSQL = `BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO, YMD';
SET LOCAL extra_float_digits = 1; SET LOCAL IntervalStyle = 'postgres'; SET LOCAL bytea_output = 'hex'`

	snapshotSQL = `SELECT pg_current_snapshot()::text,
	CASE WHEN pg_is_in_recovery() THEN '' ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END,
	CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END::text`
)

// read gives at most limit rows that c has not read, all of one snapshot; none
// when there is nothing new.
func (r *reader) read(ctx context.Context, c Cursor, limit int) (_ *Batch, err error) {
	if err := r.conn.PgConn().Exec(ctx, beginSQL).Close(); err != nil {
		return nil, fmt.Errorf("begin to read: %w", err)
	}
	defer func() {
		if _, e := r.conn.Exec(ctx, "ROLLBACK"); err == nil && e != nil {
			err = fmt.Errorf("end reading: %w", e)
		}
	}()
	now, err := r.now(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.check(now); err != nil {
		return nil, err
	}
	b, err := newBuilder(r.source, &r.schema)
	if err != nil {
		return nil, err
	}
	defer b.build.Release()
	if !c.idle(now) {
		if c, err = r.fill(ctx, b, c, now, limit); err != nil {
			return nil, err
		}
		c.Line, c.LSN = now.line, max(c.LSN, now.lsn)
	}
	if b.rows > 0 {
		c.Round++
	}
	return &Batch{Rows: b.build.NewRecordBatch(), Problems: b.problems, Cursor: c}, nil
}

func (r *reader) fill(ctx context.Context, b *builder, c Cursor, now snapshot, limit int) (Cursor, error) {
	late := func() error {
		room := limit - b.rows
		q := &query{source: r.source}
		rows, err := r.fetch(ctx, b, q.late(c, now, room), q.args)
		if err != nil {
			return fmt.Errorf("read late rows: %w", err)
		}
		if c = c.late(rows, now, room); !c.draining() {
			r.lateAt = time.Now()
		}
		return nil
	}
	if c.draining() || len(c.Segments) > maxSegments {
		if err := late(); err != nil {
			return c, err
		}
	}
	room := limit - b.rows
	if c.draining() || room == 0 {
		return c, nil
	}
	q := &query{source: r.source}
	rows, err := r.fetch(ctx, b, q.forward(c, now, room), q.args)
	if err != nil {
		return c, fmt.Errorf("read forward: %w", err)
	}
	c = c.forward(rows, now)
	if len(rows) == room || !r.source.tracked && time.Since(r.lateAt) < r.every {
		return c, nil
	}
	return c, late()
}

func (r *reader) now(ctx context.Context) (snapshot, error) {
	var text, tli, lsn string
	if err := r.conn.QueryRow(ctx, snapshotSQL).Scan(&text, &tli, &lsn); err != nil {
		return snapshot{}, fmt.Errorf("take a snapshot: %w", err)
	}
	now, err := parseSnapshot(text)
	if err != nil {
		return snapshot{}, err
	}
	if tli != "" {
		now.line = r.system + "/" + tli
	}
	now.lsn, err = tarn.ParseLSN(lsn)
	return now, err
}

// fetch adds a statement's rows to b. All values come as text.
func (r *reader) fetch(ctx context.Context, b *builder, sql string, args [][]byte) ([]readRow, error) {
	var rows []readRow
	res := r.conn.PgConn().ExecParams(ctx, sql, args, nil, nil, nil)
	for res.NextRow() {
		row, err := b.add(res.Values())
		if err != nil {
			_, _ = res.Close()
			return nil, err
		}
		rows = append(rows, row)
	}
	if _, err := res.Close(); err != nil {
		return nil, err
	}
	return rows, nil
}

// builder makes a record of rows.
type builder struct {
	source   *source
	build    *array.RecordBuilder
	appends  []pgvalue.Append
	rows     int
	problems []Problem
}

func newBuilder(s *source, schema *delta.Schema) (*builder, error) {
	as, err := schema.Arrow()
	if err != nil {
		return nil, err
	}
	b := &builder{source: s, build: array.NewRecordBuilder(memory.DefaultAllocator, as)}
	for i, c := range s.columns {
		add, err := pgvalue.Appender(b.build.Field(i), c.typ.Delim)
		if err != nil {
			b.build.Release()
			return nil, fmt.Errorf("column %s: %w", c.name, err)
		}
		b.appends = append(b.appends, add)
	}
	return b, nil
}

func (b *builder) add(values [][]byte) (readRow, error) {
	x, err := strconv.ParseUint(string(values[0]), 10, 64)
	if err != nil {
		return readRow{}, fmt.Errorf("read a row's transaction: %w", err)
	}
	lead := 1 + len(b.source.key) + 1
	at := make(Position, lead-1)
	for i := range at {
		at[i] = string(values[1+i])
	}
	for i, v := range values[lead:] {
		if v == nil {
			b.build.Field(i).AppendNull()
		} else if !b.appends[i](v) {
			b.problems = append(b.problems, Problem{Key: strings.Join(at[1:], ","), Column: b.source.columns[i].name, Value: string(v)})
		}
	}
	b.rows++
	return readRow{XID(x), at}, nil
}
