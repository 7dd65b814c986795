package catalog_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/blob/dir"
	"github.com/tarndb/tarn/internal/catalog"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/delta"
)

func folder(_ context.Context, location string) (blob.Store, error) {
	u, err := url.Parse(location)
	if err != nil {
		return nil, err
	}
	return dir.Open(u.Path)
}

// Every event is in the table once, whatever a crash left behind.
func TestAuditIsWrittenOnce(t *testing.T) {
	ctx, db := t.Context(), open(t)
	c := catalog.New(db)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.EnsureDefault(ctx, "file://"+t.TempDir()))
	a := catalog.NewAudit(c, folder, 0, slog.New(slog.DiscardHandler))
	n := 0
	record := func(k int) {
		for range k {
			n++
			must(a.Record(ctx, catalog.Event{Time: time.Now(), ID: fmt.Sprint(n), Principal: "ann\x00", Agent: `\u0000 "`, Status: 200, Error: "é"}))
		}
	}
	count := func() int64 {
		t.Helper()
		e, err := c.Table(ctx, catalog.AuditTable())
		must(err)
		s, err := folder(ctx, e.Location)
		must(err)
		tab, err := delta.Open(ctx, s, "")
		must(err)
		snap, err := tab.Latest(ctx)
		must(err)
		k, err := snap.Count(ctx)
		must(err)
		return k
	}
	must(a.Flush(ctx))
	record(3)
	must(a.Flush(ctx))
	must(a.Flush(ctx))
	if k := count(); k != 3 {
		t.Fatalf("%d events in the table, want 3", k)
	}
	// A crash before the commit: a batch is claimed; later events are not in it.
	record(2)
	rows, err := controldb.ClaimSystemRows(ctx, db, "access.audit", 2, 100)
	must(err)
	if len(rows) != 2 {
		t.Fatalf("%d rows claimed", len(rows))
	}
	record(1)
	if rows, err = controldb.ClaimSystemRows(ctx, db, "access.audit", 2, 100); err != nil || len(rows) != 2 {
		t.Fatalf("a claimed batch changed: %d rows, %v", len(rows), err)
	}
	must(a.Flush(ctx))
	if k := count(); k != 6 {
		t.Fatalf("%d events in the table, want 6", k)
	}
	// A crash after the commit: the rows of a written batch are still there.
	must(controldb.InsertSystemRow(ctx, db, "access.audit", rows[0]))
	if again, err := controldb.ClaimSystemRows(ctx, db, "access.audit", 1, 100); err != nil || len(again) != 1 {
		t.Fatalf("%d rows, %v", len(again), err)
	}
	must(a.Flush(ctx))
	if k := count(); k != 6 {
		t.Fatalf("%d events in the table, want 6", k)
	}
}

// A flood of refusals leaves a row for each of the first that differ, and counts
// of the others.
func TestRefusalsAreCounted(t *testing.T) {
	ctx, db := t.Context(), open(t)
	c := catalog.New(db)
	if err := c.EnsureDefault(ctx, "file://"+t.TempDir()); err != nil {
		t.Fatal(err)
	}
	a := catalog.NewAudit(c, folder, 0, slog.New(slog.DiscardHandler))
	for i := range 1000 {
		who := "app"
		if i >= 500 {
			who = fmt.Sprint("guess", i)
		}
		if err := a.Refused(ctx, catalog.Event{Time: time.Now(), ID: fmt.Sprint(i), Service: "gateway", Action: "login", Principal: who, Status: 401, Error: "28P01"}); err != nil {
			t.Fatal(err)
		}
	}
	ends, cancel := context.WithCancel(ctx)
	cancel()
	_ = a.Run(ends, time.Hour) // its end records the counts
	rows, err := controldb.ClaimSystemRows(ctx, db, "access.audit", 1, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, r := range rows {
		text.Write(r)
	}
	if n := strings.Count(text.String(), "count="); len(rows) != 62 || n != 2 ||
		!strings.Contains(text.String(), "count=499 since=") || !strings.Contains(text.String(), "count=441 since=") {
		t.Fatalf("%d rows, %d counts\n%s", len(rows), n, text.String())
	}
}
