package blob

import (
	"context"
	"fmt"
	"io"
	"iter"
	"net/url"
	"strings"
)

// Below gives what is under folder of a store as a store of its own. It shares
// the other's connections. No key leads out of it.
func Below(s Store, folder string) (Store, error) {
	if err := CheckKey(folder); err != nil {
		return nil, fmt.Errorf("open folder of %s: %w", s.URL(), err)
	}
	return below{s, folder + "/"}, nil
}

type below struct {
	s      Store
	folder string // with a slash at its end
}

// key checks before it joins: the joined one may be good where key is not.
func (b below) key(key string) (string, error) {
	if err := CheckKey(key); err != nil {
		return "", fmt.Errorf("in %s: %w", b.URL(), err)
	}
	return b.folder + key, nil
}

func (b below) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	k, err := b.key(key)
	if err != nil {
		return nil, err
	}
	return b.s.Get(ctx, k, off, n)
}

func (b below) Head(ctx context.Context, key string) (Object, error) {
	k, err := b.key(key)
	if err != nil {
		return Object{}, err
	}
	o, err := b.s.Head(ctx, k)
	o.Key = key
	return o, err
}

func (b below) List(ctx context.Context, prefix, startAfter string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		if err := CheckPrefix(prefix); err != nil {
			yield(Object{}, fmt.Errorf("list %s: %w", b.URL(), err))
			return
		}
		if startAfter != "" {
			startAfter = b.folder + startAfter
		}
		for o, err := range b.s.List(ctx, b.folder+prefix, startAfter) {
			o.Key = strings.TrimPrefix(o.Key, b.folder)
			if !yield(o, err) {
				return
			}
		}
	}
}

func (b below) Put(ctx context.Context, key string, r io.Reader) error {
	k, err := b.key(key)
	if err != nil {
		return err
	}
	return b.s.Put(ctx, k, r)
}

func (b below) PutIfAbsent(ctx context.Context, key string, text []byte) error {
	k, err := b.key(key)
	if err != nil {
		return err
	}
	return b.s.PutIfAbsent(ctx, k, text)
}

func (b below) PutIfMatch(ctx context.Context, key, etag string, text []byte) (string, error) {
	k, err := b.key(key)
	if err != nil {
		return "", err
	}
	return b.s.PutIfMatch(ctx, k, etag, text)
}

func (b below) Delete(ctx context.Context, keys ...string) error {
	full := make([]string, len(keys))
	for i, key := range keys {
		var err error
		if full[i], err = b.key(key); err != nil {
			return err
		}
	}
	return b.s.Delete(ctx, full...)
}

func (b below) URL() string {
	folder := url.URL{Path: strings.TrimSuffix(b.folder, "/")}
	return strings.TrimSuffix(b.s.URL(), "/") + "/" + folder.EscapedPath()
}
