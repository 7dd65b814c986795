package pagestore

import (
	"cmp"
	"context"
	"path/filepath"
	"slices"
	"time"
)

// evictEvery is how often local copies are counted.
const evictEvery = 10 * time.Second

// evictLocal removes copies of layers that are in the bucket, those not read
// for the longest time first, until what is left fits Remote.LocalBytes.
func (r *remote) evictLocal(ctx context.Context) error {
	limit := r.o.LocalBytes
	if limit <= 0 {
		return nil
	}
	type copyOf struct {
		path  string
		bytes int64
		used  time.Time
	}
	l := r.files
	l.mu.Lock()
	var copies []copyOf
	for id, refs := range l.objects {
		for name := range refs {
			copies = append(copies, copyOf{path: filepath.Join(r.shelf.manifests.dir, id, name)})
		}
	}
	for path, handles := range l.open {
		for f := range handles {
			if f.read.Swap(false) {
				l.used[path] = time.Now()
			}
		}
	}
	for i := range copies {
		copies[i].used = l.used[copies[i].path]
	}
	l.mu.Unlock()
	total := r.cache.Usage().Bytes
	here := copies[:0]
	for _, c := range copies {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		f, err := l.fileSystem.Open(c.path, openExisting)
		if err != nil {
			continue // not here
		}
		c.bytes, err = f.Used()
		f.Close()
		if err == nil {
			total += c.bytes
			here = append(here, c)
		}
	}
	slices.SortFunc(here, func(a, b copyOf) int {
		return cmp.Or(a.used.Compare(b.used), cmp.Compare(a.path, b.path))
	})
	for _, c := range here {
		if total <= limit {
			break
		}
		if err := l.evict(c.path); err != nil {
			return err
		}
		total -= c.bytes
		r.slog.Debug("local layer evicted", "path", c.path, "count", c.bytes)
	}
	return nil
}
