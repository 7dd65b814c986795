package api

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/catalog"
	"github.com/tarndb/tarn/internal/delta"
)

// lakeDoor shows what is in the Delta tables of the catalog.
type lakeDoor struct {
	catalog *catalog.Catalog
	open    func(ctx context.Context, location string) (*delta.Table, error)
}

// The rows shown when no number is asked for, and the most that are.
const (
	defaultRows = 10
	maxRows     = 1000
)

func (d *lakeDoor) table(ctx context.Context, q *query) (tarn.TableName, *delta.Table, error) {
	n, err := q.table()
	if err != nil {
		return n, nil, err
	}
	r := d.catalog.For(q.who)
	e, err := r.Table(ctx, n)
	if err == nil {
		err = r.Check(ctx, tarn.PrivilegeSelect, n.Securable())
	}
	if err == nil && !e.Kind.Delta() {
		err = tarn.Invalid("the rows of %s are in database %s of %s", n, e.Database, e.Branch).WithHint("read them there: tarn psql")
	}
	if err == nil && d.open == nil {
		err = unbuilt("this server reads no tables")
	}
	if err != nil {
		return n, nil, err
	}
	dt, err := d.open(ctx, e.Table.Location)
	return n, dt, err
}

// snapshot opens the version the query asks for, by default the latest.
func (d *lakeDoor) snapshot(ctx context.Context, q *query) (tarn.TableName, *delta.Snapshot, error) {
	n, t, err := d.table(ctx, q)
	if err != nil {
		return n, nil, err
	}
	s := q.text("version")
	if s == "" {
		snap, err := t.Latest(ctx)
		return n, snap, err
	}
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil || v < 0 {
		return n, nil, badField("version", "got %q, want a version number", s)
	}
	snap, err := t.At(ctx, v)
	return n, snap, err
}

func (d *lakeDoor) head(ctx context.Context, q *query) (any, error) {
	limit, err := q.number("limit")
	if err != nil {
		return nil, err
	}
	switch {
	case limit == 0:
		limit = defaultRows
	case limit > maxRows:
		return nil, badField("limit", "got %d, want at most %d", limit, maxRows)
	}
	n, s, err := d.snapshot(ctx, q)
	if err != nil {
		return nil, err
	}
	return Head(ctx, n.String(), s, int64(limit))
}

func (d *lakeDoor) count(ctx context.Context, q *query) (any, error) {
	n, s, err := d.snapshot(ctx, q)
	if err != nil {
		return nil, err
	}
	return Count(ctx, n.String(), s)
}

func (d *lakeDoor) history(ctx context.Context, q *query) (any, error) {
	limit, err := q.number("limit")
	if err != nil {
		return nil, err
	}
	n, t, err := d.table(ctx, q)
	if err != nil {
		return nil, err
	}
	return History(ctx, n.String(), t, limit)
}

// Head reads the first rows of a snapshot; name is what the answer calls the
// table.
func Head(ctx context.Context, name string, s *delta.Snapshot, limit int64) (wire.TableRows, error) {
	out := wire.TableRows{Table: name, Version: s.Version(), Rows: [][]json.RawMessage{}}
	for _, f := range s.Schema().Fields {
		out.Columns = append(out.Columns, wire.Column{Name: f.Name, Type: f.Type})
	}
	for rec, err := range s.Scan(ctx, delta.ScanOptions{Limit: limit}) {
		if err != nil {
			return out, fmt.Errorf("read rows of %s: %w", name, err)
		}
		rows, err := rowsOf(rec, limit-int64(len(out.Rows)))
		rec.Release()
		if err != nil {
			return out, fmt.Errorf("read rows of %s: %w", name, err)
		}
		out.Rows = append(out.Rows, rows...)
		if int64(len(out.Rows)) >= limit {
			break
		}
	}
	return out, nil
}

// rowsOf writes at most limit rows of a batch as JSON values.
func rowsOf(rec arrow.RecordBatch, limit int64) ([][]json.RawMessage, error) {
	rows := make([][]json.RawMessage, 0, min(limit, rec.NumRows()))
	for i := range int(min(limit, rec.NumRows())) {
		row := make([]json.RawMessage, rec.NumCols())
		for j := range row {
			b, err := json.Marshal(rec.Column(j).GetOneForMarshal(i))
			if err != nil {
				return nil, fmt.Errorf("column %s: %w", rec.ColumnName(j), err)
			}
			row[j] = b
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// Count counts the rows of a snapshot.
func Count(ctx context.Context, name string, s *delta.Snapshot) (wire.TableCount, error) {
	n, err := s.Count(ctx)
	if err != nil {
		return wire.TableCount{}, fmt.Errorf("count rows of %s: %w", name, err)
	}
	return wire.TableCount{Table: name, Version: s.Version(), Count: n}, nil
}

// History lists at most limit commits of a table, newest first; 0 = all.
func History(ctx context.Context, name string, t *delta.Table, limit int) (wire.TableHistory, error) {
	hs, err := t.History(ctx, limit)
	if err != nil {
		return wire.TableHistory{}, fmt.Errorf("read history of %s: %w", name, err)
	}
	out := wire.TableHistory{Table: name, Commits: []wire.TableCommit{}}
	for _, h := range hs {
		out.Commits = append(out.Commits, wire.TableCommit{
			Version: h.Version, Timestamp: wire.Time(h.Time), Operation: h.Operation, Params: h.Params, Metrics: h.Metrics,
		})
	}
	return out, nil
}
