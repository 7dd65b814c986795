package pagestore

import (
	"slices"
	"sort"

	"github.com/tarndb/tarn/internal/layer"
)

// directory holds the names of one directory. Every name gets the next cookie
// and keeps it, so reading can go on after a cookie whatever came and went;
// a replay gives out the same cookies. Guarded by index.tree.
type directory struct {
	owner *owner
	names map[string]dirEntry
	order []dirName // by cookie
	next  uint64    // last cookie given out
}

type dirEntry struct {
	ino    layer.Ino
	cookie uint64
}

type dirName struct {
	cookie uint64
	name   string
}

// own gives a directory that o may change: d itself or a copy.
func (d *directory) own(o *owner) *directory {
	if d.owner == o {
		return d
	}
	c := &directory{owner: o, names: make(map[string]dirEntry, len(d.names)+1), order: slices.Clone(d.order), next: d.next}
	for k, v := range d.names {
		c.names[k] = v
	}
	return c
}

func (d *directory) add(name string, ino layer.Ino) {
	d.next++
	d.names[name] = dirEntry{ino, d.next}
	d.order = append(d.order, dirName{d.next, name})
}

func (d *directory) remove(name string) {
	e, ok := d.names[name]
	if !ok {
		return
	}
	delete(d.names, name)
	i := d.after(e.cookie - 1)
	d.order = slices.Delete(d.order, i, i+1)
}

// after is the position in order of the first cookie above the given one.
func (d *directory) after(cookie uint64) int {
	return sort.Search(len(d.order), func(i int) bool { return d.order[i].cookie > cookie })
}
