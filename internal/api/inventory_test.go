package api

import (
	"bufio"
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"slices"
	"testing"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
)

// Every field that the published types of what is asked for have is one of the
// wire's, and what is asked of a synced table comes back.
func TestNoPublishedFieldIsDropped(t *testing.T) {
	specs := map[string]reflect.Type{
		"DatabaseInstance": reflect.TypeFor[wire.DatabaseInstance](), "DatabaseCatalog": reflect.TypeFor[wire.DatabaseCatalog](),
		"SyncedDatabaseTable": reflect.TypeFor[wire.SyncedDatabaseTable](), "SyncedTableSpec": reflect.TypeFor[wire.SyncedTableSpec](),
		"SyncedTableSyncedTableSpec": reflect.TypeFor[wire.SyncedTableSpec](), "NewPipelineSpec": reflect.TypeFor[wire.NewPipelineSpec](),
		"ProjectSpec": reflect.TypeFor[wire.ProjectSpec](), "ProjectDefaultEndpointSettings": reflect.TypeFor[wire.EndpointSettings](),
		"InitialBranchSpec": reflect.TypeFor[wire.InitialBranchSpec](), "InitialEndpointSpec": reflect.TypeFor[wire.InitialEndpointSpec](),
		"BranchSpec": reflect.TypeFor[wire.BranchSpec](), "EndpointSpec": reflect.TypeFor[wire.EndpointSpec](),
	}
	heading, field := regexp.MustCompile(`^### (\w+)$`), regexp.MustCompile("^- `(\\w+)`")
	doc, met := openAPI{Components: openComponents{Schemas: map[string]*schema{}}}, map[string]bool{}
	for _, name := range []string{"types-database.md", "types-postgres.md"} {
		f, err := os.Open("../../../shared/reference/" + name)
		if os.IsNotExist(err) {
			t.Skipf("the inventory of published types is not here: %v", err)
		}
		must(t, err)
		defer f.Close()
		var now reflect.Type
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if m := heading.FindStringSubmatch(lines.Text()); m != nil {
				now = specs[m[1]]
				met[m[1]] = true
				continue
			}
			if m := field.FindStringSubmatch(lines.Text()); m != nil && now != nil {
				if s := doc.schema(now); doc.Components.Schemas[s.Ref[len("#/components/schemas/"):]].Properties[m[1]] == nil {
					t.Errorf("%s: %s is dropped", now, m[1])
				}
			}
		}
	}
	for name := range specs {
		if !met[name] {
			t.Errorf("%s is not in the inventory", name)
		}
	}
}

func TestSpecOfASyncedTableComesBack(t *testing.T) {
	const body = `{"source_table_full_name":"a.b.c","primary_key_columns":["id"],"scheduling_policy":"TRIGGERED","timeseries_key":"at",` +
		`"new_pipeline_spec":{"budget_policy_id":"b","pipeline_channel":"PREVIEW","storage_catalog":"c","storage_schema":"s"},"accelerated_sync":true,` +
		`"create_database_objects_if_missing":false,"type_overrides":[{"column_name":"v","pg_type":"PG_SPECIFIC_TYPE_VECTOR","size":3}]}`
	in := decodeTo[wire.SyncedTableSpec](t, body)
	s, err := readSyncedSpec("name", "c.s.t", &in)
	must(t, err)
	b, err := json.Marshal(specOf(tarn.SyncedTable{SyncedTableSpec: s}))
	must(t, err)
	var want, got map[string]any
	must(t, json.Unmarshal([]byte(body), &want))
	must(t, json.Unmarshal(b, &got))
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %s\nwant %s", b, body)
	}
	var names []string
	for name := range want {
		names = append(names, name)
	}
	refused := []string{"branch", "postgres_database", "existing_pipeline_id", "extra_columns", "tarn_settings"} // elsewhere, or told
	typ := reflect.TypeFor[wire.SyncedTableSpec]()
	for i := range typ.NumField() {
		name := regexp.MustCompile(`^\w+`).FindString(typ.Field(i).Tag.Get("json"))
		if !slices.Contains(names, name) && !slices.Contains(refused, name) {
			t.Errorf("this test does not send %s", name)
		}
	}
}
