package delta

import (
	"bytes"
	"io"
	"testing"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/blob/memory"
)

// FuzzDecodeActions feeds the decoder of log files. Whatever the bytes, it must
// not panic, and what it accepts must survive being written and read again.
func FuzzDecodeActions(f *testing.F) {
	for _, seed := range []string{
		`{"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["deletionVectors"],"writerFeatures":["deletionVectors"]}}`,
		`{"metaData":{"id":"x","format":{"provider":"parquet","options":{}},"schemaString":"{\"type\":\"struct\",\"fields\":[{\"name\":\"a\",\"type\":{\"type\":\"array\",\"elementType\":\"decimal(10,2)\",\"containsNull\":true},\"nullable\":true,\"metadata\":{\"delta.columnMapping.id\":1}}]}","partitionColumns":["a"],"configuration":{},"createdTime":1}}`,
		`{"add":{"path":"a%20b","partitionValues":{"p":null},"size":1,"modificationTime":2,"dataChange":true,"stats":"{\"numRecords\":3}","deletionVector":{"storageType":"i","pathOrInlineDv":"wi5b=000010000siXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L","sizeInBytes":44,"cardinality":6}}}`,
		`{"remove":{"path":"file:///x","deletionTimestamp":5,"dataChange":true}}` + "\n" + `{"txn":{"appId":"a","version":9}}`,
		`{"commitInfo":{"timestamp":1,"operation":"WRITE","operationParameters":{"x":1}}}` + "\r\n\n" + `{"domainMetadata":{"domain":"d","configuration":"","removed":true}}`,
		`{"commitInfo":{"timestamp":"yesterday"}}`, `{"sidecar":{"path":"s","sizeInBytes":1,"modificationTime":1}}`, `{"unknown":{}}`, `{`, ``, `null`, `{"add":null}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		st, actions := newState(), []action(nil)
		err := decodeActions(bytes.NewReader(b), func(a action) error {
			st.apply(a)
			actions = append(actions, a)
			return nil
		})
		for _, a := range actions {
			if a.Metadata != nil {
				if typ, err := typeOfJSON([]byte(a.Metadata.SchemaString), 0); err == nil {
					again, err := typeOfJSON(typ.json(), 0)
					if err != nil || again.text() != typ.text() {
						t.Errorf("schema %s read again as %v, %v", typ.text(), again, err)
					}
				}
			}
			if a.Add != nil {
				a.Add.statRows()
				if a.Add.DV != nil && a.Add.DV.StorageType == "i" {
					if raw, err := z85Decode(a.Add.DV.PathOrDV); err == nil {
						decodeDV(raw)
					}
				}
			}
		}
		if err != nil {
			return
		}
		text, err := encodeActions(actions)
		if err != nil {
			t.Fatal(err)
		}
		again := newState()
		if err := decodeActions(bytes.NewReader(text), func(a action) error { again.apply(a); return nil }); err != nil {
			t.Fatalf("written and read again: %v\n%s", err, text)
		}
		if len(again.files) != len(st.files) || len(again.tombs) != len(st.tombs) || len(again.txns) != len(st.txns) {
			t.Errorf("%d files, %d tombstones, %d txns became %d, %d, %d", len(st.files), len(st.tombs), len(st.txns), len(again.files), len(again.tombs), len(again.txns))
		}
	})
}

// FuzzDecodeDV feeds the decoder of deletion vectors. Whatever the bytes, it must
// not panic, and a vector it accepts must survive being written and read again.
func FuzzDecodeDV(f *testing.F) {
	for _, rows := range [][]uint64{nil, {0}, {1, 2, 3, 70000, 1 << 33}} {
		var d dvFile
		if _, err := d.add(roaring64.BitmapOf(rows...)); err != nil {
			f.Fatal(err)
		}
		f.Add(d.buf.Bytes()[5 : d.buf.Len()-4])
	}
	f.Add([]byte{0xd1, 0xd3, 0x39, 0x64})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeDV(b)
		if err != nil || m.GetCardinality() > 1<<20 {
			return
		}
		var d dvFile
		if _, err := d.add(m); err != nil {
			t.Fatal(err)
		}
		again, err := decodeDV(d.buf.Bytes()[5 : d.buf.Len()-4])
		if err != nil || !again.Equals(m) {
			t.Errorf("written and read again: %v, %v", again, err)
		}
	})
}

// FuzzZ85 feeds the decoder of inline deletion vectors.
func FuzzZ85(f *testing.F) {
	for _, s := range []string{"", "wi5b=", "##093", "#0000", "^Bg9^0rr910000000000iXQKl0rr91000005c8Xg##093", "~~~~~"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b, err := z85Decode(s)
		if err == nil && len(b)%4 == 0 && z85Encode(b) != s {
			t.Errorf("%q decodes to %x, which encodes as %q", s, b, z85Encode(b))
		}
	})
}

// FuzzCheckpoint feeds the reader of Parquet checkpoints: it gives actions or an
// error.
func FuzzCheckpoint(f *testing.F) {
	store := memory.New()
	up := newUpload(f.Context(), store, "seed")
	one, size := int64(1), int64(10)
	seed := []action{
		{Protocol: &protocolAction{MinReader: 1, MinWriter: 2}},
		{Metadata: &metadataAction{ID: "x", SchemaString: `{"type":"struct","fields":[]}`, Configuration: map[string]string{"a": "b"}}},
		{Add: &addAction{Path: "p", Size: 1, Stats: `{"numRecords":1}`, DV: &dvDescriptor{StorageType: "i", PathOrDV: "wi5b="}}},
		{Remove: &removeAction{Path: "q", DeletionTimestamp: &one, Size: &size}}, {Txn: &txnAction{AppID: "a", Version: 1}},
	}
	if err := writeActions(up, checkpointSchema(), seed); err != nil {
		f.Fatal(err)
	}
	if err := up.close(f.Context()); err != nil {
		f.Fatal(err)
	}
	r, err := store.Get(f.Context(), "seed", 0, -1)
	if err != nil {
		f.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	for _, at := range []int{10, len(b) / 3, len(b) / 2, len(b) - 20} {
		bad := bytes.Clone(b)
		bad[at] ^= 0x55
		f.Add(bad)
	}
	f.Add([]byte("PAR1PAR1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<20 {
			return
		}
		s := memory.New()
		if err := s.Put(t.Context(), "c", bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
		p := &place{store: s}
		n := 0
		if err := p.readParquetActions(t.Context(), blob.Object{Key: "c", Size: int64(len(b))}, func(action) error { n++; return nil }); err == nil && n > 1<<20 {
			t.Errorf("%d actions of %d bytes", n, len(b))
		}
	})
}
