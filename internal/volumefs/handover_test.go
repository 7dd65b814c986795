package volumefs_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn/internal/volumefs"
)

// pass hands a mount over to a new server.
func pass(t *testing.T, m *volumefs.Directory, v volumefs.Volume) *volumefs.Directory {
	t.Helper()
	h := must[volumefs.Handover](t)(m.HandOver(t.Context()))
	return adopt(t, m.Dir(), h, v)
}

func adopt(t *testing.T, dir string, h volumefs.Handover, v volumefs.Volume) *volumefs.Directory {
	t.Helper()
	// It passes through a file, or the environment of a process.
	var arrived volumefs.Handover
	ok(t, json.Unmarshal(must[[]byte](t)(json.Marshal(h)), &arrived))
	m, err := volumefs.Adopt(t.Context(), dir, arrived, v, volumefs.Options{})
	if err != nil {
		_ = volumefs.UnmountStale(dir)
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Unmount(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return m
}

// Whoever uses a mount does not notice that its server changes.
func TestHandOverUnderLoad(t *testing.T) {
	requireMount(t)
	v := newMemory(uint32(os.Geteuid()), uint32(os.Getegid()))
	dir := place(t)
	m := mount(t, dir, v, volumefs.Options{})
	var stop atomic.Bool
	var rounds [4]atomic.Int64
	var work sync.WaitGroup
	for i := range rounds {
		own := filepath.Join(dir, fmt.Sprint(i))
		ok(t, os.Mkdir(own, 0o755))
		work.Go(func() {
			for !stop.Load() {
				n := rounds[i].Add(1)
				if err := useDirectory(own, n); err != nil {
					t.Errorf("round %d: %v", n, err)
					return
				}
			}
		})
	}
	for range 30 {
		was := rounds[0].Load()
		m = pass(t, m, v)
		await(t, "work after the handover", func() bool { return rounds[0].Load() > was || t.Failed() })
	}
	stop.Store(true)
	work.Wait()
	ok(t, m.Unmount(t.Context()))
	if n := v.count(); n != 1+len(rounds) {
		t.Errorf("%d files in the volume, want the root and %d directories", n, len(rounds))
	}
}

// useDirectory does something of every kind in a directory and leaves it empty.
func useDirectory(dir string, n int64) error {
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	f, err := os.OpenFile(a, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	page := bytes.Repeat([]byte{byte(n)}, 8192)
	for i := range int64(4) {
		if _, err := f.WriteAt(page, i*8192); err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(a, b); err != nil {
		return err
	}
	if err := os.Link(b, a); err != nil {
		return err
	}
	if err := os.Remove(a); err != nil {
		return err
	}
	if err := os.Remove(b); err != nil {
		return err
	}
	got := make([]byte, 4*8192)
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, bytes.Repeat(page, 4)) {
		return fmt.Errorf("the unlinked file holds something else: %v", err)
	}
	if err := os.Mkdir(a, 0o700); err != nil {
		return err
	}
	return os.Remove(a)
}

// A file that is open and has no name any more is one until it is closed.
func TestHandOverKeepsUnlinkedFiles(t *testing.T) {
	requireMount(t)
	v := newMemory(uint32(os.Geteuid()), uint32(os.Getegid()))
	dir := place(t)
	m := mount(t, dir, v, volumefs.Options{})
	f := create(t, filepath.Join(dir, "f"), []byte("before"))
	ok(t, os.Remove(f.Name()))
	m = pass(t, m, v)
	must[int](t)(f.WriteAt([]byte("behind"), 6))
	m = pass(t, m, v)
	b := make([]byte, 12)
	must[int](t)(f.ReadAt(b, 0))
	if string(b) != "beforebehind" {
		t.Errorf("%q", b)
	}
	if n := v.count(); n != 2 {
		t.Errorf("%d files in the volume, want the root and the open one", n)
	}
	ok(t, f.Close())
	await(t, "the file is forgotten", func() bool { return v.count() == 1 })
	ok(t, m.Unmount(t.Context()))
}

func TestHandOverOnce(t *testing.T) {
	requireMount(t)
	v := newMemory(uint32(os.Geteuid()), uint32(os.Getegid()))
	dir := place(t)
	m := mount(t, dir, v, volumefs.Options{})
	h := must[volumefs.Handover](t)(m.HandOver(t.Context()))
	<-m.Done()
	if _, err := m.HandOver(t.Context()); err == nil {
		t.Error("handed over twice")
	}
	ok(t, m.Unmount(t.Context())) // nothing: it is somebody else's
	second := adopt(t, dir, h, v)
	ok(t, os.WriteFile(filepath.Join(dir, "f"), nil, 0o600))
	ok(t, second.Unmount(t.Context()))
	if left := mountsBelow(t, dir); left != "" {
		t.Errorf("left mounted: %s", left)
	}
}

// Nobody takes it: the mount is dead, as after a crash.
func TestHandOverToNobody(t *testing.T) {
	requireMount(t)
	dir := place(t)
	m := mount(t, dir, newMemory(0, 0), volumefs.Options{})
	h := must[volumefs.Handover](t)(m.HandOver(t.Context()))
	ok(t, h.Close())
	var st unix.Statfs_t
	await(t, "the mount is dead", func() bool { return unix.Statfs(dir, &st) == unix.ENOTCONN })
	ok(t, volumefs.UnmountStale(dir))
}

// A killed server has read requests and not answered them. The next one gets
// them again and answers as the first would have, whether they were done or not.
func TestLostRequests(t *testing.T) {
	requireMount(t)
	const create, mkdir, symlink, unlink, rmdir, rename2, rename, link, write, setattr = 35, 9, 6, 10, 11, 45, 12, 13, 16, 4
	for _, c := range []struct {
		name  string
		ops   []uint32
		do    func(dir string) error
		check func(dir string) error
	}{
		{"create", []uint32{create}, func(dir string) error {
			f, err := os.OpenFile(filepath.Join(dir, "new"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if err != nil {
				return err
			}
			return f.Close()
		}, exists("new")},
		{"mkdir", []uint32{mkdir}, func(dir string) error { return os.Mkdir(filepath.Join(dir, "new"), 0o700) }, exists("new")},
		{"symlink", []uint32{symlink}, func(dir string) error { return os.Symlink("x", filepath.Join(dir, "new")) }, links("new", "x")},
		{"unlink", []uint32{unlink}, func(dir string) error { return unix.Unlink(filepath.Join(dir, "file")) }, missing("file")},
		{"rmdir", []uint32{rmdir}, func(dir string) error { return unix.Rmdir(filepath.Join(dir, "dir")) }, missing("dir")},
		{"rename", []uint32{rename, rename2}, func(dir string) error {
			return os.Rename(filepath.Join(dir, "file"), filepath.Join(dir, "other"))
		}, holds("other", "file")},
		{"link", []uint32{link}, func(dir string) error {
			return os.Link(filepath.Join(dir, "file"), filepath.Join(dir, "new"))
		}, holds("new", "file")},
		{"write", []uint32{write}, func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "file"), []byte("more than before"), 0o600)
		}, holds("file", "more than before")},
		{"truncate", []uint32{setattr}, func(dir string) error { return os.Truncate(filepath.Join(dir, "file"), 2) }, holds("file", "fi")},
	} {
		for how, fate := range map[string]volumefs.Fate{"undone": volumefs.LostUndone, "done": volumefs.LostWhenDone} {
			t.Run(c.name+"/"+how, func(t *testing.T) {
				v := newMemory(uint32(os.Geteuid()), uint32(os.Getegid()))
				root := place(t)
				var losing atomic.Bool
				server, err := volumefs.Forget(t.Context(), root, v, func(op uint32) volumefs.Fate {
					for _, o := range c.ops {
						if losing.Load() && o == op {
							return fate
						}
					}
					return volumefs.Answered
				})
				if err != nil {
					t.Fatal(err)
				}
				// Not the root: the directory of a lost request is locked.
				dir := filepath.Join(root, "inside")
				ok(t, os.Mkdir(dir, 0o700))
				ok(t, os.WriteFile(filepath.Join(dir, "file"), []byte("file"), 0o600))
				ok(t, os.WriteFile(filepath.Join(dir, "other"), []byte("other"), 0o600))
				ok(t, os.Mkdir(filepath.Join(dir, "dir"), 0o700))
				losing.Store(true)
				answer := make(chan error, 1)
				go func() { answer <- c.do(dir) }()
				<-server.Lost
				h := must[volumefs.Handover](t)(server.Kill())
				if !h.Resends() {
					ok(t, h.Close()) // whoever waits gets an error
					<-answer
					ok(t, volumefs.UnmountStale(root))
					t.Skip("the kernel sends nothing again")
				}
				m := adopt(t, root, h, v)
				ok(t, <-answer)
				ok(t, c.check(dir))
				ok(t, m.Unmount(t.Context()))
			})
		}
	}
}

func exists(name string) func(string) error {
	return func(dir string) error {
		_, err := os.Lstat(filepath.Join(dir, name))
		return err
	}
}

func missing(name string) func(string) error {
	return func(dir string) error {
		if _, err := os.Lstat(filepath.Join(dir, name)); !os.IsNotExist(err) {
			return fmt.Errorf("%s: %v", name, err)
		}
		return nil
	}
}

func holds(name, text string) func(string) error {
	return func(dir string) error {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil && string(b) != text {
			err = fmt.Errorf("%s holds %q", name, b)
		}
		return err
	}
}

func links(name, target string) func(string) error {
	return func(dir string) error {
		at, err := os.Readlink(filepath.Join(dir, name))
		if err == nil && at != target {
			err = fmt.Errorf("%s points to %q", name, at)
		}
		return err
	}
}

// A server that does not know what an earlier one gave out forgets no file
// before the mount ends, and says so to the next.
func TestLostReferences(t *testing.T) {
	requireMount(t)
	v := newMemory(uint32(os.Geteuid()), uint32(os.Getegid()))
	dir := place(t)
	server, err := volumefs.Forget(t.Context(), dir, v, func(uint32) volumefs.Fate { return volumefs.Answered })
	if err != nil {
		t.Fatal(err)
	}
	f := create(t, filepath.Join(dir, "f"), []byte("x"))
	ok(t, os.Remove(f.Name()))
	m := adopt(t, dir, must[volumefs.Handover](t)(server.Kill()), v)
	must[int](t)(f.WriteAt([]byte("y"), 0))
	ok(t, f.Close())
	ok(t, os.WriteFile(filepath.Join(dir, "g"), nil, 0o600))
	ok(t, os.Remove(filepath.Join(dir, "g")))
	h := must[volumefs.Handover](t)(m.HandOver(t.Context()))
	if _, known := h.Held(); known {
		t.Error("lost references are said to be known")
	}
	ok(t, adopt(t, dir, h, v).Unmount(t.Context()))
}

// A request that is never answered keeps a mount from being handed over; it can
// only be ended.
func TestHandOverOfStuck(t *testing.T) {
	requireMount(t)
	v := &slow{memory: newMemory(uint32(os.Geteuid()), uint32(os.Getegid())), gate: make(chan struct{})}
	dir := place(t)
	m := mount(t, dir, v, volumefs.Options{})
	f := create(t, filepath.Join(dir, "f"), []byte("x"))
	v.waiting.Add(1)
	synced := make(chan error, 1)
	go func() { synced <- f.Sync() }()
	v.waiting.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if h, err := m.HandOver(ctx); err == nil {
		t.Errorf("handed over %+v", h)
	}
	close(v.gate) // the volume answers after all; the mount stays given up
	ok(t, <-synced)
	ok(t, f.Close())
	ok(t, m.Unmount(t.Context()))
	if left := mountsBelow(t, dir); left != "" {
		t.Errorf("left mounted: %s", left)
	}
}
