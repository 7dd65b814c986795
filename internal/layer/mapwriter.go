package layer

import (
	"encoding/hex"
	"fmt"
	"io"

	"github.com/tarndb/tarn"
)

// MapWriter writes a map: first tables, then the entries of the catalog, then
// Finish. It is not safe for concurrent use. After an error the file is
// worthless.
type MapWriter struct {
	w    io.WriterAt
	h    MapHeader
	slot int // that the map has among those it points at
	salt uint64

	buf     []byte // written next
	at      int64  // offset of buf
	block   []byte // of the catalog, after its head
	ordinal uint32
	err     error
}

const mapBuffer = 256 << 10

// NewMapWriter begins a map. slot is the map's own among the maps it points
// at; of h what was found only while writing may be set until Finish.
func NewMapWriter(w io.WriterAt, timeline tarn.TimelineID, number uint32, slot int) (*MapWriter, error) {
	s, err := salt(timeline)
	if err != nil {
		return nil, fmt.Errorf("begin map: %w", err)
	}
	if slot < 0 || slot >= MaxMaps {
		return nil, fmt.Errorf("begin map: slot %d of %d", slot, MaxMaps)
	}
	return &MapWriter{w: w, h: MapHeader{Timeline: timeline, Number: number}, slot: slot, salt: s,
		buf: make([]byte, 0, mapBuffer), at: BlockSize}, nil
}

// Table writes the table of pages index*TablePages and following of a file. A
// table of holes only is 0.
func (m *MapWriter) Table(ino Ino, index uint32, refs *[TablePages]uint64) (TableRef, error) {
	n := TablePages
	for n > 0 && refs[n-1] == 0 {
		n--
	}
	if n == 0 || m.err != nil {
		return 0, m.err
	}
	offset := m.at + int64(len(m.buf))
	if offset/8 >= 1<<tableOffsetBits {
		return 0, fmt.Errorf("write map: longer than %d bytes", int64(8)<<tableOffsetBits)
	}
	start := len(m.buf)
	for _, r := range refs[:n] {
		m.buf = le.AppendUint64(m.buf, r)
	}
	m.buf = le.AppendUint32(m.buf, tableSum(ino, index, m.buf[start:]))
	m.buf = le.AppendUint32(m.buf, 0)
	m.h.Tables++
	m.flush(mapBuffer / 2)
	return makeTableRef(m.slot, n, offset), m.err
}

// File says which file has a slot.
func (m *MapWriter) File(slot int, id FileID) error {
	e := m.entry(EntryFile, uint32(slot), 24, "")
	if e == nil {
		return m.err
	}
	if len(id.Timeline) != 32 {
		return fmt.Errorf("write map: timeline %q is no 32 hexadecimal digits", id.Timeline)
	}
	if _, err := hex.Decode(e[:16], []byte(id.Timeline)); err != nil {
		return fmt.Errorf("write map: %w", err)
	}
	e[16] = byte(id.Kind)
	le.PutUint32(e[20:], id.Number)
	return m.err
}

// Inode begins a file of the volume.
func (m *MapWriter) Inode(i *MapInode) error {
	e := m.entry(EntryInode, uint32(len(i.Target)), 56, i.Target)
	if e == nil {
		return m.err
	}
	le.PutUint64(e, uint64(i.Ino))
	le.PutUint32(e[8:], i.Mode)
	le.PutUint32(e[12:], i.UID)
	le.PutUint32(e[16:], i.GID)
	le.PutUint32(e[20:], i.Nlink)
	le.PutUint64(e[24:], i.Size)
	le.PutUint64(e[32:], uint64(i.Mtime))
	le.PutUint64(e[40:], uint64(i.Parent))
	le.PutUint64(e[48:], i.Cookie)
	return m.err
}

// Name adds a name to the directory that was begun last.
func (m *MapWriter) Name(name string, ino Ino, cookie uint64) error {
	e := m.entry(EntryName, uint32(len(name)), 16, name)
	if e == nil {
		return m.err
	}
	le.PutUint64(e, uint64(ino))
	le.PutUint64(e[8:], cookie)
	return m.err
}

// Tables says where at most MaxTableRun tables of the file begun last stand,
// from table first on.
func (m *MapWriter) Tables(first uint32, refs []TableRef) error {
	e := m.entry(EntryTables, first, 8*len(refs), "")
	if e == nil {
		return m.err
	}
	for i, r := range refs {
		le.PutUint64(e[8*i:], uint64(r))
		if r != 0 {
			m.h.TableBytes += uint64(r.Bytes())
		}
	}
	return m.err
}

// Mark adds a mark, in the order of writing.
func (m *MapWriter) Mark(seq tarn.Seq, lsn tarn.LSN, time int64) error {
	e := m.entry(EntryMark, 0, 24, "")
	if e == nil {
		return m.err
	}
	le.PutUint64(e, uint64(seq))
	le.PutUint64(e[8:], uint64(lsn))
	le.PutUint64(e[16:], uint64(time))
	return m.err
}

// entry makes room for an entry of so many bytes behind its head and before
// its text; nil after an error.
func (m *MapWriter) entry(k MapEntryKind, a uint32, fixed int, text string) []byte {
	n := (entryHead + fixed + len(text) + 7) &^ 7
	if n > catalogBlock {
		m.fail(fmt.Errorf("write map: an entry of %d bytes", n))
	}
	if len(m.block)+n > catalogBlock {
		m.endBlock()
	}
	if m.err != nil {
		return nil
	}
	if m.h.catalog == 0 {
		m.h.catalog = m.at + int64(len(m.buf))
	}
	if m.block == nil {
		m.block = make([]byte, 0, catalogBlock)
	}
	start := len(m.block)
	m.block = m.block[:start+n]
	e := m.block[start:]
	clear(e)
	e[0] = byte(k)
	le.PutUint16(e[2:], uint16(n))
	le.PutUint32(e[4:], a)
	copy(e[entryHead+fixed:], text)
	m.h.entries++
	return e[entryHead : entryHead+fixed]
}

// endBlock closes the catalog's block.
func (m *MapWriter) endBlock() {
	if len(m.block) == 0 {
		return
	}
	m.buf = le.AppendUint32(m.buf, uint32(len(m.block)))
	m.buf = le.AppendUint32(m.buf, catalogSum(m.salt, m.h.Number, m.ordinal, m.block))
	m.buf = append(m.buf, m.block...)
	m.block = m.block[:0]
	m.ordinal++
	m.flush(mapBuffer / 2)
}

// flush writes the buffer out when it holds so much.
func (m *MapWriter) flush(least int) {
	if m.err != nil || len(m.buf) < least || len(m.buf) == 0 {
		return
	}
	if _, err := m.w.WriteAt(m.buf, m.at); err != nil {
		m.fail(fmt.Errorf("write map at byte %d: %w", m.at, err))
		return
	}
	m.at += int64(len(m.buf))
	m.buf = m.buf[:0]
}

func (m *MapWriter) fail(err error) {
	if m.err == nil {
		m.err = err
	}
}

// Finish writes the rest and the header and returns the header as it stands
// and the size of the file. Of h it takes what the writer does not know.
func (m *MapWriter) Finish(h MapHeader) (MapHeader, int64, error) {
	if m.h.catalog == 0 {
		m.h.catalog = m.at + int64(len(m.buf))
	}
	m.endBlock()
	m.flush(0)
	if m.err != nil {
		return MapHeader{}, 0, m.err
	}
	m.h.Seq, m.h.Generation, m.h.Segment, m.h.Block, m.h.NextIno = h.Seq, h.Generation, h.Segment, h.Block, h.NextIno
	m.h.catalogBytes = m.at - m.h.catalog
	b, err := m.h.encode()
	if err != nil {
		return MapHeader{}, 0, err
	}
	if _, err := m.w.WriteAt(b, 0); err != nil {
		return MapHeader{}, 0, fmt.Errorf("write map header: %w", err)
	}
	return m.h, m.at, nil
}
