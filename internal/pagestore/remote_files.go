package pagestore

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
)

// layeredFiles is the file system of a store with a bucket: layers that are in
// the bucket are there whether or not the directory has a copy. What is written
// goes to the directory only.
type layeredFiles struct {
	fileSystem // of the directory
	r          *remote
	slog       *slog.Logger

	mu      sync.Mutex // guards what follows; never held across I/O
	objects map[string]map[string]remoteRef
	open    map[string]map[*layeredFile]struct{} // by path
	used    map[string]time.Time                 // when a local layer was last opened or read, about
	packs   map[string]*layer.Pack               // headers of packed objects, by key
}

// remoteRef says what a layer is called in the bucket.
type remoteRef struct {
	id     layer.FileID
	key    string
	bytes  int64 // of the layer
	stored int64 // of the object: less when it is packed
	packed bool
}

func newLayeredFiles(under fileSystem, r *remote, log *slog.Logger) *layeredFiles {
	return &layeredFiles{fileSystem: under, r: r, slog: log, objects: map[string]map[string]remoteRef{},
		open: map[string]map[*layeredFile]struct{}{}, used: map[string]time.Time{}, packs: map[string]*layer.Pack{}}
}

// list says which objects a timeline has. Who has a layer open of which there
// is no local copy goes on with the object that it is in now.
func (l *layeredFiles) list(id tarn.TimelineID, m *remoteManifest) {
	refs := make(map[string]remoteRef, len(m.Objects))
	keys := make(map[string]bool, len(m.Objects))
	for _, o := range m.Objects {
		ref := remoteRef{id: o.id(id), key: objectKey(id, o), bytes: o.Bytes, stored: o.Bytes, packed: o.Pack != 0}
		if ref.packed {
			for _, f := range m.Man.Layers {
				if f.Kind == o.Kind && f.Number == o.Number {
					ref.bytes = f.Bytes
				}
			}
		}
		refs[fileName(o.Kind, o.Number)] = ref
		keys[ref.key] = true
	}
	type stale struct {
		f   *layeredFile
		ref remoteRef
	}
	var changed []stale
	l.mu.Lock()
	for name, was := range l.objects[string(id)] {
		if keys[was.key] {
			continue
		}
		delete(l.packs, was.key)
		if ref, ok := refs[name]; ok {
			for f := range l.open[filepath.Join(l.r.shelf.manifests.dir, string(id), name)] {
				changed = append(changed, stale{f, ref})
			}
		}
	}
	l.objects[string(id)] = refs
	l.mu.Unlock()
	for _, c := range changed {
		c.f.mu.Lock()
		c.f.ref = c.ref
		c.f.mu.Unlock()
	}
}

func (l *layeredFiles) unlist(id tarn.TimelineID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.objects, string(id))
}

// find gives the object of a path.
func (l *layeredFiles) find(path string) (remoteRef, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ref, ok := l.objects[filepath.Base(filepath.Dir(path))][filepath.Base(path)]
	return ref, ok
}

// isLayer reports whether a path is that of a layer.
func isLayer(path string) bool {
	name := filepath.Base(path)
	return fileNumber(layer.FileLog, name) != 0 || fileNumber(layer.FileMap, name) != 0 || fileNumber(layer.FileImage, name) != 0
}

// ReadDir adds the layers that are in the bucket only.
func (l *layeredFiles) ReadDir(dir string) ([]fileInfo, error) {
	out, err := l.fileSystem.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	refs := l.objects[filepath.Base(dir)]
	if len(refs) == 0 {
		return out, nil
	}
	here := make(map[string]bool, len(out))
	for _, f := range out {
		here[f.Name] = true
	}
	for name, ref := range refs {
		if !here[name] {
			out = append(out, fileInfo{Name: name, Size: ref.bytes})
		}
	}
	return out, nil
}

// Open opens the copy in the directory, or else the object.
func (l *layeredFiles) Open(path string, how openHow) (file, error) {
	f, err := l.fileSystem.Open(path, how)
	if !isLayer(path) {
		return f, err
	}
	if err != nil && (how != openExisting || !errors.Is(err, fs.ErrNotExist)) {
		return nil, err
	}
	ref, ok := l.find(path)
	if err != nil && !ok {
		return nil, err
	}
	lf := &layeredFile{in: l, path: path, local: f}
	if err != nil {
		lf.local, lf.ref = nil, ref
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[path] == nil {
		l.open[path] = map[*layeredFile]struct{}{}
	}
	l.open[path][lf] = struct{}{}
	l.used[path] = time.Now()
	return lf, nil
}

// evict removes the directory's copy of a layer that is in the bucket. Who has
// it open goes on with the object.
func (l *layeredFiles) evict(path string) error {
	ref, ok := l.find(path)
	if !ok {
		return nil
	}
	if err := ignoreMissing(l.fileSystem.Remove(path)); err != nil {
		return err
	}
	l.mu.Lock()
	var handles []*layeredFile
	for f := range l.open[path] {
		handles = append(handles, f)
	}
	delete(l.used, path)
	l.mu.Unlock()
	for _, f := range handles {
		f.mu.Lock()
		if f.local != nil {
			f.local.Close() // it was synced long ago
			f.local, f.ref = nil, ref
		}
		f.mu.Unlock()
	}
	return nil
}

// layeredFile is an open layer.
type layeredFile struct {
	in   *layeredFiles
	path string
	read atomic.Bool // since somebody looked

	mu    sync.RWMutex // guards what follows; held shared by a read
	local file         // nil: read the object
	ref   remoteRef
}

// ReadAt reads the copy in the directory, or the object by ranges that are kept.
func (f *layeredFile) ReadAt(p []byte, off int64) (int, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if !f.read.Load() {
		f.read.Store(true)
	}
	if f.local != nil {
		return f.local.ReadAt(p, off)
	}
	ctx, cancel := context.WithTimeout(context.Background(), remoteTimeout)
	defer cancel()
	for try := 1; ; try++ {
		n, err := f.in.cached(ctx, f.ref, p, off)
		if err == nil || errors.Is(err, io.EOF) || try == readTries || ctx.Err() != nil {
			return n, err
		}
	}
}

// readTries is how often a range is asked for before the reader hears of it.
const readTries = 3

// again reads what was found damaged from the bucket, past every copy, and
// puts it in their place. false when the bucket does not have it.
func (f *layeredFile) again(p []byte, off int64, good func() error) (bool, error) {
	ref, ok := f.in.find(f.path)
	if !ok || off+int64(len(p)) > ref.bytes {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), remoteTimeout)
	defer cancel()
	b, err := f.in.direct(ctx, ref, off, int64(len(p)))
	if err != nil {
		return true, err
	}
	copy(p, b)
	if err := good(); err != nil {
		return true, err
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.local == nil {
		f.in.invalidate(ctx, ref, off, int64(len(p)))
	} else if _, err := f.local.WriteAt(p, off); err != nil {
		f.in.slog.Warn("repair layer", "path", f.path, "err", err)
		return true, nil
	}
	f.in.slog.Warn("layer repaired from the bucket", "path", f.path, "count", len(p))
	return true, nil
}

// onLocal does something with the copy in the directory; nothing without one.
func (f *layeredFile) onLocal(do func(file) error) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.local == nil {
		return nil
	}
	return do(f.local)
}

// WriteAt writes to the directory; what is in the bucket only never changes.
func (f *layeredFile) WriteAt(p []byte, off int64) (n int, err error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.local == nil {
		return 0, syscall.EROFS
	}
	return f.local.WriteAt(p, off)
}

// Close closes the copy in the directory.
func (f *layeredFile) Close() error {
	f.in.mu.Lock()
	if handles := f.in.open[f.path]; handles != nil {
		delete(handles, f)
		if len(handles) == 0 {
			delete(f.in.open, f.path)
		}
	}
	f.in.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.local == nil {
		return nil
	}
	return f.local.Close()
}

// Size is that of the copy or the object.
func (f *layeredFile) Size() (n int64, err error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.local == nil {
		return f.ref.bytes, nil
	}
	return f.local.Size()
}

// Truncate changes nothing where the size is right.
func (f *layeredFile) Truncate(size int64) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.local == nil {
		if size == f.ref.bytes {
			return nil
		}
		return syscall.EROFS
	}
	return f.local.Truncate(size)
}

// Allocate allocates in the directory.
func (f *layeredFile) Allocate(off, n int64) error {
	return f.onLocal(func(l file) error { return l.Allocate(off, n) })
}

// Punch gives space of the directory back.
func (f *layeredFile) Punch(off, n int64) error {
	return f.onLocal(func(l file) error { return l.Punch(off, n) })
}

// Used is the space taken in the directory.
func (f *layeredFile) Used() (n int64, err error) {
	err = f.onLocal(func(l file) (err error) { n, err = l.Used(); return err })
	return n, err
}

// StartWriteback starts to write the directory's copy.
func (f *layeredFile) StartWriteback(off, n int64) error {
	return f.onLocal(func(l file) error { return l.StartWriteback(off, n) })
}

// Sync makes the directory's copy durable.
func (f *layeredFile) Sync() error { return f.onLocal(func(l file) error { return l.Sync() }) }

// onlyInBucket reports whether a layer has no copy in the directory.
func onlyInBucket(f file) bool {
	if o, ok := f.(*openFile); ok {
		f = o.file
	}
	l, ok := f.(*layeredFile)
	return ok && !l.isLocal()
}

// rereader is a file of which there is another copy.
type rereader interface {
	again(p []byte, off int64, good func() error) (bool, error)
}

// reread reads again, from another copy, what bad says is damaged; nil when it
// is good now.
func reread(f file, p []byte, off int64, bad error, good func() error) error {
	if !errors.Is(bad, layer.ErrCorrupt) {
		return bad
	}
	if o, ok := f.(*openFile); ok {
		f = o.file
	}
	r, ok := f.(rereader)
	if !ok {
		return bad
	}
	tried, err := r.again(p, off, good)
	switch {
	case !tried:
		return bad
	case err != nil:
		return errors.Join(bad, err)
	}
	return nil
}
