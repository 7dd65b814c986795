package catalog_test

import (
	"context"
	"strings"
	"testing"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/catalog"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
)

func open(t *testing.T) *controldb.DB {
	t.Helper()
	_, conn := pgtest.Start(t, pgtest.Newest(t))
	db, err := controldb.Open(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return db
}

func principal(t *testing.T, db *controldb.DB, name string, kind tarn.PrincipalType) tarn.Principal {
	t.Helper()
	p, err := controldb.InsertPrincipal(t.Context(), db, tarn.Principal{Name: name, Type: kind})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestRightsOfNobodyAndOfAdmins(t *testing.T) {
	ctx, db := t.Context(), open(t)
	c := catalog.New(db)
	ann, root := principal(t, db, "ann@example.com", tarn.PrincipalUser), tarn.Principal{Name: "root", Admin: true}
	if err := c.EnsureDefault(ctx, "file:///data/lake"); err != nil {
		t.Fatal(err)
	}
	n := tarn.TableName{Catalog: "lake", Schema: "gold", Table: "users"}
	if _, err := c.CreateTable(ctx, root, n, "", ""); err != nil {
		t.Fatal(err)
	}
	e, err := c.For(root).Table(ctx, n)
	if err != nil || e.Kind != catalog.Managed || e.Table.Location != "file:///data/lake/gold/users" {
		t.Fatalf("%+v, %v", e, err)
	}
	if err := c.Check(ctx, root, tarn.PrivilegeModify, n.Securable()); err != nil {
		t.Fatal(err)
	}
	for _, f := range []func(context.Context) error{
		func(ctx context.Context) error { return c.Check(ctx, ann, tarn.PrivilegeSelect, n.Securable()) },
		func(ctx context.Context) error { _, err := c.For(ann).Table(ctx, n); return err },
		func(ctx context.Context) error {
			_, err := c.For(ann).Table(ctx, tarn.TableName{Catalog: "lake", Schema: "gold", Table: "none"})
			return err
		},
	} {
		err := f(ctx)
		if tarn.KindOf(err) != tarn.KindDenied || !strings.Contains(err.Error(), "lacks USE CATALOG on catalog lake") ||
			!strings.Contains(tarn.HintOf(err), "tarn grant use_catalog lake ann@example.com") {
			t.Errorf("%v (%s)", err, tarn.HintOf(err))
		}
	}
	// What is nowhere is not there for anybody.
	if _, err := c.For(ann).Table(ctx, tarn.TableName{Catalog: "none", Schema: "s", Table: "t"}); tarn.KindOf(err) != tarn.KindNotFound {
		t.Errorf("table of no catalog: %v", err)
	}
}
