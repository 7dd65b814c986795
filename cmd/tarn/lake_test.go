package main

import (
	"strings"
	"testing"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob/memory"
)

func TestFoldersOfTablesInAStorage(t *testing.T) {
	for _, c := range []struct{ storage, location, folder string }{
		{"s3://b/p", "s3://b/p/lake/gold/users%20%C3%A9", "lake/gold/users é"},
		{"s3://b/p", "s3://b/p/catalogs/system/access/audit", "catalogs/system/access/audit"},
		{"s3://b", "s3://b/lake/s/t", "lake/s/t"},
		{"file:///mnt/tarn", "file:///mnt/tarn/lake/s/t", "lake/s/t"},
		{"s3://b/p", "s3://b/p/store/x", ""},
		{"s3://b/p", "s3://b/p/lakes/t", ""},
		{"s3://b/p", "s3://b/p2/lake/t", ""},
		{"s3://b/p", "s3://c/p/lake/t", ""},
		{"s3://b/p", "file:///b/p/lake/t", ""},
		{"", "s3://b/lake/t", ""},
	} {
		l := lakes{storage: c.storage, remote: memory.New()}
		if got, ok := l.folder(c.location); ok != (c.folder != "") || ok && got != c.folder {
			t.Errorf("in %q, %s is %q, %v; want %q", c.storage, c.location, got, ok, c.folder)
		}
	}
	l := lakes{data: "/d", storage: "s3://b/p", remote: memory.New()}
	for _, private := range []string{"s3://b/p", "s3://b/p/store/x", "s3://b/p/lake/../store/x"} {
		if _, err := l.open(t.Context(), private); tarn.KindOf(err) != tarn.KindInvalid {
			t.Errorf("%s: %v", private, err)
		}
	}
	s, err := l.open(t.Context(), l.root()+"/gold/users")
	if err != nil || !strings.HasSuffix(s.URL(), "lake/gold/users") {
		t.Errorf("%v, %v", s, err)
	}
	if root := (lakes{data: "/d"}).root(); root != "file:///d/lake" {
		t.Errorf("without a storage, tables lie in %s", root)
	}
}
