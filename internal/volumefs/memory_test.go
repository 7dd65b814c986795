package volumefs_test

import (
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/tarndb/tarn/internal/layer"
)

// memory is a volume in memory: as simple as the interface allows, with one
// lock, so that what fails is the mount. It also notes what it was asked.
type memory struct {
	mu      sync.Mutex
	files   map[layer.Ino]*file
	nextIno layer.Ino
	cookies uint64
	fail    error // what WriteAt and Sync answer when set
	syncs   int
	writes  []int // sizes of WriteAt
}

type file struct {
	attr   layer.Attr
	data   []byte
	target string
	names  map[string]name // of a directory
}

type name struct {
	ino    layer.Ino
	cookie uint64
}

func newMemory(uid, gid uint32) *memory {
	m := &memory{files: map[layer.Ino]*file{}, nextIno: layer.RootIno}
	m.add(layer.NewFile{Mode: syscall.S_IFDIR | 0o755, UID: uid, GID: gid})
	m.files[layer.RootIno].attr.Nlink = 2
	return m
}

func (m *memory) add(f layer.NewFile) *file {
	n := &file{target: f.Target, attr: layer.Attr{
		Ino: m.nextIno, Mode: f.Mode, UID: f.UID, GID: f.GID, Size: uint64(len(f.Target)), Mtime: time.Now().UnixNano(),
	}}
	if f.Mode&syscall.S_IFMT == syscall.S_IFDIR {
		n.names = map[string]name{}
		n.attr.Nlink = 1 // its own "."
	}
	m.files[m.nextIno] = n
	m.nextIno++
	return n
}

// dir and get must be called under mu.
func (m *memory) dir(ino layer.Ino) (*file, error) {
	f, err := m.get(ino)
	if err == nil && f.names == nil {
		err = syscall.ENOTDIR
	}
	return f, err
}

func (m *memory) get(ino layer.Ino) (*file, error) {
	f := m.files[ino]
	if f == nil {
		return nil, syscall.ESTALE
	}
	return f, nil
}

func (m *memory) Lookup(parent layer.Ino, s string) (layer.Attr, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.dir(parent)
	if err != nil {
		return layer.Attr{}, err
	}
	n, ok := d.names[s]
	if !ok {
		return layer.Attr{}, syscall.ENOENT
	}
	return m.files[n.ino].attr, nil
}

func (m *memory) Attr(ino layer.Ino) (layer.Attr, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, err := m.get(ino)
	if err != nil {
		return layer.Attr{}, err
	}
	return f.attr, nil
}

func (m *memory) SetAttr(ino layer.Ino, s layer.SetAttr) (layer.Attr, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, err := m.get(ino)
	if err != nil {
		return layer.Attr{}, err
	}
	if s.Has&layer.SetMode != 0 {
		f.attr.Mode = f.attr.Mode&syscall.S_IFMT | s.Mode
	}
	if s.Has&layer.SetUID != 0 {
		f.attr.UID = s.UID
	}
	if s.Has&layer.SetGID != 0 {
		f.attr.GID = s.GID
	}
	if s.Has&layer.SetSize != 0 {
		f.resize(s.Size)
	}
	if s.Has&layer.SetMtime != 0 {
		f.attr.Mtime = s.Mtime
	}
	return f.attr, nil
}

func (f *file) resize(n uint64) {
	if n <= uint64(len(f.data)) {
		f.data = slices.Clone(f.data[:n])
	} else {
		f.data = append(f.data, make([]byte, n-uint64(len(f.data)))...)
	}
	f.attr.Size = n
}

func (m *memory) Create(parent layer.Ino, s string, f layer.NewFile) (layer.Attr, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.dir(parent)
	if err != nil {
		return layer.Attr{}, err
	}
	if _, ok := d.names[s]; ok {
		return layer.Attr{}, syscall.EEXIST
	}
	n := m.add(f)
	m.name(d, s, n)
	return n.attr, nil
}

func (m *memory) name(d *file, s string, n *file) {
	m.cookies++
	d.names[s] = name{n.attr.Ino, m.cookies}
	n.attr.Nlink++
	if n.names != nil {
		d.attr.Nlink++
	}
}

func (m *memory) unname(d *file, s string) {
	n := m.files[d.names[s].ino]
	delete(d.names, s)
	n.attr.Nlink--
	if n.names != nil {
		n.attr.Nlink--
		d.attr.Nlink--
	}
}

func (m *memory) Link(ino, parent layer.Ino, s string) (layer.Attr, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, err := m.get(ino)
	if err != nil {
		return layer.Attr{}, err
	}
	d, err := m.dir(parent)
	if err != nil {
		return layer.Attr{}, err
	}
	if _, ok := d.names[s]; ok {
		return layer.Attr{}, syscall.EEXIST
	}
	m.name(d, s, f)
	return f.attr, nil
}

func (m *memory) Unlink(parent layer.Ino, s string) error { return m.remove(parent, s, syscall.EISDIR) }

func (m *memory) Rmdir(parent layer.Ino, s string) error { return m.remove(parent, s, 0) }

// remove takes a name away; isDir is the error for a directory, 0 wants one.
func (m *memory) remove(parent layer.Ino, s string, isDir syscall.Errno) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.dir(parent)
	if err != nil {
		return err
	}
	n, ok := d.names[s]
	switch {
	case !ok:
		return syscall.ENOENT
	case m.files[n.ino].names != nil && isDir != 0:
		return isDir
	case m.files[n.ino].names == nil && isDir == 0:
		return syscall.ENOTDIR
	case len(m.files[n.ino].names) > 0:
		return syscall.ENOTEMPTY
	}
	m.unname(d, s)
	return nil
}

func (m *memory) Rename(oldParent layer.Ino, oldName string, newParent layer.Ino, newName string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	from, err := m.dir(oldParent)
	if err != nil {
		return err
	}
	to, err := m.dir(newParent)
	if err != nil {
		return err
	}
	n, ok := from.names[oldName]
	if !ok {
		return syscall.ENOENT
	}
	if old, ok := to.names[newName]; ok {
		if old.ino == n.ino {
			return nil
		}
		if len(m.files[old.ino].names) > 0 {
			return syscall.ENOTEMPTY
		}
		m.unname(to, newName)
	}
	f := m.files[n.ino]
	m.unname(from, oldName)
	m.name(to, newName, f)
	return nil
}

func (m *memory) Readlink(ino layer.Ino) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, err := m.get(ino)
	if err != nil {
		return "", err
	}
	return f.target, nil
}

func (m *memory) ReadDir(ino layer.Ino, after uint64, most int) ([]layer.DirEntry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.dir(ino)
	if err != nil {
		return nil, err
	}
	var all []layer.DirEntry
	for s, n := range d.names {
		if n.cookie > after {
			all = append(all, layer.DirEntry{Name: s, Ino: n.ino, Mode: m.files[n.ino].attr.Mode, Cookie: n.cookie})
		}
	}
	slices.SortFunc(all, func(a, b layer.DirEntry) int { return int(a.Cookie) - int(b.Cookie) })
	return all[:min(most, len(all))], nil
}

func (m *memory) ReadAt(ino layer.Ino, p []byte, off uint64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, err := m.get(ino)
	if err != nil || off >= uint64(len(f.data)) {
		return 0, err
	}
	return copy(p, f.data[off:]), nil
}

func (m *memory) WriteAt(ino layer.Ino, p []byte, off uint64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, err := m.get(ino)
	if err != nil {
		return 0, err
	}
	if m.fail != nil {
		return 0, m.fail
	}
	if end := off + uint64(len(p)); end > uint64(len(f.data)) {
		f.resize(end)
	}
	f.attr.Mtime = time.Now().UnixNano()
	m.writes = append(m.writes, len(p))
	return copy(f.data[off:], p), nil
}

func (m *memory) Allocate(ino layer.Ino, off, n uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, err := m.get(ino)
	if err == nil && off+n > uint64(len(f.data)) {
		f.resize(off + n)
	}
	return err
}

func (m *memory) Sync() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.syncs++
	return m.fail
}

func (m *memory) Forget(ino layer.Ino) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f := m.files[ino]; f != nil && (f.attr.Nlink == 0 || f.names != nil && f.attr.Nlink <= 1 && ino != layer.RootIno) {
		delete(m.files, ino)
	}
}

func (m *memory) Usage() (total, free uint64, err error) { return 1 << 30, 1 << 29, nil }

// count is how many files there are, nameless ones included.
func (m *memory) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.files)
}

// holds tells whether a file is there, with or without a name.
func (m *memory) holds(ino layer.Ino) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.files[ino] != nil
}

// noted resets and returns what was written and how often it was synced.
func (m *memory) noted() (writes []int, syncs int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	writes, syncs = m.writes, m.syncs
	m.writes, m.syncs = nil, 0
	return writes, syncs
}

func (m *memory) failWith(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = err
}
