package wal

import (
	"fmt"
	"strconv"

	"github.com/tarndb/tarn"
)

// Segment names one WAL file: number No of Postgres's timeline TLI.
type Segment struct {
	TLI uint32
	No  uint64 // position in the log divided by the segment size
}

// SegmentAt is the segment that holds the byte at lsn; size is the segment size
// in bytes.
func SegmentAt(tli uint32, lsn tarn.LSN, size uint32) Segment {
	return Segment{TLI: tli, No: uint64(lsn) / uint64(size)}
}

// Name is the file's name: TLI, then the number as two parts of 32 bits, the
// lower one counting the segments in 4 GiB.
//
//	00000001 0000000A 000000FF
//	TLI      high     low
func (s Segment) Name(size uint32) string {
	per := perFourGiB(size)
	return fmt.Sprintf("%08X%08X%08X", s.TLI, uint32(s.No/per), uint32(s.No%per))
}

// Start is the position of the segment's first byte.
func (s Segment) Start(size uint32) tarn.LSN { return tarn.LSN(s.No * uint64(size)) }

// End is the position just behind the segment's last byte.
func (s Segment) End(size uint32) tarn.LSN { return tarn.LSN((s.No + 1) * uint64(size)) }

// ParseSegment reads a segment's file name; ok is false for every other file
// that lies beside them (histories, backups, partial segments).
func ParseSegment(name string, size uint32) (s Segment, ok bool) {
	if len(name) != 24 || !upperHex(name) {
		return Segment{}, false
	}
	var part [3]uint64
	for i := range part {
		v, err := strconv.ParseUint(name[8*i:8*i+8], 16, 32)
		if err != nil {
			return Segment{}, false
		}
		part[i] = v
	}
	per := perFourGiB(size)
	if part[2] >= per {
		return Segment{}, false
	}
	return Segment{TLI: uint32(part[0]), No: part[1]*per + part[2]}, true
}

// isHistory tells whether name is the history of a TLI, "00000002.history".
func isHistory(name string) bool {
	return len(name) == 16 && name[8:] == ".history" && upperHex(name[:8])
}

func upperHex(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c >= '0' && c <= '9' || c >= 'A' && c <= 'F') {
			return false
		}
	}
	return true
}

func perFourGiB(size uint32) uint64 { return (1 << 32) / uint64(size) }

// Pages of WAL begin with a header, longer in a segment's first page; records
// flow around them and begin at multiples of 8.
const (
	pageBytes        = 8192
	pageHeader       = 24
	pageHeaderLong   = 40 // in the first page of a segment
	minRecordBytes   = 24 // a record's own header
	recordAlignBytes = 8
)

// RecordEnd is where the record that begins at start and has n bytes ends,
// aligned, page headers counted: where the next record may begin.
func RecordEnd(start tarn.LSN, n uint32, size uint32) tarn.LSN {
	at, left := uint64(start), uint64(n)
	for {
		if at%pageBytes == 0 {
			if at%uint64(size) == 0 {
				at += pageHeaderLong
			} else {
				at += pageHeader
			}
		}
		room := pageBytes - at%pageBytes
		if left <= room {
			at += left
			break
		}
		at += room
		left -= room
	}
	return tarn.LSN((at + recordAlignBytes - 1) / recordAlignBytes * recordAlignBytes)
}
