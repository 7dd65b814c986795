package cgroup_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/tarndb/tarn/internal/postgres/cgroup"
)

// tree is a place for groups on this computer; without one the test is skipped.
func tree(t *testing.T) *cgroup.Tree {
	t.Helper()
	tr, err := cgroup.Open(cgroup.Options{Name: "tarn-test-" + strconv.Itoa(os.Getpid())})
	if err != nil {
		t.Skipf("no control groups here: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := cgroup.Sweep(ctx, tr.Dirs(), func(string) bool { return false }); err != nil {
			t.Error(err)
		}
	})
	return tr
}

// TestMain is also the program that tests put into groups: it writes a line for
// each line it reads, after it has allocated as many bytes as that says.
func TestMain(m *testing.M) {
	if os.Getenv("TARN_TEST_ECHO") == "" {
		os.Exit(m.Run())
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		n, _ := strconv.Atoi(in.Text())
		b := bytes.Repeat([]byte{1}, n)
		os.Stdout.WriteString(strconv.Itoa(len(b)) + "\n")
	}
}

// echo is a process that answers.
type echo struct {
	cmd *exec.Cmd
	in  *os.File
	out *bufio.Reader
}

func start(t *testing.T) *echo {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "TARN_TEST_ECHO=1")
	in, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = in
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		w.Close()
	})
	return &echo{cmd: cmd, in: w, out: bufio.NewReader(out)}
}

// ask has the process allocate; answer waits for its line.
func (e *echo) ask(t *testing.T, bytes int) <-chan error {
	t.Helper()
	if _, err := e.in.WriteString(strconv.Itoa(bytes) + "\n"); err != nil {
		t.Fatal(err)
	}
	answer := make(chan error, 1)
	go func() {
		_, err := e.out.ReadString('\n')
		answer <- err
	}()
	return answer
}

func answered(t *testing.T, answer <-chan error) {
	t.Helper()
	select {
	case err := <-answer:
		if err != nil {
			t.Fatalf("the process did not answer: %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the process did not answer within a minute")
	}
}

func group(t *testing.T, tr *cgroup.Tree, name string, e *echo) *cgroup.Group {
	t.Helper()
	g, err := tr.Group(name)
	if err == nil {
		err = g.Add(e.cmd.Process.Pid)
	}
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestFreezeAndThaw(t *testing.T) {
	tr := tree(t)
	e := start(t)
	g := group(t, tr, "a", e)
	if pids, err := g.Processes(); err != nil || !slices.Contains(pids, e.cmd.Process.Pid) {
		t.Fatalf("processes %v, %v: want %d among them", pids, err, e.cmd.Process.Pid)
	}
	ctx := t.Context()
	for range 3 {
		answered(t, e.ask(t, 1))
		if err := g.Freeze(ctx); err != nil {
			t.Fatal(err)
		}
		answer := e.ask(t, 1)
		select {
		case <-answer:
			t.Fatal("a frozen process answered")
		case <-time.After(50 * time.Millisecond):
		}
		if err := g.Reclaim(); err != nil {
			t.Fatal(err)
		}
		if err := g.Thaw(ctx); err != nil {
			t.Fatal(err)
		}
		answered(t, answer)
	}
}

func TestLimits(t *testing.T) {
	tr := tree(t)
	e := start(t)
	g := group(t, tr, "a", e)
	if err := g.Limit(cgroup.Limits{MemoryBytes: 512 << 20, CPUs: 0.5}); err != nil {
		t.Fatal(err)
	}
	answered(t, e.ask(t, 100<<20))
	u, err := g.Usage()
	if err != nil {
		t.Fatal(err)
	}
	if u.Memory < 90<<20 || u.Fixed < 90<<20 || u.Working < u.Fixed/2 || u.CPU <= 0 {
		t.Fatalf("usage %+v of a process that holds 100 MB", u)
	}
	// A limit below what it holds is refused, and kills nobody.
	if err := g.Limit(cgroup.Limits{MemoryBytes: 32 << 20, CPUs: 1}); !errors.Is(err, cgroup.ErrInUse) {
		t.Fatalf("shrink below what is in use: %v, want ErrInUse", err)
	}
	answered(t, e.ask(t, 1))
	// More than the limit is the end of it, and counted.
	err = <-e.ask(t, 1<<30)
	if err == nil {
		t.Fatal("a process in a group of 512 MB allocated 1 GB")
	}
	if u, err := g.Usage(); err != nil || u.OOMKills != 1 {
		t.Fatalf("kills %d, %v: want 1", u.OOMKills, err)
	}
}

func TestClearKillsTheFrozen(t *testing.T) {
	tr := tree(t)
	e := start(t)
	g := group(t, tr, "a", e)
	kept := start(t)
	group(t, tr, "b", kept)
	if err := g.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := cgroup.Sweep(t.Context(), tr.Dirs(), func(name string) bool { return name == "b" }); err != nil {
		t.Fatal(err)
	}
	e.cmd.Wait() // it was killed
	answered(t, kept.ask(t, 1))
	for _, dir := range tr.Dirs() {
		if _, err := os.Stat(filepath.Join(dir, "a")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("group a is still in %s: %v", dir, err)
		}
		if _, err := os.Stat(filepath.Join(dir, "b")); err != nil {
			t.Error(err)
		}
	}
}

func TestNoPermission(t *testing.T) {
	_, err := cgroup.Open(cgroup.Options{Name: "x", Root: t.TempDir()})
	if err == nil {
		t.Fatal("groups in an empty directory")
	}
}

// A thread that enters a group has what it starts born there, is not killed with
// the group, and is home again afterwards.
func TestEnter(t *testing.T) {
	g, err := tree(t).Group("entered")
	if err != nil {
		t.Fatal(err)
	}
	if !g.Enters() {
		if _, err := g.Enter(); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("Enter of a group that has its threads together: %v", err)
		}
		return
	}
	runtime.LockOSThread()
	at := func() string {
		t.Helper()
		b, err := os.ReadFile("/proc/thread-self/cgroup")
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	home := at()
	leave, err := g.Enter()
	if err != nil {
		t.Fatal(err)
	}
	if at() == home {
		t.Error("the thread is where it was")
	}
	p := start(t)
	if err := leave(); err != nil {
		t.Fatal(err)
	}
	if now := at(); now != home {
		t.Errorf("back from the group the thread is in\n%s, want\n%s", now, home)
	}
	runtime.UnlockOSThread()
	in, err := g.Processes()
	if err != nil || !slices.Equal(in, []int{p.cmd.Process.Pid}) {
		t.Errorf("in the group are %v, %v, want %d", in, err, p.cmd.Process.Pid)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := g.Clear(ctx); err != nil {
		t.Error(err)
	}
}
