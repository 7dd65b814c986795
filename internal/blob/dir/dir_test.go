package dir_test

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/blob/blobtest"
	"github.com/tarndb/tarn/internal/blob/dir"
)

// TestMain makes the test binary its own second process: see TestProcesses.
func TestMain(m *testing.M) {
	if root := os.Getenv("TARN_DIR_TEST_INCREMENT"); root != "" {
		os.Exit(increment(root))
	}
	os.Exit(m.Run())
}

func open(t *testing.T) *dir.Store {
	s, err := dir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) {
	blobtest.Run(t, func(t *testing.T) blob.Store { return open(t) })
}

const increments = 30

func increment(root string) int {
	s, err := dir.Open(root)
	for done := 0; err == nil && done < increments; {
		err = blobtest.Increment(context.Background(), s, "n")
		if err == nil {
			done++
		} else if errors.Is(err, blob.ErrMismatch) {
			err = nil
		}
	}
	if err != nil {
		println(err.Error())
		return 1
	}
	return 0
}

// Compare-and-swap must hold between processes, not only between goroutines.
func TestProcesses(t *testing.T) {
	s := open(t)
	if err := s.Put(t.Context(), "n", strings.NewReader("0")); err != nil {
		t.Fatal(err)
	}
	const processes = 4
	var running []*exec.Cmd
	for range processes {
		c := exec.CommandContext(t.Context(), os.Args[0])
		c.Env = append(os.Environ(), "TARN_DIR_TEST_INCREMENT="+s.Root())
		c.Stderr = os.Stderr
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		running = append(running, c)
	}
	for _, c := range running {
		if err := c.Wait(); err != nil {
			t.Error(err)
		}
	}
	b, err := os.ReadFile(filepath.Join(s.Root(), "n"))
	if err != nil || string(b) != strconv.Itoa(processes*increments) {
		t.Errorf("counted %s, %v", b, err)
	}
}

func TestOpenNames(t *testing.T) {
	d := t.TempDir()
	for name, want := range map[string]string{
		d + "/a b":                           d + "/a b",
		"file://" + d + "/a%20b":             d + "/a b",
		"file://localhost" + d + "/made/now": d + "/made/now",
	} {
		s, err := dir.Open(name)
		if err != nil || s.Root() != want {
			t.Errorf("open %s: %v, %v", name, s, err)
			continue
		}
		again, err := dir.Open(s.URL())
		if err != nil || again.Root() != want {
			t.Errorf("open %s: %v, %v", s.URL(), again, err)
		}
	}
	for _, name := range []string{"", "s3://bucket/x", "file://elsewhere/x", "file:", "file:///x?y=1"} {
		if _, err := dir.Open(name); err == nil {
			t.Errorf("open %q is accepted", name)
		}
	}
	if err := os.WriteFile(d+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := dir.Open(d + "/file"); err == nil {
		t.Error("a file opens as a store")
	}
}

// What a crash in the middle of a write leaves is not seen.
func TestTemporaryFilesAreInvisible(t *testing.T) {
	s := open(t)
	if err := os.WriteFile(filepath.Join(s.Root(), ".tarn-123"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	for o, err := range s.List(t.Context(), "", "") {
		t.Errorf("listed %v, %v", o, err)
	}
	if _, err := s.Get(t.Context(), ".tarn-123", 0, -1); err == nil {
		t.Error("a temporary file can be read")
	}
	if err := s.Put(t.Context(), "a/k", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Join(s.Root(), "a"))
	if err != nil || len(entries) != 1 {
		t.Errorf("a holds %v, %v", entries, err)
	}
}

// A file replaced by another program with an equal size is another object.
func TestReplacedFromOutside(t *testing.T) {
	s := open(t)
	if err := s.Put(t.Context(), "k", strings.NewReader("one")); err != nil {
		t.Fatal(err)
	}
	o, err := s.Head(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.Root(), "other"), []byte("two"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(s.Root(), "other"), filepath.Join(s.Root(), "k")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutIfMatch(t.Context(), "k", o.ETag, []byte("mine")); !errors.Is(err, blob.ErrMismatch) {
		t.Errorf("swapped a foreign object: %v", err)
	}
	r, err := s.Get(t.Context(), "k", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, _ := io.ReadAll(r); string(b) != "two" {
		t.Errorf("k holds %q", b)
	}
}
