package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/tarndb/tarn/internal/blob"
)

// List yields the objects under prefix in byte order of their keys. It holds
// the names of one directory per level in memory. A directory that is a
// symbolic link is not entered unless prefix names it.
func (s *Store) List(ctx context.Context, prefix, startAfter string) iter.Seq2[blob.Object, error] {
	return func(yield func(blob.Object, error) bool) {
		if err := blob.CheckPrefix(prefix); err != nil {
			yield(blob.Object{}, fmt.Errorf("list: %w", err))
			return
		}
		l := &listing{store: s, ctx: ctx, prefix: prefix, after: startAfter, yield: yield}
		at := strings.LastIndexByte(prefix, '/') + 1
		if err := l.walk(prefix[:at]); err != nil && err != errStopped {
			yield(blob.Object{}, fmt.Errorf("list %s: %w", prefix, err))
		}
	}
}

var errStopped = errors.New("listing stopped by its consumer")

type listing struct {
	store  *Store
	ctx    context.Context // of the one List call this lives in
	prefix string
	after  string
	yield  func(blob.Object, error) bool
}

// walk lists the directory at, which is "" or ends with a slash.
func (l *listing) walk(at string) error {
	entries, err := os.ReadDir(filepath.Join(l.store.root, filepath.FromSlash(at)))
	if err != nil {
		if errors.Is(notExist(err), blob.ErrNotExist) {
			return nil
		}
		return err
	}
	// A directory's keys sort where "name/" does, which is behind "name.x".
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, tempPrefix) {
			continue
		}
		if e.IsDir() {
			name += "/"
		}
		names = append(names, at+name)
	}
	sort.Strings(names)
	for _, key := range names {
		if err := context.Cause(l.ctx); err != nil {
			return err
		}
		if strings.HasSuffix(key, "/") {
			within := strings.HasPrefix(key, l.prefix) || strings.HasPrefix(l.prefix, key)
			passed := l.after >= key && !strings.HasPrefix(l.after, key)
			if within && !passed {
				if err := l.walk(key); err != nil {
					return err
				}
			}
			continue
		}
		if !strings.HasPrefix(key, l.prefix) || key <= l.after {
			continue
		}
		st, err := os.Stat(filepath.Join(l.store.root, filepath.FromSlash(key)))
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted since, or a dangling link
		}
		if err != nil {
			return err
		}
		if !st.Mode().IsRegular() {
			continue
		}
		if !l.yield(object(key, st), nil) {
			return errStopped
		}
	}
	return nil
}
