package delta

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
)

// Metadata is what Create needs.
type Metadata struct {
	Name        string
	Description string
	Schema      Schema
	PartitionBy []string
	Properties  map[string]string // e.g. delta.enableChangeDataFeed=true
}

// Create makes the table with version 0, or fails with blob.ErrExists. One
// object, put if absent, makes the table: before it there is none, behind it
// there is a whole one.
func Create(ctx context.Context, s blob.Store, prefix string, m Metadata) (*Table, error) {
	x, err := draft(ctx, s, prefix, m)
	if err == nil {
		_, err = x.commit(ctx, CommitOptions{Operation: "CREATE TABLE"})
	}
	if err != nil {
		return nil, fmt.Errorf("create table %s: %w", strings.TrimSuffix(strings.TrimSuffix(s.URL(), "/")+"/"+prefix, "/"), err)
	}
	return x.table, nil
}

// Draft begins a table whose version 0 has rows already: those that Append brings
// before Commit, which then makes the table as Create does.
func Draft(ctx context.Context, s blob.Store, prefix string, m Metadata) (*Tx, error) {
	x, err := draft(ctx, s, prefix, m)
	if err != nil {
		return nil, fmt.Errorf("create table: %w", err)
	}
	return x, nil
}

// draft begins a transaction on a version -1, which has the new table's rules and
// no files.
func draft(ctx context.Context, s blob.Store, prefix string, m Metadata) (*Tx, error) {
	t, err := newTable(s, prefix)
	if err != nil {
		return nil, err
	}
	schema, err := m.check()
	if err != nil {
		return nil, err
	}
	// A log whose first versions are cleaned up has no version 0 either.
	switch _, err := Open(ctx, t.store, t.prefix); {
	case err == nil:
		return nil, blob.ErrExists
	case !errors.Is(err, ErrNotTable):
		return nil, err
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return nil, fmt.Errorf("name the table: %w", err)
	}
	now := time.Now().UnixMilli()
	properties := map[string]string{}
	for name, value := range m.Properties {
		if !strings.HasPrefix(strings.ToLower(name), "delta.feature.") { // those go into the protocol
			properties[name] = value
		}
	}
	mode, err := mappingOf(properties)
	if err != nil {
		return nil, err
	}
	if mode != mapNone {
		if err := assignMapping(schema, properties, true); err != nil {
			return nil, err
		}
	}
	partitions := slices.Clone(m.PartitionBy)
	if partitions == nil {
		partitions = []string{}
	}
	base := &Snapshot{table: t, version: -1, state: newState(), checkpoint: -1, inCommit: new(int64)}
	base.state.protocol = protocolFor(schema, m.Properties, nil)
	base.state.metadata = &metadataAction{
		ID: id.String(), Name: nonEmpty(m.Name), Description: nonEmpty(m.Description),
		Format:       formatSpec{Provider: "parquet", Options: map[string]string{}},
		SchemaString: string(schema.json()), PartitionColumns: partitions, Configuration: properties, CreatedTime: &now,
	}
	if err := base.finish(); err != nil {
		return nil, err
	}
	x := t.Begin(base)
	x.metadata, x.protocol = base.state.metadata, base.state.protocol
	x.params["partitionBy"], x.params["properties"] = jsonText(partitions), jsonText(properties)
	return x, nil
}

// check parses the schema and refuses what we cannot write.
func (m *Metadata) check() (*dataType, error) {
	if len(m.Schema.Fields) == 0 {
		return nil, tarn.Invalid("a table needs a column")
	}
	t, err := m.Schema.parse()
	if err != nil {
		return nil, err
	}
	if err := t.checkWritable(); err != nil {
		return nil, err
	}
	if err := checkProperties(m.Properties); err != nil {
		return nil, err
	}
	for i, p := range m.PartitionBy {
		at := slices.IndexFunc(t.fields, func(f field) bool { return f.name == p })
		switch {
		case at < 0:
			return nil, tarn.Invalid("partition column %s is not in the schema", p)
		case slices.Contains(m.PartitionBy[:i], p):
			return nil, tarn.Invalid("partition column %s is named twice", p)
		case t.fields[at].typ.kind != kindPrimitive && t.fields[at].typ.kind != kindDecimal, t.fields[at].typ.name == "binary":
			return nil, tarn.Invalid("a table cannot be partitioned by %s, a %s", p, t.fields[at].typ.text())
		}
	}
	if len(m.PartitionBy) == len(t.fields) {
		return nil, tarn.Invalid("a table needs a column it is not partitioned by")
	}
	for _, f := range t.fields {
		if reservedColumn(f.name) {
			return nil, tarn.Invalid("the column name %s is reserved", f.name)
		}
	}
	return t, nil
}

// reservedColumn tells whether Delta uses the name itself.
func reservedColumn(name string) bool {
	return strings.HasPrefix(name, "delta.") || name == changeTypeColumn || name == "_commit_version" || name == "_commit_timestamp"
}

func nonEmpty(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
