package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// verdict is what pg_regress says of a test.
type verdict string

const passed verdict = "ok"

// verdictLine is a line such as
//
//	test tablespace                   ... ok          834 ms
//	     boolean                      ... FAILED      142 ms
//	     random                       ... failed (ignored)  12 ms
var verdictLine = regexp.MustCompile(`^(?:test)? +(\S+) +\.\.\. +(.*?)(?: +\d+ ms)?$`)

func parseVerdicts(log []byte) map[string]verdict {
	tests := map[string]verdict{}
	for line := range strings.Lines(string(log)) {
		if m := verdictLine.FindStringSubmatch(strings.TrimRight(line, "\n")); m != nil {
			tests[m[1]] = verdict(m[2])
		}
	}
	return tests
}

// outcome is one suite on one server.
type outcome struct {
	tests map[string]verdict
	dir   string
	took  time.Duration
}

func (o outcome) passed() int {
	n := 0
	for _, v := range o.tests {
		if v == passed {
			n++
		}
	}
	return n
}

// result is what a test printed.
func (o outcome) result(test string) []byte {
	// A test that never came to printing has printed nothing.
	b, _ := os.ReadFile(filepath.Join(o.dir, "results", test+".out"))
	return b
}

// comparison is one suite on both servers.
type comparison struct {
	suite         string
	volume, plain outcome
}

// worse lists the tests that the file system passes and the volume does not.
func (c comparison) worse() []string {
	return c.pick(func(v, p verdict) bool { return p == passed && v != passed })
}

func (c comparison) pick(f func(volume, plain verdict) bool) []string {
	names := slices.Sorted(maps.Keys(c.plain.tests))
	for t := range c.volume.tests {
		if _, there := c.plain.tests[t]; !there {
			names = append(names, t)
		}
	}
	return slices.DeleteFunc(names, func(t string) bool { return !f(c.volume.tests[t], c.plain.tests[t]) })
}

func printTable(w io.Writer, all []comparison) {
	t := tabwriter.NewWriter(w, 2, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "suite\ttests\tvolume passes\tfile system passes\tworse on the volume\tvolume took\tfile system took\t")
	for _, c := range all {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%.1f s\t%.1f s\t\n", c.suite, len(c.plain.tests), c.volume.passed(), c.plain.passed(),
			len(c.worse()), c.volume.took.Seconds(), c.plain.took.Seconds())
	}
	// A table that cannot be printed has nowhere to say so.
	_ = t.Flush()
}

// explain prints what differs and says whether the volume is worse.
func (c comparison) explain(w io.Writer) bool {
	for _, t := range c.pick(func(v, p verdict) bool { return v != passed && p != passed }) {
		same := "and prints the same on both"
		if !bytes.Equal(c.volume.result(t), c.plain.result(t)) {
			same = "and prints different things"
		}
		fmt.Fprintf(w, "%s: %s fails on both %s\n", c.suite, t, same)
	}
	for _, t := range c.pick(func(v, p verdict) bool { return v == passed && p != passed }) {
		fmt.Fprintf(w, "%s: %s fails on the file system only\n", c.suite, t)
	}
	for _, t := range c.pick(func(v, p verdict) bool { return v == passed && p == passed }) {
		// Both may be right: some tests have several expected outputs.
		if !bytes.Equal(c.volume.result(t), c.plain.result(t)) {
			fmt.Fprintf(w, "%s: %s passes on both with different output\n", c.suite, t)
		}
	}
	worse := c.worse()
	for _, t := range worse {
		fmt.Fprintf(w, "%s: %s FAILS ON THE VOLUME ONLY: %s\n", c.suite, t, c.volume.tests[t])
	}
	if len(worse) > 0 {
		// Without the file of differences the verdicts stand for themselves.
		diffs, _ := os.ReadFile(filepath.Join(c.volume.dir, "regression.diffs"))
		const most = 8000
		fmt.Fprintf(w, "%s\n", diffs[:min(len(diffs), most)])
	}
	return len(worse) > 0
}
