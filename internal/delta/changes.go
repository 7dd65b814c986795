package delta

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/compute"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/tarndb/tarn/internal/blob"
)

// ChangeType says what became of the rows of a Change.
type ChangeType string

// The types as change data files spell them.
const (
	Inserted    ChangeType = "insert"
	PreUpdated  ChangeType = "update_preimage"  // a row before an update
	PostUpdated ChangeType = "update_postimage" // a row after an update
	Deleted     ChangeType = "delete"
)

// changeTypeColumn holds the ChangeType in change data files.
const changeTypeColumn = "_change_type"

// ErrNoChangeFeed means the table did not keep a change data feed
// (delta.enableChangeDataFeed) over the whole of the asked versions.
var ErrNoChangeFeed = errors.New("the change data feed was not enabled (table property delta.enableChangeDataFeed)")

// SchemaChangedError means the columns changed in the asked versions in a way
// that changes from before cannot be given as rows of the newest schema.
type SchemaChangedError struct {
	Version  int64 // that brought the change
	Reason   string
	Old, New *Schema
}

func (e *SchemaChangedError) Error() string {
	return fmt.Sprintf("the schema changed at version %d: %s", e.Version, e.Reason)
}

// ChangeOptions choose versions and columns.
type ChangeOptions struct {
	From, To  int64    // versions, inclusive; To 0 = the latest at the call
	Columns   []string // any order; batches have the table's; nil = all
	BatchRows int      // most rows of one batch; 0 = 16384
}

// Change is a batch of rows that one version changed in one way.
type Change struct {
	Version int64
	Time    time.Time // of the commit
	Type    ChangeType
	Rows    arrow.RecordBatch // released by the consumer
}

// Changes yields what the versions changed, oldest first, as rows of the schema
// at To: columns that came later are null in earlier rows. Within a version the
// batches have no order that means anything. A version that kept change files is
// told by them alone; of any other its added and removed files tell, and of a
// file whose deletion vector grew the rows that it deletes now. Versions that
// are cleaned up, or whose files are vacuumed, give ErrNoVersion; before the
// first batch where the log alone shows it.
func (t *Table) Changes(ctx context.Context, o ChangeOptions) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		if err := t.changes(ctx, o, yield); err != nil && !errors.Is(err, errEnough) {
			yield(Change{}, fmt.Errorf("changes of %s from version %d: %w", t.name(), o.From, err))
		}
	}
}

func (t *Table) changes(ctx context.Context, o ChangeOptions, yield func(Change, error) bool) error {
	r, err := t.openRange(ctx, o.From, o.To)
	if err != nil {
		return err
	}
	if err := r.refusal(); err != nil {
		return err
	}
	fields, err := r.end.columns(o.Columns)
	if err != nil {
		return err
	}
	c := &changeScan{end: r.end, fields: fields, batch: int64(o.BatchRows), yield: yield}
	if c.schema, err = arrowSchema(fields); err != nil {
		return err
	}
	for i := range r.commits {
		actions, err := r.actions(ctx, i)
		if err != nil {
			return err
		}
		if err := c.commit(ctx, r.commits[i], actions); err != nil {
			return fmt.Errorf("version %d: %w", r.commits[i].version, err)
		}
	}
	return nil
}

// changeScan gives the changes of commits as rows of the end's schema.
type changeScan struct {
	end    *Snapshot
	fields []field
	schema *arrow.Schema
	batch  int64
	yield  func(Change, error) bool
}

func (c *changeScan) commit(ctx context.Context, r rangeCommit, actions []action) error {
	give := func(typ ChangeType) func(arrow.RecordBatch) error {
		return func(rec arrow.RecordBatch) error {
			if !c.yield(Change{Version: r.version, Time: r.time, Type: typ, Rows: rec}, nil) {
				return errEnough
			}
			return nil
		}
	}
	fed := false
	for _, a := range actions {
		if a.CDC != nil {
			fed = true
			if err := c.changeFile(ctx, a.CDC, give); err != nil {
				return err
			}
		}
	}
	if fed || skipsFiles(actions) {
		return nil
	}
	for _, p := range pairFiles(actions) {
		if err := c.pair(ctx, r.version, p, give); err != nil {
			return err
		}
	}
	return nil
}

// skipsFiles tells whether the commit is a merge that found nothing to change
// but rewrote files all the same.
func skipsFiles(actions []action) bool {
	for _, a := range actions {
		if a.CommitInfo != nil && a.CommitInfo.Operation == "MERGE" {
			m := texts(a.CommitInfo.Metrics)
			return m["numTargetRowsInserted"] == "0" && m["numTargetRowsUpdated"] == "0" && m["numTargetRowsDeleted"] == "0"
		}
	}
	return false
}

// filePair is what a commit did to one data file.
type filePair struct {
	add    *addAction
	remove *removeAction
}

// pairFiles joins adds and removes of the same path, in the commit's order.
// Rewrites that change no data are left out.
func pairFiles(actions []action) []filePair {
	var out []filePair
	at := map[string]int{}
	slot := func(path string) *filePair {
		path = canonical(path)
		i, ok := at[path]
		if !ok {
			i = len(out)
			at[path] = i
			out = append(out, filePair{})
		}
		return &out[i]
	}
	for _, a := range actions {
		switch {
		case a.Add != nil && a.Add.DataChange:
			slot(a.Add.Path).add = a.Add
		case a.Remove != nil && a.Remove.DataChange:
			slot(a.Remove.Path).remove = a.Remove
		}
	}
	return out
}

type giver func(ChangeType) func(arrow.RecordBatch) error

// pair gives the rows that came and went with one data file.
func (c *changeScan) pair(ctx context.Context, version int64, p filePair, give giver) error {
	switch {
	case p.remove == nil:
		return c.file(ctx, p.add, nil, give(Inserted))
	case p.add == nil:
		gone, err := c.removed(ctx, version, p.remove)
		if err != nil {
			return err
		}
		return c.file(ctx, gone, nil, give(Deleted))
	}
	before, err := c.end.deleted(ctx, p.remove.DV)
	if err != nil {
		return vacuumed(err)
	}
	after, err := c.end.deleted(ctx, p.add.DV)
	if err != nil {
		return vacuumed(err)
	}
	if before == nil {
		before = roaring64.New()
	}
	if after == nil {
		after = roaring64.New()
	}
	if rows := roaring64.AndNot(after, before); !rows.IsEmpty() {
		if err := c.file(ctx, p.add, rows, give(Deleted)); err != nil {
			return err
		}
	}
	if rows := roaring64.AndNot(before, after); !rows.IsEmpty() {
		return c.file(ctx, p.add, rows, give(Inserted))
	}
	return nil
}

// removed makes of a remove what scans the file. Old writers left the partition
// values out; then the version before has them.
func (c *changeScan) removed(ctx context.Context, version int64, r *removeAction) (*addAction, error) {
	a := &addAction{Path: r.Path, PartitionValues: r.PartitionValues, DV: r.DV, rows: -1}
	if r.PartitionValues != nil || len(c.end.state.metadata.PartitionColumns) == 0 {
		return a, nil
	}
	s, err := c.end.table.At(ctx, version-1)
	if err != nil {
		return nil, err
	}
	had := s.state.files[r.key()]
	if had == nil {
		return nil, &DamagedError{Path: c.end.table.key(commitName(version)), Reason: "removes " + r.Path + ", which the table did not have"}
	}
	return had, nil
}

// file scans one data file; only, when not nil, are the rows to give.
func (c *changeScan) file(ctx context.Context, a *addAction, only *roaring64.Bitmap, do func(arrow.RecordBatch) error) error {
	f := &fileScan{snapshot: c.end, add: a, fields: c.fields, schema: c.schema, batch: c.batch, only: only}
	return vacuumed(f.run(ctx, do))
}

// vacuumed adds ErrNoVersion to the error about a file that is gone.
func vacuumed(err error) error {
	if errors.Is(err, blob.ErrNotExist) {
		return fmt.Errorf("a file of the version is gone, vacuumed perhaps: %w: %w", ErrNoVersion, err)
	}
	return err
}

// changeFile gives the rows of a change data file, by type.
func (c *changeScan) changeFile(ctx context.Context, a *cdcAction, give giver) error {
	typed := field{name: changeTypeColumn, physical: changeTypeColumn, typ: &dataType{kind: kindPrimitive, name: "string"}}
	fields := append(slices.Clone(c.fields), typed)
	schema, err := arrowSchema(fields)
	if err != nil {
		return err
	}
	f := &fileScan{
		snapshot: c.end, fields: fields, schema: schema, batch: c.batch,
		add: &addAction{Path: a.Path, PartitionValues: a.PartitionValues, rows: -1},
	}
	return vacuumed(f.run(ctx, func(rec arrow.RecordBatch) error {
		defer rec.Release()
		types, ok := rec.Column(len(c.fields)).(*array.String)
		if !ok {
			return f.damaged(fmt.Errorf("column %s is %s", changeTypeColumn, rec.Column(len(c.fields)).DataType()))
		}
		rows := array.NewRecordBatch(c.schema, rec.Columns()[:len(c.fields)], rec.NumRows())
		defer rows.Release()
		return f.byType(ctx, rows, types, give)
	}))
}

// byType splits rows by their type, in the order the types first appear.
func (f *fileScan) byType(ctx context.Context, rows arrow.RecordBatch, types *array.String, give giver) error {
	var seen []string
	for i := range types.Len() {
		if types.IsNull(i) {
			return f.damaged(fmt.Errorf("row without %s", changeTypeColumn))
		}
		if !slices.Contains(seen, types.Value(i)) {
			switch ChangeType(types.Value(i)) {
			case Inserted, PreUpdated, PostUpdated, Deleted:
			default:
				return f.damaged(fmt.Errorf("%s is %q", changeTypeColumn, types.Value(i)))
			}
			seen = append(seen, types.Value(i))
		}
	}
	for _, typ := range seen {
		part := rows
		if len(seen) == 1 {
			part.Retain()
		} else {
			b := array.NewBooleanBuilder(memory.DefaultAllocator)
			b.Reserve(types.Len())
			for i := range types.Len() {
				b.UnsafeAppend(types.Value(i) == typ)
			}
			mask := b.NewBooleanArray()
			b.Release()
			var err error
			part, err = compute.FilterRecordBatch(ctx, rows, mask, compute.DefaultFilterOptions())
			mask.Release()
			if err != nil {
				return err
			}
		}
		if err := give(ChangeType(typ))(part); err != nil {
			return err
		}
	}
	return nil
}
