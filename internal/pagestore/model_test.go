package pagestore

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn/internal/layer"
)

// model is a volume as one would write it without thinking: every state is a
// copy of everything. Slices in it are never changed, so copies share them.
type model struct {
	files map[layer.Ino]modelFile
	next  layer.Ino
}

type modelFile struct {
	mode, uid, gid uint32
	nlink          int
	target         string
	data           []byte
	kids           []modelKid // in the order of making
	parent         layer.Ino
}

type modelKid struct {
	name string
	ino  layer.Ino
}

func newModel(root layer.NewFile) *model {
	return &model{next: layer.RootIno + 1, files: map[layer.Ino]modelFile{
		layer.RootIno: {mode: root.Mode&^unix.S_IFMT | unix.S_IFDIR, uid: root.UID, gid: root.GID, nlink: 2}}}
}

func (m *model) clone() *model { return &model{maps.Clone(m.files), m.next} }

// named is a copy without the files that have no name.
func (m *model) named() *model {
	c := m.clone()
	maps.DeleteFunc(c.files, func(_ layer.Ino, f modelFile) bool { return f.nlink == 0 })
	return c
}

func (f modelFile) dir() bool { return f.mode&unix.S_IFMT == unix.S_IFDIR }

func (m *model) lookup(parent layer.Ino, name string) (layer.Ino, error) {
	p, ok := m.files[parent]
	if !ok {
		return 0, syscall.ENOENT
	}
	if !p.dir() {
		return 0, syscall.ENOTDIR
	}
	for _, k := range p.kids {
		if k.name == name {
			return k.ino, nil
		}
	}
	return 0, syscall.ENOENT
}

func (m *model) change(ino layer.Ino, f func(*modelFile)) {
	n := m.files[ino]
	f(&n)
	m.files[ino] = n
}

func (m *model) addName(parent layer.Ino, name string, ino layer.Ino) {
	d := m.files[ino].dir()
	m.change(parent, func(p *modelFile) {
		p.kids = append(slices.Clone(p.kids), modelKid{name, ino})
		if d {
			p.nlink++
		}
	})
	m.change(ino, func(n *modelFile) { n.parent = parent })
}

func (m *model) removeName(parent layer.Ino, name string) {
	ino, _ := m.lookup(parent, name)
	d := m.files[ino].dir()
	m.change(parent, func(p *modelFile) {
		p.kids = slices.DeleteFunc(slices.Clone(p.kids), func(k modelKid) bool { return k.name == name })
		if d {
			p.nlink--
		}
	})
}

func (m *model) canAdd(parent layer.Ino, name string) error {
	if p, ok := m.files[parent]; !ok || p.nlink == 0 {
		return syscall.ENOENT
	}
	_, err := m.lookup(parent, name)
	switch err {
	case nil:
		return syscall.EEXIST
	case syscall.ENOENT:
		return nil
	}
	return err
}

func (m *model) create(parent layer.Ino, name string, f layer.NewFile) error {
	if err := m.canAdd(parent, name); err != nil {
		return err
	}
	n := modelFile{mode: f.Mode, uid: f.UID, gid: f.GID, nlink: 1, target: f.Target, parent: parent}
	if n.dir() {
		n.nlink = 2
	}
	m.files[m.next] = n
	m.addName(parent, name, m.next)
	m.next++
	return nil
}

func (m *model) link(ino, parent layer.Ino, name string) error {
	n, ok := m.files[ino]
	switch {
	case !ok || n.nlink == 0:
		return syscall.ENOENT
	case n.dir():
		return syscall.EPERM
	}
	if err := m.canAdd(parent, name); err != nil {
		return err
	}
	m.change(ino, func(n *modelFile) { n.nlink++ })
	p := n.parent
	m.addName(parent, name, ino)
	m.change(ino, func(n *modelFile) { n.parent = p })
	return nil
}

func (m *model) unlink(parent layer.Ino, name string) error {
	ino, err := m.lookup(parent, name)
	if err != nil {
		return err
	}
	if m.files[ino].dir() {
		return syscall.EISDIR
	}
	m.removeName(parent, name)
	m.change(ino, func(n *modelFile) { n.nlink-- })
	return nil
}

func (m *model) rmdir(parent layer.Ino, name string) error {
	ino, err := m.lookup(parent, name)
	switch {
	case err != nil:
		return err
	case !m.files[ino].dir():
		return syscall.ENOTDIR
	case len(m.files[ino].kids) > 0:
		return syscall.ENOTEMPTY
	}
	m.removeName(parent, name)
	m.change(ino, func(n *modelFile) { n.nlink = 0 })
	return nil
}

func (m *model) rename(op layer.Ino, on string, np layer.Ino, nn string) error {
	ino, err := m.lookup(op, on)
	if err != nil {
		return err
	}
	if p, ok := m.files[np]; !ok || p.nlink == 0 {
		return syscall.ENOENT
	} else if !p.dir() {
		return syscall.ENOTDIR
	}
	n := m.files[ino]
	for d := np; n.dir() && d != 0; d = m.files[d].parent {
		if d == ino {
			return syscall.EINVAL
		}
	}
	if old, err := m.lookup(np, nn); err == nil {
		o := m.files[old]
		switch {
		case old == ino:
			return nil
		case n.dir() && !o.dir():
			return syscall.ENOTDIR
		case !n.dir() && o.dir():
			return syscall.EISDIR
		case len(o.kids) > 0:
			return syscall.ENOTEMPTY
		}
		m.removeName(np, nn)
		m.change(old, func(f *modelFile) {
			if f.nlink--; f.dir() {
				f.nlink = 0
			}
		})
	}
	m.removeName(op, on)
	m.addName(np, nn, ino)
	return nil
}

func (m *model) write(ino layer.Ino, p []byte, off int) {
	m.change(ino, func(n *modelFile) {
		n.data = put(slices.Clone(n.data), p, int64(off))
	})
}

func (m *model) truncate(ino layer.Ino, size int) {
	m.change(ino, func(n *modelFile) { n.data = resize(slices.Clone(n.data), int64(size)) })
}

// view describes a tree path by path, for comparison and for people.
type view map[string]string

func describe(ino layer.Ino, mode, uid, gid uint32, nlink int, target string, data []byte) string {
	return fmt.Sprintf("ino=%d mode=%o uid=%d gid=%d nlink=%d target=%q size=%d crc=%08x", ino, mode, uid, gid, nlink, target, len(data), crc32.ChecksumIEEE(data))
}

func (m *model) view() view {
	out := view{}
	var walk func(path string, ino layer.Ino)
	walk = func(path string, ino layer.Ino) {
		n := m.files[ino]
		out[path] = describe(ino, n.mode, n.uid, n.gid, n.nlink, n.target, n.data)
		var names []string
		for _, k := range n.kids {
			names = append(names, k.name)
			walk(path+"/"+k.name, k.ino)
		}
		if n.dir() {
			out[path] += " names=" + strings.Join(names, ",")
		}
	}
	walk("", layer.RootIno)
	return out
}

// viewOf reads the whole volume through its public methods.
func viewOf(v *Volume) (view, error) {
	out := view{}
	var walk func(path string, ino layer.Ino) error
	walk = func(path string, ino layer.Ino) error {
		a, err := v.Attr(ino)
		if err != nil {
			return err
		}
		target, data := "", []byte(nil)
		var names []string
		switch a.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			if target, err = v.Readlink(ino); err != nil {
				return err
			}
		case unix.S_IFREG:
			if data, err = readAll(v, ino); err != nil {
				return err
			}
			if len(data) != int(a.Size) {
				return fmt.Errorf("%s: read %d of %d bytes", path, len(data), a.Size)
			}
		case unix.S_IFDIR:
			for after := uint64(0); ; {
				list, err := v.ReadDir(ino, after, 3)
				if err != nil {
					return err
				}
				if len(list) == 0 {
					break
				}
				for _, e := range list {
					found, err := v.Lookup(ino, e.Name)
					if err != nil || found.Ino != e.Ino || found.Mode != e.Mode || e.Cookie <= after {
						return fmt.Errorf("%s: entry %+v, looked up %+v, %v", path, e, found, err)
					}
					names = append(names, e.Name)
					after = e.Cookie
					if err := walk(path+"/"+e.Name, e.Ino); err != nil {
						return err
					}
				}
			}
		}
		out[path] = describe(ino, a.Mode, a.UID, a.GID, int(a.Nlink), target, data)
		if a.Mode&unix.S_IFMT == unix.S_IFDIR {
			out[path] += " names=" + strings.Join(names, ",")
		}
		return nil
	}
	return out, walk("", layer.RootIno)
}

// readAll reads a file in pieces that do not fit its pages, and beyond its end.
func readAll(v *Volume, ino layer.Ino) ([]byte, error) {
	var out []byte
	buf := make([]byte, 5*layer.PageSize+123)
	for {
		n, err := v.ReadAt(ino, buf, uint64(len(out)))
		if err != nil {
			return nil, err
		}
		out = append(out, buf[:n]...)
		if n < len(buf) {
			return out, nil
		}
	}
}

// differ says where two views differ, "" when they do not.
func differ(got, want view) string {
	var b bytes.Buffer
	paths := slices.Sorted(maps.Keys(got))
	for _, p := range slices.Sorted(maps.Keys(want)) {
		if _, ok := got[p]; !ok {
			paths = append(paths, p)
		}
	}
	for _, p := range paths {
		if got[p] != want[p] {
			fmt.Fprintf(&b, "%q\n  got  %s\n  want %s\n", p, got[p], want[p])
		}
	}
	return b.String()
}
