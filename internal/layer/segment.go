package layer

import (
	"encoding/hex"
	"fmt"
	"hash/crc32"

	"github.com/tarndb/tarn"
)

// Version is the format this package writes and the only one it reads.
const Version = 1

// BlockSize is the unit of a segment: the header, every batch and every page
// of a batch begin at a multiple of it.
const BlockSize = 4096

// PageBlocks is what a page takes in a segment.
const PageBlocks = PageSize / BlockSize

// MaxSegmentBytes is how long a segment can be.
const MaxSegmentBytes = 128 << 20

const (
	segmentMagic = "TARNSEG\x00"
	batchMagic   = 0x54414254 // "TBAT" in the file
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum is the CRC32C that guards everything in a segment.
func Checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// Header is the first block of a segment.
type Header struct {
	Timeline tarn.TimelineID
	Segment  uint32   // 1 is the timeline's first
	FirstSeq tarn.Seq // of its first record
	Epoch    uint64   // of the manifest under which it was begun
}

// Encode gives the header's block.
func (h Header) Encode() ([]byte, error) {
	b := make([]byte, BlockSize)
	copy(b, segmentMagic)
	le.PutUint32(b[8:], Version)
	if len(h.Timeline) != 32 {
		return nil, fmt.Errorf("encode segment header: timeline %q is no 32 hexadecimal digits", h.Timeline)
	}
	if _, err := hex.Decode(b[16:32], []byte(h.Timeline)); err != nil {
		return nil, fmt.Errorf("encode segment header: %w", err)
	}
	le.PutUint32(b[32:], h.Segment)
	le.PutUint64(b[40:], uint64(h.FirstSeq))
	le.PutUint64(b[48:], h.Epoch)
	le.PutUint32(b[12:], headerSum(b))
	return b, nil
}

// headerSum covers the block but for the four bytes of the sum itself.
func headerSum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:12], castagnoli), castagnoli, b[16:BlockSize])
}

// DecodeHeader reads a segment's first block; file is for the error, which is
// a *CorruptError.
func DecodeHeader(file string, b []byte) (Header, error) {
	if len(b) < BlockSize {
		return Header{}, &CorruptError{file, 0, "a segment header of 4096 bytes", fmt.Sprintf("%d bytes", len(b))}
	}
	if string(b[:8]) != segmentMagic {
		return Header{}, &CorruptError{file, 0, fmt.Sprintf("magic %q", segmentMagic), fmt.Sprintf("%q", b[:8])}
	}
	if got, want := headerSum(b), le.Uint32(b[12:]); got != want {
		return Header{}, &CorruptError{file, 12, fmt.Sprintf("checksum %08x", want), fmt.Sprintf("%08x", got)}
	}
	if v := le.Uint32(b[8:]); v != Version {
		return Header{}, &CorruptError{file, 8, fmt.Sprintf("format version %d", Version), fmt.Sprint(v)}
	}
	return Header{
		Timeline: tarn.TimelineID(hex.EncodeToString(b[16:32])),
		Segment:  le.Uint32(b[32:]),
		FirstSeq: tarn.Seq(le.Uint64(b[40:])),
		Epoch:    le.Uint64(b[48:]),
	}, nil
}

// BeginsBatch reports whether a block looks like the first of a batch. Batches
// are written after the segment's header was synced.
func BeginsBatch(b []byte) bool { return len(b) >= 4 && le.Uint32(b) == batchMagic }

// salt makes a batch of one timeline unreadable as a batch of another.
func salt(id tarn.TimelineID) (uint64, error) {
	var b [16]byte
	if len(id) != 32 {
		return 0, fmt.Errorf("timeline %q is no 32 hexadecimal digits", id)
	}
	if _, err := hex.Decode(b[:], []byte(id)); err != nil {
		return 0, fmt.Errorf("timeline %q: %w", id, err)
	}
	return le.Uint64(b[:]) ^ le.Uint64(b[8:]), nil
}
