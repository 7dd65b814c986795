package api

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/delta"
)

func TestSyncedSpec(t *testing.T) {
	// The body of the published quick start.
	in := decodeTo[wire.SyncedDatabaseTable](t, `{"name": "lakebase_catalog.schema.synced_table", "spec": {"new_pipeline_spec": {"storage_catalog": "lakebase_catalog", "storage_schema": "staging"}, "primary_key_columns": ["user_id"], "scheduling_policy": "TRIGGERED", "source_table_full_name": "analytics.gold.user_profiles"}}`)
	s, err := readSyncedSpec("name", in.Name, in.Spec)
	if err != nil || s.Name.Catalog != "lakebase_catalog" || s.Source.Table != "user_profiles" || s.Policy != tarn.SyncTriggered || s.NewPipelineSchema != "staging" {
		t.Errorf("%+v %v", s, err)
	}
	for _, bad := range []string{
		`{"source_table_full_name":"a.b.c"}`,
		`{"source_table_full_name":"b.c","primary_key_columns":["id"]}`,
		`{"source_table_full_name":"a.b.c","primary_key_columns":["id"],"scheduling_policy":"HOURLY"}`,
		`{"source_table_full_name":"a.b.c","primary_key_columns":["id"],"type_overrides":[{"column_name":"v"}]}`,
		`{"source_table_full_name":"a.b.c","primary_key_columns":["id"],"existing_pipeline_id":"x"}`,
	} {
		sp := decodeTo[wire.SyncedTableSpec](t, bad)
		if _, err := readSyncedSpec("name", "c.s.t", &sp); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

func TestSyncedStatusInBothSpellings(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	st := tarn.SyncedTable{
		SyncedTableSpec: tarn.SyncedTableSpec{
			Name: tarn.TableName{Catalog: "c", Schema: "s", Table: "t"}, Source: tarn.TableName{Catalog: "a", Schema: "b", Table: "t"},
			PrimaryKey: []string{"id"}, Branch: tarn.BranchName{Project: "p", Branch: "production"},
		},
		UID: "u1", PipelineID: "pl", State: tarn.SyncOnline, Version: 7, VersionTS: at, SyncStart: at, SyncEnd: at.Add(time.Second),
	}
	b, _ := json.Marshal(syncedDatabaseOf(st))
	const wantDB = `{"name":"c.s.t","database_instance_name":"p","logical_database_name":"databricks_postgres","spec":{"source_table_full_name":"a.b.t","primary_key_columns":["id"],"scheduling_policy":"SNAPSHOT"},` +
		`"data_synchronization_status":{"detailed_state":"SYNCED_TABLE_ONLINE_NO_PENDING_UPDATE","pipeline_id":"pl","last_sync":{"delta_table_sync_info":{"delta_commit_timestamp":"2026-01-02T03:04:05Z","delta_commit_version":7},` +
		`"sync_start_timestamp":"2026-01-02T03:04:05Z","sync_end_timestamp":"2026-01-02T03:04:06Z"},"triggered_update_status":{"last_processed_commit_version":7,"timestamp":"2026-01-02T03:04:06Z"}},` +
		`"effective_database_instance_name":"p","effective_logical_database_name":"databricks_postgres","unity_catalog_provisioning_state":"ACTIVE"}`
	if string(b) != wantDB {
		t.Errorf("got  %s\nwant %s", b, wantDB)
	}
	b, _ = json.Marshal(syncedOf(st))
	const wantPG = `{"name":"synced_tables/c.s.t","synced_table_id":"c.s.t","uid":"u1","spec":{"source_table_full_name":"a.b.t","primary_key_columns":["id"],"scheduling_policy":"SNAPSHOT","branch":"projects/p/branches/production","postgres_database":"databricks_postgres"},` +
		`"status":{"detailed_state":"SYNCED_TABLE_ONLINE_NO_PENDING_UPDATE","pipeline_id":"pl","project":"projects/p","last_processed_commit_version":7,"last_sync":{"delta_table_sync_info":{"delta_commit_time":"2026-01-02T03:04:05Z","delta_commit_version":7},` +
		`"sync_start_time":"2026-01-02T03:04:05Z","sync_end_time":"2026-01-02T03:04:06Z"},"last_sync_time":"2026-01-02T03:04:06Z","unity_catalog_provisioning_state":"ACTIVE"}}`
	if string(b) != wantPG {
		t.Errorf("got  %s\nwant %s", b, wantPG)
	}

	st.State, st.Version, st.RowsSynced, st.RowsTotal, st.SyncEnd = tarn.SyncInitialSnapshot, -1, 25, 100, time.Time{}
	out := syncedDatabaseOf(st)
	if p := out.DataSynchronizationStatus.ProvisioningStatus.InitialPipelineSyncProgress; p.SyncProgressCompletion != 0.25 || out.DataSynchronizationStatus.LastSync != nil {
		t.Errorf("%+v", out.DataSynchronizationStatus)
	}
}

func TestRowsOfEveryKindAreJSON(t *testing.T) {
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "i", Type: arrow.PrimitiveTypes.Int64}, {Name: "f", Type: arrow.PrimitiveTypes.Float64, Nullable: true},
		{Name: "s", Type: arrow.BinaryTypes.String}, {Name: "b", Type: arrow.BinaryTypes.Binary},
		{Name: "d", Type: arrow.FixedWidthTypes.Date32}, {Name: "t", Type: &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}},
		{Name: "n", Type: &arrow.Decimal128Type{Precision: 10, Scale: 2}}, {Name: "l", Type: arrow.ListOf(arrow.PrimitiveTypes.Int32)},
	}, nil)
	rows := `[{"i":9007199254740993,"f":1.5,"s":"<x>","b":"AQI=","d":"2026-01-02","t":"2026-01-02T03:04:05Z","n":"1.20","l":[1,2]},
		{"i":2,"f":null,"s":"","b":"","d":"2026-01-02","t":"2026-01-02T03:04:05Z","n":"0","l":[]}]`
	rec, _, err := array.RecordFromJSON(memory.DefaultAllocator, schema, strings.NewReader(rows))
	if err != nil {
		t.Fatal(err)
	}
	defer rec.Release()
	got, err := rowsOf(rec, 10)
	if err != nil || len(got) != 2 {
		t.Fatal(got, err)
	}
	b, _ := json.Marshal(got[0])
	t.Logf("%s", b)
	if string(got[0][0]) != "9007199254740993" || string(got[1][1]) != "null" || string(got[0][6]) != `"1.20"` && string(got[0][6]) != `"1.2"` {
		t.Errorf("%s", b)
	}
	if got, err = rowsOf(rec, 1); err != nil || len(got) != 1 {
		t.Error("limit is not kept", got, err)
	}

	fb := array.NewFloat64Builder(memory.DefaultAllocator)
	defer fb.Release()
	fb.AppendValues([]float64{math.NaN(), math.Inf(-1)}, nil)
	col := fb.NewArray()
	defer col.Release()
	odd := array.NewRecordBatch(arrow.NewSchema([]arrow.Field{{Name: "f", Type: arrow.PrimitiveTypes.Float64}}, nil), []arrow.Array{col}, 2)
	defer odd.Release()
	if got, err = rowsOf(odd, 10); err != nil || string(got[0][0]) != `"NaN"` {
		t.Errorf("%s %v", got, err)
	}
}

func TestColumnsInUnityWords(t *testing.T) {
	for typ, want := range map[string]string{
		"long": "LONG bigint", "integer": "INT int", "string": "STRING string", "decimal(10,2)": "DECIMAL decimal(10,2)",
		"timestamp_ntz": "TIMESTAMP_NTZ timestamp_ntz", `{"type":"array","elementType":"long"}`: `ARRAY {"type":"array","elementType":"long"}`,
	} {
		if c := columnOf(0, delta.Field{Name: "x", Type: typ}); c.TypeName+" "+c.TypeText != want {
			t.Errorf("%s: %s %s", typ, c.TypeName, c.TypeText)
		}
	}
}

func TestTableEntries(t *testing.T) {
	n, err := readTableEntry(decodeTo[wire.TableInfo](t, `{"name":"t","catalog_name":"c","schema_name":"s","table_type":"EXTERNAL","data_source_format":"DELTA","storage_location":"file:///x"}`))
	if err != nil || n.String() != "c.s.t" {
		t.Errorf("%v %v", n, err)
	}
	for _, bad := range []string{
		`{"name":"t","catalog_name":"c","table_type":"EXTERNAL","data_source_format":"DELTA","storage_location":"file:///x"}`,
		`{"name":"t","catalog_name":"c","schema_name":"s","table_type":"EXTERNAL","data_source_format":"DELTA"}`,
		`{"name":"t","catalog_name":"c","schema_name":"s","table_type":"VIEW","data_source_format":"DELTA"}`,
		`{"name":"t","catalog_name":"c","schema_name":"s","table_type":"MANAGED","data_source_format":"CSV"}`,
		`{"name":"t","catalog_name":"c","schema_name":"s","table_type":"MANAGED","data_source_format":"DELTA","storage_location":"file:///x"}`,
	} {
		if _, err := readTableEntry(decodeTo[wire.TableInfo](t, bad)); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}
