package volumefs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
	"github.com/tarndb/tarn/internal/volumefs"
)

// onRings mounts v over io_uring, or skips.
func onRings(t *testing.T, v volumefs.Volume) (string, *volumefs.Directory) {
	t.Helper()
	requireMount(t)
	dir := place(t)
	m := mount(t, dir, v, volumefs.Options{Rings: volumefs.RingsOffered})
	if !m.OnRings() {
		t.Skip("the kernel offers no FUSE over io_uring: echo Y > /sys/module/fuse/parameters/enable_uring")
	}
	return dir, m
}

// A mount on rings cannot be handed over, says so, and serves on.
func TestRingsStay(t *testing.T) {
	dir, m := onRings(t, newMemory(uint32(os.Geteuid()), uint32(os.Getegid())))
	if _, err := m.HandOver(t.Context()); tarn.KindOf(err) != tarn.KindConflict {
		t.Errorf("handed over: %v", err)
	}
	create(t, filepath.Join(dir, "f"), []byte("x"))
	content(t, filepath.Join(dir, "f"), []byte("x"))
}

// Requests that wait for a disk leave their processors' threads to others.
func TestWaitingRequestsLeaveRings(t *testing.T) {
	const each = 20
	v := &slow{memory: newMemory(uint32(os.Geteuid()), uint32(os.Getegid())), gate: make(chan struct{})}
	for i := range each {
		a := must[layer.Attr](t)(v.Create(layer.RootIno, fmt.Sprint(i), layer.NewFile{Mode: 0o100644}))
		must[int](t)(v.WriteAt(a.Ino, []byte("written before"), 0))
	}
	dir, _ := onRings(t, v)
	v.waiting.Add(each)
	var ask sync.WaitGroup
	for i := range each {
		ask.Go(func() {
			if b, err := os.ReadFile(filepath.Join(dir, fmt.Sprint(i))); err != nil || string(b) != "written before" {
				t.Errorf("%q %v", b, err)
			}
		})
	}
	v.waiting.Wait()
	ok(t, create(t, filepath.Join(dir, "new"), []byte("x")).Close())
	ok(t, os.Remove(filepath.Join(dir, "new")))
	close(v.gate)
	ask.Wait()
}
