package pagestore

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn/internal/layer"
)

// maxFileSize is what 32 bits of page numbers reach: 32 TiB.
const (
	maxPages    = uint64(1) << 32
	maxFileSize = uint64(layer.PageSize) * maxPages
)

// regular finds a regular file.
func (ix *index) regular(ino layer.Ino) (*node, error) {
	n := ix.inodes.get(ino)
	if n == nil {
		return nil, syscall.ENOENT
	}
	switch n.mode.Load() & unix.S_IFMT {
	case unix.S_IFREG:
		return n, nil
	case unix.S_IFDIR:
		return nil, syscall.EISDIR
	}
	return nil, syscall.EINVAL
}

// ReadAt reads a file; it is short at its end. It waits for no writer.
func (v *Volume) ReadAt(ino layer.Ino, p []byte, off uint64) (int, error) {
	n, err := v.ix.regular(ino)
	if err == nil && v.closed.Load() {
		err = errClosed
	}
	if err != nil {
		return 0, &fileError{"read", ino, "", err}
	}
	size := n.size.Load()
	if off >= size {
		return 0, nil
	}
	p = p[:min(uint64(len(p)), size-off)]
	if err := v.contents.read(n, p, off); err != nil {
		return 0, &fileError{"read", ino, "", err}
	}
	return len(p), nil
}

// WriteAt writes to a file; every whole page is written atomically. With an
// error the bytes counted are written.
func (v *Volume) WriteAt(ino layer.Ino, p []byte, off uint64) (int, error) {
	if off+uint64(len(p)) > maxFileSize || off > maxFileSize {
		return 0, &fileError{"write", ino, "", syscall.EFBIG}
	}
	if err := v.enter(); err != nil {
		return 0, &fileError{"write", ino, "", err}
	}
	n, err := v.ix.regular(ino)
	if err != nil {
		v.freeze.RUnlock()
		return 0, &fileError{"write", ino, "", err}
	}
	n.write.Lock()
	done, err := v.contents.write(n, p, off)
	n.write.Unlock()
	v.log.writeBehind()
	v.freeze.RUnlock()
	if err != nil {
		return done, &fileError{"write", ino, "", err}
	}
	return done, nil
}

// Allocate makes the file reach at least to off+n. The space itself is the
// log's concern: a page takes it when it is written.
func (v *Volume) Allocate(ino layer.Ino, off, n uint64) error {
	if off > maxFileSize || n > maxFileSize-off {
		return &fileError{"allocate", ino, "", syscall.EFBIG}
	}
	if err := v.enter(); err != nil {
		return &fileError{"allocate", ino, "", err}
	}
	defer v.freeze.RUnlock()
	f, err := v.ix.regular(ino)
	if err != nil {
		return &fileError{"allocate", ino, "", err}
	}
	f.write.Lock()
	defer f.write.Unlock()
	if off+n <= f.size.Load() {
		return nil
	}
	r := layer.Record{Kind: layer.KindSize, Ino: ino, Size: off + n, Time: time.Now().UnixNano()}
	if _, err := v.log.append(nil, &r); err != nil {
		return &fileError{"allocate", ino, "", err}
	}
	v.ix.applyData(f, &r, 0)
	return nil
}
