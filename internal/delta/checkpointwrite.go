package delta

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/compress"
)

const (
	defaultCheckpointInterval = 10 // commits; delta.checkpointInterval
	defaultTombRetention      = 7 * 24 * time.Hour
)

// checkpointDue tells whether version should get a checkpoint. It goes by the
// last one known, not by round numbers, so that one that did not come about is
// made up for.
func (x *Tx) checkpointDue(version int64) bool {
	interval, err := strconv.ParseInt(propertyOf(x.base.state.metadata.Configuration, "delta.checkpointInterval"), 10, 64)
	if err != nil || interval < 1 {
		interval = defaultCheckpointInterval
	}
	return version-max(x.base.checkpoint, 0) >= interval
}

// Checkpoint writes the sum of the newest version's actions, so that readers
// need not read every commit. It changes nothing of the table.
//
//  1. put <version>.checkpoint.parquet, or of version 2 the sidecars and then
//     <version>.checkpoint.<uuid>.parquet  (crash: nothing, sidecars that nobody
//     names, or a checkpoint that a listing finds)
//  2. put _last_checkpoint, a hint
//  3. delete what of the log has expired; see cleanLog
func (t *Table) Checkpoint(ctx context.Context) error {
	s, err := t.Latest(ctx)
	if err != nil {
		return err
	}
	if err := s.writeCheckpoint(ctx); err != nil {
		return fmt.Errorf("checkpoint %s@%d: %w", t.name(), s.version, err)
	}
	c := *s
	c.checkpoint = s.version
	t.mu.Lock()
	if t.newest != nil && t.newest.version == c.version {
		t.newest = &c
	}
	t.mu.Unlock()
	if err := t.cleanLog(ctx, s, time.Now()); err != nil {
		return fmt.Errorf("clean the log of %s: %w", t.name(), err)
	}
	return nil
}

func (s *Snapshot) writeCheckpoint(ctx context.Context) error {
	if err := s.checkWritable(); err != nil {
		return err
	}
	if s.state.statsLost {
		return &UnsupportedError{Feature: "statistics as columns only", Writing: true}
	}
	actions := s.checkpointActions(time.Now())
	var size int64
	var err error
	if slices.Contains(s.state.protocol.WriterFeatures, "v2Checkpoint") {
		size, err = s.table.putManifest(ctx, s.version, actions, sidecarRows)
	} else {
		size, err = s.table.putActions(ctx, checkpointName(s.version), checkpointSchema(), actions)
	}
	if err != nil {
		return err
	}
	hint, err := json.Marshal(map[string]int64{
		"version": s.version, "size": int64(len(actions)), "sizeInBytes": size, "numOfAddFiles": int64(len(s.state.files)),
	})
	if err != nil {
		return err
	}
	return s.table.store.Put(ctx, s.table.key(logFolder+"_last_checkpoint"), bytes.NewReader(hint))
}

// putActions writes actions as a Parquet file with some of a checkpoint's columns.
func (t *place) putActions(ctx context.Context, path string, schema *arrow.Schema, actions []action) (size int64, err error) {
	up := newUpload(ctx, t.store, t.key(path))
	stop := up.breakOff(ctx)
	err = writeActions(up, schema, actions)
	stop()
	if err != nil {
		up.abort()
		return 0, err
	}
	err = up.close(ctx)
	return up.size, err
}

// checkpointActions lists the state in a fixed order. Tombstones leave when
// their retention has passed.
func (s *Snapshot) checkpointActions(now time.Time) []action {
	out := []action{{Protocol: s.state.protocol}, {Metadata: s.state.metadata}}
	for _, id := range slices.Sorted(maps.Keys(s.state.txns)) {
		out = append(out, action{Txn: s.state.txns[id]})
	}
	for _, d := range slices.Sorted(maps.Keys(s.state.domains)) {
		out = append(out, action{Domain: s.state.domains[d]})
	}
	for _, a := range s.sortedFiles() {
		c := *a
		c.DataChange = false
		out = append(out, action{Add: &c})
	}
	kept := now.Add(-s.tombRetention()).UnixMilli()
	var tombs []*removeAction
	for _, r := range s.state.tombs {
		if r.DeletionTimestamp != nil && *r.DeletionTimestamp > kept {
			tombs = append(tombs, r)
		}
	}
	slices.SortFunc(tombs, func(a, b *removeAction) int { return strings.Compare(a.Path, b.Path) })
	for _, r := range tombs {
		c := *r
		c.DataChange = false
		out = append(out, action{Remove: &c})
	}
	return out
}

// tombRetention reads delta.deletedFileRetentionDuration.
func (s *Snapshot) tombRetention() time.Duration {
	return s.state.metadata.interval("delta.deletedFileRetentionDuration", defaultTombRetention)
}

// checkpointSchema is one struct per action, all nullable: those of the V1
// schema, or only some.
func checkpointSchema(only ...string) *arrow.Schema {
	text, long, integer, truth := arrow.BinaryTypes.String, arrow.PrimitiveTypes.Int64, arrow.PrimitiveTypes.Int32, arrow.FixedWidthTypes.Boolean
	textMap := arrow.MapOf(text, text)
	list := arrow.ListOfField(arrow.Field{Name: "element", Type: text, Nullable: true})
	structOf := func(pairs ...any) arrow.DataType {
		var fields []arrow.Field
		for i := 0; i < len(pairs); i += 2 {
			fields = append(fields, arrow.Field{Name: pairs[i].(string), Type: pairs[i+1].(arrow.DataType), Nullable: true})
		}
		return arrow.StructOf(fields...)
	}
	dv := structOf("storageType", text, "pathOrInlineDv", text, "offset", integer, "sizeInBytes", integer, "cardinality", long)
	root := structOf(
		"txn", structOf("appId", text, "version", long, "lastUpdated", long),
		"add", structOf("path", text, "partitionValues", textMap, "size", long, "modificationTime", long, "dataChange", truth,
			"stats", text, "tags", textMap, "deletionVector", dv, "baseRowId", long, "defaultRowCommitVersion", long, "clusteringProvider", text),
		"remove", structOf("path", text, "deletionTimestamp", long, "dataChange", truth, "extendedFileMetadata", truth,
			"partitionValues", textMap, "size", long, "tags", textMap, "deletionVector", dv, "baseRowId", long, "defaultRowCommitVersion", long),
		"metaData", structOf("id", text, "name", text, "description", text, "format", structOf("provider", text, "options", textMap),
			"schemaString", text, "partitionColumns", list, "configuration", textMap, "createdTime", long),
		"protocol", structOf("minReaderVersion", integer, "minWriterVersion", integer, "readerFeatures", list, "writerFeatures", list),
		"domainMetadata", structOf("domain", text, "configuration", text, "removed", truth),
		"sidecar", structOf("path", text, "sizeInBytes", long, "modificationTime", long, "tags", textMap),
		"checkpointMetadata", structOf("version", long, "tags", textMap),
	)
	var fields []arrow.Field
	for _, f := range root.(*arrow.StructType).Fields() {
		if len(only) == 0 && f.Name != "sidecar" && f.Name != "checkpointMetadata" || slices.Contains(only, f.Name) {
			fields = append(fields, f)
		}
	}
	return arrow.NewSchema(fields, nil)
}

func writeActions(u *upload, schema *arrow.Schema, actions []action) error {
	out, err := newParquetWriter(schema, u, compress.Codecs.Snappy, quickly)
	if err != nil {
		return err
	}
	for batch := range slices.Chunk(actions, checkpointBatch) {
		b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
		for _, a := range batch {
			appendAction(b, schema, a)
		}
		rec := b.NewRecordBatch()
		err := out.WriteBuffered(rec)
		rec.Release()
		b.Release()
		if err != nil {
			return err
		}
	}
	return out.Close()
}

// appendAction adds one row: the action's struct has a value, the others are
// null. The values stand in the order of checkpointSchema.
func appendAction(b *array.RecordBuilder, schema *arrow.Schema, a action) {
	rows := map[string][]any{}
	switch {
	case a.Txn != nil:
		rows["txn"] = []any{a.Txn.AppID, a.Txn.Version, a.Txn.LastUpdated}
	case a.Add != nil:
		f := a.Add
		values := f.PartitionValues
		if values == nil {
			values = map[string]*string{}
		}
		rows["add"] = []any{f.Path, values, f.Size, f.ModificationTime, f.DataChange, nonEmpty(f.Stats), f.Tags, f.DV, f.BaseRowID, f.RowVersion, f.Clustering}
	case a.Remove != nil:
		r := a.Remove
		rows["remove"] = []any{r.Path, r.DeletionTimestamp, r.DataChange, r.Extended, r.PartitionValues, r.Size, r.Tags, r.DV, r.BaseRowID, r.RowVersion}
	case a.Metadata != nil:
		m := a.Metadata
		partitions := m.PartitionColumns
		if partitions == nil {
			partitions = []string{}
		}
		rows["metaData"] = []any{m.ID, m.Name, m.Description, []any{m.Format.Provider, nullable(m.Format.Options)}, m.SchemaString, partitions, nullable(m.Configuration), m.CreatedTime}
	case a.Protocol != nil:
		p := a.Protocol
		rows["protocol"] = []any{int32(p.MinReader), int32(p.MinWriter), p.ReaderFeatures, p.WriterFeatures}
	case a.Domain != nil:
		rows["domainMetadata"] = []any{a.Domain.Domain, a.Domain.Configuration, a.Domain.Removed}
	case a.Sidecar != nil:
		c := a.Sidecar
		rows["sidecar"] = []any{c.Path, c.SizeInBytes, c.ModificationTime, c.Tags}
	case a.manifest != nil:
		rows["checkpointMetadata"] = []any{*a.manifest, map[string]*string(nil)}
	}
	for i, f := range b.Fields() {
		if v, ok := rows[schema.Field(i).Name]; ok {
			appendValue(f, v)
		} else {
			f.AppendNull()
		}
	}
}

// nullable gives a map its values as pointers; nil stays a map without entries,
// as Spark writes it.
func nullable(m map[string]string) map[string]*string {
	out := make(map[string]*string, len(m))
	for k, v := range m {
		out[k] = &v
	}
	return out
}

// appendValue adds v to a builder of its type; nil pointers, maps and slices
// are null.
func appendValue(b array.Builder, v any) {
	switch v := v.(type) {
	case string:
		b.(*array.StringBuilder).Append(v)
	case int64:
		b.(*array.Int64Builder).Append(v)
	case int32:
		b.(*array.Int32Builder).Append(v)
	case bool:
		b.(*array.BooleanBuilder).Append(v)
	case *string:
		appendPointer(b, v)
	case *int64:
		appendPointer(b, v)
	case *int32:
		appendPointer(b, v)
	case *bool:
		appendPointer(b, v)
	case []any:
		s := b.(*array.StructBuilder)
		s.Append(true)
		for i, e := range v {
			appendValue(s.FieldBuilder(i), e)
		}
	case *dvDescriptor:
		if v == nil {
			b.AppendNull()
			return
		}
		appendValue(b, []any{v.StorageType, v.PathOrDV, v.Offset, v.SizeInBytes, v.Cardinality})
	case []string:
		if v == nil {
			b.AppendNull()
			return
		}
		l := b.(*array.ListBuilder)
		l.Append(true)
		for _, e := range v {
			appendValue(l.ValueBuilder(), e)
		}
	case map[string]*string:
		if v == nil {
			b.AppendNull()
			return
		}
		m := b.(*array.MapBuilder)
		m.Append(true)
		for _, k := range slices.Sorted(maps.Keys(v)) {
			appendValue(m.KeyBuilder(), k)
			appendValue(m.ItemBuilder(), v[k])
		}
	default:
		panic(fmt.Sprintf("no checkpoint column holds %T", v))
	}
}

func appendPointer[T string | int64 | int32 | bool](b array.Builder, v *T) {
	if v == nil {
		b.AppendNull()
		return
	}
	appendValue(b, any(*v))
}
