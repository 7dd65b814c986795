package gateway

import (
	"strings"
	"testing"
)

func TestLook(t *testing.T) {
	show := func(v sight) string {
		var s []string
		for _, f := range []struct {
			on   bool
			name string
		}{{v.listen, "listen"}, {v.suspect, "suspect"}, {v.pin, "pin"}, {v.drops, "drops"}, {v.forgets, "forgets"}} {
			if f.on {
				s = append(s, f.name)
			}
		}
		if v.drop != "" {
			s = append(s, "drop="+v.drop)
		}
		return strings.Join(append(s, v.custom...), " ")
	}
	for sql, want := range map[string]string{
		"":                                               "",
		";;":                                             "",
		"SELECT 1":                                       "",
		"select temp from sensors":                       "",
		"SELECT 'LISTEN x; SET a = 1'":                   "",
		"SELECT $$SET a$$, $x$ LOAD $x$":                 "",
		"-- SET a = 1\nSELECT 1":                         "",
		"/* /* LISTEN */ SET */ SELECT 1":                "",
		`SELECT "set_config"(1)`:                         "",
		"SELECT E'\\'; SET a = 1; --'":                   "",
		"SELECT E'\\''; SET a = 1":                       "suspect",
		"LISTEN x":                                       "listen",
		"select 1; listen x":                             "listen",
		"SET work_mem = 1":                               "suspect",
		"SET SESSION work_mem TO 1":                      "suspect",
		"SET LOCAL work_mem = 1":                         "",
		"BEGIN; SET LOCAL a.b = 1; COMMIT":               "",
		"SET TRANSACTION READ ONLY":                      "",
		"SET CONSTRAINTS ALL DEFERRED":                   "",
		"SET app.tenant = '1'":                           "suspect app.tenant",
		`SET "App".x TO 1`:                               "suspect App.x",
		"SET ROLE x":                                     "suspect",
		"RESET ALL":                                      "suspect",
		"DISCARD ALL":                                    "suspect forgets",
		"DISCARD PLANS":                                  "suspect",
		"DEALLOCATE ALL":                                 "drops forgets",
		"DEALLOCATE PREPARE \"S_1\"":                     "drops drop=S_1",
		"DEALLOCATE x; SELECT 1":                         "drops",
		"PREPARE x AS SELECT 1":                          "suspect",
		"PREPARE TRANSACTION 'x'":                        "",
		"CREATE TEMP TABLE x ()":                         "suspect",
		"CREATE OR REPLACE TEMP VIEW x AS":               "suspect",
		"CREATE TABLE x (temp int)":                      "suspect", // too much, which only costs
		"SELECT 1 INTO TEMPORARY x":                      "suspect",
		"DECLARE c CURSOR WITH HOLD FOR":                 "suspect",
		"DECLARE c CURSOR FOR SELECT 1":                  "",
		"SELECT pg_advisory_lock(1)":                     "suspect",
		"SELECT pg_advisory_xact_lock(1)":                "",
		"SELECT pg_try_advisory_lock(1)":                 "suspect",
		"SELECT pg_advisory_unlock_all()":                "drops",
		"LOAD 'x'":                                       "pin",
		"DO $$ x $$":                                     "suspect",
		"SELECT set_config('a.b', $1, true)":             "",
		"SELECT set_config('a.b', 'x', false)":           "suspect a.b",
		"SELECT pg_catalog.set_config('geqo', f(1), $2)": "suspect",
		"SELECT set_config($1, $2, $3)":                  "suspect pin",
		"SELECT set_config($1, $2, true)":                "",
		"SELECT set_config('a' || 'b', '', false)":       "suspect pin",
		"SELECT set_config(":                             "suspect pin",
	} {
		if got := show(look([]byte(sql))); got != want {
			t.Errorf("%s: %q, want %q", sql, got, want)
		}
	}
}

// FuzzLook: any text comes to an end, and what is hidden in a string or a
// comment is not seen.
func FuzzLook(f *testing.F) {
	for _, s := range []string{"SET a.b = 1", "SELECT set_config('a', 'b', false)", "/* /* */", "$a$", "E'\\", "\"", "DEALLOCATE \"x\"\"y\"", "1e5.x$1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		look([]byte(s))
		hidden := "SELECT '" + strings.ReplaceAll(s, "'", "''") + "'"
		if v := look([]byte(hidden)); v.listen || v.suspect || v.pin || v.forgets || v.drop != "" {
			t.Errorf("%q is seen as %+v", hidden, v)
		}
	})
}
