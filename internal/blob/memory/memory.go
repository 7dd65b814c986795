// Package memory keeps a blob store in the memory of the process, for tests and
// for trying things. It knows nothing of files; nothing outlives the process.
package memory

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tarndb/tarn/internal/blob"
)

// Store is a map. The zero value is an empty store.
type Store struct {
	mu      sync.Mutex // guards all below; held only for map work
	objects map[string]object
	writes  uint64 // counts writes; the source of ETags
}

type object struct {
	b    []byte // never written to after it is stored
	time time.Time
	etag string
}

var _ blob.Store = (*Store)(nil)

// New gives an empty store.
func New() *Store { return &Store{} }

// URL is memory:// – two stores share it but no bytes.
func (s *Store) URL() string { return "memory://" }

// Get reads n bytes at off; see blob.Store.
func (s *Store) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if err := check(ctx, "get", key); err != nil {
		return nil, err
	}
	if off < 0 {
		return nil, fmt.Errorf("get %s: negative offset %d", key, off)
	}
	s.mu.Lock()
	o, ok := s.objects[key]
	s.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("get %s: %w", key, blob.ErrNotExist)
	}
	b := o.b[min(off, int64(len(o.b))):]
	if n >= 0 {
		b = b[:min(n, int64(len(b)))]
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

// Head describes one object.
func (s *Store) Head(ctx context.Context, key string) (blob.Object, error) {
	if err := check(ctx, "head", key); err != nil {
		return blob.Object{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[key]
	if !ok {
		return blob.Object{}, fmt.Errorf("head %s: %w", key, blob.ErrNotExist)
	}
	return o.describe(key), nil
}

func (o object) describe(key string) blob.Object {
	return blob.Object{Key: key, Size: int64(len(o.b)), ModTime: o.time, ETag: o.etag}
}

// List yields what is there when it begins.
func (s *Store) List(ctx context.Context, prefix, startAfter string) iter.Seq2[blob.Object, error] {
	return func(yield func(blob.Object, error) bool) {
		if err := blob.CheckPrefix(prefix); err != nil {
			yield(blob.Object{}, fmt.Errorf("list: %w", err))
			return
		}
		s.mu.Lock()
		var found []blob.Object
		for key, o := range s.objects {
			if strings.HasPrefix(key, prefix) && key > startAfter {
				found = append(found, o.describe(key))
			}
		}
		s.mu.Unlock()
		sort.Slice(found, func(i, j int) bool { return found[i].Key < found[j].Key })
		for _, o := range found {
			if err := context.Cause(ctx); err != nil {
				yield(blob.Object{}, fmt.Errorf("list %s: %w", prefix, err))
				return
			}
			if !yield(o, nil) {
				return
			}
		}
	}
}

// Put writes key, replacing what was there.
func (s *Store) Put(ctx context.Context, key string, r io.Reader) error {
	if err := check(ctx, "put", key); err != nil {
		return err
	}
	b, err := io.ReadAll(r)
	if err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store(key, b)
	return nil
}

// PutIfAbsent writes key unless it exists.
func (s *Store) PutIfAbsent(ctx context.Context, key string, b []byte) error {
	if err := check(ctx, "put if absent", key); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.objects[key]; ok {
		return fmt.Errorf("put if absent %s: %w", key, blob.ErrExists)
	}
	s.store(key, bytes.Clone(b))
	return nil
}

// PutIfMatch replaces key when its ETag is still etag.
func (s *Store) PutIfMatch(ctx context.Context, key, etag string, b []byte) (string, error) {
	if err := check(ctx, "put if match", key); err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[key]
	if !ok {
		return "", fmt.Errorf("put if match %s: %w", key, blob.ErrNotExist)
	}
	if o.etag != etag {
		return "", fmt.Errorf("put if match %s: %w", key, blob.ErrMismatch)
	}
	return s.store(key, bytes.Clone(b)), nil
}

// store keeps b under key; mu is held.
func (s *Store) store(key string, b []byte) string {
	if s.objects == nil {
		s.objects = map[string]object{}
	}
	s.writes++
	o := object{b: b, time: time.Now().UTC(), etag: strconv.FormatUint(s.writes, 10)}
	s.objects[key] = o
	return o.etag
}

// Delete removes keys.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		if err := check(ctx, "delete", key); err != nil {
			return err
		}
		s.mu.Lock()
		delete(s.objects, key)
		s.mu.Unlock()
	}
	return nil
}

func check(ctx context.Context, what, key string) error {
	if err := blob.CheckKey(key); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("%s %s: %w", what, key, err)
	}
	return nil
}
