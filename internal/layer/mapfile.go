package layer

import (
	"encoding/hex"
	"fmt"
	"hash/crc32"

	"github.com/tarndb/tarn"
)

// MapVersion is the format of maps that this package writes and the only one
// it reads.
const MapVersion = 1

const mapMagic = "TARNMAP\x00"

// FileKind says what a file of a timeline is. The numbers are part of the
// format.
type FileKind uint8

// The kinds of files.
const (
	FileLog   FileKind = 1 // a segment of the log
	FileMap   FileKind = 2 // where every page stood at one seq
	FileImage FileKind = 3 // pages written anew in the order of their file
)

// FileID names one file of a timeline.
type FileID struct {
	Timeline tarn.TimelineID
	Kind     FileKind
	Number   uint32
}

// Page tables.
const (
	// TablePages is how many pages one table knows: 512 KiB of a file.
	TablePages = 64

	tableEntryBits  = 6
	tableOffsetBits = 38
	tableMapBits    = 19
	// MaxMaps is how many maps one map can point at.
	MaxMaps = 1 << tableMapBits
)

// TableRef says where a page table stands: map, entries and offset. 0 is no
// table: 64 holes.
//
//	63    62          44 43         38 37              0
//	┌─────┬─────────────┬─────────────┬─────────────────┐
//	│  0  │ map (slot)  │ entries - 1 │ offset / 8      │
//	└─────┴─────────────┴─────────────┴─────────────────┘
type TableRef uint64

// makeTableRef packs a TableRef; offset is a multiple of 8 above 0.
func makeTableRef(slot, entries int, offset int64) TableRef {
	return TableRef(slot)<<(tableEntryBits+tableOffsetBits) | TableRef(entries-1)<<tableOffsetBits | TableRef(offset/8)
}

// Slot is which of the maps that a map points at has the table.
func (r TableRef) Slot() int { return int(r >> (tableEntryBits + tableOffsetBits) & (MaxMaps - 1)) }

// Entries is how many pages the table has; the pages behind them are holes.
func (r TableRef) Entries() int { return int(r>>tableOffsetBits&(TablePages-1)) + 1 }

// Offset is where the table stands in the map's file.
func (r TableRef) Offset() int64 { return int64(r&(1<<tableOffsetBits-1)) * 8 }

// Bytes is the length of the table in the file.
func (r TableRef) Bytes() int64 { return int64(r.Entries())*8 + tableTail }

// valid reports whether r can stand in a map.
func (r TableRef) valid() bool { return r>>63 == 0 && r.Offset() >= BlockSize }

// tableTail stands behind the entries of a table: checksum u32, 0 u32.
const tableTail = 8

// tableSum ties a table to the part of the file that it is for.
func tableSum(ino Ino, index uint32, entries []byte) uint32 {
	var b [12]byte
	le.PutUint64(b[:], uint64(ino))
	le.PutUint32(b[8:], index)
	return crc32.Update(crc32.Checksum(b[:], castagnoli), castagnoli, entries)
}

// MapHeader is the first block of a map.
type MapHeader struct {
	Timeline   tarn.TimelineID
	Number     uint32   // among the maps of the timeline; they grow with Seq
	Seq        tarn.Seq // everything before it is in the map
	Generation uint32   // number of the map that holds every table; itself when it does
	Segment    uint32   // where the record Seq stands or will stand in the timeline's own log, or before:
	Block      uint32   // segment and block of a batch; segment 0 before the first
	NextIno    Ino      // the next new inode
	Tables     uint64   // in this file
	TableBytes uint64   // what all the tables take that the map points at, its own and others'

	catalog      int64 // offset
	catalogBytes int64
	entries      uint64
}

// Full reports whether the map points at no other.
func (h *MapHeader) Full() bool { return h.Generation == h.Number }

func (h *MapHeader) encode() ([]byte, error) {
	b := make([]byte, BlockSize)
	copy(b, mapMagic)
	le.PutUint32(b[8:], MapVersion)
	if len(h.Timeline) != 32 {
		return nil, fmt.Errorf("encode map header: timeline %q is no 32 hexadecimal digits", h.Timeline)
	}
	if _, err := hex.Decode(b[16:32], []byte(h.Timeline)); err != nil {
		return nil, fmt.Errorf("encode map header: %w", err)
	}
	le.PutUint32(b[32:], h.Number)
	le.PutUint32(b[36:], h.Generation)
	le.PutUint64(b[40:], uint64(h.Seq))
	le.PutUint32(b[48:], h.Segment)
	le.PutUint32(b[52:], h.Block)
	le.PutUint64(b[56:], uint64(h.catalog))
	le.PutUint64(b[64:], uint64(h.catalogBytes))
	le.PutUint64(b[72:], uint64(h.NextIno))
	le.PutUint64(b[80:], h.Tables)
	le.PutUint64(b[88:], h.TableBytes)
	le.PutUint64(b[96:], h.entries)
	le.PutUint32(b[12:], headerSum(b))
	return b, nil
}

// decodeMapHeader reads a map's first block; size is of the file.
func decodeMapHeader(file string, b []byte, size int64) (MapHeader, error) {
	corrupt := func(at int64, expected, format string, args ...any) (MapHeader, error) {
		return MapHeader{}, &CorruptError{file, at, expected, fmt.Sprintf(format, args...)}
	}
	if len(b) < BlockSize {
		return corrupt(0, "a map header of 4096 bytes", "%d bytes", len(b))
	}
	if string(b[:8]) != mapMagic {
		return corrupt(0, fmt.Sprintf("magic %q", mapMagic), "%q", b[:8])
	}
	if got, want := headerSum(b), le.Uint32(b[12:]); got != want {
		return corrupt(12, fmt.Sprintf("checksum %08x", want), "%08x", got)
	}
	if v := le.Uint32(b[8:]); v != MapVersion {
		return corrupt(8, fmt.Sprintf("format version %d", MapVersion), "%d", v)
	}
	h := MapHeader{
		Timeline: tarn.TimelineID(hex.EncodeToString(b[16:32])),
		Number:   le.Uint32(b[32:]), Generation: le.Uint32(b[36:]),
		Seq:     tarn.Seq(le.Uint64(b[40:])),
		Segment: le.Uint32(b[48:]), Block: le.Uint32(b[52:]),
		NextIno: Ino(le.Uint64(b[72:])),
		Tables:  le.Uint64(b[80:]), TableBytes: le.Uint64(b[88:]),
		catalog: int64(le.Uint64(b[56:])), catalogBytes: int64(le.Uint64(b[64:])), entries: le.Uint64(b[96:]),
	}
	if h.catalog < BlockSize || h.catalogBytes < 0 || h.catalog > size || h.catalogBytes > size-h.catalog {
		return corrupt(56, fmt.Sprintf("a catalog in %d bytes", size), "%d bytes at %d", h.catalogBytes, h.catalog)
	}
	return h, nil
}

// MapInode is one file of the volume. A file without a name has no link.
type MapInode struct {
	Attr
	Target string // of a symbolic link
	Parent Ino    // of a directory
	Cookie uint64 // last one given out in a directory
}

// MapEntryKind says what an entry of a map's catalog is.
type MapEntryKind uint8

// The kinds of entries. Names and tables are of the inode before them.
const (
	EntryFile   MapEntryKind = 1 // a file that pages or tables stand in, and its slot
	EntryInode  MapEntryKind = 2
	EntryName   MapEntryKind = 3 // in a directory, in the order of cookies
	EntryTables MapEntryKind = 4 // a run of page tables
	EntryMark   MapEntryKind = 5
)

const (
	entryHead = 8 // kind u8, 0 u8, length u16, A u32
	// MaxTableRun is how many tables one entry names.
	MaxTableRun = 2048
	// catalogBlock is the most that stands in one block of the catalog; an
	// entry does not cross blocks. Four files of 1 GiB fill one.
	catalogBlock = 66 << 10
	catalogHead  = 8 // length u32, checksum u32
)

// catalogSum ties a block of the catalog to its map and place.
func catalogSum(salt uint64, number, ordinal uint32, payload []byte) uint32 {
	var b [16]byte
	le.PutUint64(b[:], salt)
	le.PutUint32(b[8:], number)
	le.PutUint32(b[12:], ordinal)
	return crc32.Update(crc32.Checksum(b[:], castagnoli), castagnoli, payload)
}
