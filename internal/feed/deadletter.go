package feed

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/delta"
)

// deadLettersTable keeps, beside the histories of a feed, the values that Delta
// has no form for. In the history they are NULL; _sort_by names the row.
const deadLettersTable = "feed_dead_letters"

// deadLetter is one value that a history cannot hold.
type deadLetter struct {
	column, pgType, deltaType string
	value                     string
	pos                       position
}

func deadLetterSchema() delta.Schema {
	text := func(n string) delta.Field { return delta.Field{Name: n, Type: "string", Nullable: true} }
	return delta.Schema{Fields: []delta.Field{
		text("table_name"), text("column_name"), text("pg_type"), text("reason"), text("value"),
		{Name: "_pg_lsn", Type: "long", Nullable: true}, {Name: "_pg_xid", Type: "long", Nullable: true},
		{Name: "_timestamp", Type: "timestamp", Nullable: true}, text("_sort_by"),
	}}
}

// reason says why Delta cannot hold the value.
func (d deadLetter) reason() string {
	switch v := strings.ToLower(d.value); {
	case v == "nan" || strings.HasSuffix(v, "infinity"):
		return v + " has no form in " + d.deltaType
	case strings.HasSuffix(v, " bc"):
		return "before the year 1"
	case strings.HasPrefix(d.deltaType, "{"):
		return "an array of several dimensions, with other bounds than 1, or with an element that has no form"
	case d.deltaType == "string":
		return "not UTF-8; the value is in hexadecimal"
	case strings.HasPrefix(d.deltaType, "decimal"):
		return "beyond " + d.deltaType
	case d.deltaType == "date" || strings.HasPrefix(d.deltaType, "timestamp"):
		return "beyond the year 9999"
	}
	return "not a value of " + d.deltaType
}

// lose keeps a value that became NULL (or lost an element) for the dead letters.
func (t *table) lose(i int, column string, v []byte, pos position) {
	t.status.lost++
	t.status.changed = true
	text := string(v)
	if !utf8.Valid(v) {
		text = hex.EncodeToString(v)
	}
	pg, _ := t.schema.Fields[i].Metadata[metaType].(string)
	t.dead = append(t.dead, deadLetter{column: column, pgType: pg, deltaType: t.schema.Fields[i].Type, value: text, pos: pos})
	t.bytes += len(text)
	if len(text) > 40 {
		text = strings.ToValidUTF8(text[:40], "")
	}
	t.status.example = fmt.Sprintf("%s = %q", column, text)
}

// graveyard is the dead-letter table of a feed; tables use it at once.
type graveyard struct {
	feed  *follower
	mu    sync.Mutex // held while the table is opened or made
	delta *delta.Table
}

// bury commits dead letters of a table as part of its own commit to come, under
// the same version: when that commit is repeated, those that are there are
// left out. In a stream, whose versions are positions, the repetition may be
// cut at other places, and the letters say where they are from.
func (g *graveyard) bury(ctx context.Context, name string, letters []deadLetter, app string, version int64, by versionKind) error {
	d, err := g.open(ctx)
	if err != nil {
		return fmt.Errorf("open dead letters: %w", err)
	}
	snap, err := d.Latest(ctx)
	if err != nil {
		return fmt.Errorf("read dead letters: %w", err)
	}
	app += "/dead"
	if base, ok := snap.AppTxn(app); ok && by == byPosition {
		letters = slices.DeleteFunc(slices.Clone(letters), func(l deadLetter) bool { return l.pos.commitEnd <= tarn.LSN(base) })
	}
	if len(letters) == 0 {
		return nil
	}
	rec, err := letterBatch(name, letters)
	if err != nil {
		return err
	}
	defer rec.Release()
	tx := d.Begin(snap)
	if err := tx.Append(ctx, rec); err != nil {
		tx.Abort(ctx)
		return fmt.Errorf("write dead letters: %w", err)
	}
	tx.SetAppTxn(app, version)
	if _, err := tx.Commit(ctx, delta.CommitOptions{Operation: "STREAMING UPDATE"}); err != nil {
		tx.Abort(ctx)
		if !errors.Is(err, delta.ErrAppliedTxn) {
			return fmt.Errorf("commit dead letters: %w", err)
		}
	}
	return nil
}

// versionKind says what the version of an app transaction is.
type versionKind int

const (
	byPosition versionKind = iota // an LSN: that of the last transaction
	byNumber                      // the number of the commit
)

func letterBatch(name string, letters []deadLetter) (arrow.RecordBatch, error) {
	fields := deadLetterSchema()
	schema, err := fields.Arrow()
	if err != nil {
		return nil, err
	}
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	text := func(i int, v string) { b.Field(i).(*array.StringBuilder).Append(v) }
	for _, l := range letters {
		text(0, name)
		text(1, l.column)
		text(2, l.pgType)
		text(3, l.reason())
		text(4, l.value)
		b.Field(5).(*array.Int64Builder).Append(int64(l.pos.lsn))
		if x := b.Field(6).(*array.Int64Builder); l.pos.xid != 0 {
			x.Append(int64(l.pos.xid))
		} else {
			x.AppendNull()
		}
		b.Field(7).(*array.TimestampBuilder).Append(arrow.Timestamp(l.pos.time.UnixMicro()))
		text(8, l.pos.sortBy())
	}
	return b.NewRecordBatch(), nil
}

func (g *graveyard) open(ctx context.Context) (*delta.Table, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.delta != nil {
		return g.delta, nil
	}
	d, err := g.feed.openSide(ctx, deadLettersTable, fmt.Sprintf("values of feed %s that Delta has no form for", g.feed.row.ID), func() (delta.Metadata, error) {
		return delta.Metadata{Name: deadLettersTable, Schema: deadLetterSchema(), Properties: map[string]string{"delta.appendOnly": "true"}}, nil
	})
	if err == nil {
		g.delta = d
	}
	return d, err
}

// openSide opens or makes a table beside the histories.
func (f *follower) openSide(ctx context.Context, name, comment string, make func() (delta.Metadata, error)) (*delta.Table, error) {
	target := tarn.TableName{Catalog: f.row.Catalog, Schema: f.row.Schema, Table: name}
	entry, err := f.k.catalog.Table(ctx, target)
	if tarn.KindOf(err) == tarn.KindNotFound {
		entry, err = f.k.catalog.CreateTable(ctx, f.owner, target, "", comment)
	}
	if err != nil {
		return nil, err
	}
	store, err := f.k.openStore(ctx, entry.Location)
	if err != nil {
		return nil, err
	}
	d, err := delta.Open(ctx, store, "")
	if errors.Is(err, delta.ErrNotTable) {
		var m delta.Metadata
		if m, err = make(); err != nil {
			return nil, err
		}
		d, err = delta.Create(ctx, store, "", m)
	}
	return d, err
}
