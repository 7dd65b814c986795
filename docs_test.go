package tarn_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestGeneratedPages compares docs/cli.md and docs/configuration.md with what
// the commands say today.
func TestGeneratedPages(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "tarn")
	if out, err := exec.Command("go", "build", "-o", binary, "./cmd/tarn").CombinedOutput(); err != nil {
		t.Fatalf("build tarn: %v\n%s", err, out)
	}
	for _, page := range []string{"cli", "configuration"} {
		cmd := exec.Command(binary, "help", "--reference", page)
		for _, kv := range os.Environ() {
			if !strings.HasPrefix(kv, "TARN_") {
				cmd.Env = append(cmd.Env, kv)
			}
		}
		want, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		if string(read(t, "docs/"+page+".md")) != string(want) {
			t.Errorf("docs/%s.md is not what the commands say: run `make docs` and commit it", page)
		}
	}
}

// TestEnvironmentIsDocumented looks for variables that the code reads and the
// page does not name.
func TestEnvironmentIsDocumented(t *testing.T) {
	page := string(read(t, "docs/configuration.md"))
	reads := regexp.MustCompile(`(?:Getenv|LookupEnv)\("((?:TARN|DATABRICKS)_\w+)"\)`)
	found := 0
	for _, dir := range []string{"cmd", "internal", "client"} {
		err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "pgtest") {
				return err
			}
			for _, m := range reads.FindAllStringSubmatch(string(read(t, path)), -1) {
				found++
				if !strings.Contains(page, "`"+m[1]+"`") {
					t.Errorf("%s reads %s: add it to environment() in cmd/tarn/reference.go and run `make docs`", path, m[1])
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if found == 0 {
		t.Error("found no variable that the code reads")
	}
}

// TestLinks follows the relative links of the documentation.
func TestLinks(t *testing.T) {
	pages, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	link := regexp.MustCompile(`\]\(([^)#:\s]+)(?:#[^)]*)?\)`)
	for _, page := range append(pages, "README.md", "ARCHITECTURE.md", "CONTRIBUTING.md") {
		for _, m := range link.FindAllStringSubmatch(string(read(t, page)), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s: link to %s: %v", page, m[1], err)
			}
		}
	}
}

// TestCasesAreTests holds the tables of known failures of movers to be whole, from
// case 1 to 55, and every test they name to be there.
func TestCasesAreTests(t *testing.T) {
	var sources strings.Builder
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, "_test.go") {
			sources.Write(read(t, path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	row, name := regexp.MustCompile(`(?m)^\| ([0-9, ]+) \|.*\| (.*) \|$`), regexp.MustCompile("`([^`]*)`")
	cases := map[string]bool{}
	for _, page := range []string{"docs/movement.md", "docs/synced.md"} {
		for _, m := range row.FindAllStringSubmatch(string(read(t, page)), -1) {
			for c := range strings.SplitSeq(m[1], ", ") {
				cases[c] = true
			}
			for _, n := range name.FindAllStringSubmatch(m[2], -1) {
				test := strings.TrimSuffix(n[1][strings.LastIndex(n[1], "/")+1:], "…")
				if !strings.Contains(sources.String(), `"`+test) && !strings.Contains(sources.String(), "func "+test) {
					t.Errorf("%s, case %s: there is no test %s", page, m[1], n[1])
				}
			}
		}
	}
	for c := 1; c <= 55; c++ {
		if !cases[strconv.Itoa(c)] {
			t.Errorf("case %d is in no table", c)
		}
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
