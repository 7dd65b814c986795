package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestSuiteOptions(t *testing.T) {
	src := t.TempDir()
	if err := os.MkdirAll(filepath.Join(src, "contrib", "m"), 0o755); err != nil {
		t.Fatal(err)
	}
	conf := "# what it needs\nwal_level = logical\nshared_preload_libraries = 'm' # preloaded\n\n"
	if err := os.WriteFile(filepath.Join(src, "contrib", "m", "m.conf"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, options := range [][]string{
		{"--temp-config", "/contrib/m/m.conf", "--dlpath=/elsewhere", "--load-extension=hstore"},
		{"--temp-config=/contrib/m/m.conf", "--load-extension=hstore"},
	} {
		var u suite
		if err := u.options(src, options); err != nil {
			t.Fatal(err)
		}
		if want := map[string]string{"wal_level": "logical", "shared_preload_libraries": "m"}; !maps.Equal(u.settings, want) {
			t.Errorf("%v: settings %v, want %v", options, u.settings, want)
		}
		if want := []string{"--load-extension=hstore"}; !slices.Equal(u.args, want) {
			t.Errorf("%v: arguments %v, want %v", options, u.args, want)
		}
	}
}
