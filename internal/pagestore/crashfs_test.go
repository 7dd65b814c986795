package pagestore

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// crashFS is a file system in memory that knows what was synced. A crash
// loses, tears and reorders everything else: of a file any sectors written
// since its last sync may be there or not, of a directory any first part of
// the changes since its last sync.
type crashFS struct {
	mu    sync.Mutex
	root  *crashInode
	boots int             // grows with every crash; older handles are dead
	locks map[string]bool // held now
	ops   int             // changes so far

	cutAt    int   // power fails at this change; 0 = never
	dark     bool  // power is off
	capacity int64 // bytes of all files; 0 = no limit
	failSync int   // so many syncs fail, and what they should have written is lost silently
	punched  int   // holes punched
	removed  int   // segments and maps removed
	noSpace  int   // so many writes find the disk full in spite of a reservation, half done
	fullFrom int   // from this change on nothing that takes space works; 0 = never
	turned   int   // changes that were refused for that
}

type crashInode struct {
	names   map[string]*crashInode // of a directory
	durable map[string]*crashInode
	dirOps  []func(map[string]*crashInode)

	data    []byte
	kept    []byte // what a crash cannot take
	pending []crashWrite
}

type crashWrite struct {
	off      int64
	data     []byte // nil: the size is set to off
	lostOnly bool   // a failed sync dropped it: never reaches the disk
	punch    int64  // bytes of a hole at off; data is nil
}

const sector = 512

var errPowerCut = errors.New("power cut")

func newCrashFS() *crashFS {
	return &crashFS{root: newCrashDir(), locks: map[string]bool{}}
}

func newCrashDir() *crashInode {
	return &crashInode{names: map[string]*crashInode{}, durable: map[string]*crashInode{}}
}

// change counts one change of the file system. The caller holds mu.
func (c *crashFS) change() error {
	if c.dark {
		return errPowerCut
	}
	c.ops++
	if c.cutAt > 0 && c.ops >= c.cutAt {
		c.dark = true
		return errPowerCut
	}
	return nil
}

// grow counts a change that takes space.
func (c *crashFS) grow() error {
	if err := c.change(); err != nil {
		return err
	}
	if c.fullFrom > 0 && c.ops >= c.fullFrom {
		c.turned++
		return syscall.ENOSPC
	}
	return nil
}

// crash loses what rnd decides, which may be nil; keep is how likely a sector
// survives.
func (c *crashFS) crash(rnd *rand.Rand, keep float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if rnd == nil {
		rnd = rand.New(rand.NewSource(1))
	}
	c.boots++
	c.dark, c.cutAt, c.failSync, c.noSpace = false, 0, 0, 0
	clear(c.locks)
	c.root.crash(rnd, keep)
}

func (n *crashInode) crash(rnd *rand.Rand, keep float64) {
	if n.names != nil {
		for _, op := range n.dirOps {
			if rnd.Float64() >= keep {
				break
			}
			op(n.durable)
		}
		n.dirOps = nil
		n.names = maps.Clone(n.durable)
		for _, name := range slices.Sorted(maps.Keys(n.names)) {
			n.names[name].crash(rnd, keep)
		}
		return
	}
	for _, w := range n.pending {
		switch {
		case w.lostOnly:
		case w.punch > 0:
			if rnd.Float64() < keep {
				n.kept = punch(n.kept, w.off, w.punch)
			}
		case w.data == nil:
			if rnd.Float64() < keep {
				n.kept = resize(n.kept, w.off)
			}
		default:
			for at := 0; at < len(w.data); at += sector {
				if rnd.Float64() < keep {
					n.kept = put(n.kept, w.data[at:min(at+sector, len(w.data))], w.off+int64(at))
				}
			}
		}
	}
	n.pending = nil
	n.data = slices.Clone(n.kept)
}

func resize(b []byte, n int64) []byte {
	if n <= int64(len(b)) {
		return slices.Clone(b[:n])
	}
	return append(b, make([]byte, n-int64(len(b)))...)
}

func punch(b []byte, off, n int64) []byte {
	if off >= int64(len(b)) {
		return b
	}
	b = slices.Clone(b)
	clear(b[off:min(off+n, int64(len(b)))])
	return b
}

func put(b, data []byte, off int64) []byte {
	if end := off + int64(len(data)); end > int64(len(b)) {
		b = resize(b, end)
	}
	copy(b[off:], data)
	return b
}

// used is the bytes of all files. The caller holds mu.
func (n *crashInode) used() (sum int64) {
	for _, k := range n.names {
		sum += k.used()
	}
	return sum + int64(len(n.data))
}

// walk finds a path. The caller holds mu.
func (c *crashFS) walk(path string) (*crashInode, error) {
	n := c.root
	for part := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if part == "" || part == "." {
			continue
		}
		if n = n.names[part]; n == nil {
			return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
		}
	}
	return n, nil
}

// setName changes a directory. The caller holds mu.
func (c *crashFS) setName(path string, n *crashInode) error {
	d, err := c.walk(filepath.Dir(path))
	if err != nil {
		return err
	}
	name := filepath.Base(path)
	op := func(names map[string]*crashInode) {
		if n == nil {
			delete(names, name)
		} else {
			names[name] = n
		}
	}
	op(d.names)
	d.dirOps = append(d.dirOps, op)
	return nil
}

func (c *crashFS) Mkdir(dir string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.grow(); err != nil {
		return err
	}
	if _, err := c.walk(dir); err == nil {
		return nil
	}
	return c.setName(dir, newCrashDir())
}

func (c *crashFS) Open(path string, how openHow) (file, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dark {
		return nil, errPowerCut
	}
	n, err := c.walk(path)
	if how == createNew {
		if err := c.grow(); err != nil {
			return nil, err
		}
		if err == nil { // O_TRUNC
			n.data = nil
			n.pending = append(n.pending, crashWrite{off: 0})
		} else {
			n = &crashInode{}
			if err := c.setName(path, n); err != nil {
				return nil, err
			}
		}
		err = nil
	}
	if err != nil {
		return nil, err
	}
	return &crashFile{c, n, c.boots}, nil
}

func (c *crashFS) ReadDir(dir string) ([]fileInfo, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dark {
		return nil, errPowerCut
	}
	d, err := c.walk(dir)
	if err != nil {
		return nil, err
	}
	var out []fileInfo
	for _, name := range slices.Sorted(maps.Keys(d.names)) {
		k := d.names[name]
		out = append(out, fileInfo{name, k.names != nil, int64(len(k.data))})
	}
	return out, nil
}

// Rename changes one directory in one step; the store never moves anything
// between two.
func (c *crashFS) Rename(from, to string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.grow(); err != nil {
		return err
	}
	if filepath.Dir(from) != filepath.Dir(to) {
		return errors.New("rename between directories")
	}
	d, err := c.walk(filepath.Dir(from))
	if err != nil {
		return err
	}
	n := d.names[filepath.Base(from)]
	if n == nil {
		return fs.ErrNotExist
	}
	op := func(names map[string]*crashInode) {
		delete(names, filepath.Base(from))
		names[filepath.Base(to)] = n
	}
	op(d.names)
	d.dirOps = append(d.dirOps, op)
	return nil
}

func (c *crashFS) Remove(path string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.change(); err != nil {
		return err
	}
	n, err := c.walk(path)
	if err != nil {
		return err
	}
	if len(n.names) > 0 {
		return syscall.ENOTEMPTY
	}
	if n.names == nil && !strings.Contains(path, deletedSuffix) {
		c.removed++
	}
	return c.setName(path, nil)
}

func (c *crashFS) SyncDir(dir string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.change(); err != nil {
		return err
	}
	d, err := c.walk(dir)
	if err != nil {
		return err
	}
	d.durable, d.dirOps = maps.Clone(d.names), nil
	return nil
}

func (c *crashFS) Lock(path string) (io.Closer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.locks[path] {
		return nil, errLocked
	}
	c.locks[path] = true
	return crashLock{c, path, c.boots}, nil
}

type crashLock struct {
	c     *crashFS
	path  string
	boots int
}

func (l crashLock) Close() error {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	if l.boots == l.c.boots {
		delete(l.c.locks, l.path)
	}
	return nil
}

func (c *crashFS) Usage(string) (total, free uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.capacity == 0 {
		return 1 << 40, 1 << 40, nil
	}
	return uint64(c.capacity), uint64(max(0, c.capacity-c.root.used())), nil
}

type crashFile struct {
	c     *crashFS
	n     *crashInode
	boots int
}

// change is crashFS.change for a handle. The caller holds mu.
func (f *crashFile) grow() error {
	if err := f.change(); err != nil {
		return err
	}
	if f.c.fullFrom > 0 && f.c.ops >= f.c.fullFrom {
		f.c.turned++
		return syscall.ENOSPC
	}
	return nil
}

func (f *crashFile) change() error {
	if f.boots != f.c.boots {
		return errPowerCut
	}
	return f.c.change()
}

func (f *crashFile) ReadAt(p []byte, off int64) (int, error) {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	if f.c.dark || f.boots != f.c.boots {
		return 0, errPowerCut
	}
	if off >= int64(len(f.n.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.n.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// room says how many of the bytes [off, end) find space. The caller holds mu.
func (f *crashFile) room(off, end int64) int64 {
	if f.c.capacity == 0 || end <= int64(len(f.n.data)) {
		return end - off
	}
	free := max(0, f.c.capacity-f.c.root.used())
	return max(0, min(end, int64(len(f.n.data))+free)-off)
}

func (f *crashFile) WriteAt(p []byte, off int64) (int, error) {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	if err := f.grow(); err != nil {
		if f.c.dark && f.boots == f.c.boots { // the write that the power cut met
			f.n.pending = append(f.n.pending, crashWrite{off: off, data: slices.Clone(p)})
		}
		return 0, err
	}
	n := f.room(off, off+int64(len(p)))
	if f.c.noSpace > 0 {
		f.c.noSpace--
		n = min(n, int64(len(p)/2))
	}
	f.n.data = put(f.n.data, p[:n], off)
	f.n.pending = append(f.n.pending, crashWrite{off: off, data: slices.Clone(p[:n])})
	if n < int64(len(p)) {
		return int(n), syscall.ENOSPC
	}
	return int(n), nil
}

func (f *crashFile) Size() (int64, error) {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	return int64(len(f.n.data)), nil
}

func (f *crashFile) Truncate(size int64) error {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	if err := f.change(); err != nil {
		return err
	}
	f.n.data = resize(f.n.data, size)
	f.n.pending = append(f.n.pending, crashWrite{off: size})
	return nil
}

func (f *crashFile) Allocate(off, n int64) error {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	if err := f.grow(); err != nil {
		return err
	}
	end := off + n
	if f.room(off, end) < n {
		return syscall.ENOSPC
	}
	if end > int64(len(f.n.data)) {
		f.n.data = resize(f.n.data, end)
		f.n.pending = append(f.n.pending, crashWrite{off: end})
	}
	return nil
}

func (f *crashFile) Punch(off, n int64) error {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	if err := f.change(); err != nil {
		return err
	}
	f.c.punched++
	f.n.data = punch(f.n.data, off, n)
	f.n.pending = append(f.n.pending, crashWrite{off: off, punch: n})
	return nil
}

// Used counts sectors that are not all zero.
func (f *crashFile) Used() (used int64, err error) {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	for b := f.n.data; len(b) > 0; b = b[min(sector, len(b)):] {
		if !isZero(b[:min(sector, len(b))]) {
			used += sector
		}
	}
	return used, nil
}

func (f *crashFile) StartWriteback(off, n int64) error { return nil }

func (f *crashFile) Sync() error {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	if err := f.change(); err != nil {
		return err
	}
	if f.c.failSync > 0 {
		f.c.failSync--
		for i := range f.n.pending {
			f.n.pending[i].lostOnly = true
		}
		return syscall.EIO
	}
	for _, w := range f.n.pending {
		switch {
		case w.lostOnly:
		case w.punch > 0:
			f.n.kept = punch(f.n.kept, w.off, w.punch)
		case w.data == nil:
			f.n.kept = resize(f.n.kept, w.off)
		default:
			f.n.kept = put(f.n.kept, w.data, w.off)
		}
	}
	f.n.pending = nil
	return nil
}

func (f *crashFile) Close() error { return nil }
