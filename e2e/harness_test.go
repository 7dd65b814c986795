package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn/internal/postgres/pgtest"
)

// binary is the path of the tarn built for this run of the tests.
var binary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "tarn-e2e-bin-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "tarn")
		if out, err := exec.Command("go", "build", "-o", binary, "../cmd/tarn").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build tarn: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// instance is one running Tarn of a test.
type instance struct {
	t       *testing.T
	data    string
	config  string // the user's config directory: holds the profile
	api     string // host:port
	gateway int    // port
	flags   []string
}

// start runs `tarn up --detach` on a new data directory and stops it when the
// test ends, whatever happened, leaving no process, mount or directory.
func start(t *testing.T, flags ...string) *instance {
	t.Helper()
	// Under /tmp and not t.TempDir: its removal must come after our own checks.
	dir, err := os.MkdirTemp("", "tarn-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return startIn(t, dir, flags...)
}

func startIn(t *testing.T, dir string, flags ...string) *instance {
	t.Helper()
	in := &instance{t: t, data: filepath.Join(dir, "data"), config: filepath.Join(dir, "config"),
		api: "127.0.0.1:" + strconv.Itoa(freePort(t)), gateway: freePort(t), flags: flags}
	t.Cleanup(func() {
		in.stop()
		if t.Failed() {
			in.showLog()
		}
		in.checkNothingLeft()
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove %s: %v", dir, err)
		}
	})
	in.up()
	return in
}

func (in *instance) up() {
	in.t.Helper()
	in.tarn(append(in.upArgs("--detach"), in.flags...)...)
}

func (in *instance) stop() {
	in.t.Helper()
	if out, err := in.command("down", "--data", in.data).CombinedOutput(); err != nil {
		in.t.Errorf("tarn down: %v\n%s", err, out)
	}
}

func (in *instance) showLog() {
	b, err := os.ReadFile(filepath.Join(in.data, "log", "tarn.log"))
	if err != nil {
		return
	}
	if len(b) > 12000 {
		b = b[len(b)-12000:]
	}
	in.t.Logf("log of tarn:\n%s", b)
}

// checkNothingLeft fails the test when a process or a mount of this instance
// outlives `tarn down`; it ends them, so that other tests are not harmed.
func (in *instance) checkNothingLeft() {
	in.t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		in.t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], in.data+"/") {
			in.t.Errorf("a mount is left: %s", f[1])
			if err := syscall.Unmount(f[1], syscall.MNT_DETACH); err != nil {
				in.t.Errorf("detach %s: %v", f[1], err)
			}
		}
	}
	for pid, args := range in.processes() {
		in.t.Errorf("a process is left: %d %s", pid, args)
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			in.t.Errorf("kill %d: %v", pid, err)
		}
	}
}

// processes lists live processes whose command line names this data directory.
func (in *instance) processes() map[int]string {
	found := map[int]string{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		b, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err == nil && bytes.Contains(b, []byte(in.data)) {
			found[pid] = strings.ReplaceAll(string(b), "\x00", " ")
		}
	}
	return found
}

func (in *instance) command(args ...string) *exec.Cmd {
	cmd := exec.Command(binary, args...)
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+in.config, "HOME="+in.config, "TARN_DATA="+in.data)
	return cmd
}

// tarn runs a command line and returns its standard output.
func (in *instance) tarn(args ...string) string {
	in.t.Helper()
	var out, errs bytes.Buffer
	cmd := in.command(args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		in.t.Fatalf("tarn %s: %v\n%s%s", strings.Join(args, " "), err, out.String(), errs.String())
	}
	return out.String()
}

// refused runs a command line that must end with the given exit status and
// returns what it said on standard error.
func (in *instance) refused(status int, args ...string) string {
	in.t.Helper()
	var errs bytes.Buffer
	cmd := in.command(args...)
	cmd.Stderr = &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != status {
		in.t.Fatalf("tarn %s: %v, want exit status %d\n%s", strings.Join(args, " "), err, status, errs.String())
	}
	return errs.String()
}

// tarnJSON runs a command line with --json and decodes what it printed.
func (in *instance) tarnJSON(into any, args ...string) {
	in.t.Helper()
	out := in.tarn(append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), into); err != nil {
		in.t.Fatalf("tarn %s --json printed no JSON: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// profile is what `tarn up` left for the CLI.
func (in *instance) profile() (p struct{ Host, Token string }) {
	in.t.Helper()
	b, err := os.ReadFile(filepath.Join(in.config, "tarn", "profile.json"))
	if err != nil {
		in.t.Fatal(err)
	}
	if err := json.Unmarshal(b, &p); err != nil {
		in.t.Fatal(err)
	}
	return p
}

// url gives a connection string with a fresh database credential.
func (in *instance) url(branch string) string {
	in.t.Helper()
	return strings.TrimSpace(in.tarn("connection-string", branch, "--credential"))
}

// connect opens a connection through the gateway.
func (in *instance) connect(ctx context.Context, url string) *pgx.Conn {
	in.t.Helper()
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		in.t.Fatalf("connect through the gateway: %v", err)
	}
	in.t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

// versions runs f once for each Postgres the suite is run against: the newest
// found and Debian's own.
func versions(t *testing.T, f func(t *testing.T, major, pgBin string)) {
	for _, install := range pgtest.Installs(t) {
		t.Run(fmt.Sprintf("postgres-%d", install.Major), func(t *testing.T) { f(t, strconv.Itoa(install.Major), install.BinDir) })
	}
}

// grounds is versions on every kind of volumes: what this computer has, which
// is FUSE, and plain directories (with the newest Postgres). flags are for
// `tarn up`.
func grounds(t *testing.T, f func(t *testing.T, major string, flags ...string)) {
	versions(t, func(t *testing.T, major, pgBin string) { f(t, major, "--pg-bin", pgBin) })
	in := pgtest.Newest(t)
	t.Run("directories", func(t *testing.T) {
		f(t, strconv.Itoa(in.Major), "--pg-bin", in.BinDir, "--volumes", "directory")
	})
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func testContext(t *testing.T, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

func fetch(t *testing.T, req *http.Request) (body string, status int) {
	t.Helper()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), res.StatusCode
}
