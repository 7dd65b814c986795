package main

import (
	"maps"
	"testing"
	"time"
)

const log = `(using postmaster on /tmp/socket, port 5432)
============== running regression test queries        ==============
test tablespace                   ... ok          834 ms
parallel group (3 tests):  boolean random char
     boolean                      ... FAILED      142 ms
     random                       ... failed (ignored)       12 ms
     char                         ... FAILED (test process exited with exit code 2)       61 ms
test copy                         ... ok
1 of 5 tests failed.
`

func TestParseVerdicts(t *testing.T) {
	want := map[string]verdict{"tablespace": passed, "boolean": "FAILED", "random": "failed (ignored)",
		"char": "FAILED (test process exited with exit code 2)", "copy": passed}
	if got := parseVerdicts([]byte(log)); !maps.Equal(got, want) {
		t.Errorf("read %v, want %v", got, want)
	}
}

func TestWorse(t *testing.T) {
	c := comparison{
		volume: outcome{tests: map[string]verdict{"a": passed, "b": "FAILED", "c": "FAILED"}, took: time.Second},
		plain:  outcome{tests: map[string]verdict{"a": "FAILED", "b": passed, "c": "FAILED", "d": passed}},
	}
	// d did not run at all on the volume.
	if got := c.worse(); len(got) != 2 || got[0] != "b" || got[1] != "d" {
		t.Errorf("worse on the volume are %v, want b and d", got)
	}
}
