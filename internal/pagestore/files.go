package pagestore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// fileSystem is what the store needs of a file system. The operating system
// is one implementation; tests have another that loses what was not synced.
type fileSystem interface {
	Mkdir(dir string) error // no error when it exists
	Open(path string, how openHow) (file, error)
	ReadDir(dir string) ([]fileInfo, error)
	Rename(from, to string) error
	Remove(path string) error // a file or an empty directory
	SyncDir(dir string) error
	Lock(path string) (io.Closer, error) // errLocked when another process has it
	Usage(dir string) (total, free uint64, err error)
}

// file is one open file. Offsets and lengths are bytes.
type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Size() (int64, error)
	Truncate(size int64) error
	Allocate(off, n int64) error // space for the range; the size grows
	Punch(off, n int64) error    // gives the space of the range back; it reads as zeros
	Used() (int64, error)        // space taken
	StartWriteback(off, n int64) error
	Sync() error // fdatasync
}

type openHow uint8

const (
	openExisting openHow = iota
	createNew            // replaces what is there
)

type fileInfo struct {
	Name string
	Dir  bool
	Size int64
}

var errLocked = errors.New("held by another process")

// osFiles is the operating system's file system.
type osFiles struct{}

func (osFiles) Mkdir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func (osFiles) Open(path string, how openHow) (file, error) {
	flags := os.O_RDWR
	if how == createNew {
		flags |= os.O_CREATE | os.O_TRUNC
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFiles) ReadDir(dir string) ([]fileInfo, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	out := make([]fileInfo, 0, len(entries))
	for _, e := range entries {
		st, err := e.Info()
		if err != nil {
			return nil, err
		}
		out = append(out, fileInfo{e.Name(), e.IsDir(), st.Size()})
	}
	return out, nil
}

func (osFiles) Rename(from, to string) error { return os.Rename(from, to) }
func (osFiles) Remove(path string) error     { return os.Remove(path) }

func (osFiles) SyncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (osFiles) Lock(path string) (io.Closer, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errLocked
		}
		return nil, err
	}
	return f, nil
}

func (osFiles) Usage(dir string) (total, free uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, err
	}
	return st.Blocks * uint64(st.Bsize), st.Bavail * uint64(st.Bsize), nil
}

type osFile struct{ *os.File }

func (f osFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// control runs a system call on the descriptor without making it blocking.
func (f osFile) control(call func(fd int) error) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	if err := c.Control(func(fd uintptr) { result = call(int(fd)) }); err != nil {
		return err
	}
	return result
}

// Allocate writes zeros where the file system cannot allocate.
func (f osFile) Allocate(off, n int64) error {
	err := f.control(func(fd int) error { return ignoreEINTR(func() error { return unix.Fallocate(fd, 0, off, n) }) })
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	zeros := make([]byte, min(n, 1<<20))
	for end := off + n; off < end; off += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), end-off)], off); err != nil {
			return err
		}
	}
	return nil
}

// Punch does nothing where the file system cannot.
func (f osFile) Punch(off, n int64) error {
	err := f.control(func(fd int) error {
		return ignoreEINTR(func() error { return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n) })
	})
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

func (f osFile) Used() (int64, error) {
	var st unix.Stat_t
	if err := f.control(func(fd int) error { return unix.Fstat(fd, &st) }); err != nil {
		return 0, err
	}
	return st.Blocks * 512, nil
}

func (f osFile) StartWriteback(off, n int64) error {
	return f.control(func(fd int) error { return unix.SyncFileRange(fd, off, n, unix.SYNC_FILE_RANGE_WRITE) })
}

func (f osFile) Sync() error {
	return f.control(func(fd int) error { return ignoreEINTR(func() error { return unix.Fdatasync(fd) }) })
}

func ignoreEINTR(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// writeFile replaces path so that after a crash it holds the old bytes or the
// new ones.
//
//  1. write and sync path.new        crash: the old file; path.new is ignored
//  2. rename it to path              crash: either
//  3. sync the directory             the new file for good
func writeFile(fsys fileSystem, path string, b []byte) error {
	f, err := fsys.Open(path+".new", createNew)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, ignoreMissing(fsys.Remove(path+".new")))
	}
	if err := fsys.Rename(path+".new", path); err != nil {
		return err
	}
	return fsys.SyncDir(filepath.Dir(path))
}

func readFile(fsys fileSystem, path string) ([]byte, error) {
	f, err := fsys.Open(path, openExisting)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	n, err := f.Size()
	if err != nil {
		return nil, err
	}
	b := make([]byte, n)
	if got, err := f.ReadAt(b, 0); int64(got) != n {
		return nil, fmt.Errorf("read %d of %d bytes: %w", got, n, err)
	}
	return b, nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
