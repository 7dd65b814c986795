package volumefs_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/volumefs"
)

// place makes an empty directory for a mount, which anybody can reach.
func place(t *testing.T) string {
	t.Helper()
	dir := must[string](t)(os.MkdirTemp("", "tarn-fs-"))
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Errorf("left behind: %v", err)
		}
	})
	ok(t, os.Chmod(dir, 0o755))
	return dir
}

func mount(t *testing.T, dir string, v volumefs.Volume, o volumefs.Options) *volumefs.Directory {
	t.Helper()
	m, err := volumefs.Mount(t.Context(), dir, v, o)
	if err != nil {
		t.Fatalf("%v (%s)", err, tarn.HintOf(err))
	}
	t.Cleanup(func() {
		if err := m.Unmount(context.Background()); err != nil {
			t.Error(err)
		}
	})
	ok(t, volumefs.DeclinePoll(dir))
	return m
}

func TestConformance(t *testing.T) {
	requireMount(t)
	for name, way := range map[string]volumefs.Rings{"device": volumefs.RingsNever, "rings": volumefs.RingsOffered} {
		t.Run(name, func(t *testing.T) {
			v := newMemory(uint32(os.Geteuid()), uint32(os.Getegid()))
			dir := place(t)
			m := mount(t, dir, v, volumefs.Options{Rings: way})
			if way == volumefs.RingsOffered && !m.OnRings() {
				t.Skip("the kernel offers no FUSE over io_uring: echo Y > /sys/module/fuse/parameters/enable_uring")
			}
			for i, c := range conformance {
				t.Run(c.name, func(t *testing.T) {
					own := filepath.Join(dir, fmt.Sprint(i))
					ok(t, os.Mkdir(own, 0o755))
					c.test(t, own, v)
				})
			}
		})
	}
}

// closed says why an ordinary user cannot mount here; "" when he can.
func closed(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("fusermount3"); err != nil {
		return "fusermount3 is not installed"
	}
	st, err := os.Stat("/dev/fuse")
	if err != nil || st.Mode().Perm()&0o006 != 0o006 {
		return "/dev/fuse is closed to ordinary users"
	}
	return ""
}

func requireMount(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		if why := closed(t); why != "" {
			t.Skip(why)
		}
	}
}

// TestAsOrdinaryUser runs the whole test binary again as an ordinary user.
func TestAsOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the tests run as an ordinary user already")
	}
	const nobody = 65534
	home := must[string](t)(os.MkdirTemp("", "tarn-fs-user-"))
	t.Cleanup(func() { os.RemoveAll(home) })
	ok(t, os.Chown(home, nobody, nobody))
	self := filepath.Join(home, "volumefs.test")
	ok(t, os.WriteFile(self, must[[]byte](t)(os.ReadFile(must[string](t)(os.Executable()))), 0o755))
	cmd := exec.CommandContext(t.Context(), self, "-test.v", "-test.timeout=2m")
	cmd.Dir = home
	cmd.Env = append(os.Environ(), "TMPDIR="+home, "HOME="+home)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if left := mountsBelow(t, home); left != "" {
		t.Errorf("left mounted: %s", left)
	}
	if why := closed(t); why != "" {
		t.Skip("only the refusal was tested: " + why)
	}
	if !bytes.Contains(out, []byte("--- PASS: TestConformance")) {
		t.Errorf("the conformance tests did not run:\n%s", out)
	}
}

func TestWithoutFUSE(t *testing.T) {
	if os.Geteuid() == 0 || closed(t) == "" {
		t.Skip("FUSE is there")
	}
	_, err := volumefs.Mount(t.Context(), t.TempDir(), newMemory(0, 0), volumefs.Options{})
	if tarn.KindOf(err) != tarn.KindUnavailable || tarn.HintOf(err) == "" {
		t.Errorf("kind %v, hint %q: %v", tarn.KindOf(err), tarn.HintOf(err), err)
	}
}

func mountsBelow(t *testing.T, dir string) string {
	t.Helper()
	var below []string
	for line := range strings.Lines(string(must[[]byte](t)(os.ReadFile("/proc/self/mounts")))) {
		if strings.Contains(line, " "+dir) {
			below = append(below, line)
		}
	}
	return strings.Join(below, "")
}

func TestMountedOnlyOnce(t *testing.T) {
	requireMount(t)
	dir := place(t)
	mount(t, dir, newMemory(0, 0), volumefs.Options{})
	if _, err := volumefs.Mount(t.Context(), dir, newMemory(0, 0), volumefs.Options{}); tarn.KindOf(err) != tarn.KindConflict {
		t.Errorf("a second mount: %v", err)
	}
	if err := volumefs.UnmountStale(dir); tarn.KindOf(err) != tarn.KindConflict {
		t.Errorf("a live mount taken for a dead one: %v", err)
	}
}

func TestUnmountWaitsForUsers(t *testing.T) {
	requireMount(t)
	dir := place(t)
	v := newMemory(uint32(os.Geteuid()), uint32(os.Getegid()))
	m := mount(t, dir, v, volumefs.Options{})
	f := create(t, filepath.Join(dir, "f"), []byte("x"))
	ok(t, os.Remove(filepath.Join(dir, "f")))
	unmounted := make(chan error, 1)
	go func() { unmounted <- m.Unmount(context.Background()) }()
	// Still usable, since it is in use.
	for range 100 {
		must[int](t)(f.WriteAt([]byte("y"), 0))
	}
	select {
	case err := <-unmounted:
		t.Fatalf("unmounted under an open file: %v", err)
	default:
	}
	ok(t, f.Close())
	ok(t, <-unmounted)
	<-m.Done()
	ok(t, m.Unmount(t.Context())) // again: nothing to do
	if n := v.count(); n != 1 {
		t.Errorf("%d files in the volume, want the root: the kernel's references were not taken back", n)
	}
	if left := mountsBelow(t, dir); left != "" {
		t.Errorf("left mounted: %s", left)
	}
}

func TestUnmountByForce(t *testing.T) {
	requireMount(t)
	dir := place(t)
	m := mount(t, dir, newMemory(uint32(os.Geteuid()), uint32(os.Getegid())), volumefs.Options{})
	f := create(t, filepath.Join(dir, "f"), []byte("x"))
	if connections, _ := os.ReadDir("/sys/fs/fuse/connections"); len(connections) == 0 && os.Geteuid() != 0 {
		ok(t, f.Close())
		t.Skip("not root, and fusectl is not mounted")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	ok(t, m.Unmount(ctx))
	select {
	case <-m.Done():
	default:
		t.Error("unmounted, but requests may still come")
	}
	if _, err := f.WriteAt([]byte("y"), 0); err == nil {
		t.Error("a file of a mount that is gone was written")
	}
	if left := mountsBelow(t, dir); left != "" {
		t.Errorf("left mounted: %s", left)
	}
}

func TestDoneWhenSomebodyElseUnmounts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root unmounts without fusermount3")
	}
	dir := place(t)
	m := mount(t, dir, newMemory(0, 0), volumefs.Options{})
	ok(t, unix.Unmount(dir, 0))
	<-m.Done()
	ok(t, m.Unmount(t.Context()))
}

func TestReadAhead(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root sets it")
	}
	dir := place(t)
	mount(t, dir, newMemory(0, 0), volumefs.Options{ReadAheadKB: 512})
	var st unix.Stat_t
	ok(t, unix.Stat(dir, &st))
	path := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", unix.Major(st.Dev), unix.Minor(st.Dev))
	if got := strings.TrimSpace(string(must[[]byte](t)(os.ReadFile(path)))); got != "512" {
		t.Errorf("%s KB", got)
	}
}

func TestErrorsAreLoggedOnce(t *testing.T) {
	requireMount(t)
	var log bytes.Buffer
	dir := place(t)
	v := newMemory(uint32(os.Geteuid()), uint32(os.Getegid()))
	m := mount(t, dir, v, volumefs.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	f := create(t, filepath.Join(dir, "f"), []byte("x"))
	v.failWith(fmt.Errorf("a page is damaged"))
	for range 5 {
		_, err := f.WriteAt([]byte("y"), 0)
		want(t, err, unix.EIO)
	}
	v.failWith(fmt.Errorf("append: %w", unix.ENOSPC))
	_, err := f.WriteAt([]byte("y"), 0)
	want(t, err, unix.ENOSPC)
	ok(t, f.Close())
	ok(t, m.Unmount(t.Context()))
	if got := log.String(); strings.Count(got, "a page is damaged") != 1 || strings.Contains(got, "append") {
		t.Errorf("log:\n%s", got)
	}
}

// mounter is the environment variable that makes this test binary mount and
// wait to be killed.
const mounter = "TARN_TEST_MOUNT_AT"

func TestMain(m *testing.M) {
	dir, child := os.LookupEnv(mounter)
	if !child {
		os.Exit(m.Run())
	}
	d, err := volumefs.Mount(context.Background(), dir, newMemory(uint32(os.Geteuid()), uint32(os.Getegid())), volumefs.Options{})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	// A child that holds no descriptor of the device must not keep the mount
	// alive after us.
	sleep := exec.Command("sleep", "1000")
	if err := sleep.Start(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("mounted", sleep.Process.Pid)
	<-d.Done()
}

func TestUnmountStale(t *testing.T) {
	requireMount(t)
	dir := place(t)
	ok(t, volumefs.UnmountStale(dir)) // nothing there
	ok(t, volumefs.UnmountStale(filepath.Join(dir, "missing")))
	cmd := exec.Command(must[string](t)(os.Executable()))
	cmd.Env = append(os.Environ(), mounter+"="+dir)
	out := must[interface{ Read([]byte) (int, error) }](t)(cmd.StdoutPipe())
	ok(t, cmd.Start())
	var sleeper int
	line, err := bufio.NewReader(out).ReadString('\n')
	if _, serr := fmt.Sscanf(line, "mounted %d", &sleeper); serr != nil {
		t.Errorf("%q: %v %v", line, err, serr)
	}
	if sleeper > 0 {
		t.Cleanup(func() { syscall.Kill(sleeper, syscall.SIGKILL) })
	}
	ok(t, os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o600))
	f := must[*os.File](t)(os.Open(filepath.Join(dir, "f")))
	defer f.Close()
	ok(t, cmd.Process.Kill())
	cmd.Wait()
	// Dead at once, although the process's child lives on.
	var st unix.Statfs_t
	await(t, "the mount is dead", func() bool { return unix.Statfs(dir, &st) == unix.ENOTCONN })
	if _, err := volumefs.Mount(t.Context(), dir, newMemory(0, 0), volumefs.Options{}); tarn.KindOf(err) != tarn.KindConflict {
		t.Errorf("mount over a dead mount: %v", err)
	}
	ok(t, volumefs.UnmountStale(dir)) // a file is still open
	if left := mountsBelow(t, dir); left != "" {
		t.Errorf("left mounted: %s", left)
	}
	mount(t, dir, newMemory(uint32(os.Geteuid()), uint32(os.Getegid())), volumefs.Options{})
}
