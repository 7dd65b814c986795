package layer

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/tarndb/tarn"
)

// MapReader reads the catalog of a map entry by entry. Tables are read one by
// one, by ReadTable.
type MapReader struct {
	r      io.ReaderAt
	file   string
	header MapHeader
	salt   uint64

	at      int64  // of the next block
	block   []byte // what is left of the current one
	blockAt int64
	ordinal uint32
	read    uint64 // entries
	entry   MapEntry
	err     error
}

// MapEntry is one entry of a catalog; which fields mean something depends on
// Kind.
type MapEntry struct {
	Kind MapEntryKind

	Slot int    // EntryFile
	File FileID // EntryFile

	Inode MapInode // EntryInode
	Name  DirEntry // EntryName, without Mode

	First  uint32     // EntryTables: of the first of Tables
	Tables []TableRef // EntryTables; valid until the next entry

	MarkSeq  tarn.Seq // EntryMark
	MarkLSN  tarn.LSN
	MarkTime int64
}

// OpenMap reads the header of a map and compares it with the wanted timeline
// and number. Errors other than of reading are a *CorruptError.
func OpenMap(r io.ReaderAt, file string, size int64, timeline tarn.TimelineID, number uint32) (*MapReader, error) {
	b := make([]byte, min(size, BlockSize))
	if err := readFull(r, file, b, 0); err != nil {
		return nil, err
	}
	h, err := decodeMapHeader(file, b, size)
	if err != nil {
		return nil, err
	}
	if h.Timeline != timeline || h.Number != number {
		return nil, &CorruptError{file, 16, fmt.Sprintf("map %d of timeline %s", number, timeline), fmt.Sprintf("map %d of timeline %s", h.Number, h.Timeline)}
	}
	m := &MapReader{r: r, file: file, header: h, at: h.catalog}
	if m.salt, err = salt(h.Timeline); err != nil {
		return nil, err
	}
	return m, nil
}

// readFull reads all of b; an end before that is damage.
func readFull(r io.ReaderAt, file string, b []byte, at int64) error {
	n, err := r.ReadAt(b, at)
	switch {
	case n == len(b):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return &CorruptError{file, at, fmt.Sprintf("%d bytes", len(b)), fmt.Sprint(n)}
	}
	return fmt.Errorf("read %s at byte %d: %w", file, at, err)
}

// Header is the map's header.
func (m *MapReader) Header() MapHeader { return m.header }

// Entry is the current entry, valid until Next.
func (m *MapReader) Entry() *MapEntry { return &m.entry }

// Err is a *CorruptError or an error of reading; nil at the end.
func (m *MapReader) Err() error { return m.err }

// Offset is where the current entry's block stands.
func (m *MapReader) Offset() int64 { return m.blockAt }

// Next goes to the next entry.
func (m *MapReader) Next() bool {
	if m.err != nil {
		return false
	}
	if len(m.block) == 0 {
		if m.at == m.header.catalog+m.header.catalogBytes {
			if m.read != m.header.entries {
				m.corrupt(fmt.Sprintf("%d entries", m.header.entries), "%d", m.read)
			}
			return false
		}
		if m.err = m.next(); m.err != nil {
			return false
		}
	}
	b := m.block
	if len(b) < entryHead {
		return m.corrupt("an entry", "%d bytes", len(b))
	}
	n := int(le.Uint16(b[2:]))
	if n < entryHead || n%8 != 0 || n > len(b) {
		return m.corrupt("an entry", "one of %d bytes of %d", n, len(b))
	}
	m.block = b[n:]
	m.read++
	return m.decode(MapEntryKind(b[0]), le.Uint32(b[4:]), b[entryHead:n])
}

// next reads the next block of the catalog.
func (m *MapReader) next() error {
	end := m.header.catalog + m.header.catalogBytes
	m.blockAt = m.at
	if end-m.at < catalogHead {
		return &CorruptError{m.file, m.at, "a block of the catalog", fmt.Sprintf("%d bytes", end-m.at)}
	}
	b := make([]byte, min(end-m.at, catalogHead+catalogBlock))
	if err := readFull(m.r, m.file, b, m.at); err != nil {
		return err
	}
	n := int64(le.Uint32(b))
	if n == 0 || n > catalogBlock || n > end-m.at-catalogHead {
		return &CorruptError{m.file, m.at, "a block of the catalog", fmt.Sprintf("one of %d bytes", n)}
	}
	b = b[:catalogHead+n]
	if got, want := catalogSum(m.salt, m.header.Number, m.ordinal, b[catalogHead:]), le.Uint32(b[4:]); got != want {
		return &CorruptError{m.file, m.at, fmt.Sprintf("checksum %08x of the catalog's block %d", want, m.ordinal), fmt.Sprintf("%08x", got)}
	}
	m.block = b[catalogHead:]
	m.at += catalogHead + n
	m.ordinal++
	return nil
}

func (m *MapReader) corrupt(expected, found string, args ...any) bool {
	m.err = &CorruptError{m.file, m.blockAt, expected, fmt.Sprintf(found, args...)}
	return false
}

// decode reads the body of an entry.
func (m *MapReader) decode(k MapEntryKind, a uint32, b []byte) bool {
	e := &m.entry
	e.Kind = k
	fixed, text := 0, 0
	switch k {
	case EntryFile, EntryMark:
		fixed = 24
	case EntryInode:
		fixed, text = 56, int(a)
	case EntryName:
		fixed, text = 16, int(a)
	case EntryTables:
		fixed = len(b)
	default:
		return m.corrupt("an entry", "one of kind %d", k)
	}
	if text > MaxTarget || k == EntryName && text > MaxName || (fixed+text+7)&^7 != len(b) {
		return m.corrupt("an entry", "one of kind %d with %d bytes and a text of %d", k, len(b), text)
	}
	switch k {
	case EntryFile:
		e.Slot = int(a)
		e.File = FileID{Timeline: tarn.TimelineID(hex.EncodeToString(b[:16])), Kind: FileKind(b[16]), Number: le.Uint32(b[20:])}
		if e.File.Kind < FileLog || e.File.Kind > FileImage || e.File.Number == 0 || a >= MaxMaps {
			return m.corrupt("a file", "kind %d, number %d in slot %d", b[16], e.File.Number, a)
		}
	case EntryMark:
		e.MarkSeq, e.MarkLSN, e.MarkTime = tarn.Seq(le.Uint64(b)), tarn.LSN(le.Uint64(b[8:])), int64(le.Uint64(b[16:]))
	case EntryInode:
		e.Inode = MapInode{Attr: Attr{Ino: Ino(le.Uint64(b)), Mode: le.Uint32(b[8:]), UID: le.Uint32(b[12:]), GID: le.Uint32(b[16:]),
			Nlink: le.Uint32(b[20:]), Size: le.Uint64(b[24:]), Mtime: int64(le.Uint64(b[32:]))},
			Parent: Ino(le.Uint64(b[40:])), Cookie: le.Uint64(b[48:]), Target: string(b[fixed : fixed+text])}
	case EntryName:
		e.Name = DirEntry{Ino: Ino(le.Uint64(b)), Cookie: le.Uint64(b[8:]), Name: string(b[fixed : fixed+text])}
	case EntryTables:
		e.First, e.Tables = a, e.Tables[:0]
		if uint64(a)+uint64(len(b)/8) > 1<<32/TablePages {
			return m.corrupt("tables of a file", "%d from %d on", len(b)/8, a)
		}
		for ; len(b) > 0; b = b[8:] {
			r := TableRef(le.Uint64(b))
			if r != 0 && !r.valid() {
				return m.corrupt("where a table stands", "%016x", uint64(r))
			}
			e.Tables = append(e.Tables, r)
		}
	}
	return true
}

// ReadTable reads the table of pages index*TablePages and following of a file
// from the map that r says. It does not allocate but for errors.
func ReadTable(m io.ReaderAt, file string, r TableRef, ino Ino, index uint32, buf *TableBuffer, refs *[TablePages]uint64) error {
	b := buf[:r.Bytes()]
	if err := readFull(m, file, b, r.Offset()); err != nil {
		return err
	}
	body := b[:len(b)-tableTail]
	if got, want := tableSum(ino, index, body), le.Uint32(b[len(body):]); got != want || le.Uint32(b[len(body)+4:]) != 0 {
		return &CorruptError{file, r.Offset(), fmt.Sprintf("page table %d of inode %d with checksum %08x", index, ino, want), fmt.Sprintf("%08x", got)}
	}
	clear(refs[:])
	for i := range body[:len(body)/8] {
		refs[i] = le.Uint64(body[8*i:])
	}
	return nil
}

// EncodeTable gives a table as a map has it.
func EncodeTable(ino Ino, index uint32, refs *[TablePages]uint64) []byte {
	n := TablePages
	for n > 0 && refs[n-1] == 0 {
		n--
	}
	b := make([]byte, 0, n*8+tableTail)
	for _, r := range refs[:n] {
		b = le.AppendUint64(b, r)
	}
	b = le.AppendUint32(b, tableSum(ino, index, b))
	return le.AppendUint32(b, 0)
}

// SameTable reports whether a damaged table was once a good one: its checksum
// says so, or nothing but the checksum is damaged.
func SameTable(bad, good []byte) bool {
	if len(bad) != len(good) || len(good) <= tableTail {
		return false
	}
	body := len(good) - tableTail
	return le.Uint32(bad[body:]) == le.Uint32(good[body:]) || bytes.Equal(bad[:body], good[:body])
}

// TableBuffer is room for the longest table.
type TableBuffer [TablePages*8 + tableTail]byte
