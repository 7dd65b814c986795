package pagestore

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/blob/cache"
	"github.com/tarndb/tarn/internal/layer"
)

// Remote says where a store keeps what must outlive its directory. With a zero
// Store everything is in the directory only.
type Remote struct {
	Store blob.Store
	// Node names the data directory among those that use the same Store: 32
	// hexadecimal digits. "" = the name in the directory's file NODE, which is
	// made when there is none.
	Node string
	// Lease is how long a node must have been silent before another takes its
	// timelines. The same for all nodes. 0 = 30 s.
	Lease time.Duration
	// SealEvery is how long what was written waits at most until it goes to
	// the store. 0 = 1 minute.
	SealEvery time.Duration
	// LocalBytes is about how much layers that are in the store too may take
	// locally. 0 = all of them stay; what is read from the store is kept.
	LocalBytes int64
	// CacheDir is where ranges that were read from the store are kept. "" =
	// the directory "cache" of the store's directory.
	CacheDir string
	// BytesPerSecond bounds uploads. 0 = 128 MiB.
	BytesPerSecond int64
	// Follow, when set, is asked between the moment at which a timeline is
	// uploaded and the manifest that lists it: it returns when what the pages of
	// that moment stand on, their WAL, has left this computer too. After an error
	// the bucket keeps what it had, and the upload is tried again later.
	Follow func(context.Context, tarn.TimelineID) error
}

// remote is a store's place in a bucket: what it knows and holds there. nil is a
// store without one.
//
//	store/<timeline>/MANIFEST             replaced by conditional puts only
//	store/<timeline>/<layer>.<epoch>      immutable; epoch of the lease, 8 digits
//	store/<timeline>/<layer>.<epoch>.<n>  a packed copy of it
//	nodes/<node>                          changes while the node is alive
type remote struct {
	bucket
	shelf  *shelf
	node   string
	o      Remote
	cache  *cache.Cache
	files  *layeredFiles
	heart  *heart
	slog   *slog.Logger
	linger time.Duration // how long an object that nobody lists stays

	lines map[tarn.TimelineID]*remoteLine // found in the bucket; guarded by shelf.mu
}

// bucket is a blob store as a page store uses it.
type bucket struct{ blobs blob.Store }

const (
	remoteStore    = "store/"
	remoteNodes    = "nodes/"
	nodeFile       = "NODE"
	remoteTimeout  = time.Minute // for one small request
	orphanLinger   = 24 * time.Hour
	remoteWaiting  = 10 * time.Millisecond // the least between two looks at a lease
	heartbeatParts = 6                     // heartbeats in a lease
)

// openRemote joins the bucket: it reads what there is in it and begins to be
// alive there. What is local and stale gives way.
func openRemote(ctx context.Context, s *shelf) (*remote, error) {
	o := s.options.Remote
	if o.Store == nil {
		return nil, nil
	}
	if o.Lease == 0 {
		o.Lease = 30 * time.Second
	}
	if o.SealEvery == 0 {
		o.SealEvery = time.Minute
	}
	if o.BytesPerSecond == 0 {
		o.BytesPerSecond = 128 << 20
	}
	if o.CacheDir == "" {
		o.CacheDir = filepath.Join(s.dir, "cache")
	}
	r := &remote{bucket: bucket{o.Store}, shelf: s, o: o, slog: s.slog, linger: orphanLinger, lines: map[tarn.TimelineID]*remoteLine{}}
	var err error
	if r.node, err = nodeName(s.files, s.dir, o.Node); err != nil {
		return nil, err
	}
	limit := int64(1) << 50
	if o.LocalBytes > 0 {
		limit = max(o.LocalBytes/2, 16<<20)
	}
	if r.cache, err = cache.Open(o.Store, cache.Options{Dir: o.CacheDir, Bytes: limit}); err != nil {
		return nil, err
	}
	r.heart = newHeart(r, s.slog)
	r.files = newLayeredFiles(s.files, r, s.slog)
	s.files, s.manifests.files, s.inBucket = r.files, r.files, true
	if err = r.heart.beat(ctx); err == nil {
		err = r.adopt(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	r.heart.prove = r.proveLines
	return r, nil
}

// nodeName gives the name of this data directory.
func nodeName(files fileSystem, dir, given string) (string, error) {
	if given != "" {
		if _, err := tarn.ParseTimelineID(given); err != nil {
			return "", tarn.Invalid("node %q: want 32 hexadecimal digits", given)
		}
		return given, nil
	}
	path := filepath.Join(dir, nodeFile)
	b, err := readFile(files, path)
	if err == nil {
		name := strings.TrimSpace(string(b))
		if _, err := tarn.ParseTimelineID(name); err != nil {
			return "", &layer.CorruptError{File: path, Expected: "32 hexadecimal digits", Found: fmt.Sprintf("%q", name)}
		}
		return name, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the node's name: %w", err)
	}
	var random [16]byte
	rand.Read(random[:])
	name := hex.EncodeToString(random[:])
	if err := writeFile(files, path, []byte(name+"\n")); err != nil {
		return "", fmt.Errorf("write the node's name: %w", err)
	}
	return name, nil
}

func manifestKey(id tarn.TimelineID) string { return remoteStore + string(id) + "/" + manifestName }

// objectKey names the object of a layer.
func objectKey(id tarn.TimelineID, o object) string {
	key := fmt.Sprintf("%s%s/%s.%08x", remoteStore, id, fileName(o.Kind, o.Number), o.Epoch)
	if o.Pack != 0 {
		key += fmt.Sprintf(".%06x", o.Pack)
	}
	return key
}

// readObject reads a small object whole, with the ETag that it had just before:
// what is read may be newer, which a conditional put then finds out.
func (r bucket) readObject(ctx context.Context, key string) ([]byte, string, error) {
	ctx, cancel := context.WithTimeout(ctx, remoteTimeout)
	defer cancel()
	h, err := r.blobs.Head(ctx, key)
	if err != nil {
		return nil, "", fmt.Errorf("look at %s: %w", key, err)
	}
	b, err := r.readRange(ctx, key, 0, -1)
	if err == nil && int64(len(b)) != h.Size { // cut off, or replaced just now
		err = fmt.Errorf("read %s: %d of %d bytes: %w", key, len(b), h.Size, io.ErrUnexpectedEOF)
	}
	return b, h.ETag, err
}

// readRange reads a part of an object past every copy of it.
func (r bucket) readRange(ctx context.Context, key string, off, n int64) ([]byte, error) {
	body, err := r.blobs.Get(ctx, key, off, n)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	if err == nil && n >= 0 && int64(len(b)) != n {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	return b, nil
}

// swap replaces a small object, or makes it when etag is "". An answer that was
// lost is found out by reading back. blob.ErrMismatch when it is another now.
func (r bucket) swap(ctx context.Context, key, etag string, b []byte) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, remoteTimeout)
	defer cancel()
	next, err := "", error(nil)
	if etag == "" {
		err = r.blobs.PutIfAbsent(ctx, key, b)
	} else {
		next, err = r.blobs.PutIfMatch(ctx, key, etag, b)
	}
	switch {
	case err == nil && next != "":
		return next, nil
	case err == nil, errors.Is(err, blob.ErrAmbiguous), errors.Is(err, blob.ErrExists), errors.Is(err, blob.ErrMismatch):
		// A mismatch may be our own put of before, repeated by a client.
		have, tag, e := r.readObject(ctx, key)
		switch {
		case e == nil && string(have) == string(b):
			return tag, nil
		case e != nil: // a mismatch too may be our own doing
			err = fmt.Errorf("%w: %w", blob.ErrAmbiguous, e)
		case err == nil, errors.Is(err, blob.ErrExists):
			err = blob.ErrMismatch
		case tag != etag && etag != "":
			err = blob.ErrMismatch
		}
	}
	return "", fmt.Errorf("write %s: %w", key, err)
}

// forget takes a timeline that is deleted out of the bucket.
func (r *remote) forget(t *timeline) error {
	if t.remote == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), remoteTimeout)
	defer cancel()
	r.shelf.mu.Lock()
	delete(r.lines, t.id)
	r.shelf.mu.Unlock()
	return r.bury(ctx, t.id, t.remote)
}

// releaseAll lets go of what is closed and the bucket has all of.
func (r *remote) releaseAll(ctx context.Context) error {
	if r == nil {
		return nil
	}
	r.shelf.mu.Lock()
	var done []*timeline
	for _, t := range r.shelf.timelines {
		if t.state == stateIdle || t.state == stateGhost {
			done = append(done, t)
		}
	}
	r.shelf.mu.Unlock()
	var g errgroup.Group
	g.SetLimit(readers)
	for _, t := range done {
		g.Go(func() error {
			// What cannot be released is ours when we come back, and another's
			// after a lease.
			if err := r.release(ctx, t); err != nil && tarn.KindOf(err) != tarn.KindConflict {
				return fmt.Errorf("release timeline %s: %w", t.id, err)
			}
			return nil
		})
	}
	return g.Wait()
}

func (r *remote) close() error {
	if r == nil {
		return nil
	}
	return r.cache.Close()
}
