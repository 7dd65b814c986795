package delta

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tarndb/tarn/internal/blob"
)

// Snapshot is a table at one version. It never changes.
type Snapshot struct {
	table      *Table
	version    int64
	state      *state
	schema     *dataType // a struct of the columns
	mapping    mapping
	checkpoint int64       // version of the newest checkpoint known; -1 = none
	last       blob.Object // what made the version: a commit, or a checkpoint
	inCommit   *int64      // in-commit timestamp, ms since 1970
}

// finish checks the state and parses the schema.
func (s *Snapshot) finish() error {
	m := s.state.metadata
	if s.state.protocol == nil || m == nil {
		return &DamagedError{Path: s.table.key(logFolder), Reason: fmt.Sprintf("version %d has no protocol or no metaData", s.version)}
	}
	if err := s.state.protocol.checkReadable(); err != nil {
		return err
	}
	if p := m.Format.Provider; p != "" && p != "parquet" {
		return &UnsupportedError{Feature: "format " + p}
	}
	bad := func(err error) error {
		return &DamagedError{Path: s.last.Key, Reason: "schema", Err: err}
	}
	text := m.SchemaString
	if text == "" { // a table made before it has columns
		text = `{"type":"struct"}`
	}
	schema, err := typeOfJSON([]byte(text), 0)
	if err != nil {
		if IsRefusal(err) {
			return err
		}
		return bad(err)
	}
	if schema.kind != kindStruct {
		return bad(fmt.Errorf("is %s, not a struct", schema.text()))
	}
	if s.mapping, err = mappingOf(m.Configuration); err != nil {
		return err
	}
	if err := schema.resolve(s.mapping); err != nil {
		return bad(err)
	}
	for _, p := range m.PartitionColumns {
		i := slices.IndexFunc(schema.fields, func(f field) bool { return f.name == p })
		if i < 0 {
			return bad(fmt.Errorf("partition column %s is not in it", p))
		}
		if k := schema.fields[i].typ.kind; k != kindPrimitive && k != kindDecimal {
			return bad(fmt.Errorf("partition column %s is nested", p))
		}
	}
	s.schema = schema
	return nil
}

// Version is the table's commit number.
func (s *Snapshot) Version() int64 { return s.version }

// Time is when the version was committed.
func (s *Snapshot) Time() time.Time {
	if s.inCommit != nil && s.truth("delta.enableInCommitTimestamps") {
		return time.UnixMilli(*s.inCommit).UTC()
	}
	return s.last.ModTime.UTC()
}

// ID is metaData.id: another one means the table was made anew.
func (s *Snapshot) ID() string { return s.state.metadata.ID }

// Name is the table's own name; often "".
func (s *Snapshot) Name() string { return orEmpty(s.state.metadata.Name) }

// Description is the table's own description; often "".
func (s *Snapshot) Description() string { return orEmpty(s.state.metadata.Description) }

func orEmpty(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// Schema gives the columns, partition columns included.
func (s *Snapshot) Schema() *Schema { return schemaOf(s.schema) }

// PartitionBy names the partition columns.
func (s *Snapshot) PartitionBy() []string { return slices.Clone(s.state.metadata.PartitionColumns) }

// Properties are the table's properties, e.g. delta.enableChangeDataFeed.
func (s *Snapshot) Properties() map[string]string { return maps.Clone(s.state.metadata.Configuration) }

// AppTxn is the last version that the application committed with its data.
func (s *Snapshot) AppTxn(appID string) (int64, bool) {
	t, ok := s.state.txns[appID]
	if !ok {
		return 0, false
	}
	return t.Version, true
}

// Files is the number of active data files.
func (s *Snapshot) Files() int { return len(s.state.files) }

// Size is the size of the active data files in bytes.
func (s *Snapshot) Size() int64 {
	var n int64
	for _, a := range s.state.files {
		n += a.Size
	}
	return n
}

// truth reads a property that is true or false, false by default. Names of
// properties are compared as Delta does, without regard to case.
func (s *Snapshot) truth(property string) bool {
	return strings.EqualFold(propertyOf(s.state.metadata.Configuration, property), "true")
}

func propertyOf(properties map[string]string, name string) string {
	if v, ok := properties[name]; ok {
		return v
	}
	for k, v := range properties {
		if strings.EqualFold(k, name) {
			return v
		}
	}
	return ""
}

// Count gives the number of rows: of the statistics where a file has them, of
// the footer where not, less what deletion vectors delete.
func (s *Snapshot) Count(ctx context.Context) (int64, error) {
	var n int64
	for _, a := range s.state.files {
		rows, err := s.rowsOf(ctx, a)
		if err != nil {
			return 0, fmt.Errorf("count %s@%d: %w", s.table.name(), s.version, err)
		}
		n += rows
	}
	return n, nil
}

// rowsOf counts the active rows of one file.
func (s *Snapshot) rowsOf(ctx context.Context, a *addAction) (int64, error) {
	rows, ok := a.statRows()
	if !ok {
		key, err := s.table.dataKey(a.Path)
		if err != nil {
			return 0, err
		}
		f, err := openParquet(ctx, s.table.store, key, -1)
		if err != nil {
			return 0, err
		}
		rows = f.reader.NumRows()
		f.close()
	}
	if a.DV != nil {
		if a.DV.Cardinality < 0 || a.DV.Cardinality > rows {
			return 0, &DamagedError{Path: s.table.key(logFolder), Reason: "deletion vector of " + a.Path + " deletes " +
				strconv.FormatInt(a.DV.Cardinality, 10) + " of " + strconv.FormatInt(rows, 10) + " rows"}
		}
		rows -= a.DV.Cardinality
	}
	return rows, nil
}

// statRows is numRecords of the file's statistics.
func (a *addAction) statRows() (int64, bool) {
	if a.Stats == "" {
		return a.rows, a.rows >= 0
	}
	var stats struct {
		NumRecords *int64 `json:"numRecords"`
	}
	// Statistics that cannot be parsed are as good as none.
	if json.Unmarshal([]byte(a.Stats), &stats) != nil || stats.NumRecords == nil || *stats.NumRecords < 0 {
		return 0, false
	}
	return *stats.NumRecords, true
}

// lowerTrim is for comparing words of properties.
func lowerTrim(s string) string { return strings.ToLower(strings.TrimSpace(s)) }

// Protocol is what a reader and a writer of a table must know.
type Protocol struct {
	MinReader, MinWriter           int
	ReaderFeatures, WriterFeatures []string // named ones only
}

// Protocol gives the table's protocol.
func (s *Snapshot) Protocol() Protocol {
	p := s.state.protocol
	return Protocol{p.MinReader, p.MinWriter, slices.Clone(p.ReaderFeatures), slices.Clone(p.WriterFeatures)}
}
