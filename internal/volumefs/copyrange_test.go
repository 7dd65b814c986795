package volumefs_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn/internal/layer"
	"github.com/tarndb/tarn/internal/volumefs"
)

// copying is a volume that copies by itself.
type copying struct {
	*memory
	copies []uint64 // bytes asked for; guarded by memory.mu
}

func (c *copying) CopyRange(src layer.Ino, srcOff uint64, dst layer.Ino, dstOff, n uint64) (uint64, error) {
	b := make([]byte, n)
	k, err := c.ReadAt(src, b, srcOff)
	if err == nil {
		k, err = c.WriteAt(dst, b[:k], dstOff)
	}
	c.mu.Lock()
	c.copies = append(c.copies, n)
	c.mu.Unlock()
	return uint64(k), err
}

var _ volumefs.CopyRanger = (*copying)(nil)

// A copy within a volume that can copy moves no data through the mount, and
// shows nothing stale afterwards.
func TestCopyRange(t *testing.T) {
	requireMount(t)
	v := &copying{memory: newMemory(uint32(os.Geteuid()), uint32(os.Getegid()))}
	dir := place(t)
	mount(t, dir, v, volumefs.Options{})
	data := noise(5*layer.PageSize + 100)
	src := create(t, filepath.Join(dir, "src"), data)
	dst := create(t, filepath.Join(dir, "dst"), bytes.Repeat([]byte("x"), 3*layer.PageSize))
	content(t, filepath.Join(dir, "dst"), bytes.Repeat([]byte("x"), 3*layer.PageSize)) // now cached
	v.noted()
	from, to := int64(0), int64(layer.PageSize)
	n := must[int](t)(unix.CopyFileRange(int(src.Fd()), &from, int(dst.Fd()), &to, 1<<20, 0))
	if n != len(data) || from != int64(len(data)) {
		t.Errorf("copied %d bytes to position %d, want %d", n, from, len(data))
	}
	content(t, filepath.Join(dir, "dst"), append(bytes.Repeat([]byte("x"), layer.PageSize), data...))
	if n := must[int](t)(unix.CopyFileRange(int(src.Fd()), &from, int(dst.Fd()), &to, 1<<20, 0)); n != 0 {
		t.Errorf("copied %d bytes from the end", n)
	}
	v.mu.Lock()
	copies := v.copies
	v.mu.Unlock()
	if len(copies) != 1 || copies[0] != uint64(len(data)) { // the kernel knows where src ends
		t.Errorf("copies asked of the volume: %v", copies)
	}
	if writes, _ := v.noted(); len(writes) != 1 {
		t.Errorf("%d writes, want the copy's own", len(writes))
	}
	// Within one file, over itself.
	from, to = 0, layer.PageSize
	_, err := unix.CopyFileRange(int(src.Fd()), &from, int(src.Fd()), &to, 2*layer.PageSize, 0)
	want(t, err, unix.EINVAL)
	v.failWith(unix.ENOSPC)
	from, to = 0, 0
	_, err = unix.CopyFileRange(int(src.Fd()), &from, int(dst.Fd()), &to, layer.PageSize, 0)
	want(t, err, unix.ENOSPC)
	v.failWith(nil)
}
