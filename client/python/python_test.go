// Package python_test runs the tests of the Python package tarn-lakebase against
// every Postgres that is installed.
package python_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/tarndb/tarn/internal/postgres/pgtest"
)

func TestPackage(t *testing.T) {
	python, err := filepath.Abs("../../build/venv/bin/python")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(python); err != nil {
		t.Fatalf("no Python environment (make setup-test makes it): %v", err)
	}
	for _, in := range pgtest.Installs(t) {
		t.Run("postgres-"+strconv.Itoa(in.Major), func(t *testing.T) {
			_, dsn := pgtest.Start(t, in)
			cmd := exec.CommandContext(t.Context(), python, "-W", "error::ResourceWarning", "-m", "unittest", "discover", "-s", "tests", "-t", ".", "-v")
			cmd.Env = append(os.Environ(), "TARN_TEST_DSN="+dsn, "PYTHONDONTWRITEBYTECODE=1", "TARN_TEST_SECONDS=3")
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if !strings.Contains(string(out), "test_nothing_is_lost") || strings.Contains(string(out), "skipped") {
				t.Errorf("not every test ran:\n%s", out)
			}
			t.Logf("%s", out)
		})
	}
}
