package volumefs

import (
	"maps"
	"sync"

	"github.com/tarndb/tarn/internal/layer"
)

// lookups counts the references the kernel holds to each file. Every answer
// that hands out a file adds one; FORGET takes some back. At zero the volume is
// told.
type lookups struct {
	forget func(layer.Ino)

	// gate is read-held from asking the volume for a file until the reference
	// is counted, and held while references are taken back. So a file cannot
	// be forgotten between being found and being counted. It is held across
	// calls of the volume.
	gate sync.RWMutex

	mu    sync.Mutex // guards count; nothing is called under it
	count map[layer.Ino]uint64

	// lost is set when an earlier server gave out references that were not
	// handed over: then no count says that one is the last.
	lost bool
}

func newLookups(forget func(layer.Ino)) *lookups {
	return &lookups{forget: forget, count: map[layer.Ino]uint64{}}
}

// add counts one reference; the caller holds gate for reading.
func (l *lookups) add(ino layer.Ino) {
	l.mu.Lock()
	l.count[ino]++
	l.mu.Unlock()
}

// drop takes n references back.
func (l *lookups) drop(ino layer.Ino, n uint64) {
	l.gate.Lock()
	defer l.gate.Unlock()
	l.mu.Lock()
	left, known := l.count[ino]
	left -= min(n, left)
	if left == 0 {
		delete(l.count, ino)
	} else {
		l.count[ino] = left
	}
	l.mu.Unlock()
	if known && left == 0 && !l.lost {
		l.forget(ino)
	}
}

// take begins with the references an earlier server gave out; nil = lost.
func (l *lookups) take(all map[layer.Ino]uint64) {
	l.count, l.lost = maps.Clone(all), all == nil
	if l.lost {
		l.count = map[layer.Ino]uint64{}
	}
}

// all is a copy of the references given out; nil when some are not known.
func (l *lookups) all() map[layer.Ino]uint64 {
	if l.lost {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.count)
}

// dropAll takes everything back: the kernel sends no FORGET when a mount ends.
// What was lost the volume forgets when it is closed.
func (l *lookups) dropAll() {
	l.gate.Lock()
	defer l.gate.Unlock()
	l.mu.Lock()
	all := l.count
	l.count = map[layer.Ino]uint64{}
	l.mu.Unlock()
	for ino := range all {
		l.forget(ino)
	}
}
