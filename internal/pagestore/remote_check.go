package pagestore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/layer"
)

// RemoteChecked counts what a check of the bucket verified.
type RemoteChecked struct {
	Manifests int
	Objects   int   // that manifests list
	Bytes     int64 // of those
	Repaired  int   // objects that were put again
	Seen      Checked
}

// RemoteCheck says how the bucket is checked.
type RemoteCheck struct {
	// Dir is an empty directory for what is read meanwhile; it is left with some
	// of it.
	Dir string
	// Repair puts objects again of which there is a copy here that is whole.
	Repair RepairKind
	// Damaged tells of local files that are not, by path.
	Damaged func(path string) bool
}

// RepairKind says whether a check repairs what it can.
type RepairKind uint8

// The kinds of repair.
const (
	RepairNothing RepairKind = iota
	RepairObjects
)

// remoteRounds is how often everything is looked at: again when a manifest changed
// of which something was found, when something was repaired, and when a request
// did not work out.
const remoteRounds = 3

// CheckRemote verifies the bucket while it is used: that every manifest reads,
// that every object it lists is there and has its size, and, past all copies on
// this computer, every page and record that Check verifies. File and offset of what is
// damaged are an object's key and the offset in the layer that it holds.
//
// What is found while its timeline's manifest is replaced does not count, and is
// looked at again.
func (l Lines) CheckRemote(ctx context.Context, o RemoteCheck, report func(Finding)) (RemoteChecked, error) {
	r := l.s.remote
	if r == nil {
		return RemoteChecked{}, nil
	}
	repaired := 0
	for round := 1; ; round++ {
		v := &remoteCheck{remote: r, dir: filepath.Join(o.Dir, fmt.Sprint(round)), etags: map[tarn.TimelineID]string{}}
		err := v.run(ctx)
		if err != nil && round < remoteRounds && ctx.Err() == nil {
			r.slog.Warn("check of the bucket begins again", "err", err) // one request of thousands is no reason to give up
			continue
		}
		if err != nil {
			return v.sum, fmt.Errorf("check %s: %w", r.blobs.URL(), err)
		}
		moved, err := v.moved(ctx)
		if err != nil {
			return v.sum, fmt.Errorf("check %s: %w", r.blobs.URL(), err)
		}
		n := 0
		if o.Repair == RepairObjects {
			for _, f := range v.found {
				if again, err := v.repair(ctx, f, o.Damaged); err != nil {
					r.slog.Warn("object not repaired", "timeline", f.Timeline, "err", err)
				} else if again {
					n++
				}
			}
			repaired += n
		}
		if (n > 0 || moved) && len(v.found) > 0 && round < remoteRounds {
			continue
		}
		for _, f := range v.found {
			report(f)
		}
		v.sum.Repaired = repaired
		return v.sum, nil
	}
}

// remoteCheck is one look at the bucket.
type remoteCheck struct {
	*remote
	dir   string
	sum   RemoteChecked
	found []Finding
	etags map[tarn.TimelineID]string // of the manifests as they were read
}

func (v *remoteCheck) find(id tarn.TimelineID, err error) {
	v.found = append(v.found, Finding{Timeline: id, Err: err})
}

func (v *remoteCheck) run(ctx context.Context) error {
	if err := v.listed(ctx); err != nil || len(v.found) > 0 {
		return err // what is not there cannot be read
	}
	return v.read(ctx)
}

// listed verifies manifests, and that what they list is there.
func (v *remoteCheck) listed(ctx context.Context) error {
	sizes := map[string]int64{}
	var ids []tarn.TimelineID
	for o, err := range v.blobs.List(ctx, remoteStore, "") {
		if err != nil {
			return err
		}
		dir, name, _ := strings.Cut(strings.TrimPrefix(o.Key, remoteStore), "/")
		if id, err := tarn.ParseTimelineID(dir); err == nil && name == manifestName {
			ids = append(ids, id)
		}
		sizes[o.Key] = o.Size
	}
	for _, id := range ids {
		key := manifestKey(id)
		b, etag, err := v.readObject(ctx, key)
		if errors.Is(err, blob.ErrNotExist) {
			continue // deleted meanwhile
		}
		if err != nil {
			return err
		}
		v.sum.Manifests++
		v.etags[id] = etag
		m, err := decodeRemote(key, b, id)
		if errors.Is(err, layer.ErrCorrupt) {
			v.find(id, err)
			continue
		}
		if err != nil {
			return err
		}
		if m.Gone {
			continue
		}
		for _, o := range m.Objects {
			v.sum.Objects, v.sum.Bytes = v.sum.Objects+1, v.sum.Bytes+o.Bytes
			key := objectKey(id, o)
			size, there := sizes[key]
			if !there { // put since it was listed?
				h, err := v.blobs.Head(ctx, key)
				if err != nil && !errors.Is(err, blob.ErrNotExist) {
					return err
				}
				size, there = h.Size, err == nil
			}
			switch {
			case !there:
				v.find(id, &layer.CorruptError{File: key, Expected: fmt.Sprintf("an object of %d bytes", o.Bytes), Found: "none"})
			case size != o.Bytes:
				v.find(id, &layer.CorruptError{File: key, Offset: min(size, o.Bytes), Expected: fmt.Sprintf("%d bytes", o.Bytes), Found: fmt.Sprint(size)})
			}
		}
	}
	return nil
}

// read verifies everything that can be read in the bucket, through a store of
// its own that has no layers.
func (v *remoteCheck) read(ctx context.Context) error {
	if err := os.MkdirAll(v.dir, 0o700); err != nil {
		return err
	}
	o := v.shelf.options
	o.Log = nil
	o.Remote = Remote{Store: &lookedAt{Store: v.blobs, own: map[string]lookedObject{}}, Lease: v.o.Lease, LocalBytes: 1}
	s, err := Open(ctx, v.dir, o)
	if err != nil {
		return err
	}
	sum, err := checkAtOnce(ctx, s, readers, func(f Finding) {
		if bad, ok := errors.AsType[*layer.CorruptError](f.Err); ok {
			if ref, there := s.remote.files.find(bad.File); there {
				named := *bad
				named.File = ref.key
				f.Err = &named
			}
		}
		v.find(f.Timeline, f.Err)
	})
	slices.SortStableFunc(v.found, func(a, b Finding) int { return cmp.Compare(a.Timeline, b.Timeline) })
	v.sum.Seen = sum
	return errors.Join(err, s.Close())
}

// moved tells whether a manifest was replaced since it was read of which
// something was found.
func (v *remoteCheck) moved(ctx context.Context) (bool, error) {
	for _, f := range v.found {
		o, err := v.blobs.Head(ctx, manifestKey(f.Timeline))
		if err != nil && !errors.Is(err, blob.ErrNotExist) {
			return false, err
		}
		if o.ETag != v.etags[f.Timeline] {
			return true, nil
		}
	}
	return false, nil
}

// repair puts an object again from the copy in the directory; false when there
// is none, or the timeline is not ours. An object that is packed is not what is
// here.
func (v *remoteCheck) repair(ctx context.Context, f Finding, damaged func(string) bool) (bool, error) {
	bad, ok := errors.AsType[*layer.CorruptError](f.Err)
	if !ok {
		return false, nil
	}
	v.shelf.mu.Lock()
	t := v.shelf.timelines[f.Timeline]
	v.shelf.mu.Unlock()
	if t == nil {
		return false, nil
	}
	l := t.remote
	if err := l.wait(ctx); err != nil {
		return false, err
	}
	defer func() { <-l.turn }()
	st, man := l.now()
	if st != lineHeld {
		return false, nil
	}
	if bad.File == manifestKey(f.Timeline) {
		b, err := man.encode()
		if err != nil {
			return false, err
		}
		etag, err := v.swap(ctx, bad.File, v.etags[f.Timeline], b)
		if err != nil {
			return false, err
		}
		return true, v.record(f.Timeline, l, man, etag)
	}
	i := slices.IndexFunc(man.Objects, func(o object) bool { return objectKey(f.Timeline, o) == bad.File })
	if i < 0 {
		return false, nil
	}
	path := filepath.Join(v.shelf.manifests.dir, string(f.Timeline), fileName(man.Objects[i].Kind, man.Objects[i].Number))
	if ref, ok := v.files.find(path); !ok || ref.packed || damaged(path) {
		return false, nil
	}
	h, err := v.files.fileSystem.Open(path, openExisting)
	if err != nil {
		return false, err
	}
	defer h.Close()
	if size, err := h.Size(); err != nil || size < man.Objects[i].Bytes {
		return false, err
	}
	if err := v.blobs.Put(ctx, bad.File, io.NewSectionReader(h, 0, man.Objects[i].Bytes)); err != nil {
		return false, err
	}
	v.slog.Warn("object repaired from the directory", "timeline", f.Timeline, "path", bad.File)
	return true, v.cache.Drop(bad.File)
}

// lookedAt is a bucket that is only looked at: what a store writes to be alive
// there stays here, and everything else is refused.
type lookedAt struct {
	blob.Store

	mu  sync.Mutex // guards own
	own map[string]lookedObject
}

type lookedObject struct {
	body string
	at   time.Time
	n    int
}

var errLookedAt = errors.New("the bucket is only looked at")

func (s *lookedAt) mine(key string) (lookedObject, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.own[key]
	return o, ok
}

func (s *lookedAt) keep(key string, b []byte) (string, error) {
	if !strings.HasPrefix(key, remoteNodes) {
		return "", fmt.Errorf("write %s: %w", key, errLookedAt)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.own[key] = lookedObject{string(b), time.Now(), s.own[key].n + 1}
	return fmt.Sprint(s.own[key].n), nil
}

func (s *lookedAt) Head(ctx context.Context, key string) (blob.Object, error) {
	if o, ok := s.mine(key); ok {
		return blob.Object{Key: key, Size: int64(len(o.body)), ModTime: o.at, ETag: fmt.Sprint(o.n)}, nil
	}
	return s.Store.Head(ctx, key)
}

func (s *lookedAt) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	o, ok := s.mine(key)
	if !ok {
		return s.Store.Get(ctx, key, off, n)
	}
	rest := o.body[min(off, int64(len(o.body))):]
	if n >= 0 {
		rest = rest[:min(n, int64(len(rest)))]
	}
	return io.NopCloser(strings.NewReader(rest)), nil
}

func (s *lookedAt) Put(_ context.Context, key string, _ io.Reader) error {
	return fmt.Errorf("write %s: %w", key, errLookedAt)
}

func (s *lookedAt) PutIfAbsent(_ context.Context, key string, b []byte) error {
	_, err := s.keep(key, b)
	return err
}

func (s *lookedAt) PutIfMatch(_ context.Context, key, _ string, b []byte) (string, error) {
	return s.keep(key, b)
}

func (s *lookedAt) Delete(_ context.Context, keys ...string) error {
	return fmt.Errorf("delete %s: %w", cmp.Or(keys...), errLookedAt)
}

func (s *lookedAt) List(ctx context.Context, prefix, startAfter string) iter.Seq2[blob.Object, error] {
	return s.Store.List(ctx, prefix, startAfter)
}
