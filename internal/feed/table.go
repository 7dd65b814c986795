package feed

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/delta"
	"github.com/tarndb/tarn/internal/pgoutput"
	"github.com/tarndb/tarn/internal/pgvalue"
)

// stopError ends one table for good; others go on.
type stopError struct{ detail string }

func (e *stopError) Error() string { return e.detail }

// renamedError asks for a copy of the table into the history of its new name.
type renamedError struct{ name string }

func (e *renamedError) Error() string {
	return fmt.Sprintf("the table was renamed to %s, which has a history of its own", e.name)
}

// errUnknownOld asks for a new copy of the table: an update left a TOASTed value
// out and its old row was not sent whole.
var errUnknownOld = errors.New("value of an update is not in the stream")

// table collects the rows of one Postgres table and commits them to its Delta
// table. Rows of whole transactions only are ever committed.
type table struct {
	oid    uint32
	name   string
	target tarn.TableName
	delta  *delta.Table // nil = it cannot be followed
	app    string       // app transaction id without the generation
	gen    int          // counts copies of the table under one slot
	base   tarn.LSN     // transactions that ended at or before it are in the Delta table
	known  bool         // the Delta table carries our app transaction
	used   bool         // the Delta table has rows
	gone   uint64       // mark after which no table of this oid and name is in the schema; 0 = it is there
	called string       // its name of now, when that is why it is gone
	// succeeds says that the Delta table has rows of another table, which had
	// this one's name: a truncate row must part them from ours.
	succeeds bool
	status   tableStatus
	bury     func(ctx context.Context, name string, letters []deadLetter, app string, version int64, by versionKind) error
	shape
	pile
}

// shape fits a relation to the Delta table's columns.
type shape struct {
	rel    *pgoutput.Relation // what cols was made from
	schema delta.Schema       // as the next commit leaves it
	widens bool               // schema has columns that the Delta table lacks yet
	cols   []column
}

// pile is the rows that are not committed.
type pile struct {
	build *array.RecordBuilder
	parts []arrow.RecordBatch // sealed rows, older than the builder's
	rows  int                 // in parts and builder
	bytes int                 // about, of those in memory
	whole int                 // rows of whole transactions: what a stop keeps
	tx    *delta.Tx           // open while rows of one large transaction are written ahead
	dead  []deadLetter        // values that rows could not hold
	// wholeDead are those of whole transactions.
	wholeDead int
	pending   tarn.LSN // end of the last whole transaction in the rows; 0 = nothing to commit
}

// tableStatus is what becomes the table's row in the control database.
type tableStatus struct {
	state   tarn.FeedState
	detail  string
	sync    time.Time
	lost    int64 // values that Delta cannot hold and that are NULL there
	example string
	changed bool  // state or detail is not recorded yet
	told    told  // what the database's own view shows
	total   int64 // rows in the Delta table
	buried  int64 // values in the dead letters
	copied  int64 // rows of the last or running copy
	// estimate is about how many rows the running copy has; 0 = none runs.
	estimate int64
}

// told is what a database's own view shows of a table.
type told struct {
	state tarn.FeedState
	lsn   tarn.LSN
}

// column says how one Delta column is filled.
type column struct {
	system systemColumn
	source int // index in the relation; -1 = no longer in the source
	key    bool
	add    pgvalue.Append
}

// setState records a state; equal ones change nothing.
func (t *table) setState(s tarn.FeedState, detail string) {
	if t.status.state != s || t.status.detail != detail {
		t.status.state, t.status.detail, t.status.changed = s, detail, true
	}
}

// stopped reports that the table takes no changes until it is copied anew.
func (t *table) stopped() bool {
	return t.status.state == tarn.FeedSkipped || t.status.state == tarn.FeedTerminated
}

func (t *table) appID() string { return fmt.Sprintf("%s/%d", t.app, t.gen) }

// load reads from the Delta table how far it is. Generations are found by
// asking for one after the other.
func (t *table) load(ctx context.Context) error {
	s, err := t.delta.Latest(ctx)
	if err != nil {
		return fmt.Errorf("read Delta table %s: %w", t.target, err)
	}
	t.schema = *s.Schema()
	if !hasField(t.schema, changeTypeColumn) {
		return &stopError{fmt.Sprintf("table %s exists and is not the history of a feed: drop it or choose another schema", t.target)}
	}
	n, err := s.Count(ctx)
	if err != nil {
		return fmt.Errorf("count Delta table %s: %w", t.target, err)
	}
	t.used, t.known, t.gen, t.base, t.status.total = n > 0, false, 0, 0, n
	for gen := 0; ; gen++ {
		v, ok := s.AppTxn(fmt.Sprintf("%s/%d", t.app, gen))
		if !ok {
			break
		}
		t.known, t.gen, t.base = true, gen, tarn.LSN(v)
	}
	return t.layout()
}

func hasField(s delta.Schema, name string) bool {
	for _, f := range s.Fields {
		if f.Name == name {
			return true
		}
	}
	return false
}

// layout makes the builder for the schema. The old one must be empty.
func (t *table) layout() error {
	a, err := t.schema.Arrow()
	if err != nil {
		return fmt.Errorf("read the schema of %s: %w", t.target, err)
	}
	if t.build != nil {
		t.build.Release()
	}
	t.build = array.NewRecordBuilder(memory.DefaultAllocator, a)
	t.rel = nil
	return nil
}

// adopt fits the columns of rel to the Delta table: known ones keep their
// place, new ones are added at the end, missing ones are NULL from now on. A
// column whose type no longer fits goes on as a new one, v_2 behind v.
func (t *table) adopt(ctx context.Context, ty *pgvalue.Types, rel *pgoutput.Relation) error {
	schema := delta.Schema{Fields: append([]delta.Field(nil), t.schema.Fields...)}
	source := make([]int, len(schema.Fields))
	for i := range source {
		source[i] = -1
	}
	delim := make([]byte, len(schema.Fields))
	for i, c := range rel.Columns {
		p, err := ty.Resolve(ctx, c.TypeOID, c.TypeMod)
		if err != nil {
			return err
		}
		at := fieldFor(schema, c.Name, p)
		if at < 0 {
			schema.Fields = append(schema.Fields, newField(schema, c.Name, p))
			source, delim = append(source, i), append(delim, p.Delim)
			continue
		}
		source[at], delim[at] = i, p.Delim
	}
	if len(schema.Fields) > len(t.schema.Fields) {
		t.seal()
		t.schema, t.widens = schema, true
		if err := t.layout(); err != nil {
			return err
		}
	}
	cols := make([]column, len(t.schema.Fields))
	for i := range cols {
		cols[i].source = source[i]
		if source[i] < 0 {
			cols[i].system = systemOf(t.schema.Fields[i])
			continue
		}
		add, err := pgvalue.Appender(t.build.Field(i), delim[i])
		if err != nil {
			return &stopError{fmt.Sprintf("column %s of %s: %v", t.schema.Fields[i].Name, t.target, err)}
		}
		cols[i].add, cols[i].key = add, rel.Columns[source[i]].Key
	}
	t.cols, t.rel = cols, rel
	return nil
}
