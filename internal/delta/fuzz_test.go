package delta

import (
	"bytes"
	"testing"
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
