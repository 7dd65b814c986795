package wal

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
)

// blockBytes is the most that one object holds: a stretch never crosses a
// multiple of it. It bounds the memory of an upload, and what is sent again when
// many small stretches become one.
const blockBytes = 4 << 20

// runID names one run: the time from Uploader.attach, when a Postgres has
// started on the timeline, to its end. Runs are ordered; of two that tell of the
// same position, the later is right.
type runID struct {
	Lease uint64 // epoch of the timeline's lease: a higher one is later
	No    uint32 // counts the runs under one lease
	Nonce uint32 // tells two apart that took the same number at once
}

func (r runID) compare(o runID) int {
	return cmp.Or(cmp.Compare(r.Lease, o.Lease), cmp.Compare(r.No, o.No), cmp.Compare(r.Nonce, o.Nonce))
}

func (r runID) String() string { return fmt.Sprintf("%016x-%08x-%08x", r.Lease, r.No, r.Nonce) }

// run is a run as its marker says: what earlier runs say of WAL at or behind
// Begin is void.
type run struct {
	ID    runID
	TLI   uint32
	Begin tarn.LSN
}

// stretch is an object that holds bytes From to To of one segment.
type stretch struct {
	Run      runID
	Segment  string
	TLI      uint32
	From, To tarn.LSN
	Size     int64     // of the object
	Uploaded time.Time // by the store's clock
}

// The keys of a timeline, below the prefix of all WAL:
//
//	<timeline>/run/<run>-<TLI>-<begin>
//	<timeline>/seg/<segment>/<from>-<to>-<run>     offsets in the segment
//	<timeline>/tli/<TLI>.history
const (
	runDir     = "/run/"
	segmentDir = "/seg/"
	historyDir = "/tli/"
)

func (r run) key() string { return fmt.Sprintf("%s-%08x-%016x", r.ID, r.TLI, uint64(r.Begin)) }

func (s stretch) key(size uint32) string {
	start := SegmentAt(s.TLI, s.From, size).Start(size)
	return fmt.Sprintf("%s/%08x-%08x-%s", s.Segment, uint64(s.From-start), uint64(s.To-start), s.Run)
}

// parseRun reads what follows runDir.
func parseRun(key string) (run, bool) {
	v, ok := hexParts(key, 16, 8, 8, 8, 16)
	if !ok {
		return run{}, false
	}
	return run{ID: runID{v[0], uint32(v[1]), uint32(v[2])}, TLI: uint32(v[3]), Begin: tarn.LSN(v[4])}, true
}

// parseStretch reads what follows segmentDir.
func parseStretch(key string, size uint32, o blob.Object) (stretch, bool) {
	name, rest, _ := strings.Cut(key, "/")
	seg, ok := ParseSegment(name, size)
	v, good := hexParts(rest, 8, 8, 16, 8, 8)
	if !ok || !good || v[0] >= v[1] || v[1] > uint64(size) {
		return stretch{}, false
	}
	start := seg.Start(size)
	return stretch{
		Run: runID{v[2], uint32(v[3]), uint32(v[4])}, Segment: name, TLI: seg.TLI,
		From: start + tarn.LSN(v[0]), To: start + tarn.LSN(v[1]), Size: o.Size, Uploaded: o.ModTime,
	}, true
}

// hexParts reads lower-case hexadecimal numbers of fixed widths with "-" between.
func hexParts(s string, widths ...int) ([]uint64, bool) {
	parts := strings.Split(s, "-")
	if len(parts) != len(widths) {
		return nil, false
	}
	v := make([]uint64, len(parts))
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 16, 64)
		if err != nil || len(p) != widths[i] || strings.ToLower(p) != p {
			return nil, false
		}
		v[i] = n
	}
	return v, true
}
