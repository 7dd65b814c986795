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

// Preload is a value of shared_preload_libraries: the markers that this Postgres
// has, all or none, before what was asked for.
func (in Install) Preload(asked string) string {
	dir := in.LibDir()
	for _, m := range markers {
		if _, err := os.Stat(filepath.Join(dir, m+".so")); dir == "" || err != nil {
			return asked
		}
	}
	all := strings.Join(markers[:], ",")
	if asked = strings.TrimSpace(asked); asked == "" {
		return all
	}
	return all + "," + asked
}
