package compute

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn/internal/postgres"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
)

// volumesEnv says on what kind of volumes the tests of this package run; without
// it on what the computer has, which is FUSE.
const volumesEnv = "TARN_TEST_VOLUMES"

// What is tested again on plain directories is what depends on how a timeline is
// kept: whatever makes, forks, shows, hands over or loses one. How its file system
// copies matters for forks alone, and what the versions of Postgres differ in is
// tested on the other kind: the newest will do.
const (
	onCopies = "^(TestCreateDatabaseFromTemplate|TestLife|TestFork.*|TestHandOver.*|TestKilled.*|TestRunEndsCleanly|TestCrashRestart" +
		"|TestPrune|TestTornCopy|TestDropSlots|TestHistoryIsTheTimelinesOwn|TestReplica|TestScratch)$"
	onReflinks = "^(TestCreateDatabaseFromTemplate|TestForkUnderLoad|TestForkAtPast|TestForkOfKilledParent|TestKilledWhileForking|TestTornCopy)$"
)

// TestOnDirectories runs tests of this package again, on plain directories
// that are copied byte by byte, and on some that are copied by reflink.
func TestOnDirectories(t *testing.T) {
	if os.Getenv(volumesEnv) != "" {
		t.Skip("only where no kind of volumes is asked for")
	}
	if testing.Short() {
		t.Skip("takes as long as all others")
	}
	t.Run("copy", func(t *testing.T) { runOn(t, pgtest.Dir(t), onCopies) })
	t.Run("reflink", func(t *testing.T) { runOn(t, reflinkDir(t), onReflinks) })
}

// runOn runs tests of this package in a process of its own, with dir for
// temporary files.
func runOn(t *testing.T, dir, tests string) {
	args := []string{"-test.run=" + tests, "-test.skip=^(TestOnDirectories|TestNodeToKill)$", "-test.count=1"}
	if testing.Verbose() {
		args = append(args, "-test.v")
	}
	if end, ok := t.Deadline(); ok {
		// So early that what it leaves can be cleared away.
		args = append(args, fmt.Sprintf("-test.timeout=%s", (time.Until(end)-30*time.Second).Round(time.Second)))
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), volumesEnv+"="+string(Directories), "TMPDIR="+dir, pgtest.NewestEnv+"=1")
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		t.Errorf("the tests on plain directories in %s: %v", dir, err)
		killIn(t, dir)
	}
}

// killIn kills the Postgres processes that work below dir, which a test process
// that died left.
func killIn(t *testing.T, dir string) {
	t.Helper()
	data, err := filepath.Glob(filepath.Join(dir, "*", "plain", "*", "data"))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range data {
		if err := postgres.KillOrphans(d, ""); err != nil {
			t.Error(err)
		}
	}
}

// reflinkDir is a directory on a file system that clones files: an image of xfs
// on a loop device, unmounted at the end.
func reflinkDir(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting an image needs root")
	}
	for _, program := range []string{"mkfs.xfs", "mount", "umount"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed (apt install xfsprogs mount)", program)
		}
	}
	dir := pgtest.Dir(t)
	image, place := filepath.Join(dir, "xfs"), filepath.Join(dir, "mnt")
	f, err := os.Create(image)
	if err == nil {
		err = errors.Join(f.Truncate(8<<30), f.Close()) // takes what is written
	}
	if err == nil {
		err = os.Mkdir(place, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "mkfs.xfs", "-q", "-m", "reflink=1", image).CombinedOutput(); err != nil {
		t.Fatalf("make an image of xfs: %v: %s", err, out)
	}
	// The loop device goes with its mount.
	if out, err := exec.CommandContext(t.Context(), "mount", "-o", "loop,discard", image, place).CombinedOutput(); err != nil {
		t.Skipf("an image cannot be mounted here: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(place, 0); err != nil {
			t.Errorf("unmount %s: %v", place, errors.Join(err, unix.Unmount(place, unix.MNT_DETACH)))
		}
	})
	return place
}
