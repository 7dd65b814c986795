package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestUpAndDownAreIdempotent(t *testing.T) {
	in := start(t)
	in.up()
	in.stop()
	in.stop()
	if _, err := os.Stat(filepath.Join(in.data, "processes.json")); !os.IsNotExist(err) {
		t.Errorf("the process record is left: %v", err)
	}
	in.up()
	if said := in.refused(1, in.upArgs()...); !strings.Contains(said, "runs on "+in.data+" already") || !strings.Contains(said, "tarn down") {
		t.Errorf("a second tarn up said:\n%s", said)
	}
}

// record is what `tarn up` notes of its processes.
type record struct{ Up, Control, Node struct{ PID int } }

func (in *instance) record() (r record) {
	in.t.Helper()
	b, err := os.ReadFile(filepath.Join(in.data, "processes.json"))
	if err != nil {
		in.t.Fatal(err)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		in.t.Fatal(err)
	}
	return r
}

func (in *instance) upArgs(more ...string) []string {
	return append([]string{"up", "--data", in.data, "--listen", in.api, "--gateway-port", strconv.Itoa(in.gateway)}, more...)
}

// A killed supervisor leaves children, computes and mounts to the next `tarn
// up`, which ends them, or to `tarn down`.
func TestKilledSupervisor(t *testing.T) {
	in := start(t)
	in.tarn("project", "create", "shop")
	in.tarn("psql", "shop", "-c", "CREATE TABLE t AS SELECT 7 AS n")
	in.sigkill(in.record().Up.PID)
	in.up()
	if n := strings.TrimSpace(in.tarn("psql", "shop", "--", "-Atc", "SELECT n FROM t")); n != "7" {
		t.Errorf("after the next tarn up: %q, want 7", n)
	}
	in.sigkill(in.record().Up.PID)
	in.stop()
	in.checkNothingLeft()

	in.up()
	in.tarn("psql", "shop", "-c", "INSERT INTO t VALUES (8)")
	r := in.record()
	in.sigkill(r.Up.PID, r.Control.PID, r.Node.PID)
	if len(in.processes()) == 0 {
		t.Error("nothing was left to clear away: this test shows nothing")
	}
	in.stop()
	in.checkNothingLeft()
	in.up()
	if n := strings.TrimSpace(in.tarn("psql", "shop", "--", "-Atc", "SELECT sum(n) FROM t")); n != "15" {
		t.Errorf("after all was killed: %q, want 15", n)
	}
}

// sigkill kills processes and waits until they are gone, the first of them
// first: a supervisor would start the others again.
func (in *instance) sigkill(pids ...int) {
	in.t.Helper()
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			in.t.Fatalf("kill %d: %v", pid, err)
		}
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for range tick.C {
			b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
			if err != nil || strings.Contains(string(b), ") Z ") {
				break
			}
		}
	}
}

// Ctrl-C of a `tarn up` in the foreground ends everything.
func TestInterrupt(t *testing.T) {
	in := start(t)
	in.tarn("project", "create", "shop")
	in.stop()

	cmd := in.command(in.upArgs()...)
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(said)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "Tarn runs at http://"+in.api) {
			in.tarn("psql", "shop", "-c", "SELECT 1")
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("an interrupted tarn up ended with %v", err)
	}
	in.checkNothingLeft()
}

// What can never run says so at once, says what to do, and leaves nothing.
func TestUpRefuses(t *testing.T) {
	in := start(t)
	in.stop()
	refused := func(t *testing.T, status int, args []string, want ...string) {
		t.Helper()
		began := time.Now()
		for _, how := range [][]string{args, append(args, "--detach")} {
			said := in.refused(status, how...)
			for _, w := range want {
				if !strings.Contains(said, w) {
					t.Errorf("tarn %s does not say %q:\n%s", strings.Join(how, " "), w, said)
				}
			}
		}
		if d := time.Since(began); d > 20*time.Second {
			t.Errorf("refused after %s", d)
		}
		in.checkNothingLeft()
	}
	t.Run("API port taken", func(t *testing.T) {
		l, err := net.Listen("tcp", in.api)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		refused(t, 1, in.upArgs(), "another program has it", "--listen")
	})
	t.Run("gateway port taken", func(t *testing.T) {
		l, err := net.Listen("tcp4", "0.0.0.0:"+strconv.Itoa(in.gateway))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		refused(t, 1, in.upArgs(), "another program has it", "--gateway-port")
	})
	t.Run("data directory closed to Postgres", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("an ordinary user's Postgres runs as himself")
		}
		closed := filepath.Join(filepath.Dir(in.data), "closed")
		if err := os.Mkdir(closed, 0o700); err != nil {
			t.Fatal(err)
		}
		refused(t, 2, in.upArgs("--data", filepath.Join(closed, "data")), "may not enter "+closed, "chmod o+x "+closed)
	})
	t.Run("no certificate", func(t *testing.T) {
		missing := filepath.Join(in.data, "missing.pem")
		said := in.refused(1, in.upArgs("--detach", "--tls-cert", missing, "--tls-key", missing)...)
		if !strings.Contains(said, missing) {
			t.Errorf("tarn up does not name the missing certificate:\n%s", said)
		}
	})
}

// A data directory keeps the kind of volumes it began with, and says so.
func TestVolumesStayOfOneKind(t *testing.T) {
	in := start(t, "--volumes", "directory")
	in.tarn("project", "create", "shop")
	if said := in.tarn("status"); !strings.Contains(said, "Volumes: directory (") {
		t.Errorf("tarn status does not show the kind of volumes:\n%s", said)
	}
	in.stop()
	said := in.refused(2, append(in.upArgs(), "--volumes", "fuse")...)
	if !strings.Contains(said, "as plain directories") || !strings.Contains(said, "--volumes directory") {
		t.Errorf("the other kind is refused with:\n%s", said)
	}
	in.checkNothingLeft()
	in.flags = nil // the data directory knows
	in.up()
	if v := in.tarn("psql", "shop/production", "--", "-Atc", "SHOW full_page_writes"); strings.TrimSpace(v) != "on" {
		t.Errorf("full_page_writes is %s", v)
	}
}

// Where FUSE does not work a new data directory gets plain directories, and the
// user is told what that costs; where its branches need FUSE nothing is started.
func TestUpWithoutFUSE(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("taking /dev/fuse away needs root")
	}
	in := start(t)
	in.stop()
	said, err := in.withoutFUSE(in.upArgs("--detach")...)
	if err == nil || !strings.Contains(said, "try FUSE in") {
		t.Errorf("branches that need FUSE, without FUSE: %v\n%s", err, said)
	}
	in.checkNothingLeft()
	if err := os.RemoveAll(in.data); err != nil {
		t.Fatal(err)
	}
	said, err = in.withoutFUSE(in.upArgs("--detach")...)
	if err != nil || !strings.Contains(said, "plain directories, because FUSE does not work here") || strings.Count(said, "What that costs") != 1 {
		t.Fatalf("a start without FUSE: %v\n%s", err, said)
	}
	in.tarn("project", "create", "shop")
	in.tarn("branch", "create", "shop/dev")
	if v := in.tarn("psql", "shop/dev", "--", "-Atc", "SELECT 42"); strings.TrimSpace(v) != "42" {
		t.Errorf("a branch says %q", v)
	}
}

// withoutFUSE runs a command line where /dev/fuse is something else, in a mount
// namespace of its own, and returns what it said.
func (in *instance) withoutFUSE(args ...string) (said string, err error) {
	cmd := in.command(args...)
	done := make(chan struct{})
	go func() {
		defer close(done)
		// This thread alone, which ends with the goroutine, has the namespace.
		runtime.LockOSThread()
		if err = syscall.Unshare(syscall.CLONE_FS | syscall.CLONE_NEWNS); err != nil {
			return
		}
		err = errors.Join(syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""),
			syscall.Mount("/dev/null", "/dev/fuse", "", syscall.MS_BIND, ""))
		if err != nil {
			return
		}
		var b []byte
		b, err = cmd.CombinedOutput()
		said = string(b)
	}()
	<-done
	return said, err
}

// Where only the shared address is another program's, endpoints keep theirs.
func TestSharedAddressTaken(t *testing.T) {
	in := start(t)
	in.stop()
	l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(in.gateway))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cmd := in.command(in.upArgs("--detach")...)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "another program") {
		t.Fatalf("tarn up: %v\n%s", err, out)
	}
	in.tarn("project", "create", "shop")
	in.tarn("psql", "shop", "-c", "SELECT 1")
}

// Two data directories are two Tarns, also with one gateway port.
func TestTwoTarns(t *testing.T) {
	one, two := start(t), start(t)
	two.stop()
	two.gateway = one.gateway
	two.up()
	for _, in := range []*instance{one, two} {
		in.tarn("project", "create", "shop")
		in.tarn("psql", "shop", "-c", "CREATE TABLE t AS SELECT '"+in.api+"' AS own")
	}
	for _, in := range []*instance{one, two} {
		if own := strings.TrimSpace(in.tarn("psql", "shop", "--", "-Atc", "SELECT own FROM t")); own != in.api {
			t.Errorf("the Tarn at %s answers for %s", in.api, own)
		}
	}
	one.stop()
	two.tarn("psql", "shop", "-c", "SELECT 1")
}

// `tarn down` finds what it is to stop in the profile when it stands elsewhere.
func TestDownFromElsewhere(t *testing.T) {
	in := start(t)
	cmd := exec.Command(binary, "down")
	cmd.Dir = filepath.Dir(in.data)
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+in.config, "HOME="+in.config, "TARN_DATA=")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), in.data+" stopped") {
		t.Errorf("tarn down: %v\n%s", err, out)
	}
	in.checkNothingLeft()
}
