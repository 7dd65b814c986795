// Package blob keeps immutable objects under string keys, and replaces the few
// mutable ones by compare-and-swap. It knows nothing of what is in them. Every
// backend passes the conformance suite of blobtest.
package blob

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"
)

// ErrExists, ErrNotExist and ErrMismatch are the three refusals of a store.
// ErrAmbiguous means a write may or may not have happened: read back.
var (
	ErrExists    = errors.New("object exists")
	ErrNotExist  = errors.New("object does not exist")
	ErrMismatch  = errors.New("object has changed")
	ErrAmbiguous = errors.New("outcome of the write is unknown")
)

// Object is what a listing shows of one object.
type Object struct {
	Key     string
	Size    int64 // bytes
	ModTime time.Time
	ETag    string // changes whenever the bytes do; opaque
}

// Store keeps objects. Keys are slash-separated, relative, without "." or ".."
// segments. A nil error from a writing method means the bytes are durable.
type Store interface {
	// Get reads n bytes at off; n < 0 reads to the end.
	Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error)
	Head(ctx context.Context, key string) (Object, error)
	// List yields the objects under prefix whose key sorts after startAfter, in
	// byte order of their keys.
	List(ctx context.Context, prefix, startAfter string) iter.Seq2[Object, error]
	Put(ctx context.Context, key string, r io.Reader) error
	// PutIfAbsent writes key unless it exists (ErrExists).
	PutIfAbsent(ctx context.Context, key string, b []byte) error
	// PutIfMatch replaces key when its ETag is still etag (ErrMismatch) and
	// returns the new one.
	PutIfMatch(ctx context.Context, key, etag string, b []byte) (string, error)
	// Delete removes keys; a missing one is not an error.
	Delete(ctx context.Context, keys ...string) error
	// URL is the store's root, e.g. file:///srv/lake.
	URL() string
}
