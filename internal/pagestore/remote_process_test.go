package pagestore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/blob/dir"
	blobopen "github.com/tarndb/tarn/internal/blob/open"
	"github.com/tarndb/tarn/internal/blob/s3/s3test"
	"github.com/tarndb/tarn/internal/layer"
)

// A test process with nodeEnv is a node that does what is written to its
// standard input, and answers every line: "ok", or "error" and which.
const nodeEnv = "TARN_TEST_NODE" // directory and bucket, separated by a space

const processLease = 2 * time.Second

func TestMain(m *testing.M) {
	if where := os.Getenv(nodeEnv); where != "" {
		at, bucket, _ := strings.Cut(where, " ")
		if err := nodeProcess(at, bucket); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func processOptions(b blob.Store) Options {
	return Options{SegmentBytes: 64 << 10, MapBytes: 128 << 10, Remote: Remote{Store: b, Lease: processLease, SealEvery: time.Hour}}
}

func nodeProcess(at, bucket string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	b, err := blobopen.Store(ctx, bucket, blobopen.Options{})
	if err != nil {
		return err
	}
	s, err := Open(ctx, at, processOptions(b))
	if err != nil {
		return err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	defer func() {
		cancel()
		<-done
		s.Close()
	}()
	var v *Volume
	var ino layer.Ino
	fmt.Println("ok")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		err := nodeDoes(ctx, s, &v, &ino, in.Text())
		switch {
		case err == nil:
			fmt.Println("ok")
		case errors.Is(err, syscall.EIO):
			fmt.Println("error EIO", strings.ReplaceAll(err.Error(), "\n", " "))
		default:
			fmt.Println("error", strings.ReplaceAll(err.Error(), "\n", " "))
		}
	}
	return nil
}

func nodeDoes(ctx context.Context, s *Store, v **Volume, ino *layer.Ino, what string) (err error) {
	switch what {
	case "create":
		return s.Create(ctx, lineA, worldRoot)
	case "open":
		if *v, err = s.OpenVolume(ctx, lineA); err != nil {
			return err
		}
		a, err := (*v).Create(layer.RootIno, "f", layer.NewFile{Mode: syscall.S_IFREG | 0o600})
		*ino = a.Ino
		return err
	case "write":
		for i := range 20 {
			if _, err := (*v).WriteAt(*ino, page(1+i), uint64(i)*layer.PageSize); err != nil {
				return err
			}
		}
		return nil
	case "sync":
		return (*v).Sync()
	case "upload":
		return s.Upload(ctx, lineA)
	case "lost":
		select {
		case <-(*v).Lost():
			return nil
		case <-time.After(10 * processLease):
			return errors.New("the volume is not lost")
		}
	}
	return fmt.Errorf("no such order: %q", what)
}

// nodeOf is a node in another process.
type nodeOf struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.Writer
	out *bufio.Scanner
}

func startNode(t *testing.T, at, bucket string, env []string) *nodeOf {
	t.Helper()
	n := &nodeOf{t: t, cmd: exec.Command(os.Args[0])}
	n.cmd.Env = append(append(os.Environ(), env...), nodeEnv+"="+at+" "+bucket)
	n.cmd.Stderr = os.Stderr
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := n.cmd.StdinPipe()
	must(t, err)
	out, err := n.cmd.StdoutPipe()
	must(t, err)
	n.in, n.out = in, bufio.NewScanner(out)
	must(t, n.cmd.Start())
	t.Cleanup(func() {
		n.cmd.Process.Kill()
		n.cmd.Wait()
	})
	n.answer("ok")
	return n
}

func (n *nodeOf) answer(want string) {
	n.t.Helper()
	if !n.out.Scan() {
		n.t.Fatalf("the node ended: %v", n.out.Err())
	}
	if got := n.out.Text(); !strings.HasPrefix(got, want) {
		n.t.Fatalf("the node said %q, want %q", got, want)
	}
}

func (n *nodeOf) order(what, want string) {
	n.t.Helper()
	if _, err := fmt.Fprintln(n.in, what); err != nil {
		n.t.Fatal(err)
	}
	n.answer(want)
}

// A node is paused, another takes its timeline and writes, and the first goes
// on: it changes nothing any more.
func TestPausedNodeIsStale(t *testing.T) {
	t.Run("dir", func(t *testing.T) {
		at := t.TempDir()
		b, err := dir.Open(at)
		must(t, err)
		pausedNode(t, b, at, nil)
	})
	t.Run("s3", func(t *testing.T) {
		srv := s3test.Start(t)
		pausedNode(t, srv.Open(t, srv.Options("paused")), "s3://"+s3test.Bucket+"/paused", srv.Env())
	})
}

func pausedNode(t *testing.T, b blob.Store, bucket string, env []string) {
	ctx := context.Background()
	n := startNode(t, t.TempDir(), bucket, env)
	for _, what := range []string{"create", "open", "write", "sync", "upload", "write", "sync"} {
		n.order(what, "ok")
	}
	other, end := openRunning(t, t.TempDir(), processOptions(b))
	if _, err := other.OpenVolume(ctx, lineA); tarn.KindOf(err) != tarn.KindConflict {
		t.Fatalf("took a timeline from a node that is alive: %v", err)
	}
	must(t, n.cmd.Process.Signal(syscall.SIGSTOP))
	var v *Volume
	for v == nil {
		var err error
		if v, err = other.OpenVolume(ctx, lineA); err != nil && tarn.KindOf(err) != tarn.KindConflict {
			t.Fatal(err) // a conflict: a heartbeat of just before the pause was seen
		}
	}
	a, err := v.Lookup(layer.RootIno, "f")
	must(t, err)
	checkPagesOf(t, v, a.Ino, 0, 20, 1)
	writePages(t, v, a.Ino, 0, 30, 100)
	must(t, other.Upload(ctx, lineA))
	before := objectsOf(t, b)
	must(t, n.cmd.Process.Signal(syscall.SIGCONT))
	n.order("write", "error EIO")
	n.order("lost", "ok")
	n.order("write", "error EIO")
	n.order("sync", "error EIO")
	n.order("upload", "error")
	// An upload that the pause interrupted may have left an object of the epoch
	// that was taken, which no manifest lists.
	after := strings.Fields(objectsOf(t, b))
	for i := 0; i < len(after); i += 3 {
		if !strings.Contains(before, strings.Join(after[i:i+3], " ")) && !strings.HasSuffix(after[i], ".00000001") {
			t.Fatalf("the bucket changed from\n%s to\n%s", before, strings.Join(after, " "))
		}
	}
	if len(after) < len(strings.Fields(before)) {
		t.Fatalf("the bucket lost objects: from\n%s to\n%s", before, strings.Join(after, " "))
	}
	writePages(t, v, a.Ino, 0, 5, 200)
	must(t, v.Close())
	must(t, other.Upload(ctx, lineA))
	wholeStore(t, other)
	end()
	third, _ := openRunning(t, t.TempDir(), processOptions(b))
	v = takeVolume(t, third, lineA)
	checkPagesOf(t, v, a.Ino, 0, 5, 200)
	checkPagesOf(t, v, a.Ino, 5, 25, 100)
	wholeStore(t, third)
}
