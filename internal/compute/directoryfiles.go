package compute

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/tarndb/tarn/internal/layer"
)

// Files of a plain directory that is hidden. It belongs to Postgres: no link there
// leads us out of it.

// in runs work in the directory.
func (v directoryVolume) in(doing, name string, work func(*os.Root) error) error {
	root, err := os.OpenRoot(v.Dir())
	if err == nil {
		err = errors.Join(work(root), root.Close())
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", doing, name, err)
	}
	return nil
}

// WriteFile writes a new file beside the old one and gives it its name. Not every
// change of a directory survives a crash: what is written here each start writes
// again.
func (v directoryVolume) WriteFile(name string, b []byte, f layer.NewFile) error {
	return v.in("write", name, func(root *os.Root) error {
		tmp := name + ".tarn"
		if err := root.RemoveAll(tmp); err != nil {
			return err
		}
		file, err := root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fs.FileMode(f.Mode).Perm())
		if err != nil {
			return err
		}
		_, err = file.Write(b)
		if err == nil && os.Geteuid() == 0 {
			err = file.Chown(int(f.UID), int(f.GID))
		}
		if err == nil {
			err = file.Sync()
		}
		if err := errors.Join(err, file.Close()); err != nil {
			return err
		}
		return root.Rename(tmp, name)
	})
}

// Symlink makes a symbolic link, in place of what has the name.
func (v directoryVolume) Symlink(name string, f layer.NewFile) error {
	return v.in("link", name, func(root *os.Root) error {
		if err := root.RemoveAll(name); err != nil {
			return err
		}
		if err := root.Symlink(f.Target, name); err != nil {
			return err
		}
		if os.Geteuid() != 0 {
			return nil
		}
		return root.Lchown(name, int(f.UID), int(f.GID))
	})
}

// Readlink reads a symbolic link.
func (v directoryVolume) Readlink(name string) (at string, err error) {
	err = v.in("read link", name, func(root *os.Root) error {
		at, err = root.Readlink(name)
		return err
	})
	return at, err
}

// Remove removes what has the name, a directory with all that is in it.
func (v directoryVolume) Remove(name string) error {
	return v.in("remove", name, func(root *os.Root) error { return root.RemoveAll(name) })
}
