package volumefs

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn/internal/layer"
)

// Apart is a volume some of whose files are kept apart from it: in a directory of
// this computer, without a log, for files that mean nothing once whoever made
// them has ended. They are there while it is mounted, and gone with Close or a
// crash. Which files those are its maker says by their directory and name.
//
// Their inodes have apartBit, which those of a volume never reach.
type Apart struct {
	Volume
	dir  string
	rule ApartRule

	mu    sync.Mutex // guards what follows and names of files; not held across I/O of files
	names map[layer.Ino]map[string]*apartFile
	files map[layer.Ino]*apartFile
	open  map[*apartFile]struct{} // whose descriptor is open
	last  layer.Ino               // the newest inode
}

// ApartRule says which new files are kept apart.
type ApartRule struct {
	// Name tells by a file's name alone; most are none, and it is asked often.
	Name func(name string) bool
	// Directory tells whether files of such a name are in that directory.
	Directory func(v Volume, dir layer.Ino) (bool, error)
}

// ApartFile is a file that is kept apart, for who hands the mount over.
type ApartFile struct {
	Attr   layer.Attr `json:"attr"`
	Parent layer.Ino  `json:"parent,omitempty"` // 0: it has no name any more
	Name   string     `json:"name,omitempty"`
}

// apartFile is such a file. Its descriptor is opened when it is needed.
type apartFile struct {
	path string

	mu   sync.Mutex // guards what follows; held across its I/O
	attr layer.Attr
	file *os.File

	parent layer.Ino // guarded by Apart.mu, as name
	name   string
}

const (
	apartBit  = layer.Ino(1) << 62
	apartOpen = 64 // descriptors that stay open
)

// IsApart tells whether an inode is of a file that is kept apart.
func IsApart(ino layer.Ino) bool { return ino&apartBit != 0 }

// NewApart keeps the files of rule apart from v in dir, which it makes. files are
// those that were handed over; others in dir are removed.
func NewApart(v Volume, dir string, rule ApartRule, files []ApartFile) (*Apart, error) {
	a := &Apart{Volume: v, dir: dir, rule: rule, names: map[layer.Ino]map[string]*apartFile{}, files: map[layer.Ino]*apartFile{}, open: map[*apartFile]struct{}{}}
	// Numbers are never used again while the kernel may remember them.
	a.last = apartBit | layer.Ino(time.Now().UnixNano())&(apartBit-1)
	for _, f := range files {
		n := &apartFile{path: a.path(f.Attr.Ino), attr: f.Attr, parent: f.Parent, name: f.Name}
		a.files[f.Attr.Ino] = n
		if f.Parent != 0 {
			a.note(n)
		}
		a.last = max(a.last, f.Attr.Ino)
	}
	if err := a.clear(); err != nil {
		return nil, fmt.Errorf("keep files apart in %s: %w", dir, err)
	}
	return a, nil
}

// clear makes the directory hold the files that are known and no others.
func (a *Apart) clear() error {
	// Anybody may pass on the way to it: others have directories there too.
	if err := os.MkdirAll(filepath.Dir(a.dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(a.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	entries, err := os.ReadDir(a.dir)
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, e := range entries {
		there[e.Name()] = true
	}
	for ino, f := range a.files {
		if !there[filepath.Base(f.path)] {
			return fmt.Errorf("%w: file %d", fs.ErrNotExist, ino)
		}
		delete(there, filepath.Base(f.path))
	}
	for name := range there {
		err = errors.Join(err, os.Remove(filepath.Join(a.dir, name)))
	}
	return err
}

func (a *Apart) path(ino layer.Ino) string {
	return filepath.Join(a.dir, strconv.FormatUint(uint64(ino&^apartBit), 16))
}

// note gives a file its name; the caller has mu, or nobody else knows a.
func (a *Apart) note(f *apartFile) {
	if a.names[f.parent] == nil {
		a.names[f.parent] = map[string]*apartFile{}
	}
	a.names[f.parent][f.name] = f
}

// named finds a file by its name; nil when there is none apart.
func (a *Apart) named(parent layer.Ino, name string) *apartFile {
	if !a.rule.Name(name) {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.names[parent][name]
}

func (a *Apart) find(ino layer.Ino) (*apartFile, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if f := a.files[ino]; f != nil {
		return f, nil
	}
	return nil, syscall.ENOENT
}

// has tells whether a directory has files that are kept apart.
func (a *Apart) has(dir layer.Ino) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.names[dir]) > 0
}

// Lookup finds files of both kinds.
func (a *Apart) Lookup(parent layer.Ino, name string) (layer.Attr, error) {
	if f := a.named(parent, name); f != nil {
		return f.stat(), nil
	}
	return a.Volume.Lookup(parent, name)
}

func (f *apartFile) stat() layer.Attr {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.attr
}

// Attr tells of a file.
func (a *Apart) Attr(ino layer.Ino) (layer.Attr, error) {
	if !IsApart(ino) {
		return a.Volume.Attr(ino)
	}
	f, err := a.find(ino)
	if err != nil {
		return layer.Attr{}, err
	}
	return f.stat(), nil
}

// use does something with the open file.
func (a *Apart) use(ino layer.Ino, do func(f *apartFile) error) error {
	f, err := a.find(ino)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file == nil {
		if f.file, err = os.OpenFile(f.path, os.O_RDWR, 0); err != nil {
			return err
		}
		a.opened(f)
	}
	return do(f)
}

// opened notes an open descriptor, and closes another when there are many.
func (a *Apart) opened(f *apartFile) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.open[f] = struct{}{}
	if len(a.open) <= apartOpen {
		return
	}
	for o := range a.open {
		if o == f || !o.mu.TryLock() {
			continue
		}
		o.file.Close() //nolint:errcheck // nothing of it must last
		o.file = nil
		delete(a.open, o)
		o.mu.Unlock()
		return
	}
}

// SetAttr changes a file.
func (a *Apart) SetAttr(ino layer.Ino, s layer.SetAttr) (at layer.Attr, err error) {
	if !IsApart(ino) {
		return a.Volume.SetAttr(ino, s)
	}
	err = a.use(ino, func(f *apartFile) error {
		if s.Has&layer.SetSize != 0 {
			if err := f.file.Truncate(int64(s.Size)); err != nil {
				return err
			}
			f.attr.Size, f.attr.Mtime = s.Size, time.Now().UnixNano()
		}
		if s.Has&layer.SetMode != 0 {
			f.attr.Mode = f.attr.Mode&unix.S_IFMT | s.Mode
		}
		if s.Has&layer.SetUID != 0 {
			f.attr.UID = s.UID
		}
		if s.Has&layer.SetGID != 0 {
			f.attr.GID = s.GID
		}
		if s.Has&layer.SetMtime != 0 {
			f.attr.Mtime = s.Mtime
		}
		at = f.attr
		return nil
	})
	return at, err
}

// Create makes a file where the rule says.
func (a *Apart) Create(parent layer.Ino, name string, n layer.NewFile) (layer.Attr, error) {
	if n.Mode&unix.S_IFMT != unix.S_IFREG || !a.rule.Name(name) {
		return a.Volume.Create(parent, name, n)
	}
	if a.named(parent, name) != nil {
		return layer.Attr{}, syscall.EEXIST
	}
	apart, err := a.rule.Directory(a.Volume, parent)
	if err != nil {
		return layer.Attr{}, err
	}
	if _, err := a.Volume.Lookup(parent, name); !apart || !errors.Is(err, syscall.ENOENT) {
		return a.Volume.Create(parent, name, n) // or EEXIST: it is of a time before
	}
	a.mu.Lock()
	a.last++
	ino := a.last
	a.mu.Unlock()
	f := &apartFile{path: a.path(ino), parent: parent, name: name}
	f.attr = layer.Attr{Ino: ino, Mode: n.Mode, UID: n.UID, GID: n.GID, Nlink: 1, Mtime: time.Now().UnixNano()}
	if f.file, err = os.OpenFile(f.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return layer.Attr{}, err
	}
	at := f.attr
	a.mu.Lock()
	a.files[ino] = f
	a.note(f)
	a.mu.Unlock()
	a.opened(f)
	return at, nil
}

// Link is refused for a file that is kept apart.
func (a *Apart) Link(ino, parent layer.Ino, name string) (layer.Attr, error) {
	if IsApart(ino) || a.named(parent, name) != nil {
		return layer.Attr{}, syscall.EPERM
	}
	return a.Volume.Link(ino, parent, name)
}

// Unlink removes a name; the file goes when the kernel forgets it.
func (a *Apart) Unlink(parent layer.Ino, name string) error {
	f := a.named(parent, name)
	if f == nil {
		return a.Volume.Unlink(parent, name)
	}
	f.mu.Lock()
	f.attr.Nlink = 0
	f.mu.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.names[parent], name)
	if len(a.names[parent]) == 0 {
		delete(a.names, parent)
	}
	f.parent, f.name = 0, ""
	return nil
}

// Rmdir refuses a directory with files of either kind.
func (a *Apart) Rmdir(parent layer.Ino, name string) error {
	if at, err := a.Volume.Lookup(parent, name); err == nil && a.has(at.Ino) {
		return syscall.ENOTEMPTY
	}
	return a.Volume.Rmdir(parent, name)
}

// Rename is refused for a file that is kept apart; its directory may be renamed.
func (a *Apart) Rename(oldParent layer.Ino, oldName string, newParent layer.Ino, newName string) error {
	if a.named(oldParent, oldName) != nil || a.named(newParent, newName) != nil {
		return syscall.EPERM
	}
	if at, err := a.Volume.Lookup(newParent, newName); err == nil && a.has(at.Ino) {
		return syscall.ENOTEMPTY
	}
	return a.Volume.Rename(oldParent, oldName, newParent, newName)
}

// Readlink reads no file that is kept apart.
func (a *Apart) Readlink(ino layer.Ino) (string, error) {
	if IsApart(ino) {
		return "", syscall.EINVAL
	}
	return a.Volume.Readlink(ino)
}

// ReadDir lists the volume's names, then those kept apart: their cookies are
// their inodes, which are greater than all others.
func (a *Apart) ReadDir(ino layer.Ino, after uint64, most int) ([]layer.DirEntry, error) {
	if after < uint64(apartBit) {
		if out, err := a.Volume.ReadDir(ino, after, most); err != nil || len(out) > 0 {
			return out, err
		}
	}
	a.mu.Lock()
	all := slices.Collect(maps.Values(a.names[ino]))
	a.mu.Unlock()
	var out []layer.DirEntry
	for _, f := range all {
		at := f.stat()
		if uint64(at.Ino) > after && at.Nlink > 0 {
			out = append(out, layer.DirEntry{Name: a.nameOf(f), Ino: at.Ino, Mode: at.Mode, Cookie: uint64(at.Ino)})
		}
	}
	out = slices.DeleteFunc(out, func(e layer.DirEntry) bool { return e.Name == "" }) // unlinked just now
	slices.SortFunc(out, func(x, y layer.DirEntry) int { return cmp.Compare(x.Cookie, y.Cookie) })
	return out[:min(len(out), most)], nil
}

func (a *Apart) nameOf(f *apartFile) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return f.name
}

// ReadAt reads a file.
func (a *Apart) ReadAt(ino layer.Ino, p []byte, off uint64) (n int, err error) {
	if !IsApart(ino) {
		return a.Volume.ReadAt(ino, p, off)
	}
	err = a.use(ino, func(f *apartFile) error {
		if off >= f.attr.Size {
			return nil
		}
		n, err = f.file.ReadAt(p[:min(uint64(len(p)), f.attr.Size-off)], int64(off))
		return err
	})
	return n, err
}

// WriteAt writes a file.
func (a *Apart) WriteAt(ino layer.Ino, p []byte, off uint64) (n int, err error) {
	if !IsApart(ino) {
		return a.Volume.WriteAt(ino, p, off)
	}
	err = a.use(ino, func(f *apartFile) error {
		n, err = f.file.WriteAt(p, int64(off))
		f.attr.Size, f.attr.Mtime = max(f.attr.Size, off+uint64(n)), time.Now().UnixNano()
		return err
	})
	return n, err
}

// Allocate makes a file long enough.
func (a *Apart) Allocate(ino layer.Ino, off, n uint64) error {
	if !IsApart(ino) {
		return a.Volume.Allocate(ino, off, n)
	}
	return a.use(ino, func(f *apartFile) error {
		if off+n <= f.attr.Size {
			return nil
		}
		f.attr.Size = off + n
		return f.file.Truncate(int64(off + n))
	})
}

// CopyRange copies within the volume; the kernel reads and writes what it cannot.
func (a *Apart) CopyRange(src layer.Ino, srcOff uint64, dst layer.Ino, dstOff, n uint64) (uint64, error) {
	v, ok := a.Volume.(CopyRanger)
	switch {
	case !ok:
		return 0, syscall.ENOSYS
	case IsApart(src) || IsApart(dst):
		return 0, syscall.EOPNOTSUPP
	}
	return v.CopyRange(src, srcOff, dst, dstOff, n)
}

// Forget removes a file that has no name.
func (a *Apart) Forget(ino layer.Ino) {
	if !IsApart(ino) {
		a.Volume.Forget(ino)
		return
	}
	a.mu.Lock()
	f := a.files[ino]
	gone := f != nil && f.parent == 0
	if gone {
		delete(a.files, ino)
	}
	a.mu.Unlock()
	if gone {
		a.shut(f)
		os.Remove(f.path) //nolint:errcheck // it goes with the directory
	}
}

func (a *Apart) shut(f *apartFile) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file != nil {
		f.file.Close() //nolint:errcheck // nothing of it must last
		f.file = nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.open, f)
}

// Files are all that there is apart, for NewApart of who goes on with the mount.
func (a *Apart) Files() []ApartFile {
	a.mu.Lock()
	all := slices.Collect(maps.Values(a.files))
	a.mu.Unlock()
	out := make([]ApartFile, 0, len(all))
	for _, f := range all {
		n := ApartFile{Attr: f.stat()}
		a.mu.Lock()
		n.Parent, n.Name = f.parent, f.name
		a.mu.Unlock()
		out = append(out, n)
	}
	return out
}

// Close closes the files; they stay where they are, for who goes on or removes
// the directory.
func (a *Apart) Close() {
	a.mu.Lock()
	all := slices.Collect(maps.Keys(a.open))
	a.mu.Unlock()
	for _, f := range all {
		a.shut(f)
	}
}
