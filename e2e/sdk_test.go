package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The published Python SDK and psycopg are the clients here: the host has no
// port in these programs, so the gateway must be on 5432.
func TestFirstProgramRunsUnmodified(t *testing.T) {
	grounds(t, func(t *testing.T, _ string, flags ...string) {
		in := startOn5432(t, flags...)
		in.tarn("project", "create", "shop")
		out := in.python("first_program.py")
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if len(lines) != 2 || lines[0] != "1000 500500 True" || !strings.HasPrefix(lines[1], "shop AVAILABLE ") {
			t.Errorf("the program printed:\n%s", out)
		}
	})
}

func TestInstanceLifecycleWithPublishedSDK(t *testing.T) {
	in := startOn5432(t)
	out := in.python("instance_lifecycle.py")
	for _, want := range []string{"conflict: ", "not found: ", "42\nstopped: ", "\n42\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("output lacks %q:\n%s", want, out)
		}
	}
}

func TestSnapshotsWithPublishedSDK(t *testing.T) {
	in := start(t)
	in.tarn("project", "create", "shop")
	in.connect(testContext(t, time.Minute), in.url("shop/production")).Exec(t.Context(), "CREATE TABLE items AS SELECT generate_series(1, 3) AS id")
	out := in.python("snapshots.py")
	const want = "projects/shop/snapshots/before projects/shop/branches/production True\nprojects/shop/snapshots/before\nread back projects/shop/snapshots/before\ngone\n"
	if out != want {
		t.Errorf("the program printed:\n%swant:\n%s", out, want)
	}
	if n := strings.TrimSpace(in.python("count_items.py", in.url("shop/again"))); n != "3" {
		t.Errorf("a branch of the snapshot has %s rows", n)
	}
}

func startOn5432(t *testing.T, flags ...string) *instance {
	t.Helper()
	// A later --gateway-port wins over the harness's own.
	return start(t, append(flags, "--gateway-port", "5432")...)
}

func (in *instance) python(program string, args ...string) string {
	in.t.Helper()
	interpreter, err := filepath.Abs("../build/venv/bin/python")
	if err != nil {
		in.t.Fatal(err)
	}
	if _, err := os.Stat(interpreter); err != nil {
		in.t.Fatalf("no Python environment (make setup-test makes it): %v", err)
	}
	p := in.profile()
	cmd := exec.Command(interpreter, append([]string{filepath.Join("testdata", program)}, args...)...)
	cmd.Env = append(os.Environ(), "DATABRICKS_HOST="+p.Host, "DATABRICKS_TOKEN="+p.Token, "HOME="+in.config,
		"PYTHONPATH=../client/python", "PYTHONDONTWRITEBYTECODE=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		in.t.Fatalf("%s: %v\n%s", program, err, out)
	}
	return string(out)
}
