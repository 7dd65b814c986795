package catalog_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/catalog"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
)

func TestCatalog(t *testing.T) {
	ctx := t.Context()
	_, conn := pgtest.Start(t, pgtest.Newest(t))
	db, err := controldb.Open(ctx, conn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	ann, err := controldb.InsertPrincipal(ctx, db, tarn.Principal{Name: "ann@example.com", Type: tarn.PrincipalUser})
	if err != nil {
		t.Fatal(err)
	}
	c := catalog.New(db)
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	kind := func(err error, k tarn.Kind) {
		t.Helper()
		if err == nil || tarn.KindOf(err) != k {
			t.Fatalf("got %v, want kind %s", err, k)
		}
	}
	ok(c.EnsureDefault(ctx, "file:///data/my lake/"))
	ok(c.EnsureDefault(ctx, "file:///elsewhere"))
	create := func(name, root string) error {
		_, err := c.CreateCatalog(ctx, ann, tarn.CatalogEntry{ObjectEntry: tarn.ObjectEntry{Name: name}, Root: root})
		return err
	}
	ok(create("shop", "s3://bucket/shop"))
	kind(create("shop", "s3://bucket/shop"), tarn.KindConflict)
	for _, bad := range []string{"", "a/b", "..", "a`b", "metastore"} {
		kind(create(bad, "file:///x"), tarn.KindInvalid)
	}
	for _, bad := range []string{"lake", "/data/lake", "file:///x?y", "://"} {
		kind(create("bad", bad), tarn.KindInvalid)
	}
	names, err := c.Catalogs(ctx)
	ok(err)
	if !slices.Equal(names, []string{"lake", "shop", "system"}) {
		t.Fatalf("catalogs %q", names)
	}

	n := tarn.TableName{Catalog: "lake", Schema: "gold", Table: "users%20é"}
	first, err := c.CreateTable(ctx, ann, n, "", "of people")
	ok(err)
	if first.Location != "file:///data/my%20lake/gold/users%2520%C3%A9" || first.Owner != ann.Name || first.Comment != "of people" || first.ID == "" || !first.Managed {
		t.Fatalf("created %+v", first)
	}
	got, err := c.Table(ctx, n)
	ok(err)
	if !reflect.DeepEqual(got, first) {
		t.Fatalf("resolved %+v, created %+v", got, first)
	}
	_, err = c.CreateTable(ctx, ann, n, "", "")
	kind(err, tarn.KindConflict)
	_, err = c.CreateTable(ctx, ann, tarn.TableName{Catalog: "nowhere", Schema: "s", Table: "t"}, "", "")
	kind(err, tarn.KindNotFound)
	if h := tarn.HintOf(err); !strings.Contains(h, "lake, shop") {
		t.Fatalf("hint %q does not name the catalogs", h)
	}
	_, err = c.CreateTable(ctx, ann, tarn.TableName{Catalog: "lake", Schema: "..", Table: "t"}, "", "")
	kind(err, tarn.KindInvalid)
	ext, err := c.CreateTable(ctx, ann, tarn.TableName{Catalog: "shop", Schema: "raw", Table: "ext"}, "s3://other/ext/", "")
	ok(err)
	if ext.Location != "s3://other/ext" || ext.Managed {
		t.Fatalf("external location %q", ext.Location)
	}

	// The files of a dropped table stay, so its folder is not given again.
	ok(c.DropTable(ctx, ann, n))
	_, err = c.Table(ctx, n)
	kind(err, tarn.KindNotFound)
	kind(c.DropTable(ctx, ann, n), tarn.KindNotFound)
	second, err := c.CreateTable(ctx, ann, n, "", "")
	ok(err)
	if second.Location == first.Location || second.ID == first.ID {
		t.Fatalf("recreated table has the folder or id of the dropped one: %+v", second)
	}

	for _, q := range []struct {
		catalog, schema string
		want            int
	}{{"", "", 2}, {"lake", "", 1}, {"lake", "gold", 1}, {"lake", "silver", 0}, {"shop", "raw", 1}} {
		tabs, err := c.Tables(ctx, q.catalog, q.schema)
		ok(err)
		if len(tabs) != q.want {
			t.Fatalf("tables of %q.%q: %+v", q.catalog, q.schema, tabs)
		}
	}
	_, err = c.Tables(ctx, "nowhere", "")
	kind(err, tarn.KindNotFound)
	schemas, err := c.Schemas(ctx, "lake")
	ok(err)
	if !slices.Equal(schemas, []string{"gold"}) {
		t.Fatalf("schemas %q", schemas)
	}
	_, err = c.Schemas(ctx, "nowhere")
	kind(err, tarn.KindNotFound)
}
