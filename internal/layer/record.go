package layer

import (
	"encoding/binary"
	"fmt"
)

// Kind says what a record does. The numbers are part of the format.
type Kind uint8

// The kinds of records.
const (
	KindPage    Kind = 1  // one page of a file, its 8 KiB in the batch's body
	KindZero    Kind = 2  // a run of pages becomes a hole
	KindSize    Kind = 3  // a file is at least so long
	KindCreate  Kind = 4  // a new file, directory or symbolic link with its first name
	KindLink    Kind = 5  // one more name of a file
	KindUnlink  Kind = 6  // a name of a file goes
	KindRmdir   Kind = 7  // an empty directory goes
	KindRename  Kind = 8  // a name moves, replacing what had the new name
	KindSetAttr Kind = 9  // attributes, truncation among them
	KindMark    Kind = 10 // seq, LSN and time tied together
	KindCopy    Kind = 11 // a run of pages shows what another run shows
	KindMove    Kind = 12 // a run of pages stands in an image now, as it was
)

// Lengths a record can hold.
const (
	MaxName   = 255
	MaxTarget = 4095
)

// Record is one entry of the log. Which fields mean something depends on Kind;
// FORMAT.md has the table.
type Record struct {
	Kind Kind
	Ino  Ino
	Time int64 // nanoseconds since 1970; the new mtime of the file or directory

	Page  uint32 // KindPage, KindZero, KindCopy, KindMove: first page
	Count uint32 // KindZero, KindCopy, KindMove: pages
	Used  uint32 // KindPage, KindZero, KindCopy: the file is at least so many bytes of the last page long
	CRC   uint32 // KindPage: CRC32C of the page
	Size  uint64 // KindSize, bytes

	Parent    Ino    // KindCreate, KindLink, KindUnlink, KindRmdir, KindRename: directory of Name
	Name      string //
	NewParent Ino    // KindRename
	NewName   string // KindRename

	File NewFile // KindCreate
	Set  SetAttr // KindSetAttr; Set.Mtime is Time

	From     Ino    // KindCopy: the file copied from
	FromPage uint32 // KindCopy: its first page

	Image uint32 // KindMove: number of the image
	Block uint32 // KindMove: where the first page stands in it

	MarkSeq uint64 // KindMark; Time is the mark's time
	MarkLSN uint64 // KindMark
}

// entryFixed is what every entry begins with; see FORMAT.md.
const entryFixed = 32

// PageEntryBytes is what a page costs in the head of a batch.
const PageEntryBytes = entryFixed

// EntryBytes is the encoded length of r in the head of a batch.
func (r *Record) EntryBytes() int {
	n := entryFixed
	switch r.Kind {
	case KindCreate:
		n += 16 + len(r.Name) + len(r.File.Target)
	case KindLink, KindUnlink, KindRmdir:
		n += 8 + len(r.Name)
	case KindRename:
		n += 16 + len(r.Name) + len(r.NewName)
	case KindSetAttr, KindCopy:
		n += 16
	case KindMark, KindMove:
		n += 8
	}
	return (n + 7) &^ 7
}

var le = binary.LittleEndian

// putPage writes the entry of a page; b is PageEntryBytes long.
func putPage(b []byte, ino Ino, page, used, crc uint32, time int64) {
	b[0], b[1] = byte(KindPage), 0
	le.PutUint16(b[2:], entryFixed)
	le.PutUint32(b[4:], used)
	le.PutUint64(b[8:], uint64(ino))
	le.PutUint32(b[16:], page)
	le.PutUint32(b[20:], crc)
	le.PutUint64(b[24:], uint64(time))
}

// put writes r to b, which is zero and EntryBytes long.
func (r *Record) put(b []byte) {
	if r.Kind == KindPage {
		putPage(b, r.Ino, r.Page, r.Used, r.CRC, r.Time)
		return
	}
	b[0] = byte(r.Kind)
	le.PutUint16(b[2:], uint16(len(b)))
	le.PutUint64(b[8:], uint64(r.Ino))
	le.PutUint64(b[24:], uint64(r.Time))
	body := b[entryFixed:]
	switch r.Kind {
	case KindZero:
		le.PutUint32(b[4:], r.Used)
		le.PutUint32(b[16:], r.Page)
		le.PutUint32(b[20:], r.Count)
	case KindCopy:
		le.PutUint32(b[4:], r.Used)
		le.PutUint32(b[16:], r.Page)
		le.PutUint32(b[20:], r.Count)
		le.PutUint64(body, uint64(r.From))
		le.PutUint32(body[8:], r.FromPage)
	case KindMove:
		le.PutUint32(b[16:], r.Page)
		le.PutUint32(b[20:], r.Count)
		le.PutUint32(body, r.Image)
		le.PutUint32(body[4:], r.Block)
	case KindSize:
		le.PutUint64(b[16:], r.Size)
	case KindCreate:
		le.PutUint32(b[4:], r.File.Mode)
		le.PutUint64(b[16:], uint64(r.Parent))
		le.PutUint32(body, r.File.UID)
		le.PutUint32(body[4:], r.File.GID)
		le.PutUint16(body[8:], uint16(len(r.Name)))
		le.PutUint16(body[10:], uint16(len(r.File.Target)))
		n := copy(body[16:], r.Name)
		copy(body[16+n:], r.File.Target)
	case KindLink, KindUnlink, KindRmdir:
		le.PutUint64(b[16:], uint64(r.Parent))
		le.PutUint16(body, uint16(len(r.Name)))
		copy(body[8:], r.Name)
	case KindRename:
		le.PutUint64(b[16:], uint64(r.Parent))
		le.PutUint64(body, uint64(r.NewParent))
		le.PutUint16(body[8:], uint16(len(r.Name)))
		le.PutUint16(body[10:], uint16(len(r.NewName)))
		n := copy(body[16:], r.Name)
		copy(body[16+n:], r.NewName)
	case KindSetAttr:
		le.PutUint32(b[4:], uint32(r.Set.Has))
		le.PutUint64(b[16:], r.Set.Size)
		le.PutUint32(body, r.Set.Mode)
		le.PutUint32(body[4:], r.Set.UID)
		le.PutUint32(body[8:], r.Set.GID)
	case KindMark:
		le.PutUint64(b[16:], r.MarkSeq)
		le.PutUint64(body, r.MarkLSN)
	default:
		panic(fmt.Sprintf("layer: encode a record of kind %d", r.Kind))
	}
}

// decode reads the first entry of b into r and returns its length. The error
// says what is wrong; where is for the caller to add.
func (r *Record) decode(b []byte) (int, error) {
	if len(b) < entryFixed {
		return 0, fmt.Errorf("%d bytes left for an entry", len(b))
	}
	n := int(le.Uint16(b[2:]))
	if n < entryFixed || n > len(b) || n%8 != 0 {
		return 0, fmt.Errorf("entry of kind %d of %d bytes", b[0], n)
	}
	*r = Record{Kind: Kind(b[0]), Ino: Ino(le.Uint64(b[8:])), Time: int64(le.Uint64(b[24:]))}
	body := b[entryFixed:n]
	if need := bodyFixed(r.Kind); need < 0 {
		return 0, fmt.Errorf("entry of unknown kind %d", b[0])
	} else if len(body) < need {
		return 0, fmt.Errorf("entry of kind %d of %d bytes", b[0], n)
	}
	var one, two int // lengths of the strings
	switch r.Kind {
	case KindPage:
		r.Used, r.Page, r.CRC = le.Uint32(b[4:]), le.Uint32(b[16:]), le.Uint32(b[20:])
	case KindZero:
		r.Used, r.Page, r.Count = le.Uint32(b[4:]), le.Uint32(b[16:]), le.Uint32(b[20:])
	case KindCopy:
		r.Used, r.Page, r.Count = le.Uint32(b[4:]), le.Uint32(b[16:]), le.Uint32(b[20:])
		r.From, r.FromPage = Ino(le.Uint64(body)), le.Uint32(body[8:])
	case KindMove:
		r.Page, r.Count = le.Uint32(b[16:]), le.Uint32(b[20:])
		r.Image, r.Block = le.Uint32(body), le.Uint32(body[4:])
		if r.Image == 0 || r.Block == 0 || uint64(r.Block)+uint64(r.Count)*PageBlocks > MaxSegmentBytes/BlockSize {
			return 0, fmt.Errorf("entry of kind %d with %d pages at block %d of image %d", b[0], r.Count, r.Block, r.Image)
		}
	case KindSize:
		r.Size = le.Uint64(b[16:])
	case KindCreate:
		r.Parent = Ino(le.Uint64(b[16:]))
		r.File = NewFile{Mode: le.Uint32(b[4:]), UID: le.Uint32(body), GID: le.Uint32(body[4:])}
		one, two = int(le.Uint16(body[8:])), int(le.Uint16(body[10:]))
	case KindLink, KindUnlink, KindRmdir:
		r.Parent, one = Ino(le.Uint64(b[16:])), int(le.Uint16(body))
	case KindRename:
		r.Parent, r.NewParent = Ino(le.Uint64(b[16:])), Ino(le.Uint64(body))
		one, two = int(le.Uint16(body[8:])), int(le.Uint16(body[10:]))
	case KindSetAttr:
		r.Set = SetAttr{Has: SetMask(le.Uint32(b[4:])), Size: le.Uint64(b[16:]), Mode: le.Uint32(body),
			UID: le.Uint32(body[4:]), GID: le.Uint32(body[8:]), Mtime: r.Time}
	case KindMark:
		r.MarkSeq, r.MarkLSN = le.Uint64(b[16:]), le.Uint64(body)
	}
	if (r.Kind == KindZero || r.Kind == KindCopy || r.Kind == KindMove) && (r.Count == 0 || uint64(max(r.Page, r.FromPage))+uint64(r.Count) > 1<<32) {
		return 0, fmt.Errorf("entry of kind %d with %d pages from %d", b[0], r.Count, r.Page)
	}
	text := body[bodyFixed(r.Kind):]
	if one+two > len(text) || one > MaxName || two > MaxTarget || r.Kind == KindRename && two > MaxName {
		return 0, fmt.Errorf("entry of kind %d with names of %d and %d bytes in %d", b[0], one, two, len(text))
	}
	r.Name = string(text[:one])
	switch second := text[one : one+two]; r.Kind {
	case KindCreate:
		r.File.Target = string(second)
	case KindRename:
		r.NewName = string(second)
	}
	if (r.Kind == KindPage || r.Kind == KindZero || r.Kind == KindCopy) && r.Used > PageSize || r.EntryBytes() != n {
		return 0, fmt.Errorf("entry of kind %d of %d bytes, using %d", b[0], n, r.Used)
	}
	return n, nil
}

// bodyFixed is the length of the part of an entry between its first 32 bytes
// and its strings; -1 for a kind nobody has defined.
func bodyFixed(k Kind) int {
	switch k {
	case KindPage, KindZero, KindSize:
		return 0
	case KindLink, KindUnlink, KindRmdir, KindMark, KindMove:
		return 8
	case KindCreate, KindRename, KindSetAttr, KindCopy:
		return 16
	}
	return -1
}
