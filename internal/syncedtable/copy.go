package syncedtable

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn/internal/delta"
)

// copyBuffer is how much is encoded before it goes to Postgres.
const copyBuffer = 256 << 10

// copier encodes record batches in COPY's binary format:
//
//	"PGCOPY\n\xff\r\n\0" flags (4) extension length (4)
//	each row: column count (2) each column: length (4) bytes
//	-1 (2)
type copier struct {
	cols    []column
	forms   []encoding
	letters *letters
	w       io.Writer
	buf     []byte
	rows    int64
}

const copyHeader = "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00"

func newCopier(s *delta.Schema, a *arrow.Schema, cols []column, l *letters) (*copier, error) {
	c := &copier{cols: cols, letters: l, buf: []byte(copyHeader)}
	for i, f := range s.Fields {
		e, err := encodingOf(a.Field(i).Type, pgTypeOf(f))
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", f.Name, err)
		}
		c.forms = append(c.forms, e)
	}
	return c, nil
}

// batch encodes every row of rec; those that Postgres cannot store go to the
// dead letters.
func (c *copier) batch(ctx context.Context, rec arrow.RecordBatch) error {
	for row := range int(rec.NumRows()) {
		at := len(c.buf)
		if reason := c.row(rec, row); reason != nil {
			c.buf = c.buf[:at]
			if err := c.letters.add(ctx, reason, c.asJSON(rec, row)); err != nil {
				return err
			}
			continue
		}
		c.rows++
		if len(c.buf) >= copyBuffer {
			if err := c.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *copier) row(rec arrow.RecordBatch, row int) error {
	c.buf = binary.BigEndian.AppendUint16(c.buf, uint16(len(c.cols)))
	for i := range c.cols {
		a := rec.Column(i)
		if c.cols[i].key && a.IsNull(row) {
			return fmt.Errorf("column %s: %w", c.cols[i].delta, errNullKey)
		}
		var err error
		if c.buf, err = appendField(c.buf, a, row, c.forms[i]); err != nil {
			return fmt.Errorf("column %s: %w", c.cols[i].delta, err)
		}
	}
	return nil
}

// asJSON shows a row that cannot be stored. What JSON cannot say either is
// replaced by U+FFFD.
func (c *copier) asJSON(rec arrow.RecordBatch, row int) string {
	d := []byte{'{'}
	for i, col := range c.cols {
		if i > 0 {
			d = append(d, ',')
		}
		name, _ := json.Marshal(col.delta) // a string always has a JSON form
		d = append(append(d, name...), ':')
		v, err := appendJSON(nil, rec.Column(i), row)
		if err != nil {
			// Postgres reads no key of a JSON text that holds \u0000 anywhere.
			v, _ = json.Marshal(strings.ReplaceAll(rec.Column(i).ValueStr(row), "\x00", "\uFFFD"))
		}
		d = append(d, v...)
	}
	return string(append(d, '}'))
}

func (c *copier) flush() error {
	_, err := c.w.Write(c.buf)
	c.buf = c.buf[:0]
	return err
}

func (c *copier) finish() error {
	c.buf = append(c.buf, 0xff, 0xff)
	return c.flush()
}

// fill makes table name and copies the batches into it, in one transaction: a
// crash leaves nothing. FREEZE makes the rows visible to transactions that
// began before, which else would find the new table empty.
func (w *worker) fill(ctx context.Context, conn *pgx.Conn, name string, c *copier, batches iter.Seq2[arrow.RecordBatch, error]) error {
	defs := make([]string, len(c.cols))
	names := make([]string, len(c.cols))
	for i, col := range c.cols {
		names[i] = pgx.Identifier{col.name}.Sanitize()
		defs[i] = names[i] + " " + col.typ
	}
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "CREATE TABLE "+name+" ("+strings.Join(defs, ", ")+")"); err != nil {
			return fmt.Errorf("create the new table: %w", err)
		}
		r, pw := io.Pipe()
		c.w = pw
		done := make(chan struct{})
		cctx, cancel := context.WithCancel(ctx)
		go func() {
			defer close(done)
			pw.CloseWithError(w.encode(cctx, c, batches)) // nil = end of the data
		}()
		_, err := conn.PgConn().CopyFrom(ctx, r, "COPY "+name+" ("+strings.Join(names, ", ")+") FROM STDIN (FORMAT binary, FREEZE)")
		r.CloseWithError(io.ErrClosedPipe)
		cancel()
		<-done
		if err != nil {
			return fmt.Errorf("copy rows: %w", err)
		}
		return nil
	})
}

func (w *worker) encode(ctx context.Context, c *copier, batches iter.Seq2[arrow.RecordBatch, error]) error {
	reported := time.Now()
	for rec, err := range batches {
		if err != nil {
			return fmt.Errorf("read source %s: %w", w.row.Source, err)
		}
		err = c.batch(ctx, rec)
		rec.Release()
		if err != nil {
			return err
		}
		w.row.RowsSynced = c.rows
		if time.Since(reported) > time.Second {
			reported = time.Now()
			w.report(ctx)
		}
	}
	if err := c.letters.flush(ctx); err != nil {
		return err
	}
	return c.finish()
}
