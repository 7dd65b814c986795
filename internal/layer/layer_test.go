package layer

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/tarndb/tarn"
)

const testTimeline = tarn.TimelineID("000102030405060708090a0b0c0d0e0f")

// everyKind has a record of each kind, with every field used.
func everyKind() []Record {
	return []Record{
		{Kind: KindCreate, Ino: 1, Time: 1_700_000_000_000_000_001, File: NewFile{Mode: 0o40700, UID: 101, GID: 104}},
		{Kind: KindCreate, Ino: 2, Parent: 1, Name: "base", Time: 2, File: NewFile{Mode: 0o100600, UID: 101, GID: 104}},
		{Kind: KindCreate, Ino: 3, Parent: 1, Name: "pg_wal", Time: 3, File: NewFile{Mode: 0o120777, Target: "/wal"}},
		{Kind: KindPage, Ino: 2, Page: 7, Used: PageSize, Time: 4},
		{Kind: KindZero, Ino: 2, Page: 8, Count: 3, Used: 100, Time: 5},
		{Kind: KindSize, Ino: 2, Size: 1 << 30, Time: 6},
		{Kind: KindLink, Ino: 2, Parent: 1, Name: "same", Time: 7},
		{Kind: KindRename, Ino: 2, Parent: 1, Name: "same", NewParent: 1, NewName: "other", Time: 8},
		{Kind: KindSetAttr, Ino: 2, Time: 9, Set: SetAttr{Has: SetMode | SetSize | SetMtime, Mode: 0o640, UID: 5, GID: 6, Size: 12345, Mtime: 9}},
		{Kind: KindUnlink, Ino: 2, Parent: 1, Name: "other", Time: 10},
		{Kind: KindRmdir, Ino: 4, Parent: 1, Name: "d", Time: 11},
		{Kind: KindMark, MarkSeq: 9, MarkLSN: 0x16B374D848, Time: 12},
	}
}

// laterKinds has those that version 1 did not begin with.
func laterKinds() []Record {
	return []Record{
		{Kind: KindCopy, Ino: 3, Time: 13, Page: 5, Count: 70, Used: 99, From: 2, FromPage: 9},
		{Kind: KindMove, Ino: 3, Time: 14, Page: 6, Count: 64, Image: 7, Block: 129},
	}
}

func testPage(seed int) []byte {
	p := make([]byte, PageSize)
	for i := range p {
		p[i] = byte(seed + i*31)
	}
	return p
}

// testSegment encodes records, so many to a batch.
func testSegment(t testing.TB, records []Record, perBatch int) []byte {
	t.Helper()
	out, err := Header{Timeline: testTimeline, Segment: 1, FirstSeq: 5, Epoch: 3}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	b := NewBatch()
	for i := 0; i < len(records); i += perBatch {
		block := uint32(len(out) / BlockSize)
		err := b.Begin(testTimeline, Place{Segment: 1, Block: block, FirstSeq: tarn.Seq(5 + i), Durable: block}, MaxHeadBlocks, MaxBatchPages)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records[i:min(i+perBatch, len(records))] {
			if r.Kind == KindPage {
				p := testPage(int(r.Page))
				b.AddPage(r.Ino, r.Page, r.Used, r.Time, Checksum(p), p)
			} else {
				b.Add(&r)
			}
		}
		out = append(out, b.Seal()...)
	}
	return out
}

func scanAll(b []byte, whole int64) ([]Record, *Scanner, error) {
	s, err := NewScanner(Source{R: bytes.NewReader(b), File: "log-00000001", Size: int64(len(b)), Whole: whole,
		Want: Header{Timeline: testTimeline, Segment: 1, FirstSeq: 5}})
	if err != nil {
		return nil, nil, err
	}
	var out []Record
	for s.Next() {
		out = append(out, *s.Record())
	}
	return out, s, s.Err()
}

func TestRoundTrip(t *testing.T) {
	want := append(everyKind(), laterKinds()...)
	for perBatch := 1; perBatch <= len(want); perBatch++ {
		b := testSegment(t, want, perBatch)
		got, s, err := scanAll(b, int64(len(b)))
		if err != nil || s.Torn() != nil || s.End() != int64(len(b)) || s.Seq() != tarn.Seq(5+len(want)) {
			t.Fatalf("%d to a batch: %v, torn %v, end %d, seq %d", perBatch, err, s.Torn(), s.End(), s.Seq())
		}
		for i, w := range want {
			if w.Kind == KindPage {
				w.CRC = Checksum(testPage(int(w.Page)))
			}
			if !reflect.DeepEqual(got[i], w) {
				t.Errorf("%d to a batch, record %d: got %+v, want %+v", perBatch, i, got[i], w)
			}
		}
	}
}

// TestPages checks that a page is found where the batch said it would stand.
func TestPages(t *testing.T) {
	b := NewBatch()
	if err := b.Begin(testTimeline, Place{Segment: 1, Block: 1, FirstSeq: 5}, 1, 3); err != nil {
		t.Fatal(err)
	}
	var blocks []uint32
	for i := range 3 {
		if !b.Fits(PageEntryBytes, 1) {
			t.Fatalf("page %d does not fit", i)
		}
		p := testPage(i)
		blocks = append(blocks, b.AddPage(2, uint32(i), PageSize, 1, Checksum(p), p))
	}
	if b.Fits(PageEntryBytes, 1) {
		t.Error("a fourth page fits where three may be")
	}
	file, err := Header{Timeline: testTimeline, Segment: 1, FirstSeq: 5}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	file = append(file, b.Seal()...)
	_, s, err := scanAll(file, 0)
	if err != nil || s.End() != int64(len(file)) {
		t.Fatal(err)
	}
	for i, at := range blocks {
		if !bytes.Equal(file[at*BlockSize:][:PageSize], testPage(i)) || !bytes.Equal(b.Page(at), testPage(i)) {
			t.Errorf("page %d is not at block %d", i, at)
		}
	}
	if b.Page(1) != nil || b.Page(blocks[2]+PageBlocks) != nil {
		t.Error("the batch gives pages it does not hold")
	}
}

// TestLongest checks the longest records there can be.
func TestLongest(t *testing.T) {
	name, target := strings.Repeat("n", MaxName), strings.Repeat("t", MaxTarget)
	want := []Record{
		{Kind: KindCreate, Ino: 9, Parent: 1, Name: name, File: NewFile{Mode: 0o120777, Target: target}},
		{Kind: KindRename, Ino: 9, Parent: 1, Name: name, NewParent: 2, NewName: strings.Repeat("m", MaxName)},
	}
	for _, r := range want {
		if HeadBlocks(r.EntryBytes()) > MaxHeadBlocks {
			t.Errorf("kind %d takes %d bytes", r.Kind, r.EntryBytes())
		}
	}
	got, _, err := scanAll(testSegment(t, want, 1), 0)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%v, %d records", err, len(got))
	}
}

// TestGolden keeps the bytes of format version 1. The file is never written
// again: a change of it is a new version.
func TestGolden(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "segment-v1.hex"))
	if err != nil {
		t.Fatal(err)
	}
	golden, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatal(err)
	}
	// Pages and padding are left out of the file: blocks 0 to 2 hold the
	// header and the head of a batch with everyKind.
	now := testSegment(t, everyKind(), len(everyKind()))
	for i := 0; i < len(golden); i++ {
		if now[i] != golden[i] {
			t.Fatalf("byte %d is %02x, was %02x in version 1", i, now[i], golden[i])
		}
	}
	if len(golden) != BlockSize+1024 {
		t.Fatalf("golden file of %d bytes", len(golden))
	}
}

// TestTorn cuts and damages a segment everywhere and checks where the scan
// ends.
func TestTorn(t *testing.T) {
	whole := testSegment(t, everyKind(), 4) // three batches
	all, s, err := scanAll(whole, 0)
	if err != nil {
		t.Fatal(err)
	}
	last := s.End()
	for cut := BlockSize; cut < len(whole); cut += 512 {
		got, s, err := scanAll(whole[:cut], 0)
		if err != nil || len(got)%4 != 0 || s.End() > int64(cut) {
			t.Fatalf("cut at %d: %d records, end %d, %v", cut, len(got), s.End(), err)
		}
		if _, _, err := scanAll(whole[:cut], last); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut at %d of %d that must be whole: %v", cut, last, err)
		}
	}
	for at := BlockSize; at < len(whole); at += 97 {
		bad := bytes.Clone(whole)
		bad[at] ^= 0x40
		got, s, err := scanAll(bad, 0)
		var c *CorruptError
		switch {
		case errors.As(err, &c): // a later batch said that this was on disk
			if c.File == "" || c.Expected == "" || c.Found == "" || c.Offset > int64(at) {
				t.Fatalf("damage at %d: %+v", at, c)
			}
		case err != nil:
			t.Fatalf("damage at %d: %v", at, err)
		case len(got) == len(all):
			t.Fatalf("damage at %d not seen", at)
		case s.End() > int64(at) || len(got) < 8:
			t.Fatalf("damage at %d: %d records, end at %d", at, len(got), s.End())
		}
	}
	bad := bytes.Clone(whole)
	bad[12] ^= 1
	if _, _, err := scanAll(bad, 0); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("damaged header: %v", err)
	}
}

// TestLostInTheMiddle loses a batch that nothing says was on disk: the log
// ends there, whatever follows.
func TestLostInTheMiddle(t *testing.T) {
	out, err := Header{Timeline: testTimeline, Segment: 1, FirstSeq: 5}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	b := NewBatch()
	for i := range 3 {
		block := uint32(len(out) / BlockSize)
		if err := b.Begin(testTimeline, Place{Segment: 1, Block: block, FirstSeq: tarn.Seq(5 + i), Durable: 1}, 1, 1); err != nil {
			t.Fatal(err)
		}
		b.Add(&Record{Kind: KindSize, Ino: 2, Size: uint64(i)})
		out = append(out, b.Seal()...)
	}
	clear(out[2*BlockSize : 3*BlockSize])
	got, s, err := scanAll(out, 0)
	if err != nil || len(got) != 1 || s.End() != 2*BlockSize {
		t.Fatalf("%d records, end %d, %v", len(got), s.End(), err)
	}
}

// TestForeign checks that batches of another timeline or place do not count.
func TestForeign(t *testing.T) {
	b := testSegment(t, everyKind(), 4)
	_, err := NewScanner(Source{R: bytes.NewReader(b), File: "f", Size: int64(len(b)), Want: Header{Timeline: testTimeline, Segment: 2, FirstSeq: 5}})
	if !errors.Is(err, ErrCorrupt) {
		t.Errorf("another segment: %v", err)
	}
	other, err := Header{Timeline: "ff0102030405060708090a0b0c0d0e0f", Segment: 1, FirstSeq: 5}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewScanner(Source{R: bytes.NewReader(append(other, b[BlockSize:]...)), File: "f", Size: int64(len(b)),
		Want: Header{Timeline: "ff0102030405060708090a0b0c0d0e0f", Segment: 1, FirstSeq: 5}})
	if err != nil {
		t.Fatal(err)
	}
	if s.Next() || s.Torn() == nil {
		t.Error("a batch of another timeline counts")
	}
}

// FuzzRecords reads any bytes as the entries of a batch whose checksums are
// right. What it gives can be encoded and read again.
func FuzzRecords(f *testing.F) {
	for _, r := range append(everyKind(), laterKinds()...) {
		e := make([]byte, r.EntryBytes())
		r.put(e)
		f.Add(e, uint16(1), uint8(0))
	}
	f.Fuzz(func(t *testing.T, entries []byte, records uint16, pages uint8) {
		entries = entries[:min(len(entries), BlockSize-batchFixed)]
		pages %= 3
		b := NewBatch()
		if err := b.Begin(testTimeline, Place{Segment: 1, Block: 1, FirstSeq: 5}, 1, MaxBatchPages); err != nil {
			t.Fatal(err)
		}
		copy(b.buf[batchFixed:], entries)
		b.entries, b.records, b.pages = batchFixed+len(entries), int(records), int(pages)
		clear(b.buf[BlockSize : BlockSize+int(pages)*PageSize])
		header, err := Header{Timeline: testTimeline, Segment: 1, FirstSeq: 5}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		checkScan(t, append(header, b.Seal()...))
	})
}

// FuzzDamage puts any bytes anywhere into a good segment, and cuts it anywhere.
func FuzzDamage(f *testing.F) {
	whole := testSegment(f, everyKind(), 4)
	f.Add(uint16(BlockSize), []byte{1}, uint16(len(whole)))
	f.Add(uint16(BlockSize+8), []byte{2, 0, 1, 0}, uint16(len(whole)))
	f.Add(uint16(0), []byte{}, uint16(2*BlockSize))
	f.Fuzz(func(t *testing.T, at uint16, patch []byte, cut uint16) {
		b := bytes.Clone(whole)
		copy(b[min(int(at), len(b)):], patch)
		checkScan(t, b[:min(int(cut), len(b))])
	})
}

// checkScan checks that a scan ends in a way it may, and that what it gives
// can be encoded and read again.
func checkScan(t *testing.T, b []byte) {
	t.Helper()
	records, s, err := scanAll(b, 0)
	if err != nil && !errors.Is(err, ErrCorrupt) {
		t.Fatalf("neither an end nor damage: %v", err)
	}
	if s == nil {
		return
	}
	if s.End() > int64(len(b)) || s.Seq() != tarn.Seq(5+len(records)) {
		t.Fatalf("end %d of %d, seq %d after %d records", s.End(), len(b), s.Seq(), len(records))
	}
	for _, r := range records {
		e := make([]byte, r.EntryBytes())
		r.put(e)
		var again Record
		if n, err := again.decode(e); err != nil || n != len(e) || !reflect.DeepEqual(again, r) {
			t.Fatalf("%+v encoded and read again: %+v, %v", r, again, err)
		}
	}
}
