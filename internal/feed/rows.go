package feed

import (
	"context"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/pgoutput"
)

// row is the source of one history row.
type row struct {
	kind   changeKind
	values pgoutput.Tuple // nil = all NULL
	// fill gives the values that values left out as unchanged.
	fill pgoutput.Tuple
	part rowPart
}

// rowPart says which columns of a row are known.
type rowPart int

const (
	wholeRow rowPart = iota
	keyOnly          // an old row without full replica identity
)

// write appends one row. errUnknownOld leaves the builder as it was.
func (t *table) write(r row, pos position) error {
	if r.values != nil && len(r.values) != len(t.rel.Columns) {
		return fmt.Errorf("row of %s has %d columns, its relation %d", t.name, len(r.values), len(t.rel.Columns))
	}
	for i := range r.values {
		if r.values[i].Kind == pgoutput.ColumnUnchanged && r.fill == nil && (r.part == wholeRow || t.rel.Columns[i].Key) {
			return errUnknownOld
		}
	}
	for i := range t.cols {
		c := &t.cols[i]
		if c.system != notSystem {
			t.writeSystem(i, c.system, r.kind, pos)
			continue
		}
		if c.source < 0 || r.values == nil || r.part == keyOnly && !c.key {
			t.build.Field(i).AppendNull()
			continue
		}
		v := r.values[c.source]
		if v.Kind == pgoutput.ColumnUnchanged {
			v = r.fill[c.source]
		}
		if v.Kind == pgoutput.ColumnNull || v.Kind == pgoutput.ColumnUnchanged {
			t.build.Field(i).AppendNull()
			continue
		}
		if v.Kind != pgoutput.ColumnText {
			return fmt.Errorf("row of %s: column %s comes in format %q", t.name, t.rel.Columns[c.source].Name, v.Kind)
		}
		t.bytes += len(v.Value)
		if !c.add(v.Value) {
			t.lose(i, t.rel.Columns[c.source].Name, v.Value, pos)
		}
	}
	t.rows++
	t.bytes += 64 + 8*len(t.cols)
	return nil
}

// succeed parts the rows of another table of the same name from those to come.
func (t *table) succeed(pos *position) error {
	if !t.succeeds {
		return nil
	}
	t.succeeds = false
	if err := t.write(row{kind: changeTruncate}, *pos); err != nil {
		return err
	}
	pos.ordinal++
	return nil
}

func (t *table) writeSystem(i int, c systemColumn, kind changeKind, pos position) {
	switch b := t.build.Field(i).(type) {
	case *array.StringBuilder:
		if c == systemChangeType {
			b.Append(string(kind))
			return
		}
		b.Append(pos.sortBy())
	case *array.TimestampBuilder:
		b.Append(arrow.Timestamp(pos.time.UnixMicro()))
	case *array.Int64Builder:
		switch {
		case c == systemLSN:
			b.Append(int64(pos.lsn))
		case c == systemCommitLSN:
			b.Append(int64(pos.commitEnd))
		case pos.xid != 0:
			b.Append(int64(pos.xid))
		default:
			b.AppendNull()
		}
	default:
		b.AppendNull()
	}
}

// seal turns the builder's rows into a part.
func (t *table) seal() {
	if t.build == nil || len(t.build.Fields()) == 0 || t.build.Field(0).Len() == 0 {
		return
	}
	t.parts = append(t.parts, t.build.NewRecordBatch())
}

// writeAhead writes the rows of a transaction that is too large for memory as
// files of a Delta commit to come. Nothing of an older transaction may be among
// them, so that a stop in the middle can drop them all.
func (t *table) writeAhead(ctx context.Context) error {
	t.seal()
	if err := t.begin(ctx); err != nil {
		return err
	}
	for len(t.parts) > 0 {
		if err := t.appendPart(ctx); err != nil {
			return err
		}
	}
	t.bytes = 0
	return nil
}

func (t *table) begin(ctx context.Context) error {
	if t.tx == nil {
		s, err := t.delta.Latest(ctx)
		if err != nil {
			return fmt.Errorf("read Delta table %s: %w", t.target, err)
		}
		t.tx = t.delta.Begin(s)
	}
	if t.widens {
		if err := t.tx.SetSchema(t.schema); err != nil {
			return fmt.Errorf("add columns to %s: %w", t.target, err)
		}
		t.widens = false
	}
	return nil
}

// appendPart writes the oldest part; columns that came later are NULL in it.
func (t *table) appendPart(ctx context.Context) error {
	if err := t.tx.Append(ctx, t.parts[0]); err != nil {
		return fmt.Errorf("write rows of %s: %w", t.target, err)
	}
	t.parts[0].Release()
	t.parts = t.parts[1:]
	return nil
}

// commit makes the whole transactions up to pending durable and visible in one
// Delta commit that says so.
//
//  1. data files are written       a crash leaves orphans, found by vacuum
//  2. dead letters are committed   they are not repeated: see bury
//  3. the log entry is written     it carries the app transaction: rows and
//     position become visible together or not at all
//
// The slot is confirmed by the caller, after every table's step 3.
func (t *table) commit(ctx context.Context, operation string) error {
	if t.pending == 0 {
		return nil
	}
	if err := t.commitAs(ctx, t.appID(), int64(t.pending), byPosition, operation); err != nil {
		return err
	}
	t.base, t.known, t.pending = t.pending, true, 0
	return nil
}

// wholeTransaction ends a transaction that wrote to the table.
func (t *table) wholeTransaction(end tarn.LSN) {
	t.whole, t.wholeDead, t.pending = t.rows, len(t.dead), end
}

// dropOpen forgets the rows of the transaction in progress.
func (t *table) dropOpen(ctx context.Context) {
	t.seal()
	if t.tx != nil {
		// Written-ahead rows are of this transaction only.
		t.discard(ctx)
		return
	}
	keep := int64(t.whole)
	var kept []arrow.RecordBatch
	for _, p := range t.parts {
		n := min(keep, p.NumRows())
		if n > 0 {
			kept = append(kept, p.NewSlice(0, n))
		}
		keep -= n
		p.Release()
	}
	t.parts, t.rows, t.dead = kept, t.whole, t.dead[:t.wholeDead]
}

// discard forgets every row that is not committed.
func (t *table) discard(ctx context.Context) {
	if t.tx != nil {
		t.tx.Abort(ctx)
		t.tx = nil
	}
	for _, p := range t.parts {
		p.Release()
	}
	t.parts, t.rows, t.whole, t.bytes, t.pending = nil, 0, 0, 0, 0
	t.dead, t.wholeDead = nil, 0
	if t.build != nil {
		t.build.NewRecordBatch().Release()
	}
}

// close frees the table's memory and its uncommitted files.
func (t *table) close(ctx context.Context) {
	t.discard(ctx)
	if t.build != nil {
		t.build.Release()
		t.build = nil
	}
}
