package layer

import (
	"fmt"

	"github.com/tarndb/tarn"
)

// Limits of a batch.
const (
	batchFixed = 64 // bytes of the head before its entries
	// MaxBatchPages keeps a batch under 512 KiB: large enough that a write of
	// it costs little per page, small enough that whoever writes it is not
	// kept long.
	MaxBatchPages = 63
	// MaxHeadBlocks is a head that holds the longest entry there is.
	MaxHeadBlocks = 2
	// MaxBatchBytes is the longest batch.
	MaxBatchBytes = MaxHeadBlocks*BlockSize + MaxBatchPages*PageSize
)

// Place is where a batch goes and what it says about those before it.
type Place struct {
	Segment  uint32
	Block    uint32 // its first block in the segment
	FirstSeq tarn.Seq
	Durable  uint32 // every block of the segment before this one is on disk
}

// Batch collects records until they are written at once. It becomes valid as
// a whole or not at all. It is not safe for concurrent use.
type Batch struct {
	buf     []byte // MaxBatchBytes long
	place   Place
	salt    uint64
	head    int // bytes of the head
	limit   int // pages it may hold
	entries int // end of the entries in the head
	records int
	pages   int
}

// NewBatch allocates a batch; Begin makes it ready.
func NewBatch() *Batch { return &Batch{buf: make([]byte, MaxBatchBytes)} }

// HeadBlocks is how long a head must be to begin with entries of n bytes.
func HeadBlocks(n int) int { return (batchFixed + n + BlockSize - 1) / BlockSize }

// Begin empties the batch and gives it a place. It will hold at most pages
// pages and a head of headBlocks.
func (b *Batch) Begin(timeline tarn.TimelineID, p Place, headBlocks, pages int) error {
	s, err := salt(timeline)
	if err != nil {
		return fmt.Errorf("begin batch: %w", err)
	}
	b.salt, b.place = s, p
	b.head, b.limit = headBlocks*BlockSize, min(pages, MaxBatchPages)
	b.entries, b.records, b.pages = batchFixed, 0, 0
	clear(b.buf[:b.head])
	return nil
}

// Fits reports whether entries of so many bytes and so many pages still go in.
func (b *Batch) Fits(entryBytes, pages int) bool {
	return b.entries+entryBytes <= b.head && b.pages+pages <= b.limit
}

// AddPage adds a page record and returns the block at which the page will
// stand in the segment. crc is the Checksum of data. The caller has asked Fits.
func (b *Batch) AddPage(ino Ino, page, used uint32, time int64, crc uint32, data []byte) (block uint32) {
	putPage(b.buf[b.entries:b.entries+PageEntryBytes], ino, page, used, crc, time)
	at := b.head + b.pages*PageSize
	copy(b.buf[at:at+PageSize], data)
	b.entries += PageEntryBytes
	b.records++
	b.pages++
	return b.place.Block + uint32(at/BlockSize)
}

// Add adds a record without a page. The caller has asked Fits.
func (b *Batch) Add(r *Record) {
	n := r.EntryBytes()
	r.put(b.buf[b.entries : b.entries+n])
	b.entries += n
	b.records++
}

// Records is how many records the batch holds.
func (b *Batch) Records() int { return b.records }

// Place is where the batch goes.
func (b *Batch) Place() Place { return b.place }

// Blocks is how long the batch is now.
func (b *Batch) Blocks() uint32 { return uint32((b.head + b.pages*PageSize) / BlockSize) }

// Page gives the page that stands at a block of the segment, valid until the
// next Begin; nil when the batch does not hold it.
func (b *Batch) Page(block uint32) []byte {
	at := (int(block) - int(b.place.Block)) * BlockSize
	if at < b.head || at+PageSize > b.head+b.pages*PageSize {
		return nil
	}
	return b.buf[at : at+PageSize]
}

// Seal finishes the head and gives the bytes to write at the batch's place,
// valid until the next Begin. Nothing may be added afterwards.
func (b *Batch) Seal() []byte {
	h := b.buf[:b.head]
	le.PutUint32(h[0:], batchMagic)
	le.PutUint16(h[8:], uint16(b.head/BlockSize))
	le.PutUint16(h[10:], uint16(b.pages))
	le.PutUint32(h[12:], uint32(b.records))
	le.PutUint64(h[16:], uint64(b.place.FirstSeq))
	le.PutUint32(h[24:], b.place.Durable)
	le.PutUint32(h[28:], uint32(b.entries))
	le.PutUint64(h[32:], b.salt)
	le.PutUint32(h[40:], b.place.Segment)
	le.PutUint32(h[44:], b.place.Block)
	le.PutUint32(h[4:], Checksum(h[8:]))
	return b.buf[:b.head+b.pages*PageSize]
}
