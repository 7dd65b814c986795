package dir

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn/internal/blob"
)

func inode(st fs.FileInfo) uint64 {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return sys.Ino
	}
	return 0
}

func isNotDir(err error) bool { return errors.Is(err, unix.ENOTDIR) }

// Put writes key, replacing what was there.
//
//  1. write a temporary file beside it, fsync   (crash: an invisible file)
//  2. lock the directory, rename over the key   (crash: old or new bytes)
//  3. fsync the directory                       (crash: old or new bytes)
func (s *Store) Put(ctx context.Context, key string, r io.Reader) error {
	name, err := s.file(key)
	if err != nil {
		return fmt.Errorf("put: %w", err)
	}
	tmp, err := writeTemp(ctx, name, r)
	if err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	defer os.Remove(tmp)
	unlock, err := lockDir(filepath.Dir(name))
	if err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	defer unlock()
	if _, err := replace(tmp, name); err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	return nil
}

// PutIfAbsent writes key unless it exists. It takes no lock: link(2) itself
// lets exactly one of many writers win.
//
//  1. write a temporary file beside it, fsync   (crash: an invisible file)
//  2. link it to the key's name                 (crash: absent or whole)
//  3. fsync the directory, drop the temporary   (crash: an invisible file)
func (s *Store) PutIfAbsent(ctx context.Context, key string, b []byte) error {
	name, err := s.file(key)
	if err != nil {
		return fmt.Errorf("put if absent: %w", err)
	}
	if _, err := os.Lstat(name); err == nil {
		return fmt.Errorf("put if absent %s: %w", key, blob.ErrExists)
	}
	tmp, err := writeTemp(ctx, name, bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("put if absent %s: %w", key, err)
	}
	defer os.Remove(tmp)
	if err := os.Link(tmp, name); err != nil {
		if errors.Is(err, fs.ErrExist) {
			err = blob.ErrExists
		}
		return fmt.Errorf("put if absent %s: %w", key, err)
	}
	if err := syncDir(filepath.Dir(name)); err != nil {
		return fmt.Errorf("put if absent %s: %w: %w", key, blob.ErrAmbiguous, err)
	}
	return nil
}

// PutIfMatch replaces key when its ETag is still etag. Put, PutIfMatch and
// Delete hold the same flock on the key's directory while they look and swap,
// so that this is one step to every process; PutIfAbsent needs none, since it
// never touches a key that exists.
func (s *Store) PutIfMatch(ctx context.Context, key, want string, b []byte) (string, error) {
	name, err := s.file(key)
	if err != nil {
		return "", fmt.Errorf("put if match: %w", err)
	}
	if st, err := os.Stat(name); err != nil || !st.Mode().IsRegular() {
		return "", fmt.Errorf("put if match %s: %w", key, cmp.Or(notExist(err), blob.ErrNotExist))
	}
	tmp, err := writeTemp(ctx, name, bytes.NewReader(b))
	if err != nil {
		return "", fmt.Errorf("put if match %s: %w", key, err)
	}
	defer os.Remove(tmp)
	unlock, err := lockDir(filepath.Dir(name))
	if err != nil {
		return "", fmt.Errorf("put if match %s: %w", key, err)
	}
	defer unlock()
	st, err := os.Stat(name)
	if err != nil {
		return "", fmt.Errorf("put if match %s: %w", key, notExist(err))
	}
	if etag(st) != want {
		return "", fmt.Errorf("put if match %s: %w", key, blob.ErrMismatch)
	}
	tag, err := replace(tmp, name)
	if err != nil {
		return "", fmt.Errorf("put if match %s: %w", key, err)
	}
	return tag, nil
}

// Delete removes keys. Directories left empty stay: another writer may be about
// to put a file there.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	dirs := map[string]bool{}
	for _, key := range keys {
		name, err := s.file(key)
		if err != nil {
			return fmt.Errorf("delete: %w", err)
		}
		if err := context.Cause(ctx); err != nil {
			return fmt.Errorf("delete %s: %w", key, err)
		}
		if err := remove(name); err != nil {
			return fmt.Errorf("delete %s: %w", key, err)
		}
		dirs[filepath.Dir(name)] = true
	}
	for d := range dirs {
		if err := syncDir(d); err != nil && !errors.Is(notExist(err), blob.ErrNotExist) {
			return fmt.Errorf("delete in %s: %w", d, err)
		}
	}
	return nil
}

func remove(name string) error {
	unlock, err := lockDir(filepath.Dir(name))
	if errors.Is(notExist(err), blob.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	if err := unix.Unlink(name); err != nil && err != unix.ENOENT && err != unix.ENOTDIR && err != unix.EISDIR {
		return err
	}
	return nil
}

// replace renames tmp over name, whose directory is locked, and returns the new
// ETag. It moves the modification time on when it equals the replaced one's.
func replace(tmp, name string) (string, error) {
	st, err := os.Stat(tmp)
	if err != nil {
		return "", err
	}
	if old, err := os.Stat(name); err == nil && !old.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a regular file", name)
	} else if err == nil && !st.ModTime().After(old.ModTime()) {
		if err := os.Chtimes(tmp, time.Time{}, old.ModTime().Add(time.Nanosecond)); err != nil {
			return "", err
		}
		if st, err = os.Stat(tmp); err != nil {
			return "", err
		}
	}
	if err := os.Rename(tmp, name); err != nil {
		return "", err
	}
	if err := syncDir(filepath.Dir(name)); err != nil {
		return "", fmt.Errorf("%w: %w", blob.ErrAmbiguous, err)
	}
	return etag(st), nil
}

// writeTemp writes r to a durable file beside name and returns its path. Its
// modification time is the clock's, not the kernel's coarse one.
func writeTemp(ctx context.Context, name string, r io.Reader) (path string, err error) {
	d := filepath.Dir(name)
	if err := makeDirs(d); err != nil {
		return "", err
	}
	f, err := os.CreateTemp(d, tempPrefix)
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err := io.Copy(f, &untilDone{ctx, r}); err != nil {
		return "", err
	}
	if err := f.Chmod(0o644); err != nil {
		return "", err
	}
	if err := os.Chtimes(f.Name(), time.Time{}, time.Now()); err != nil {
		return "", err
	}
	if err := f.Sync(); err != nil {
		return "", err
	}
	return f.Name(), f.Close()
}

// untilDone ends a copy with the context's cause.
type untilDone struct {
	ctx context.Context
	r   io.Reader
}

func (u *untilDone) Read(p []byte) (int, error) {
	if err := context.Cause(u.ctx); err != nil {
		return 0, err
	}
	return u.r.Read(p)
}

// makeDirs makes d and its parents durable, the outermost first.
func makeDirs(d string) error {
	st, err := os.Stat(d)
	if err == nil {
		if !st.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: d, Err: unix.ENOTDIR}
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(d)
	if err := makeDirs(parent); err != nil {
		return err
	}
	if err := os.Mkdir(d, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(parent)
}

func syncDir(d string) error {
	f, err := os.Open(d)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// lockDir takes the directory's flock; closing the file gives it back, and so
// does the end of the process.
func lockDir(d string) (unlock func(), err error) {
	f, err := os.Open(d)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", d, err)
	}
	return func() { f.Close() }, nil
}
