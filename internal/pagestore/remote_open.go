package pagestore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/layer"
)

// readers is how many small objects are read at once.
const readers = 8

// found is a manifest found in the bucket.
type found struct {
	id   tarn.TimelineID
	man  *remoteManifest
	etag string
}

// listRemote reads the manifests in the bucket but for those that skip.
func (r *remote) listRemote(ctx context.Context, skip func(tarn.TimelineID) bool) ([]found, error) {
	var ids []tarn.TimelineID
	for o, err := range r.blobs.List(ctx, remoteStore, "") {
		if err != nil {
			return nil, fmt.Errorf("list timelines of %s: %w", r.blobs.URL(), err)
		}
		dir, name, _ := strings.Cut(strings.TrimPrefix(o.Key, remoteStore), "/")
		id, err := tarn.ParseTimelineID(dir)
		if err == nil && name == manifestName && !skip(id) {
			ids = append(ids, id)
		}
	}
	var mu sync.Mutex
	var out []found
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(readers)
	for _, id := range ids {
		g.Go(func() error {
			key := manifestKey(id)
			b, etag, err := r.readObject(ctx, key)
			if errors.Is(err, blob.ErrNotExist) {
				return nil // deleted meanwhile
			}
			if err != nil {
				return err
			}
			m, err := decodeRemote(key, b, id)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			out = append(out, found{id, m, etag})
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return out, nil
}

// adopt makes the directory show what the bucket has, before anybody reads it:
//
//   - a timeline that the directory does not have gets its directory with
//     the manifest, and no layer
//   - one whose directory goes on from another epoch than the bucket's was
//     taken by another node: its directory is replaced
//   - one whose deletion was decided is deleted
//
// Every step can be done again.
func (r *remote) adopt(ctx context.Context) error {
	all, err := r.listRemote(ctx, func(tarn.TimelineID) bool { return false })
	if err != nil {
		return err
	}
	r.lines = map[tarn.TimelineID]*remoteLine{}
	for _, f := range all {
		if _, err := r.adoptOne(ctx, f); err != nil {
			return fmt.Errorf("take timeline %s from %s: %w", f.id, r.blobs.URL(), err)
		}
	}
	dirs, err := r.shelf.files.ReadDir(r.shelf.manifests.dir)
	if err != nil {
		return err
	}
	for _, d := range dirs {
		// The bucket does not know it any more, though it did: what is here is
		// uploaded anew.
		id, err := tarn.ParseTimelineID(d.Name)
		if err != nil || r.lines[id] != nil {
			continue
		}
		if had, err := r.readRecord(id); err == nil {
			l := newRemoteLine()
			l.first = had.Epoch
			r.lines[id] = l
		}
	}
	return nil
}

// adoptOne adopts one timeline; false when it is deleted.
func (r *remote) adoptOne(ctx context.Context, f found) (bool, error) {
	dir := filepath.Join(r.shelf.manifests.dir, string(f.id))
	_, err := r.shelf.files.ReadDir(dir + deletedSuffix)
	deleted := err == nil
	if f.man.Gone || deleted && f.man.Holder == r.node {
		r.shelf.mu.Lock()
		l := newRemoteLine()
		l.man, l.etag, l.state = f.man, f.etag, lineHeld
		r.shelf.mu.Unlock()
		if f.man.Holder == r.node || f.man.Holder == "" {
			if err := r.bury(ctx, f.id, l); err != nil {
				return false, err
			}
		}
		return false, r.shelf.removeDir(dir)
	}
	l := newRemoteLine()
	l.man, l.etag, l.state = f.man, f.etag, lineFree
	had, err := r.readRecord(f.id)
	switch {
	case err == nil:
		l.ours = had.Epoch == f.man.Epoch
	case errors.Is(err, fs.ErrNotExist):
		// Its first manifest was put, and the process ended before it was noted.
		_, e := r.shelf.manifests.load(f.id)
		l.ours = e == nil && f.man.Epoch == 1 && f.man.Holder == r.node
	case !errors.Is(err, layer.ErrCorrupt):
		return false, err
	}
	if l.ours {
		if _, err := r.shelf.manifests.load(f.id); errors.Is(err, fs.ErrNotExist) {
			l.ours = false // a crash while it was replaced
		}
	}
	if l.ours && f.man.Holder == r.node {
		l.state = lineHeld
	}
	if !l.ours {
		if had != nil {
			r.slog.Warn("another node took the timeline: what is here gives way to the bucket", "timeline", f.id, "seq", f.man.Man.Closed.Head)
		}
		if err := r.replaceLocal(f.id, f.man); err != nil {
			return false, err
		}
	}
	if f.man.Holder != "" && f.man.Holder != r.node {
		if _, _, err := r.heart.sight(ctx, f.man.Holder); err != nil {
			return false, err
		}
	}
	if !l.ours || had == nil || had.Man.Epoch != f.man.Man.Epoch {
		if err := r.record(f.id, l, f.man, f.etag); err != nil {
			return false, err
		}
	} else {
		r.files.list(f.id, f.man)
	}
	// The directory of another past has none now: it is as the bucket's. Whether
	// our name in it is that of this directory we cannot know; own will see.
	r.shelf.mu.Lock()
	r.lines[f.id] = l
	r.shelf.mu.Unlock()
	return true, nil
}

// readRecord reads what a timeline's directory goes on from.
func (r *remote) readRecord(id tarn.TimelineID) (*remoteManifest, error) {
	path := filepath.Join(r.shelf.manifests.dir, string(id), bucketFile)
	b, err := readFile(r.shelf.files, path)
	if err != nil {
		return nil, err
	}
	return decodeRemote(path, b, id)
}

// replaceLocal makes a timeline's directory that of a manifest in the bucket.
// What else it held is lost.
//
//  1. remove the manifest     crash: the directory is removed at Open, and made
//  2. remove everything       anew, the same
//  3. the manifest            crash: either
func (r *remote) replaceLocal(id tarn.TimelineID, m *remoteManifest) error {
	dir := filepath.Join(r.shelf.manifests.dir, string(id))
	if err := ignoreMissing(r.shelf.files.Remove(r.shelf.manifests.path(id))); err != nil {
		return err
	}
	// Before anything is removed: open children go on reading.
	r.files.list(id, m)
	if err := r.shelf.removeDir(dir); err != nil {
		return err
	}
	if err := r.shelf.files.Mkdir(dir); err != nil {
		return err
	}
	man := *m.Man
	if err := r.shelf.manifests.put(&man); err != nil {
		return err
	}
	m.Man = &man
	return r.shelf.files.SyncDir(r.shelf.manifests.dir)
}

// meet takes in timelines that other nodes made since the bucket was read.
func (r *remote) meet(ctx context.Context) error {
	all, err := r.listRemote(ctx, func(id tarn.TimelineID) bool {
		r.shelf.mu.Lock()
		defer r.shelf.mu.Unlock()
		return r.shelf.timelines[id] != nil || r.lines[id] != nil
	})
	if err != nil {
		return err
	}
	for _, f := range all {
		there, err := r.adoptOne(ctx, f)
		if err != nil {
			return fmt.Errorf("take timeline %s from %s: %w", f.id, r.blobs.URL(), err)
		}
		if !there {
			continue
		}
		r.shelf.mu.Lock()
		if r.shelf.timelines[f.id] == nil {
			t := &timeline{id: f.id, turn: make(chan struct{}, 1), parent: f.man.Man.Parent, state: stateIdle, man: f.man.Man, dead: f.man.Man.Dead, loose: f.man.Man.Loose, remote: r.lines[f.id]}
			if f.man.Man.Deleted {
				t.state = stateGhost
			}
			r.shelf.timelines[f.id] = t
			if p := r.shelf.timelines[t.parent.Timeline]; p != nil {
				p.children++
			}
		}
		r.shelf.mu.Unlock()
	}
	return nil
}

// line gives what is known of a timeline in the bucket; nil without a bucket.
func (r *remote) line(id tarn.TimelineID) *remoteLine {
	if r == nil {
		return nil
	}
	if l := r.lines[id]; l != nil {
		return l
	}
	return newRemoteLine()
}

// bury deletes a timeline in the bucket.
//
//  1. a manifest that says it is gone        crash: Open goes on
//  2. remove its objects, those of others    crash: Open goes on
//     and of crashes too
//  3. remove the manifest
func (r *remote) bury(ctx context.Context, id tarn.TimelineID, l *remoteLine) error {
	if err := l.wait(ctx); err != nil {
		return err
	}
	defer func() { <-l.turn }()
	st, have := l.now()
	if have == nil {
		return nil
	}
	if st != lineHeld {
		return taken(have)
	}
	gone := *have
	gone.Gone, gone.Objects = true, nil
	b, err := gone.encode()
	if err != nil {
		return err
	}
	l.mu.Lock()
	etag := l.etag
	l.mu.Unlock()
	if !have.Gone {
		if etag, err = r.swap(ctx, manifestKey(id), etag, b); err != nil {
			return err
		}
	}
	l.mu.Lock()
	l.man, l.etag, l.state = &gone, etag, lineLost
	l.mu.Unlock()
	var keys []string
	for o, err := range r.blobs.List(ctx, remoteStore+string(id)+"/", "") {
		if err != nil {
			return fmt.Errorf("list objects of timeline %s: %w", id, err)
		}
		if o.Key != manifestKey(id) {
			keys = append(keys, o.Key)
		}
	}
	r.files.unlist(id)
	if err := r.discard(ctx, keys); err != nil {
		return err
	}
	return r.blobs.Delete(ctx, manifestKey(id))
}

// discard deletes objects, and what the cache has of them.
func (r *remote) discard(ctx context.Context, keys []string) error {
	for part := range slices.Chunk(keys, 500) {
		if err := r.blobs.Delete(ctx, part...); err != nil {
			return fmt.Errorf("delete %d objects: %w", len(part), err)
		}
		if err := r.cache.Drop(part...); err != nil {
			r.slog.Warn("drop from cache", "err", err)
		}
	}
	return nil
}

// sweepRemote deletes objects of timelines that are held here, or that no
// manifest is of, when nobody lists them and they are old.
func (r *remote) sweepRemote(ctx context.Context) error {
	listed, held := map[string]bool{}, map[string]bool{}
	var old []string
	var oldest []string // of no timeline that is known
	for o, err := range r.blobs.List(ctx, remoteStore, "") {
		if err != nil {
			return fmt.Errorf("list %s: %w", r.blobs.URL(), err)
		}
		dir, name, _ := strings.Cut(strings.TrimPrefix(o.Key, remoteStore), "/")
		if name == manifestName {
			held[dir] = false // unless we hold it, it is another's to sweep
		}
		age := time.Since(o.ModTime)
		if _, known := held[dir]; !known && name != manifestName { // a manifest comes before its objects
			if age > 7*r.linger {
				oldest = append(oldest, o.Key)
			}
		} else if age > r.linger && name != manifestName {
			old = append(old, o.Key)
		}
	}
	// Listed is looked at after the objects: what became listed meanwhile counts.
	for _, t := range r.shelf.all() {
		select {
		case t.remote.tend <- struct{}{}: // nothing is being uploaded that will be listed soon
			defer func() { <-t.remote.tend }()
		default:
			held[string(t.id)] = false
			continue
		}
		st, m := t.remote.now()
		held[string(t.id)] = st == lineHeld
		if m != nil {
			for _, o := range m.Objects {
				listed[objectKey(t.id, o)] = true
			}
		}
	}
	old = slices.DeleteFunc(append(old, oldest...), func(key string) bool {
		dir, _, _ := strings.Cut(strings.TrimPrefix(key, remoteStore), "/")
		mine, known := held[dir]
		return listed[key] || known && !mine
	})
	if len(old) == 0 {
		return nil
	}
	r.slog.Info("delete objects that no manifest lists", "count", len(old))
	return r.discard(ctx, old)
}
