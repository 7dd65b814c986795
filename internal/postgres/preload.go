package postgres

import (
	"os"
	"path/filepath"
	"strings"
)

// markers are modules that do nothing; programs written for Lakebase look for
// their names in shared_preload_libraries. scripts/setup.sh builds them.
var markers = [...]string{"neon", "databricks_auth"}

// LibDir is where the modules of a Postgres are; "" = not found.
func (in Install) LibDir() string {
	for _, dir := range [...]string{"../lib", "../lib/postgresql", "../lib/pgsql", "../lib64/pgsql"} {
		dir = filepath.Join(in.BinDir, dir)
		if _, err := os.Stat(filepath.Join(dir, "plpgsql.so")); err == nil {
			return dir
		}
	}
	return ""
}

// Has tells whether a module is installed with this Postgres.
func (in Install) Has(module string) bool {
	dir := in.LibDir()
	_, err := os.Stat(filepath.Join(dir, module+".so"))
	return dir != "" && err == nil
}

// Preload is a value of shared_preload_libraries: the markers that this Postgres
// has, all or none, before what was asked for.
func (in Install) Preload(asked string) string {
	for _, m := range markers {
		if !in.Has(m) {
			return asked
		}
	}
	all := strings.Join(markers[:], ",")
	if asked = strings.TrimSpace(asked); asked == "" {
		return all
	}
	return all + "," + asked
}
