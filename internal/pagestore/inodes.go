package pagestore

import (
	"iter"
	"sync"
	"sync/atomic"

	"github.com/tarndb/tarn/internal/layer"
)

// inodeTable finds a node by its number without a lock. Numbers are given out
// in order and never again, so a table of fixed parts serves; a part whose
// files are all gone is dropped.
type inodeTable struct {
	parts atomic.Pointer[[]atomic.Pointer[inodePart]]

	mu sync.Mutex // one writer; not held across I/O
}

const inodePartSize = 512

type inodePart struct {
	nodes [inodePartSize]atomic.Pointer[node]
	live  int // guarded by inodeTable.mu
}

func (t *inodeTable) get(ino layer.Ino) *node {
	parts := t.parts.Load()
	if parts == nil || uint64(ino)/inodePartSize >= uint64(len(*parts)) {
		return nil
	}
	p := (*parts)[ino/inodePartSize].Load()
	if p == nil {
		return nil
	}
	return p.nodes[ino%inodePartSize].Load()
}

func (t *inodeTable) put(n *node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := int(n.ino / inodePartSize)
	parts := t.parts.Load()
	if parts == nil || i >= len(*parts) {
		grown := make([]atomic.Pointer[inodePart], i+1+i/4)
		if parts != nil {
			for j := range *parts {
				grown[j].Store((*parts)[j].Load())
			}
		}
		parts = &grown
		t.parts.Store(parts)
	}
	p := (*parts)[i].Load()
	if p == nil {
		p = new(inodePart)
		(*parts)[i].Store(p)
	}
	p.nodes[n.ino%inodePartSize].Store(n)
	p.live++
}

func (t *inodeTable) remove(ino layer.Ino) {
	t.mu.Lock()
	defer t.mu.Unlock()
	parts := t.parts.Load()
	if parts == nil || uint64(ino)/inodePartSize >= uint64(len(*parts)) {
		return
	}
	p := (*parts)[ino/inodePartSize].Load()
	if p == nil || p.nodes[ino%inodePartSize].Swap(nil) == nil {
		return
	}
	if p.live--; p.live == 0 {
		(*parts)[ino/inodePartSize].Store(nil)
	}
}

// all gives every node in the order of inode numbers.
func (t *inodeTable) all() iter.Seq[*node] {
	return func(yield func(*node) bool) {
		parts := t.parts.Load()
		if parts == nil {
			return
		}
		for i := range *parts {
			p := (*parts)[i].Load()
			if p == nil {
				continue
			}
			for j := range p.nodes {
				if n := p.nodes[j].Load(); n != nil && !yield(n) {
					return
				}
			}
		}
	}
}
