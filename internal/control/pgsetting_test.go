package control

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
)

func TestSettingValues(t *testing.T) {
	for _, c := range []struct {
		name, value string
		ok          bool
	}{
		{"work_mem", "64MB", true}, {"work_mem", "65536", true}, {"work_mem", "63kB", false}, {"work_mem", "much", false}, {"work_mem", "64mb", false},
		{"work_mem", "NaN", false}, {"work_mem", "", false}, {"statement_timeout", "5min", true}, {"statement_timeout", "5 min", true},
		{"statement_timeout", "-1", false}, {"statement_timeout", "1GB", false}, {"random_page_cost", "1.1", true}, {"random_page_cost", "-1", false},
		{"jit", "off", true}, {"jit", "maybe", false}, {"plan_cache_mode", "auto", true}, {"plan_cache_mode", "fast", false},
		{"autovacuum_vacuum_cost_delay", "2ms", true}, {"max_connections", "100", true}, {"max_connections", "5", false}, {"max_connections", "10.5", false},
		{"search_path", `"$user", public`, true}, {"pg_stat_statements.max", "5000", true},
		{"fsync", "off", false}, {"shared_preload_libraries", "x", false}, {"no_such_thing", "1", false}, {"work_mem\n", "64MB", false}, {"search_path", "a\nb", false},
	} {
		if err := checkSetting(c.name, c.value); (err == nil) != c.ok || err != nil && tarn.KindOf(err) != tarn.KindInvalid {
			t.Errorf("%s = %q: %v", c.name, c.value, err)
		}
	}
}

const sqlBounds = `SELECT vartype, COALESCE(min_val, ''), COALESCE(max_val, ''), COALESCE(unit, ''), COALESCE(enumvals, '{}'), context FROM pg_settings WHERE lower(name) = $1`

// TestSettingsAreAsPostgresHasThem: of every setting that is allowed, each
// Postgres has the kind and the unit, and takes every value that is let through.
func TestSettingsAreAsPostgresHasThem(t *testing.T) {
	for _, in := range pgtest.Installs(t) {
		_, url := pgtest.Start(t, in)
		c, err := pgx.Connect(t.Context(), url)
		ok(t, err)
		t.Cleanup(func() { c.Close(context.Background()) })
		found := 0
		for _, name := range slices.Sorted(maps.Keys(allowed())) {
			s := allowed()[name]
			var vartype, least, most, unit, how string
			var words []string
			err := c.QueryRow(t.Context(), sqlBounds, name).Scan(&vartype, &least, &most, &unit, &words, &how)
			if err == pgx.ErrNoRows {
				continue // of another version
			}
			ok(t, err)
			found++
			switch {
			case how == "internal":
				t.Errorf("%d: %s cannot be set", in.Major, name)
			case s.kind == boolean && vartype != "bool" && !slices.Contains(words, "on"),
				s.kind == number && vartype != "integer" && vartype != "real", s.kind == real && vartype != "real", s.kind == word && vartype != "enum":
				t.Errorf("%d: %s is of type %s", in.Major, name, vartype)
			case (s.kind == number || s.kind == real) && s.unit != unit:
				t.Errorf("%d: %s has unit %q, not %q", in.Major, name, unit, s.unit)
			}
			if s.kind == number || s.kind == real {
				lo, _ := strconv.ParseFloat(least, 64)
				hi, _ := strconv.ParseFloat(most, 64)
				if s.min < lo || s.max > hi {
					t.Errorf("%d: %s goes from %s to %s, not %g to %g", in.Major, name, least, most, s.min, s.max)
				}
			}
			for _, w := range s.words {
				if s.kind == word && !slices.Contains(words, w) && w != "zstd" && w != "lz4" { // those are built in or not
					t.Errorf("%d: %s knows %v, not %s", in.Major, name, words, w)
				}
			}
		}
		if found < 100 {
			t.Errorf("%d: knows only %d of the settings", in.Major, found)
		}
	}
}
