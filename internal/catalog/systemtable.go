package catalog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/delta"
)

// systemTable is a table of catalog system that Tarn writes.
type systemTable struct {
	name    tarn.TableName
	comment string
	txn     string // application id of its batches
	day     string // its partition column, a date
	schema  func() delta.Schema
}

// target names its rows in the control database.
func (t systemTable) target() string { return t.name.Schema + "." + t.name.Table }

// batchRows is how many rows one commit holds at most.
const batchRows = 10_000

func (a *Audit) flush(ctx context.Context, st systemTable) error {
	t, err := a.table(ctx, st)
	if err != nil {
		return fmt.Errorf("open %s: %w", st.name, err)
	}
	for {
		s, err := t.Latest(ctx)
		if err != nil {
			return err
		}
		done, _ := s.AppTxn(st.txn)
		if err := controldb.DropSystemRows(ctx, a.c.db, st.target(), done); err != nil {
			return err
		}
		rows, err := controldb.ClaimSystemRows(ctx, a.c.db, st.target(), done+1, batchRows)
		if err != nil || len(rows) == 0 {
			return err
		}
		if err := st.write(ctx, t, s, rows, done+1); err != nil && !errors.Is(err, delta.ErrAppliedTxn) {
			return err
		}
	}
}

func (st systemTable) write(ctx context.Context, t *delta.Table, s *delta.Snapshot, rows []json.RawMessage, batch int64) error {
	schema, err := s.Schema().Arrow()
	if err != nil {
		return err
	}
	var b bytes.Buffer
	b.WriteByte('[')
	for i, r := range rows {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(r)
	}
	b.WriteByte(']')
	rec, _, err := array.RecordFromJSON(memory.DefaultAllocator, schema, &b)
	if err != nil {
		return fmt.Errorf("read rows of batch %d of %s: %w", batch, st.name, err)
	}
	defer rec.Release()
	_, err = t.Commit(ctx, delta.CommitOptions{Operation: "STREAMING UPDATE"}, func(x *delta.Tx) error {
		x.SetAppTxn(st.txn, batch)
		return x.Append(ctx, rec)
	})
	return err
}

// table opens the table, which is made when missing.
func (a *Audit) table(ctx context.Context, st systemTable) (*delta.Table, error) {
	e, err := a.c.Table(ctx, st.name)
	if tarn.KindOf(err) == tarn.KindNotFound {
		e, err = a.c.CreateTable(ctx, tarn.Principal{}, st.name, "", st.comment)
	}
	if err != nil {
		return nil, err
	}
	s, err := a.open(ctx, e.Location)
	if err != nil {
		return nil, err
	}
	t, err := delta.Open(ctx, s, "")
	if errors.Is(err, delta.ErrNotTable) {
		return delta.Create(ctx, s, "", delta.Metadata{Name: st.name.Table, Schema: st.schema(), PartitionBy: []string{st.day}})
	}
	return t, err
}

// tidyTable makes few files of many and forgets what is older than is kept.
func (a *Audit) tidyTable(ctx context.Context, st systemTable, now time.Time) error {
	t, err := a.table(ctx, st)
	if err != nil {
		return err
	}
	if a.keep > 0 {
		old, err := delta.ParsePredicate(st.day + " < '" + now.Add(-a.keep).UTC().Format(time.DateOnly) + "'")
		if err != nil {
			return err
		}
		if _, err := t.Commit(ctx, delta.CommitOptions{Operation: "DELETE"}, func(x *delta.Tx) error {
			_, err := x.Delete(ctx, old)
			return err
		}); err != nil {
			return fmt.Errorf("forget old rows of %s: %w", st.name, err)
		}
	}
	_, err = t.Optimize(ctx, delta.OptimizeOptions{})
	return err
}
