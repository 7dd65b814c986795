package delta

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"github.com/tarndb/tarn/internal/blob/memory"
)

func TestLogNames(t *testing.T) {
	for name, want := range map[string]logName{
		"00000000000000000007.json":                                     {kind: logCommit, version: 7},
		"00000000000000000007.checkpoint.parquet":                       {kind: logCheckpoint, version: 7},
		"00000000000000000007.checkpoint.3f2a-uuid.json":                {kind: logUUID, version: 7},
		"00000000000000000007.checkpoint.3f2a-uuid.parquet":             {kind: logUUID, version: 7},
		"00000000000000000007.checkpoint.0000000001.0000000003.parquet": {kind: logPart, version: 7, part: 1, parts: 3},
		"00000000000000000007.checkpoint.0000000004.0000000003.parquet": {},
		"00000000000000000007.crc":                                      {},
		"00000000000000000001.00000000000000000007.compacted.json":      {kind: logCompacted, version: 1, last: 7},
		"7.json":                     {},
		"99999999999999999999.json":  {},
		"00000000000000000007.json~": {},
		"_last_checkpoint":           {},
		".00000000000000000007.json": {},
	} {
		if got := parseLogName(name); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

func TestPaths(t *testing.T) {
	tab := &Table{place: place{memory.New(), "lake/t/"}}
	for path, want := range map[string]string{
		"a.parquet":                   "lake/t/a.parquet",
		"p=a%2520b/x%20y.parquet":     "lake/t/p=a%20b/x y.parquet",
		"100%.parquet":                "lake/t/100%.parquet",
		"memory:///lake/u/a.parquet":  "lake/u/a.parquet",
		"a:b.parquet":                 "lake/t/a:b.parquet",
		"../u/a.parquet":              "",
		"%2e%2e/u/a.parquet":          "",
		"/etc/passwd":                 "",
		"file:///etc/passwd":          "",
		"s3://bucket/lake/t/a":        "",
		"memory:///lake/../../etc/pw": "",
		"a//b":                        "",
	} {
		got, err := tab.dataKey(path)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v; want %q", path, got, err, want)
		}
	}
	for _, key := range []string{"p=50%/q=ü ?#&+=:,@/x.parquet", "plain", "a\tb\"c"} {
		if got := unescape(escapePath(key)); got != key {
			t.Errorf("%q comes back as %q", key, got)
		}
	}
}

func TestAbove(t *testing.T) {
	for s, want := range map[string]any{
		"abc": "abd", "a\u007f": "a\u0080", "a\ud7ff": "a\ue000", "a\U0010ffff": "b", "\U0010ffff\U0010ffff": nil, "": nil,
	} {
		got, ok := above(s)
		if ok != (want != nil) || ok && got != want {
			t.Errorf("above %q: %v, %v", s, got, ok)
		}
		if ok && (got.(string) <= s || got.(string) <= s+strings.Repeat("\U0010ffff", 40)) {
			t.Errorf("above %q: %q is not", s, got)
		}
	}
}

func TestPartitionValues(t *testing.T) {
	text := func(s string) *string { return &s }
	for _, c := range []struct {
		typ   string
		value *string
		want  string // as Arrow shows it; ! = refused
	}{
		{"string", text("x"), "x"}, {"string", text(""), "(null)"}, {"string", nil, "(null)"}, {"long", text(""), "(null)"},
		{"long", text("-9223372036854775808"), "-9223372036854775808"}, {"byte", text("128"), "!"}, {"boolean", text("true"), "true"},
		{"decimal(5,2)", text("-12.3"), "-12.3"}, {"decimal(5,2)", text("1234.5"), "!"}, {"date", text("1500-01-01"), "1500-01-01"},
		{"timestamp", text("2021-09-08 11:11:11"), "2021-09-08T11:11:11Z"}, {"timestamp", text("2021-09-08T11:11:11.123456Z"), "2021-09-08T11:11:11.123456Z"},
		{"timestamp", text("2021-09-08T11:11:11+02:00"), "2021-09-08T09:11:11Z"}, {"timestamp_ntz", text("2021-09-08 11:11:11.5"), "2021-09-08T11:11:11.5"},
		{"double", text("NaN"), "NaN"}, {"double", text("-Infinity"), "-Inf"}, {"binary", text("a"), "YQ=="}, {"integer", text("1.5"), "!"},
	} {
		typ, err := parseType(c.typ)
		if err != nil {
			t.Fatal(err)
		}
		a, err := partitionArray(c.value, typ, 2)
		got := "!"
		if err == nil {
			got = a.ValueStr(1)
			a.Release()
		}
		if got != c.want {
			t.Errorf("%s %v: %s, %v; want %s", c.typ, c.value, got, err, c.want)
		}
	}
}

func TestDeletionVectorFile(t *testing.T) {
	// The example of the protocol's text: six rows, inline.
	d := &dvDescriptor{StorageType: "i", PathOrDV: "^Bg9^0rr910000000000iXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L", SizeInBytes: 44, Cardinality: 6}
	tab := &Table{place: place{store: memory.New()}}
	b, _, err := tab.readDV(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	m, err := decodeDV(b)
	if err != nil {
		t.Fatal(err)
	}
	if want := roaring64.BitmapOf(3, 4, 7, 11, 18, 29); !m.Equals(want) {
		t.Errorf("the example holds %v", m.ToArray())
	}
	for _, bad := range []dvDescriptor{
		{StorageType: "i", PathOrDV: "abc", SizeInBytes: 44}, {StorageType: "i", PathOrDV: d.PathOrDV, SizeInBytes: 400}, {StorageType: "u", PathOrDV: "short", SizeInBytes: 44},
		{StorageType: "u", PathOrDV: "ab^-aqEH.-t@S}K{vb[*k^", SizeInBytes: 44}, {StorageType: "i", SizeInBytes: -1}, {StorageType: "u", PathOrDV: "../../ab^-aqEH.-t@S}K{vb[*k^", SizeInBytes: 44},
	} {
		if _, _, err := tab.readDV(t.Context(), &bad); !IsRefusal(err) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// putLog makes a table of the given version 0.
func putLog(t *testing.T, protocol, properties, fields string) *Table {
	t.Helper()
	s := memory.New()
	meta := fmt.Sprintf(`{"metaData":{"id":"x","format":{"provider":"parquet","options":{}},"schemaString":%q,"partitionColumns":[],"configuration":%s}}`, `{"type":"struct","fields":[`+fields+`]}`, properties)
	if err := s.PutIfAbsent(t.Context(), commitName(0), []byte(`{"protocol":`+protocol+"}\n"+meta)); err != nil {
		t.Fatal(err)
	}
	tab, err := Open(t.Context(), s, "")
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

// Every feature we lack is refused by its name, at the right door.
func TestRefusals(t *testing.T) {
	const column = `{"name":"a","type":"long","nullable":true,"metadata":{}}`
	with := func(meta string) string {
		return `{"name":"a","type":"long","nullable":true,"metadata":{` + meta + `}}`
	}
	for _, c := range []struct {
		protocol, properties, fields string
		read, write                  string // the feature refused; "" = none
	}{
		{`{"minReaderVersion":1,"minWriterVersion":2}`, `{}`, column, "", ""},
		{`{"minReaderVersion":1,"minWriterVersion":6}`, `{}`, column, "", ""},
		{`{"minReaderVersion":4,"minWriterVersion":7}`, `{}`, column, "reader version 4", ""},
		{`{"minReaderVersion":1,"minWriterVersion":8}`, `{}`, column, "", "writer version 8"},
		{`{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["catalogManaged"],"writerFeatures":["catalogManaged"]}`, `{}`, column, "catalogManaged", ""},
		{`{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["tomorrow"],"writerFeatures":["tomorrow"]}`, `{}`, column, "tomorrow", ""},
		{`{"minReaderVersion":1,"minWriterVersion":7,"writerFeatures":["tomorrow"]}`, `{}`, column, "", "tomorrow"},
		{`{"minReaderVersion":1,"minWriterVersion":7,"writerFeatures":["rowTracking"]}`, `{}`, column, "", "rowTracking"},
		{`{"minReaderVersion":1,"minWriterVersion":3}`, `{"delta.constraints.positive":"a > 0"}`, column, "", "checkConstraints"},
		{`{"minReaderVersion":1,"minWriterVersion":2}`, `{}`, with(`"delta.invariants":"a > 0"`), "", "invariants"},
		{`{"minReaderVersion":1,"minWriterVersion":4}`, `{}`, with(`"delta.generationExpression":"1"`), "", "generatedColumns"},
		{`{"minReaderVersion":1,"minWriterVersion":6}`, `{}`, with(`"delta.identity.start":1`), "", "identityColumns"},
		{`{"minReaderVersion":2,"minWriterVersion":5}`, `{"delta.columnMapping.mode":"name"}`, with(`"delta.columnMapping.id":1,"delta.columnMapping.physicalName":"c"`), "", ""},
		{`{"minReaderVersion":1,"minWriterVersion":7,"writerFeatures":["domainMetadata"]}`, `{"delta.enableRowTracking":"true"}`, column, "", "rowTracking"},
		{`{"minReaderVersion":1,"minWriterVersion":2}`, `{}`, `{"name":"a","type":"money","nullable":true,"metadata":{}}`, "", "type money"},
		{`{"minReaderVersion":1,"minWriterVersion":2}`, `{}`, `{"name":"a","type":{"type":"udt","class":"V","sqlType":{"type":"array","elementType":"double","containsNull":false}},"nullable":true,"metadata":{}}`, "", ""},
		{`{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["variantType"],"writerFeatures":["variantType"]}`, `{}`, `{"name":"a","type":"variant","nullable":true,"metadata":{}}`, "", "variantType"},
	} {
		name := c.protocol + c.properties + c.fields
		s, err := putLog(t, c.protocol, c.properties, c.fields).Latest(t.Context())
		var u *UnsupportedError
		if c.read != "" {
			if !errors.As(err, &u) || u.Feature != c.read || u.Writing {
				t.Errorf("%s: read: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: read: %v", name, err)
			continue
		}
		x := s.table.Begin(s)
		x.SetAppTxn("a", 1)
		_, err = x.Commit(t.Context(), CommitOptions{})
		if c.write == "" && err != nil {
			t.Errorf("%s: write: %v", name, err)
		}
		if c.write != "" && (!errors.As(err, &u) || u.Feature != c.write || !u.Writing) {
			t.Errorf("%s: write: %v", name, err)
		}
	}
}

func TestProtocolFor(t *testing.T) {
	ntz, err := typeOfJSON([]byte(`{"type":"struct","fields":[{"name":"a","type":{"type":"array","elementType":"timestamp_ntz","containsNull":true},"nullable":true}]}`), 0)
	if err != nil {
		t.Fatal(err)
	}
	plain := &dataType{kind: kindStruct}
	cdf := map[string]string{"delta.enableChangeDataFeed": "true"}
	for _, c := range []struct {
		schema *dataType
		props  map[string]string
		have   *protocolAction
		want   string
	}{
		{plain, nil, nil, "&{1 2 [] []}"},
		{plain, cdf, nil, "&{1 4 [] []}"},
		{ntz, nil, nil, "&{3 7 [timestampNtz] [appendOnly invariants timestampNtz]}"},
		{ntz, cdf, nil, "&{3 7 [timestampNtz] [appendOnly changeDataFeed invariants timestampNtz]}"},
		{plain, nil, &protocolAction{MinReader: 1, MinWriter: 4}, "&{1 4 [] []}"},
		{ntz, nil, &protocolAction{MinReader: 1, MinWriter: 4}, "&{3 7 [timestampNtz] [appendOnly changeDataFeed checkConstraints generatedColumns invariants timestampNtz]}"},
		{ntz, nil, &protocolAction{MinReader: 3, MinWriter: 7, ReaderFeatures: []string{"deletionVectors"}, WriterFeatures: []string{"deletionVectors"}}, "&{3 7 [deletionVectors timestampNtz] [deletionVectors timestampNtz]}"},
	} {
		if got := fmt.Sprint(protocolFor(c.schema, c.props, c.have)); got != c.want {
			t.Errorf("protocol is %s, want %s", got, c.want)
		}
	}
}

// A damaged hint or checkpoint costs time, not the table.
func TestDamagedCheckpoint(t *testing.T) {
	tab := putLog(t, `{"minReaderVersion":1,"minWriterVersion":2}`, `{}`, `{"name":"a","type":"long","nullable":true,"metadata":{}}`)
	for i := range 12 {
		s, err := tab.Latest(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		x := tab.Begin(s)
		x.SetAppTxn("a", int64(i+1))
		if _, err := x.Commit(t.Context(), CommitOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	check := func(what string) {
		t.Helper()
		fresh := &Table{place: place{store: tab.store}}
		s, err := fresh.Latest(t.Context())
		if err != nil {
			t.Errorf("%s: %v", what, err)
			return
		}
		if v, ok := s.AppTxn("a"); s.Version() != 12 || !ok || v != 12 {
			t.Errorf("%s: version %d, txn %d", what, s.Version(), v)
		}
	}
	put := func(key, text string) {
		t.Helper()
		if err := tab.store.Put(t.Context(), key, strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
	}
	check("whole")
	for _, hint := range []string{"", "{", `{"version":99}`, `{"version":-1}`, `{"version":3}`, `{"version":"x"}`} {
		put(logFolder+"_last_checkpoint", hint)
		check("hint " + hint)
	}
	put(logFolder+"_last_checkpoint", `{"version":10}`)
	put(checkpointName(10), "PAR1 nothing PAR1")
	check("damaged checkpoint")
	put(logFolder+fmt.Sprintf("%020d.checkpoint.0000000001.0000000002.parquet", 11), "half")
	check("half a checkpoint")
	if err := tab.store.Delete(t.Context(), commitName(4)); err != nil {
		t.Fatal(err)
	}
	var d *DamagedError
	if _, err := (&Table{place: place{store: tab.store}}).Latest(t.Context()); !errors.As(err, &d) {
		t.Errorf("a missing commit and a damaged checkpoint: %v", err)
	}
}

// A table made anew under the same name is not mixed up with the old one.
func TestRecreated(t *testing.T) {
	fields := `{"name":"a","type":"long","nullable":true,"metadata":{}}`
	tab := putLog(t, `{"minReaderVersion":1,"minWriterVersion":2}`, `{}`, fields)
	first, err := tab.Latest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if again, err := tab.Latest(t.Context()); err != nil || again != first {
		t.Errorf("an unchanged table is read again: %v", err)
	}
	if err := tab.store.Delete(t.Context(), commitName(0)); err != nil {
		t.Fatal(err)
	}
	if _, err := tab.Latest(t.Context()); !errors.Is(err, ErrNotTable) {
		t.Errorf("a deleted table: %v", err)
	}
	if _, err := Create(t.Context(), tab.store, "", Metadata{Schema: Schema{Fields: []Field{{Name: "b", Type: "string", Nullable: true}}}}); err != nil {
		t.Fatal(err)
	}
	second, err := tab.Latest(t.Context())
	if err != nil || second.ID() == first.ID() || second.Schema().Fields[0].Name != "b" {
		t.Errorf("the new table: %v, %v", second, err)
	}
}
