package delta

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/parquet"
	parquetschema "github.com/apache/arrow-go/v18/parquet/schema"
	"golang.org/x/sync/errgroup"
)

// Plan tells another reader of Parquet how a snapshot's rows come about: those
// of the groups by the rules of their columns, and those of Rest, whose files it
// would read otherwise than Scan does, by Scan.
type Plan struct {
	Groups []PlanGroup
	Rest   Split // Files 0 = none
}

// PlanGroup is files that are read alike.
type PlanGroup struct {
	Columns []PlanColumn // one for each of the schema's
	Files   []PlanFile
}

// PlanColumn is where the values of a column of a group come from. Values that
// are read are those of Parquet's own types, and only have to be cast to Type.
type PlanColumn struct {
	Field     Field
	Source    string  // column of the files; "" = a constant
	Value     *string // the constant, a partition value as the log has it; nil = NULL
	Partition bool    // Value is what it is because of the partition
}

// PlanFile is a data file.
type PlanFile struct {
	Key     string            // in the store of the table
	Deleted *roaring64.Bitmap // positions of deleted rows; nil = none
}

// Footers remembers what was read of data files, which never change. The zero
// value is empty. It is safe for concurrent use.
type Footers struct {
	mu    sync.Mutex // not held while a file is read
	known map[string]*footer
}

// mostFooters bounds what is remembered; then it begins anew.
const mostFooters = 20000

// footer is what a plan needs to know of a file.
type footer struct {
	nodes  []columnNode
	fields []arrow.Field // as the finders see them
	julian julianDates
	twins  bool // two columns differ in letter case only
}

func (f *Footers) of(ctx context.Context, s *Snapshot, key string, size int64) (*footer, error) {
	id := s.table.store.URL() + "\x00" + key
	f.mu.Lock()
	known := f.known[id]
	f.mu.Unlock()
	if known != nil {
		return known, nil
	}
	p, err := openParquet(ctx, s.table.store, key, size)
	if err != nil {
		return nil, missingInLog(key, err)
	}
	defer p.close()
	known = &footer{julian: p.julian}
	known.nodes, known.fields = nodesOf(p.reader.MetaData().Schema.Root(), 0)
	seen := map[string]bool{}
	for _, n := range known.nodes {
		low := strings.ToLower(n.node.Name())
		known.twins = known.twins || seen[low]
		seen[low] = true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.known == nil || len(f.known) >= mostFooters {
		f.known = map[string]*footer{}
	}
	f.known[id] = known
	return known, nil
}

// planReaders is how many footers are read at once.
const planReaders = 8

// Plan plans the files that may hold a row for which where is true; others may
// be among them. Every file's footer is read, unless it is known already.
func (f *Footers) Plan(ctx context.Context, s *Snapshot, where Predicate) (Plan, error) {
	p, err := f.plan(ctx, s, where)
	if err != nil {
		return Plan{}, fmt.Errorf("plan %s@%d: %w", s.table.name(), s.version, err)
	}
	return p, nil
}

// planned is one file on the way into a group.
type planned struct {
	file    PlanFile
	columns []PlanColumn
	alike   string // files with the same text are read alike; "" = by Scan
}

func (f *Footers) plan(ctx context.Context, s *Snapshot, where Predicate) (Plan, error) {
	c, err := s.schema.bind(where)
	if err != nil {
		return Plan{}, err
	}
	var files []*addAction
	for _, a := range s.sortedFiles() {
		if s.mayHold(a, c) {
			files = append(files, a)
		}
	}
	all := make([]planned, len(files))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(planReaders)
	for i, a := range files {
		g.Go(func() (err error) {
			all[i], err = f.planFile(gctx, s, a)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return Plan{}, err
	}
	var out Plan
	at := map[string]int{}
	for i, p := range all {
		if p.alike == "" {
			out.Rest.files = append(out.Rest.files, files[i])
			out.Rest.Files++
			out.Rest.Rows += files[i].activeRows()
			out.Rest.Bytes += files[i].Size
			continue
		}
		j, ok := at[p.alike]
		if !ok {
			j = len(out.Groups)
			at[p.alike] = j
			out.Groups = append(out.Groups, PlanGroup{Columns: p.columns})
		}
		out.Groups[j].Files = append(out.Groups[j].Files, p.file)
	}
	return out, nil
}

func (f *Footers) planFile(ctx context.Context, s *Snapshot, a *addAction) (p planned, err error) {
	if p.file.Key, err = s.table.dataKey(a.Path); err != nil {
		return p, err
	}
	foot, err := f.of(ctx, s, p.file.Key, -1)
	if err != nil {
		return p, err
	}
	if foot.twins || foot.julian.others || foot.julian.int96 {
		return p, nil
	}
	if s.mapping == mapID && !slices.ContainsFunc(foot.fields, func(c arrow.Field) bool { return c.Metadata.Len() > 0 }) {
		return p, nil // Scan refuses it
	}
	by := s.find()
	var alike strings.Builder
	for _, f := range s.schema.fields { // hides the footers, which are not needed any more
		c := PlanColumn{Field: Field{Name: f.name, Type: f.typ.text(), Nullable: f.nullable}}
		if slices.Contains(s.state.metadata.PartitionColumns, f.name) {
			if c.Partition, c.Value = true, a.PartitionValues[f.physical]; c.Value != nil && *c.Value == "" {
				c.Value = nil
			}
			if f.typ.name == "binary" || f.typ.kind == kindPrimitive && (f.typ.name == "timestamp" || f.typ.name == "timestamp_ntz") {
				return p, nil // many spellings, which Scan knows
			}
			if _, err := partitionArray(c.Value, f.typ, 1); err != nil {
				return p, nil // and it says what is wrong
			}
			fmt.Fprintf(&alike, "|%t=%q", c.Value != nil, orEmpty(c.Value))
		} else if i := by(f, foot.fields); i >= 0 {
			text, ok := readsAlike(foot.nodes[i].node, f.typ)
			if !ok {
				return p, nil
			}
			c.Source = foot.fields[i].Name
			fmt.Fprintf(&alike, "|%q %s", c.Source, text)
		} else {
			if f.typ.uses("variant") || f.typ.uses("void") {
				return p, nil
			}
			alike.WriteString("|-")
		}
		p.columns = append(p.columns, c)
	}
	if a.DV != nil {
		alike.WriteString("|dv")
		if p.file.Deleted, err = s.deleted(ctx, a.DV); err != nil {
			return p, err
		}
	}
	p.alike = alike.String()
	return p, nil
}

// readsAlike tells whether any reader of Parquet gives a column's values as t,
// but for a cast that keeps them; text describes the column. Nested columns must
// be exactly as t has them.
func readsAlike(n parquetschema.Node, t *dataType) (text string, ok bool) {
	if n.RepetitionType() == parquet.Repetitions.Repeated {
		return "", false
	}
	if leaf, plain := n.(*parquetschema.PrimitiveNode); plain {
		if t.kind != kindPrimitive && t.kind != kindDecimal {
			return "", false
		}
		return fmt.Sprintf("%s %s", leaf.PhysicalType(), leaf.LogicalType()), leafAlike(leaf, t)
	}
	g := n.(*parquetschema.GroupNode)
	// The one child of a list or a map, which repeats.
	inner := func(name string, want int) *parquetschema.GroupNode {
		if g.NumFields() != 1 || g.Field(0).Name() != name || g.Field(0).RepetitionType() != parquet.Repetitions.Repeated {
			return nil
		}
		in, ok := g.Field(0).(*parquetschema.GroupNode)
		if !ok || in.NumFields() != want {
			return nil
		}
		return in
	}
	switch t.kind {
	case kindStruct:
		if !g.LogicalType().IsNone() || g.NumFields() != len(t.fields) {
			return "", false
		}
		for i, f := range t.fields {
			sub, ok := readsAlike(g.Field(i), f.typ)
			if !ok || g.Field(i).Name() != f.physical || f.physical != f.name {
				return "", false
			}
			text += "," + f.name + " " + sub
		}
		return "{" + text + "}", true
	case kindArray:
		in := inner("list", 1)
		if in == nil || g.LogicalType().String() != "List" {
			return "", false
		}
		text, ok = readsAlike(in.Field(0), t.elem)
		return "[" + text + "]", ok
	case kindMap:
		in := inner("key_value", 2)
		if in == nil || g.LogicalType().String() != "Map" {
			return "", false
		}
		key, ok := readsAlike(in.Field(0), t.key)
		if !ok {
			return "", false
		}
		value, ok := readsAlike(in.Field(1), t.elem)
		return "<" + key + ":" + value + ">", ok
	}
	return "", false
}

func leafAlike(n *parquetschema.PrimitiveNode, t *dataType) bool {
	logical := n.LogicalType()
	none := logical == nil || logical.IsNone()
	integer := func() bool {
		i, ok := logical.(parquetschema.IntLogicalType)
		return (n.PhysicalType() == parquet.Types.Int32 || n.PhysicalType() == parquet.Types.Int64) && (none || ok && i.IsSigned())
	}
	if t.kind == kindDecimal {
		d, ok := logical.(parquetschema.DecimalLogicalType)
		return ok && d.Scale() <= t.scale && d.Precision()-d.Scale() <= t.precision-t.scale
	}
	switch t.name {
	case "boolean":
		return n.PhysicalType() == parquet.Types.Boolean
	case "byte", "short", "integer", "long":
		return integer()
	case "float":
		return n.PhysicalType() == parquet.Types.Float
	case "double":
		return n.PhysicalType() == parquet.Types.Double || n.PhysicalType() == parquet.Types.Float
	case "string":
		_, ok := logical.(parquetschema.StringLogicalType)
		return ok && n.PhysicalType() == parquet.Types.ByteArray
	case "binary":
		return none && n.PhysicalType() == parquet.Types.ByteArray
	case "date":
		_, ok := logical.(parquetschema.DateLogicalType)
		return ok
	case "timestamp", "timestamp_ntz":
		ts, ok := logical.(parquetschema.TimestampLogicalType)
		return ok && ts.TimeUnit() != parquetschema.TimeUnitNanos
	}
	return false
}
