package delta

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/tarndb/tarn/internal/blob"
)

// readCheckpoint gives the state of a checkpoint in any of its forms: one file,
// parts, or a V2 manifest (JSON or Parquet) with sidecars.
func (t *place) readCheckpoint(ctx context.Context, c checkpointFiles) (*state, error) {
	st := newState()
	var sidecars []*sidecarAction
	take := func(a action) error {
		if a.Sidecar != nil {
			sidecars = append(sidecars, a.Sidecar)
			return nil
		}
		if a.Add != nil && a.Add.rows >= 0 {
			st.statsLost = true
		}
		st.apply(a)
		return nil
	}
	for _, o := range c.files {
		read := t.readParquetActions
		if strings.HasSuffix(o.Key, ".json") {
			read = t.readJSONActions
		}
		if err := read(ctx, o, take); err != nil {
			return nil, err
		}
	}
	for _, s := range sidecars {
		key, err := t.logKey(s.Path, sidecarFolder)
		if err != nil {
			return nil, err
		}
		if err := t.readParquetActions(ctx, blob.Object{Key: key, Size: -1}, take); err != nil {
			return nil, err
		}
	}
	if st.protocol == nil || st.metadata == nil {
		return nil, &DamagedError{Path: c.files[0].Key, Reason: "checkpoint without protocol or metaData"}
	}
	return st, nil
}

// readJSONActions reads a commit or a JSON checkpoint.
func (t *place) readJSONActions(ctx context.Context, o blob.Object, do func(action) error) error {
	r, err := t.store.Get(ctx, o.Key, 0, -1)
	if err != nil {
		return missingInLog(o.Key, err)
	}
	defer r.Close()
	if err := decodeActions(r, do); err != nil {
		if errors.Is(err, errAction) {
			return &DamagedError{Path: o.Key, Reason: "log file", Err: err}
		}
		return fmt.Errorf("read %s: %w", o.Key, err)
	}
	return nil
}

// missingInLog makes an object that the log promised a damage.
func missingInLog(key string, err error) error {
	if errors.Is(err, blob.ErrNotExist) {
		return &DamagedError{Path: key, Reason: "missing", Err: err}
	}
	return err
}

// checkpointColumns are the leaves of a checkpoint we read, each with what is
// below it. Statistics as columns can be as wide as the table; of them only the
// row count is read.
var checkpointColumns = []string{
	"txn", "protocol", "metaData", "domainMetadata", "sidecar", "remove",
	"add.path", "add.partitionValues", "add.size", "add.modificationTime", "add.dataChange", "add.stats",
	"add.tags", "add.deletionVector", "add.baseRowId", "add.defaultRowCommitVersion", "add.clusteringProvider",
	"add.stats_parsed.numRecords",
}

func isCheckpointColumn(path string) bool {
	for _, c := range checkpointColumns {
		if path == c || strings.HasPrefix(path, c+".") {
			return true
		}
	}
	return false
}

const checkpointBatch = 8192 // rows

func (t *place) readParquetActions(ctx context.Context, o blob.Object, do func(action) error) (err error) {
	f, err := openParquet(ctx, t.store, o.Key, o.Size)
	if err != nil {
		return missingInLog(o.Key, err)
	}
	defer f.close()
	defer catch(&err, f.source)
	var leaves []int
	schema := f.reader.MetaData().Schema
	for i := range schema.NumColumns() {
		if isCheckpointColumn(schema.Column(i).Path()) {
			leaves = append(leaves, i)
		}
	}
	r, err := f.arrowReader(checkpointBatch)
	if err != nil {
		return &DamagedError{Path: o.Key, Reason: "checkpoint", Err: err}
	}
	if len(leaves) == 0 {
		return &DamagedError{Path: o.Key, Reason: "checkpoint without any action column"}
	}
	rr, err := r.GetRecordReader(ctx, leaves, nil)
	if err != nil {
		return &DamagedError{Path: o.Key, Reason: "checkpoint", Err: err}
	}
	defer rr.Release()
	rows := int64(0)
	for rr.Next() {
		rec := rr.RecordBatch()
		rows += rec.NumRows()
		if err := actionsOfBatch(rec, do); err != nil {
			return &DamagedError{Path: o.Key, Reason: "checkpoint", Err: err}
		}
	}
	if err := rr.Err(); err != nil {
		if context.Cause(ctx) != nil {
			return fmt.Errorf("read %s: %w", o.Key, err)
		}
		return &DamagedError{Path: o.Key, Reason: "checkpoint", Err: err}
	}
	if want := f.reader.NumRows(); rows != want {
		return &DamagedError{Path: o.Key, Reason: fmt.Sprintf("%d rows instead of %d", rows, want)}
	}
	return nil
}

// actionsOfBatch turns rows of a checkpoint into actions.
func actionsOfBatch(rec arrow.RecordBatch, do func(action) error) error {
	root := groupOf(rec)
	readers := []struct {
		column string
		read   func(group, int) action
	}{
		{"protocol", protocolOf}, {"metaData", metadataOf}, {"add", addOf}, {"remove", removeOf},
		{"txn", txnOf}, {"domainMetadata", domainOf}, {"sidecar", sidecarOf},
	}
	for _, r := range readers {
		g, ok := root.group(r.column)
		if !ok {
			continue
		}
		for i := range int(rec.NumRows()) {
			if g.null(i) {
				continue
			}
			a := r.read(g, i)
			if err := a.check(); err != nil {
				return fmt.Errorf("row %d: %w", i, err)
			}
			if err := do(a); err != nil {
				return err
			}
		}
	}
	return nil
}

func protocolOf(g group, i int) action {
	return action{Protocol: &protocolAction{
		MinReader: int(g.number("minReaderVersion", i)), MinWriter: int(g.number("minWriterVersion", i)),
		ReaderFeatures: g.texts("readerFeatures", i), WriterFeatures: g.texts("writerFeatures", i),
	}}
}

func metadataOf(g group, i int) action {
	m := &metadataAction{
		ID: g.text("id", i), Name: g.textOrNil("name", i), Description: g.textOrNil("description", i),
		SchemaString: g.text("schemaString", i), PartitionColumns: g.texts("partitionColumns", i),
		Configuration: plain(g.textMap("configuration", i)), CreatedTime: g.numberOrNil("createdTime", i),
	}
	if f, ok := g.group("format"); ok && !f.null(i) {
		m.Format = formatSpec{Provider: f.text("provider", i), Options: plain(f.textMap("options", i))}
	}
	return action{Metadata: m}
}

func addOf(g group, i int) action {
	a := &addAction{
		Path: g.text("path", i), PartitionValues: g.textMap("partitionValues", i), Size: g.number("size", i),
		ModificationTime: g.number("modificationTime", i), DataChange: g.truth("dataChange", i),
		Stats: g.text("stats", i), Tags: g.textMap("tags", i), DV: dvOf(g, i),
		BaseRowID: g.numberOrNil("baseRowId", i), RowVersion: g.numberOrNil("defaultRowCommitVersion", i),
		Clustering: g.textOrNil("clusteringProvider", i), rows: -1,
	}
	if s, ok := g.group("stats_parsed"); ok && a.Stats == "" && !s.null(i) {
		if n := s.numberOrNil("numRecords", i); n != nil {
			a.rows = *n
		}
	}
	return action{Add: a}
}

func removeOf(g group, i int) action {
	r := &removeAction{
		Path: g.text("path", i), DeletionTimestamp: g.numberOrNil("deletionTimestamp", i), DataChange: g.truth("dataChange", i),
		PartitionValues: g.textMap("partitionValues", i), Size: g.numberOrNil("size", i), Tags: g.textMap("tags", i),
		DV: dvOf(g, i), BaseRowID: g.numberOrNil("baseRowId", i), RowVersion: g.numberOrNil("defaultRowCommitVersion", i),
	}
	if g.has("extendedFileMetadata", i) {
		v := g.truth("extendedFileMetadata", i)
		r.Extended = &v
	}
	return action{Remove: r}
}

func dvOf(g group, i int) *dvDescriptor {
	d, ok := g.group("deletionVector")
	if !ok || d.null(i) || !d.has("storageType", i) {
		return nil
	}
	v := &dvDescriptor{
		StorageType: d.text("storageType", i), PathOrDV: d.text("pathOrInlineDv", i),
		SizeInBytes: int32(d.number("sizeInBytes", i)), Cardinality: d.number("cardinality", i),
	}
	if n := d.numberOrNil("offset", i); n != nil {
		o := int32(*n)
		v.Offset = &o
	}
	return v
}

func txnOf(g group, i int) action {
	return action{Txn: &txnAction{AppID: g.text("appId", i), Version: g.number("version", i), LastUpdated: g.numberOrNil("lastUpdated", i)}}
}

func domainOf(g group, i int) action {
	return action{Domain: &domainAction{Domain: g.text("domain", i), Configuration: g.text("configuration", i), Removed: g.truth("removed", i)}}
}

func sidecarOf(g group, i int) action {
	return action{Sidecar: &sidecarAction{Path: g.text("path", i), SizeInBytes: g.number("sizeInBytes", i), ModificationTime: g.number("modificationTime", i)}}
}

// plain drops null values of a map that has none.
func plain(m map[string]*string) map[string]string {
	if m == nil {
		return nil
	}
	out := make(map[string]string, len(m))
	for k, v := range m {
		if v != nil {
			out[k] = *v
		}
	}
	return out
}
