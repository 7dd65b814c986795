package compute

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn/internal/layer"
)

// Files of a volume of the page store, without the mount: a process that is
// killed while it waits for its own mount never ends, and with it whoever waits
// for it. Only what is not shown may be changed so: the kernel remembers names,
// attributes and contents of a mount.

func (v pageVolume) find(name string) (layer.Attr, error) {
	a := layer.Attr{Ino: layer.RootIno}
	for part := range strings.SplitSeq(name, "/") {
		var err error
		if a, err = v.Lookup(a.Ino, part); err != nil {
			return a, err
		}
	}
	return a, nil
}

func (v pageVolume) ReadFile(name string) ([]byte, error) {
	file, err := v.find(name)
	if err != nil {
		return nil, &fs.PathError{Op: "find", Path: name, Err: err}
	}
	b := make([]byte, file.Size)
	n, err := v.ReadAt(file.Ino, b, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: err}
	}
	return b[:n], nil
}

// EmptyDir removes everything in a directory.
func (v pageVolume) EmptyDir(name string) error {
	dir, err := v.find(name)
	if err == nil {
		err = v.emptyDir(dir.Ino)
	}
	if err != nil {
		return fmt.Errorf("empty directory %s: %w", name, err)
	}
	return nil
}

func (v pageVolume) emptyDir(dir layer.Ino) error {
	for {
		entries, err := v.ReadDir(dir, 0, 1000)
		if err != nil || len(entries) == 0 {
			return err
		}
		for _, e := range entries {
			if e.Mode&unix.S_IFMT != unix.S_IFDIR {
				if err := v.Unlink(dir, e.Name); err != nil {
					return err
				}
				continue
			}
			if err := v.emptyDir(e.Ino); err != nil {
				return err
			}
			if err := v.Rmdir(dir, e.Name); err != nil {
				return err
			}
		}
	}
}

// place finds the directory in which a name is, or is to be.
func (v pageVolume) place(name string) (layer.Ino, string, error) {
	dir, base := path.Split(name)
	if dir == "" {
		return layer.RootIno, base, nil
	}
	a, err := v.find(strings.TrimSuffix(dir, "/"))
	return a.Ino, base, err
}

// WriteFile writes a new file beside the old one and gives it its name: a crash
// leaves the one or the other.
func (v pageVolume) WriteFile(name string, b []byte, f layer.NewFile) error {
	dir, base, err := v.place(name)
	if err == nil {
		err = v.writeFile(dir, base, b, f)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

func (v pageVolume) writeFile(dir layer.Ino, name string, b []byte, f layer.NewFile) error {
	tmp := name + ".tarn"
	if err := v.remove(dir, tmp); err != nil {
		return err
	}
	made, err := v.Create(dir, tmp, f)
	if err != nil {
		return err
	}
	if _, err := v.WriteAt(made.Ino, b, 0); err != nil {
		return err
	}
	old, err := v.Lookup(dir, name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := v.Rename(dir, tmp, dir, name); err != nil {
		return err
	}
	if old.Ino != 0 {
		v.Forget(old.Ino)
	}
	return nil
}

// Symlink makes a symbolic link, in place of what has the name.
func (v pageVolume) Symlink(name string, f layer.NewFile) error {
	dir, base, err := v.place(name)
	if err == nil {
		err = v.remove(dir, base)
	}
	if err == nil {
		_, err = v.Create(dir, base, f)
	}
	if err != nil {
		return fmt.Errorf("link %s to %s: %w", name, f.Target, err)
	}
	return nil
}

// Readlink reads a symbolic link.
func (v pageVolume) Readlink(name string) (string, error) {
	a, err := v.find(name)
	if err != nil {
		return "", err
	}
	return v.Volume.Readlink(a.Ino)
}

// Remove removes what has the name, a directory with all that is in it.
func (v pageVolume) Remove(name string) error {
	dir, base, err := v.place(name)
	if err == nil {
		err = v.remove(dir, base)
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

func (v pageVolume) remove(dir layer.Ino, name string) error {
	a, err := v.Lookup(dir, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case a.Mode&unix.S_IFMT == unix.S_IFDIR:
		if err := v.emptyDir(a.Ino); err != nil {
			return err
		}
		return v.Rmdir(dir, name)
	}
	if err := v.Unlink(dir, name); err != nil {
		return err
	}
	v.Forget(a.Ino) // the kernel knows nothing of it
	return nil
}
