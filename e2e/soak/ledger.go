package main

import (
	"sync"
	"time"
)

// key names a transfer: the n-th of a stream. A stream is one teller's life on
// one branch.
type key struct {
	stream, n int32
}

// entry is what is known of a transfer. Times are of the wall clock, in
// nanoseconds: Postgres stamps commits with the same clock.
type entry struct {
	begun int64
	acked int64 // 0 = its end is unknown
}

// ledger remembers every transfer that was tried.
type ledger struct {
	// mu guards streams.
	mu      sync.Mutex
	streams [][]entry // a transfer's n is its place here, from 1
}

// open begins a stream.
func (l *ledger) open() int32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.streams = append(l.streams, nil)
	return int32(len(l.streams) - 1)
}

// begin notes that a transfer is about to be sent.
func (l *ledger) begin(stream int32) key {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.streams[stream] = append(l.streams[stream], entry{begun: time.Now().UnixNano()})
	return key{stream, int32(len(l.streams[stream]))}
}

// ack notes that Postgres said it is committed.
func (l *ledger) ack(k key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.streams[k.stream][k.n-1].acked = time.Now().UnixNano()
}

// count is how many transfers were tried.
func (l *ledger) count() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.streams {
		n += len(s)
	}
	return n
}

// of copies what is known of some streams now.
func (l *ledger) of(streams []int32) map[key]entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := map[key]entry{}
	for _, s := range streams {
		for i, e := range l.streams[s] {
			all[key{s, int32(i + 1)}] = e
		}
	}
	return all
}
