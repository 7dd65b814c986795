package main

import (
	"testing"

	"github.com/tarndb/tarn"
)

func TestObjectNamed(t *testing.T) {
	for s, want := range map[string]tarn.Securable{
		"metastore": {}, "lake": {Catalog: "lake"}, "lake.gold": {Catalog: "lake", Schema: "gold"},
		"lake.gold.`a.b`": {Catalog: "lake", Schema: "gold", Table: "a.b"},
	} {
		if got, err := objectNamed(s); err != nil || got != want {
			t.Errorf("%s: %+v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "a..b", "a.b.c.d"} {
		if _, err := objectNamed(s); tarn.KindOf(err) != tarn.KindInvalid {
			t.Errorf("%q: %v", s, err)
		}
	}
}
