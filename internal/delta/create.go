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
	t, err := newTable(s, prefix)
	if err != nil {
		return nil, fmt.Errorf("create table: %w", err)
	}
	if err := t.create(ctx, m); err != nil {
		return nil, fmt.Errorf("create table %s: %w", t.name(), err)
	}
	return t, nil
}

func (t *Table) create(ctx context.Context, m Metadata) error {
	schema, err := m.check()
	if err != nil {
		return err
	}
	// A log whose first versions are cleaned up has no version 0 either.
	switch _, err := Open(ctx, t.store, t.prefix); {
	case err == nil:
		return blob.ErrExists
	case !errors.Is(err, ErrNotTable):
		return err
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return fmt.Errorf("name the table: %w", err)
	}
	txnID, err := uuid.NewRandom()
	if err != nil {
		return fmt.Errorf("name the commit: %w", err)
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
		return err
	}
	if mode != mapNone {
		if err := assignMapping(schema, properties, true); err != nil {
			return err
		}
	}
	partitions := slices.Clone(m.PartitionBy)
	if partitions == nil {
		partitions = []string{}
	}
	meta := &metadataAction{
		ID: id.String(), Name: nonEmpty(m.Name), Description: nonEmpty(m.Description),
		Format:       formatSpec{Provider: "parquet", Options: map[string]string{}},
		SchemaString: string(schema.json()), PartitionColumns: partitions, Configuration: properties, CreatedTime: &now,
	}
	blind := true
	info := &commitInfoAction{
		Timestamp: now, Operation: "CREATE TABLE", Parameters: map[string]any{"partitionBy": jsonText(partitions), "properties": jsonText(properties)},
		IsolationLevel: "Serializable", IsBlindAppend: &blind, EngineInfo: engine, TxnID: txnID.String(),
	}
	if strings.EqualFold(propertyOf(properties, "delta.enableInCommitTimestamps"), "true") {
		info.InCommitTimestamp = &now
	}
	protocol := protocolFor(schema, m.Properties, nil)
	b, err := encodeActions([]action{{CommitInfo: info}, {Protocol: protocol}, {Metadata: meta}})
	if err != nil {
		return err
	}
	theirs, err := t.putCommit(ctx, 0, b, txnID.String())
	if err == nil && theirs != nil {
		err = blob.ErrExists
	}
	if err == nil { // nobody needs the checksum
		_ = t.putChecksum(ctx, 0, checksum{TxnID: info.TxnID, InCommitTimestamp: info.InCommitTimestamp, Metadata: meta, Protocol: protocol})
	}
	return err
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
