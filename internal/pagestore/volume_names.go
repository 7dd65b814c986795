package pagestore

import (
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn/internal/layer"
)

// Lookup finds a name in a directory.
func (v *Volume) Lookup(parent layer.Ino, name string) (layer.Attr, error) {
	n, err := v.ix.find(parent, name)
	if err != nil {
		return layer.Attr{}, &fileError{"look up", parent, name, err}
	}
	return n.attr(), nil
}

func (ix *index) find(parent layer.Ino, name string) (*node, error) {
	p := ix.inodes.get(parent)
	if p == nil {
		return nil, syscall.ENOENT
	}
	ix.tree.RLock()
	defer ix.tree.RUnlock()
	if p.dir == nil {
		return nil, syscall.ENOTDIR
	}
	e, ok := p.dir.names[name]
	if !ok {
		return nil, syscall.ENOENT
	}
	n := ix.inodes.get(e.ino)
	if n == nil {
		return nil, syscall.ENOENT
	}
	return n, nil
}

// change runs an operation on names: alone among those, shared with writes.
func (v *Volume) change(op string, dir layer.Ino, name string, do func() error) error {
	err := v.enter()
	if err == nil {
		v.names.Lock()
		err = do()
		v.names.Unlock()
		v.log.writeBehind()
		v.freeze.RUnlock()
	}
	if err != nil {
		return &fileError{op, dir, name, err}
	}
	return nil
}

// directory finds a directory that can take names. The caller holds names.
func (ix *index) directory(ino layer.Ino) (*node, error) {
	p := ix.inodes.get(ino)
	switch {
	case p == nil || p.nlink.Load() == 0:
		return nil, syscall.ENOENT
	case p.dir == nil:
		return nil, syscall.ENOTDIR
	}
	return p, nil
}

// vacant checks that a name can be added to a directory.
func (ix *index) vacant(parent layer.Ino, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	p, err := ix.directory(parent)
	if err != nil {
		return err
	}
	if _, ok := p.dir.names[name]; ok {
		return syscall.EEXIST
	}
	return nil
}

func checkName(name string) error {
	switch {
	case len(name) > layer.MaxName:
		return syscall.ENAMETOOLONG
	case name == "" || strings.ContainsAny(name, "/\x00"):
		return syscall.EINVAL
	case name == "." || name == "..":
		return syscall.EEXIST
	}
	return nil
}

// Create makes a file, a directory or a symbolic link.
func (v *Volume) Create(parent layer.Ino, name string, f layer.NewFile) (layer.Attr, error) {
	var made *node
	err := v.change("create", parent, name, func() error {
		switch f.Mode & unix.S_IFMT {
		case unix.S_IFREG, unix.S_IFDIR:
			if f.Target != "" {
				return syscall.EINVAL
			}
		case unix.S_IFLNK:
			if f.Target == "" {
				return syscall.EINVAL
			} else if len(f.Target) > layer.MaxTarget {
				return syscall.ENAMETOOLONG
			}
		default:
			return syscall.EOPNOTSUPP
		}
		if err := v.ix.vacant(parent, name); err != nil {
			return err
		}
		r := layer.Record{Kind: layer.KindCreate, Ino: v.ix.next, Parent: parent, Name: name, File: f, Time: time.Now().UnixNano()}
		if err := v.commit(&r); err != nil {
			return err
		}
		made = v.ix.inodes.get(r.Ino)
		return nil
	})
	if err != nil {
		return layer.Attr{}, err
	}
	return made.attr(), nil
}

// Link gives a file one more name.
func (v *Volume) Link(ino, parent layer.Ino, name string) (layer.Attr, error) {
	var n *node
	err := v.change("link", parent, name, func() error {
		n = v.ix.inodes.get(ino)
		switch {
		case n == nil || n.nlink.Load() == 0:
			return syscall.ENOENT
		case n.dir != nil:
			return syscall.EPERM
		}
		if err := v.ix.vacant(parent, name); err != nil {
			return err
		}
		return v.commit(&layer.Record{Kind: layer.KindLink, Ino: ino, Parent: parent, Name: name, Time: time.Now().UnixNano()})
	})
	if err != nil {
		return layer.Attr{}, err
	}
	return n.attr(), nil
}

// Unlink takes a name off a file. The file without a name stays readable
// until Forget.
func (v *Volume) Unlink(parent layer.Ino, name string) error {
	return v.change("unlink", parent, name, func() error {
		n, err := v.ix.find(parent, name)
		if err != nil {
			return err
		}
		if n.dir != nil {
			return syscall.EISDIR
		}
		return v.commit(&layer.Record{Kind: layer.KindUnlink, Ino: n.ino, Parent: parent, Name: name, Time: time.Now().UnixNano()})
	})
}

// Rmdir removes an empty directory.
func (v *Volume) Rmdir(parent layer.Ino, name string) error {
	return v.change("remove directory", parent, name, func() error {
		n, err := v.ix.find(parent, name)
		switch {
		case err != nil:
			return err
		case n.dir == nil:
			return syscall.ENOTDIR
		case len(n.dir.names) > 0:
			return syscall.ENOTEMPTY
		}
		return v.commit(&layer.Record{Kind: layer.KindRmdir, Ino: n.ino, Parent: parent, Name: name, Time: time.Now().UnixNano()})
	})
}

// Rename moves a name, replacing what had the new one. Who has the replaced
// file open goes on reading it.
func (v *Volume) Rename(oldParent layer.Ino, oldName string, newParent layer.Ino, newName string) error {
	return v.change("rename", oldParent, oldName, func() error {
		n, err := v.ix.find(oldParent, oldName)
		if err != nil {
			return err
		}
		if err := checkName(newName); err != nil {
			return err
		}
		q, err := v.ix.directory(newParent)
		if err != nil {
			return err
		}
		if n.dir != nil && v.ix.inside(newParent, n.ino) {
			return syscall.EINVAL
		}
		if e, ok := q.dir.names[newName]; ok {
			old := v.ix.inodes.get(e.ino)
			switch {
			case old == n: // two names of one file, or one name: nothing to do
				return nil
			case n.dir != nil && old.dir == nil:
				return syscall.ENOTDIR
			case n.dir == nil && old.dir != nil:
				return syscall.EISDIR
			case old.dir != nil && len(old.dir.names) > 0:
				return syscall.ENOTEMPTY
			}
		}
		return v.commit(&layer.Record{Kind: layer.KindRename, Ino: n.ino, Parent: oldParent, Name: oldName,
			NewParent: newParent, NewName: newName, Time: time.Now().UnixNano()})
	})
}

// inside reports whether directory d is top or stands somewhere in it.
func (ix *index) inside(d, top layer.Ino) bool {
	for d != top {
		n := ix.inodes.get(d)
		if n == nil || n.parent == 0 {
			return false
		}
		d = n.parent
	}
	return true
}

// Readlink gives the target of a symbolic link.
func (v *Volume) Readlink(ino layer.Ino) (string, error) {
	n := v.ix.inodes.get(ino)
	switch {
	case n == nil:
		return "", &fileError{"read link", ino, "", syscall.ENOENT}
	case n.mode.Load()&unix.S_IFMT != unix.S_IFLNK:
		return "", &fileError{"read link", ino, "", syscall.EINVAL}
	}
	return n.target, nil
}

// ReadDir gives at most max names of a directory with cookies above after, in
// the order of cookies. "." and ".." are not among them.
func (v *Volume) ReadDir(ino layer.Ino, after uint64, max int) ([]layer.DirEntry, error) {
	p := v.ix.inodes.get(ino)
	if p == nil {
		return nil, &fileError{"read directory", ino, "", syscall.ENOENT}
	}
	v.ix.tree.RLock()
	defer v.ix.tree.RUnlock()
	if p.dir == nil {
		return nil, &fileError{"read directory", ino, "", syscall.ENOTDIR}
	}
	rest := p.dir.order[p.dir.after(after):]
	rest = rest[:min(len(rest), max)]
	out := make([]layer.DirEntry, 0, len(rest))
	for _, d := range rest {
		e := p.dir.names[d.name]
		if n := v.ix.inodes.get(e.ino); n != nil {
			out = append(out, layer.DirEntry{Name: d.name, Ino: e.ino, Mode: n.mode.Load(), Cookie: d.cookie})
		}
	}
	return out, nil
}
