// Package s3test gives tests of any room a real S3 server: versitygw on a
// loopback port, with buckets in a temporary directory, which ends with the test.
// It knows how that server is started; it knows nothing of what is tested.
package s3test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/blob/s3"
)

// Server is a running S3 server. Its names and keys are those of its one
// account.
type Server struct {
	Endpoint  string // http://127.0.0.1:port
	Region    string
	AccessKey string
	SecretKey tarn.Secret
	Dir       string // a bucket is a directory here, an object a file in it

	stores atomic.Int64 // made by Store
	cmd    *exec.Cmd
	ended  chan struct{} // closed when the process is gone
	out    *output
}

// The bucket every server has from the beginning.
const Bucket = "tarn-test"

const (
	startTime = time.Minute
	portTries = 5 // another process may take the port between us and the server
)

// Start starts a server that ends with the test, and at the latest with the
// test's process.
func Start(t testing.TB) *Server {
	t.Helper()
	program := find(t)
	buckets := scratch(t, filepath.Dir(program))
	if err := os.Mkdir(filepath.Join(buckets, Bucket), 0o755); err != nil {
		t.Fatal(err)
	}
	return start(t, program, buckets)
}

// scratch makes a directory whose file system has extended attributes, where the
// server keeps ETags: in the usual place, or beside the program. (The server's
// other way, --sidecar, changes bytes and ETag in two steps, so that a swap can
// win against bytes it has not seen: TestConformance fails with it.)
func scratch(t testing.TB, beside string) string {
	t.Helper()
	for _, parent := range []string{"", beside} {
		dir, err := os.MkdirTemp(parent, "tarn-s3-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.RemoveAll(dir); err != nil {
				t.Errorf("remove %s: %v", dir, err)
			}
		})
		err = unix.Setxattr(dir, "user.tarn", []byte("x"), 0)
		if err == nil {
			return dir
		}
		if !errors.Is(err, unix.ENOTSUP) {
			t.Fatalf("set an extended attribute on %s: %v", dir, err)
		}
	}
	t.Fatalf("neither %s nor %s has extended attributes, which the S3 server of the tests needs: set TMPDIR to a directory on ext4, xfs, btrfs or a tmpfs of Linux 6.6 or later", os.TempDir(), beside)
	return ""
}

func start(t testing.TB, program, buckets string) *Server {
	t.Helper()
	for try := 1; ; try++ {
		s := &Server{
			Region: "us-east-1", AccessKey: "tarn", SecretKey: "tarn-secret", Dir: buckets,
			ended: make(chan struct{}), out: &output{},
		}
		addr := freeAddr(t)
		s.Endpoint = "http://" + addr
		s.cmd = exec.Command(program, "--port", addr, "--region", s.Region,
			"--health", health, "--keep-alive", "--quiet", "posix", buckets)
		s.cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+s.AccessKey, "ROOT_SECRET_KEY="+s.SecretKey.Reveal())
		s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
		s.cmd.Dir = buckets
		s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := s.cmd.Start(); err != nil {
			t.Fatalf("start S3 server: %v", err)
		}
		go func() {
			s.cmd.Wait() // Stop waits for it; how it ended says the output
			close(s.ended)
		}()
		t.Cleanup(s.Stop)
		if s.ready(t) {
			return s
		}
		s.Stop()
		if try == portTries {
			t.Fatalf("S3 server %s does not start: %s", program, s.out)
		}
	}
}

const health = "/health"

// ready waits for the server to answer; false when it ended instead.
func (s *Server) ready(t testing.TB) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTime)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Endpoint+health, nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp, err := client.Do(req); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return true
			}
		}
		select {
		case <-s.ended:
			return false
		case <-ctx.Done():
			t.Fatalf("S3 server does not answer at %s: %s", s.Endpoint, s.out)
		case <-tick.C:
		}
	}
}

// Stop kills the server and waits for its end. It may be called again.
func (s *Server) Stop() {
	s.cmd.Process.Kill() // fails only when it has ended
	<-s.ended
}

// Pause stops the server in the middle of whatever it does, so that nothing is
// answered, until what it returns is called, or the test ends.
func (s *Server) Pause(t testing.TB) (resume func()) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatalf("pause S3 server: %v", err)
	}
	resume = func() {
		if err := s.cmd.Process.Signal(syscall.SIGCONT); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("resume S3 server: %v", err)
		}
	}
	t.Cleanup(resume)
	return resume
}

// Options are those of a store in the server's bucket under prefix.
func (s *Server) Options(prefix string) s3.Options {
	return s3.Options{
		Bucket: Bucket, Prefix: prefix, Endpoint: s.Endpoint, Region: s.Region,
		AccessKey: s.AccessKey, SecretKey: s.SecretKey,
	}
}

// Env is what a program needs in its environment to reach the server through
// AWS's standard chain.
func (s *Server) Env() []string {
	return []string{
		"AWS_ENDPOINT_URL=" + s.Endpoint, "AWS_REGION=" + s.Region,
		"AWS_ACCESS_KEY_ID=" + s.AccessKey, "AWS_SECRET_ACCESS_KEY=" + s.SecretKey.Reveal(),
	}
}

// Store gives a new, empty store on the server.
func (s *Server) Store(t testing.TB) *s3.Store {
	t.Helper()
	return s.Open(t, s.Options(fmt.Sprintf("store/%d", s.stores.Add(1))))
}

// Open opens a store and closes it after the test.
func (s *Server) Open(t testing.TB, o s3.Options) *s3.Store {
	t.Helper()
	store, err := s3.Open(t.Context(), o)
	if err != nil {
		t.Fatalf("%v (%s)", err, tarn.HintOf(err))
	}
	t.Cleanup(func() { store.Close() })
	return store
}

// Store gives a new, empty store on a server of its own.
func Store(t testing.TB) blob.Store {
	t.Helper()
	return Start(t).Store(t)
}

// find gives the server's program: built by scripts/setup.sh test, or on PATH.
func find(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
			continue
		}
		if p := filepath.Join(dir, "build", "bin", "versitygw"); executable(p) {
			return p
		}
	}
	p, err := exec.LookPath("versitygw")
	if err != nil {
		t.Fatal("there is no versitygw, the S3 server of the tests: run scripts/setup.sh test")
	}
	return p
}

func executable(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0
}

func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
}

// output keeps the end of what the server prints.
type output struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.b.Len() > 64<<10 {
		o.b.Reset()
	}
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}
