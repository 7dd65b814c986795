package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/delta"
)

// checkpoint is a source's row in a checkpoint table.
type checkpoint struct {
	SourceID       string
	TableName      string
	Column         string
	LastCheckpoint *string // highest value read; nil = none yet
	Round          int64
	State          string // the Cursor as JSON
	Next           string // an intent as JSON, about to be committed to a target; "" = none
	Updated        time.Time
}

// CheckpointSchema is that of a checkpoint table, which may be shared by many
// sources and with the Python package tarn-lakebase.
func CheckpointSchema() delta.Schema {
	text := func(name string, nullable bool) delta.Field {
		return delta.Field{Name: name, Type: "string", Nullable: nullable}
	}
	return delta.Schema{Fields: []delta.Field{
		text("source_id", true), text("table_name", true), text("checkpoint_column", true), text("last_checkpoint", true),
		{Name: "round", Type: "long", Nullable: true}, text("state", true), {Name: "updated_at", Type: "timestamp", Nullable: true}, text("next_state", true),
	}}
}

// intent is a batch that is about to be committed to a target.
type intent struct {
	Version int64  `json:"version,string"` // of its Delta app transaction: no other batch has it
	Before  int64  `json:"before,string"`  // of the batch before; 0 = none
	Cursor  Cursor `json:"cursor"`
}

// checkpoints is a checkpoint table. It is small: a change rewrites it whole.
type checkpoints struct{ table *delta.Table }

// putTries is how often a change is tried when others change their rows.
const putTries = 20

// get gives the row of a source; nil when there is none.
func (c checkpoints) get(ctx context.Context, source string) (*checkpoint, error) {
	_, all, err := c.read(ctx)
	if err != nil {
		return nil, err
	}
	for i := range all {
		if all[i].SourceID == source {
			return &all[i], nil
		}
	}
	return nil, nil
}

// put replaces the row that before is, or makes it when before is nil. It fails
// with KindConflict when another reader of the source has changed it: two would
// lose rows. Other sources' rows may change meanwhile.
func (c checkpoints) put(ctx context.Context, now checkpoint, before *checkpoint) error {
	for range putTries {
		s, all, err := c.read(ctx)
		if err != nil {
			return err
		}
		at := -1
		for i := range all {
			if all[i].SourceID == now.SourceID {
				at = i
			}
		}
		switch {
		case before == nil && at >= 0, before != nil && (at < 0 || !all[at].same(*before)):
			return tarn.Conflict("another program reads %s under the same source id and moved its checkpoint", now.TableName).
				WithHint("stop it, or give this one a name of its own with --source-id")
		case at < 0:
			all = append(all, now)
		default:
			all[at] = now
		}
		err = c.write(ctx, s, all)
		var lost *delta.ConflictError
		if !errors.As(err, &lost) {
			return err
		}
	}
	return tarn.Unavailable("the checkpoint table is changed by too many at once")
}

func (c checkpoint) same(o checkpoint) bool {
	return c.Round == o.Round && c.State == o.State && c.Next == o.Next
}

func (c checkpoints) read(ctx context.Context) (*delta.Snapshot, []checkpoint, error) {
	s, err := c.table.Latest(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("read checkpoints: %w", err)
	}
	var all []checkpoint
	for rec, err := range s.Scan(ctx, delta.ScanOptions{}) {
		if err != nil {
			return nil, nil, fmt.Errorf("read checkpoints: %w", err)
		}
		part, err := checkpointRows(rec)
		rec.Release()
		if err != nil {
			return nil, nil, fmt.Errorf("read checkpoints: %w", err)
		}
		all = append(all, part...)
	}
	return s, all, nil
}

func checkpointRows(rec arrow.RecordBatch) ([]checkpoint, error) {
	var texts [8]*array.String
	var round *array.Int64
	var updated *array.Timestamp
	for i, f := range CheckpointSchema().Fields {
		at := rec.Schema().FieldIndices(f.Name)
		if len(at) != 1 {
			if f.Name == "next_state" {
				continue // a table of the Python package has none
			}
			return nil, tarn.Invalid("it has no column %s: this is no checkpoint table", f.Name)
		}
		ok := true
		switch col := rec.Column(at[0]); f.Type {
		case "long":
			round, ok = col.(*array.Int64)
		case "timestamp":
			updated, ok = col.(*array.Timestamp)
		default:
			texts[i], ok = col.(*array.String)
		}
		if !ok {
			return nil, tarn.Invalid("its column %s is no %s: this is no checkpoint table", f.Name, f.Type)
		}
	}
	text := func(i, row int) string {
		if texts[i] == nil || texts[i].IsNull(row) {
			return ""
		}
		return texts[i].Value(row)
	}
	var out []checkpoint
	for i := range int(rec.NumRows()) {
		c := checkpoint{SourceID: text(0, i), TableName: text(1, i), Column: text(2, i), Round: round.Value(i), State: text(5, i), Next: text(7, i)}
		if !texts[3].IsNull(i) {
			last := texts[3].Value(i)
			c.LastCheckpoint = &last
		}
		if !updated.IsNull(i) {
			c.Updated = time.UnixMicro(int64(updated.Value(i))).UTC()
		}
		out = append(out, c)
	}
	return out, nil
}

func (c checkpoints) write(ctx context.Context, s *delta.Snapshot, all []checkpoint) error {
	schema := CheckpointSchema()
	as, err := schema.Arrow()
	if err != nil {
		return err
	}
	b := array.NewRecordBuilder(memory.DefaultAllocator, as)
	defer b.Release()
	for _, c := range all {
		for i, v := range []*string{&c.SourceID, &c.TableName, &c.Column, c.LastCheckpoint, nil, &c.State, nil, &c.Next} {
			switch f := b.Field(i).(type) {
			case *array.Int64Builder:
				f.Append(c.Round)
			case *array.TimestampBuilder:
				f.Append(arrow.Timestamp(c.Updated.UnixMicro()))
			case *array.StringBuilder:
				if v == nil || i == 7 && *v == "" {
					f.AppendNull()
				} else {
					f.Append(*v)
				}
			}
		}
	}
	rec := b.NewRecordBatch()
	defer rec.Release()
	x := c.table.Begin(s)
	x.Overwrite()
	if len(s.Schema().Fields) < len(schema.Fields) {
		if err := x.SetSchema(schema); err != nil {
			x.Abort(ctx)
			return err
		}
	}
	if err := x.Append(ctx, rec); err != nil {
		x.Abort(ctx)
		return err
	}
	if _, err := x.Commit(ctx, delta.CommitOptions{Operation: "MERGE", Params: map[string]string{"predicate": "source_id"}}); err != nil {
		x.Abort(ctx)
		return err
	}
	return nil
}

// cursor is where the source's reader is, by what the checkpoint says and by
// the app transaction that the target has (0 = none): see Ingest.Next.
func (c *checkpoint) cursor(target int64) (Cursor, int64, error) {
	var at Cursor
	if c == nil {
		at = NewCursor()
	} else {
		if c.State == "" {
			return at, 0, tarn.Invalid("the checkpoint of %s says how far a reader came but not which transactions it saw; rows that came late cannot be told", c.SourceID).
				WithHint("read the table from its beginning with --reset, or under another --source-id")
		}
		if err := json.Unmarshal([]byte(c.State), &at); err != nil {
			return at, 0, fmt.Errorf("read the checkpoint of %s: %w", c.SourceID, err)
		}
	}
	if c == nil || c.Next == "" {
		return at, target, nil
	}
	var next intent
	if err := json.Unmarshal([]byte(c.Next), &next); err != nil {
		return at, 0, fmt.Errorf("read the checkpoint of %s: %w", c.SourceID, err)
	}
	switch target {
	case next.Version:
		return next.Cursor, target, nil
	case next.Before:
		return at, target, nil
	}
	return at, 0, tarn.Conflict("the target holds batch %d of %s, which its checkpoint does not know (it knows %d and %d)", target, c.SourceID, next.Before, next.Version).
		WithHint("another program wrote to it, or it was restored: read the table from its beginning with --reset")
}
