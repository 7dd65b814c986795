// Package volumefs shows a volume as a directory through FUSE, for an
// unmodified Postgres to use as its data directory. It knows the FUSE
// protocol, what the kernel may cache and how a mount begins, changes hands and
// ends. It knows nothing of timelines, logs or pages: whatever has the operations of
// Volume can be mounted. Every write goes through to the volume before it
// returns; the kernel's write-back cache, which would split pages, is never on.
package volumefs

import "github.com/tarndb/tarn/internal/layer"

// Volume is what is mounted. Its root directory is layer.RootIno. Only the
// mount changes it while mounted: the kernel caches names, attributes and
// contents without asking again.
//
// Errors unwrap to a syscall.Errno where there is a fitting one (ENOENT,
// EEXIST, ENOTEMPTY, ENOSPC …); any other error becomes EIO. Methods are
// called concurrently. Byte slices are lent for the call only.
type Volume interface {
	Lookup(parent layer.Ino, name string) (layer.Attr, error)
	Attr(ino layer.Ino) (layer.Attr, error)
	SetAttr(ino layer.Ino, s layer.SetAttr) (layer.Attr, error)
	// Create makes a file, a directory or a symbolic link; EEXIST when the
	// name is taken.
	Create(parent layer.Ino, name string, f layer.NewFile) (layer.Attr, error)
	Link(ino, parent layer.Ino, name string) (layer.Attr, error)
	Unlink(parent layer.Ino, name string) error
	Rmdir(parent layer.Ino, name string) error
	// Rename replaces what has the new name, if anything.
	Rename(oldParent layer.Ino, oldName string, newParent layer.Ino, newName string) error
	Readlink(ino layer.Ino) (string, error)
	// ReadDir returns at most max names with cookies greater than after, in
	// the order of their cookies; none at the end. Cookies are at least 1.
	ReadDir(ino layer.Ino, after uint64, max int) ([]layer.DirEntry, error)
	// ReadAt reads less than asked only at the end of the file, without
	// io.EOF.
	ReadAt(ino layer.Ino, p []byte, off uint64) (int, error)
	// WriteAt makes each whole page (layer.PageSize, aligned) that p covers
	// old or new after a crash, never a mixture.
	WriteAt(ino layer.Ino, p []byte, off uint64) (int, error)
	// Allocate does what posix_fallocate does: the file is at least off+n
	// long afterwards and its contents are unchanged.
	Allocate(ino layer.Ino, off, n uint64) error
	// Sync returns when everything done before is durable.
	Sync() error
	// Forget says that the kernel has no reference to ino any more: once it
	// has no name either it is gone.
	Forget(ino layer.Ino)
	// Usage is the space for statfs, in bytes.
	Usage() (total, free uint64, err error)
}
