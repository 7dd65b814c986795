package layer

import (
	"errors"
	"fmt"
	"io"

	"github.com/tarndb/tarn"
)

// Scanner reads a segment record by record.
//
// It ends without an error at the first batch that is not whole, unless that
// batch must be: it begins below Whole, or a later batch says that everything
// up to it was on disk. Then Err is a *CorruptError.
type Scanner struct {
	r      io.ReaderAt
	file   string
	size   int64
	whole  int64
	bodies Bodies
	header Header
	salt   uint64

	buf  []byte // window of the file
	base int64  // offset of buf in the file

	current currentBatch
	next    int64    // offset of the batch after the current
	seq     tarn.Seq // of the next record
	durable int64    // highest offset any batch calls durable
	rec     Record
	page    []byte
	recAt   uint32
	torn    *CorruptError
	err     error
}

// currentBatch is what of a batch was not given yet.
type currentBatch struct {
	at      int64 // offset of the batch
	head    int64 // bytes of its head
	entries []byte
	left    int // records
	pages   []byte
	block   uint32 // of the first of pages
}

// Source is a segment to be scanned.
type Source struct {
	R     io.ReaderAt
	File  string // for errors
	Size  int64  // bytes
	Whole int64  // everything before this offset was on disk once; Size for a sealed segment
	Want  Header // Epoch is not compared

	// From is the offset of the batch to begin with and Seq that of its first
	// record; 0 = the segment's first batch.
	From   int64
	Seq    tarn.Seq
	Bodies Bodies
}

// Bodies says what is done with the pages of batches.
type Bodies uint8

const (
	// VerifyBodies reads every page and compares its checksum.
	VerifyBodies Bodies = iota
	// SkipBodies reads heads only: for what was on disk once, and where pages
	// that nobody can see any more may have been given back.
	SkipBodies
)

// Bytes read at once: more than a batch, and more than a head.
const (
	window     = 1 << 20
	headWindow = 32 << 10
)

// NewScanner reads the segment's header and compares it with the wanted one.
func NewScanner(src Source) (*Scanner, error) {
	s := &Scanner{r: src.R, file: src.File, size: src.Size, whole: src.Whole, bodies: src.Bodies}
	s.buf = make([]byte, 0, min(s.window(), src.Size))
	b, err := s.bytes(0, BlockSize)
	if err != nil {
		return nil, err
	}
	if s.header, err = DecodeHeader(s.file, b); err != nil {
		return nil, err
	}
	h, w := s.header, src.Want
	inside := src.From > BlockSize // then the seq of the header says nothing
	if h.Timeline != w.Timeline || h.Segment != w.Segment || h.FirstSeq != w.FirstSeq && !inside {
		return nil, &CorruptError{s.file, 16, fmt.Sprintf("segment %d of timeline %s from seq %d", w.Segment, w.Timeline, w.FirstSeq),
			fmt.Sprintf("segment %d of timeline %s from seq %d", h.Segment, h.Timeline, h.FirstSeq)}
	}
	if s.salt, err = salt(h.Timeline); err != nil {
		return nil, err
	}
	s.next, s.seq, s.durable = BlockSize, h.FirstSeq, BlockSize
	if inside {
		s.next, s.seq, s.durable = src.From, src.Seq, src.From
	}
	return s, nil
}

func (s *Scanner) window() int64 {
	if s.bodies == SkipBodies {
		return headWindow
	}
	return window
}

// Next goes to the next record.
func (s *Scanner) Next() bool {
	if s.err != nil || s.torn != nil {
		return false
	}
	for s.current.left == 0 {
		if !s.openBatch() {
			return false
		}
	}
	n, err := s.rec.decode(s.current.entries)
	if err != nil {
		s.err = &CorruptError{s.file, s.current.at, "a record", err.Error()}
		return false
	}
	s.current.entries = s.current.entries[n:]
	s.current.left--
	s.seq++
	s.page, s.recAt = nil, 0
	if s.rec.Kind == KindPage {
		s.recAt = s.current.block
		if s.bodies == VerifyBodies {
			s.page = s.current.pages[:PageSize]
			s.current.pages = s.current.pages[PageSize:]
		}
		s.current.block += PageBlocks
	}
	return true
}

// Record is the current record, valid until Next.
func (s *Scanner) Record() *Record { return &s.rec }

// Batch is where the batch of the current record stands and how long its head
// is, both in bytes.
func (s *Scanner) Batch() (at, head int64) { return s.current.at, s.current.head }

// Page is the page of a current record of KindPage, valid until Next and nil
// when bodies are skipped, and the block of the segment at which it stands.
func (s *Scanner) Page() (data []byte, block uint32) { return s.page, s.recAt }

// Seq is the seq after the current record.
func (s *Scanner) Seq() tarn.Seq { return s.seq }

// End is the offset after the current batch: where the next one would begin.
func (s *Scanner) End() int64 { return s.next }

// Durable is the offset before which the batches read so far say that
// everything is on disk.
func (s *Scanner) Durable() int64 { return s.durable }

// Torn says what stood where the scan ended; nil at a clean end.
func (s *Scanner) Torn() *CorruptError { return s.torn }

// Err is a *CorruptError or an error of reading; nil at an end of the log.
func (s *Scanner) Err() error { return s.err }

// openBatch makes the batch at s.next the current one.
func (s *Scanner) openBatch() bool {
	h, err := s.readBatch(s.next)
	var bad *CorruptError
	switch {
	case errors.As(err, &bad):
		s.endAt(bad)
		return false
	case err != nil:
		s.err = err
		return false
	case h.size == 0: // nothing more
		if s.next < s.whole {
			s.err = &CorruptError{s.file, s.next, fmt.Sprintf("records up to byte %d", s.whole), "none"}
			return false
		}
		s.checkBeyond(&CorruptError{s.file, s.next, "a batch", "nothing"})
		return false
	}
	if h.place.FirstSeq != s.seq {
		s.endAt(&CorruptError{s.file, s.next, fmt.Sprintf("a batch from seq %d", s.seq), fmt.Sprintf("one from seq %d", h.place.FirstSeq)})
		return false
	}
	s.current = currentBatch{at: s.next, head: int64(h.head), entries: h.entries, left: h.records, pages: h.pages,
		block: h.place.Block + uint32(h.head/BlockSize)}
	s.next += h.size
	s.durable = max(s.durable, int64(h.place.Durable)*BlockSize)
	return true
}

// endAt ends the scan at a batch that is not whole.
func (s *Scanner) endAt(bad *CorruptError) {
	if s.next < s.whole {
		s.err = bad
		return
	}
	s.torn = bad
	s.checkBeyond(bad)
}

// checkBeyond looks behind the end of the log for a batch that says the end
// was durable: then it is no end but damage.
func (s *Scanner) checkBeyond(bad *CorruptError) {
	for at := s.next + BlockSize; at+BlockSize <= s.size; at += BlockSize {
		h, err := s.readBatch(at)
		if err != nil || h.size == 0 {
			var c *CorruptError
			if err != nil && !errors.As(err, &c) {
				s.err = err
				return
			}
			continue
		}
		if h.place.FirstSeq >= s.seq && int64(h.place.Durable)*BlockSize > s.next {
			s.err = &CorruptError{bad.File, bad.Offset, bad.Expected,
				fmt.Sprintf("%s, though the batch at byte %d says it was on disk", bad.Found, at)}
			return
		}
	}
}

type batchView struct {
	place   Place
	size    int64 // bytes of the batch; 0 = there is none
	head    int   // bytes
	records int
	entries []byte
	pages   []byte
}

// readBatch gives the batch at an offset when it is whole, the zero batchView
// at the end of what was ever written, a *CorruptError otherwise.
func (s *Scanner) readBatch(at int64) (batchView, error) {
	if at+BlockSize > s.size {
		return batchView{}, nil
	}
	b, err := s.bytes(at, BlockSize)
	if err != nil {
		return batchView{}, err
	}
	corrupt := func(expected, format string, args ...any) error {
		return &CorruptError{s.file, at, expected, fmt.Sprintf(format, args...)}
	}
	switch m := le.Uint32(b); m {
	case batchMagic:
	case 0:
		return batchView{}, nil
	default:
		return batchView{}, corrupt("a batch", "magic %08x", m)
	}
	head, pages, records := int(le.Uint16(b[8:]))*BlockSize, int(le.Uint16(b[10:])), int(le.Uint32(b[12:]))
	if head < BlockSize || head > MaxHeadBlocks*BlockSize || pages > MaxBatchPages || records < pages || records > head/entryFixed {
		return batchView{}, corrupt("a batch", "%d bytes of head, %d pages, %d records", head, pages, records)
	}
	size := int64(head + pages*PageSize)
	if at+size > s.size {
		return batchView{}, corrupt(fmt.Sprintf("a batch of %d bytes", size), "%d bytes", s.size-at)
	}
	read := int(size)
	if s.bodies == SkipBodies {
		read = head
	}
	if b, err = s.bytes(at, read); err != nil {
		return batchView{}, err
	}
	if got, want := Checksum(b[8:head]), le.Uint32(b[4:]); got != want {
		return batchView{}, corrupt(fmt.Sprintf("checksum %08x of the batch's head", want), "%08x", got)
	}
	v := batchView{size: size, head: head, records: records, pages: b[head:], place: Place{
		FirstSeq: tarn.Seq(le.Uint64(b[16:])), Durable: le.Uint32(b[24:]),
		Segment: le.Uint32(b[40:]), Block: le.Uint32(b[44:])}}
	if le.Uint64(b[32:]) != s.salt || v.place.Segment != s.header.Segment || int64(v.place.Block)*BlockSize != at {
		return batchView{}, corrupt(fmt.Sprintf("a batch of timeline %s, segment %d, block %d", s.header.Timeline, s.header.Segment, at/BlockSize),
			"one of segment %d, block %d, salt %016x", v.place.Segment, v.place.Block, le.Uint64(b[32:]))
	}
	used := int(le.Uint32(b[28:]))
	if used < batchFixed || used > head || int64(v.place.Durable)*BlockSize > at {
		return batchView{}, corrupt("a batch", "%d bytes of entries in a head of %d, durable to block %d", used, head, v.place.Durable)
	}
	v.entries = b[batchFixed:used]
	return v, s.checkPages(at, v, pages)
}

// checkPages compares the number of page records, and the checksum of every
// page with its record.
func (s *Scanner) checkPages(at int64, v batchView, pages int) error {
	page := 0
	for e, n := v.entries, 0; len(e) > 0; e, n = e[le.Uint16(e[2:]):], n+1 {
		if len(e) < entryFixed || int(le.Uint16(e[2:])) < entryFixed || int(le.Uint16(e[2:])) > len(e) || n == v.records {
			return &CorruptError{s.file, at, "records", fmt.Sprintf("%d bytes after record %d", len(e), n)}
		}
		if Kind(e[0]) != KindPage {
			continue
		}
		if page == pages {
			return &CorruptError{s.file, at, fmt.Sprintf("%d pages", pages), "more page records"}
		}
		if s.bodies == VerifyBodies {
			if got, want := Checksum(v.pages[page*PageSize:(page+1)*PageSize]), le.Uint32(e[20:]); got != want {
				return &CorruptError{s.file, at + int64(v.head+page*PageSize), fmt.Sprintf("page with checksum %08x", want), fmt.Sprintf("%08x", got)}
			}
		}
		page++
	}
	if page != pages {
		return &CorruptError{s.file, at, fmt.Sprintf("%d page records", pages), fmt.Sprint(page)}
	}
	return nil
}

// bytes gives n bytes at an offset, valid until the next call.
func (s *Scanner) bytes(at int64, n int) ([]byte, error) {
	if at+int64(n) > s.size {
		return nil, &CorruptError{s.file, at, fmt.Sprintf("%d bytes", n), fmt.Sprintf("end of file at %d", s.size)}
	}
	if at < s.base || at+int64(n) > s.base+int64(len(s.buf)) {
		s.base, s.buf = at, s.buf[:min(s.window(), s.size-at)]
		got, err := s.r.ReadAt(s.buf, at)
		s.buf = s.buf[:got]
		if got < n {
			if err == nil || errors.Is(err, io.EOF) {
				return nil, &CorruptError{s.file, at, fmt.Sprintf("%d bytes", n), fmt.Sprintf("%d", got)}
			}
			return nil, fmt.Errorf("read %s at byte %d: %w", s.file, at, err)
		}
	}
	o := int(at - s.base)
	return s.buf[o : o+n], nil
}
