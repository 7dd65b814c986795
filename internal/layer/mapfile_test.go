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

// sink is a file in memory.
type sink struct{ b []byte }

func (s *sink) WriteAt(p []byte, off int64) (int, error) {
	if n := off + int64(len(p)); n > int64(len(s.b)) {
		s.b = append(s.b, make([]byte, n-int64(len(s.b)))...)
	}
	return copy(s.b[off:], p), nil
}

func testTable(seed int) *[TablePages]uint64 {
	var t [TablePages]uint64
	for i := range t {
		if i%(seed+1) == 0 {
			t[i] = uint64(seed)<<32 | uint64(i+1)
		}
	}
	return &t
}

// testMap writes a map with an entry of every kind, and tables of every density.
func testMap(t testing.TB) ([]byte, []TableRef) {
	t.Helper()
	var s sink
	w, err := NewMapWriter(&s, testTimeline, 7, 3)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(err)
	var refs []TableRef
	for i := range 70 {
		r, err := w.Table(2, uint32(i), testTable(i))
		must(err)
		refs = append(refs, r)
	}
	empty, err := w.Table(2, 70, new([TablePages]uint64))
	if err != nil || empty != 0 {
		t.Fatalf("a table of holes stands at %x, %v", empty, err)
	}
	must(w.File(0, FileID{testTimeline, FileLog, 1}))
	must(w.File(3, FileID{testTimeline, FileMap, 7}))
	must(w.Inode(&MapInode{Attr: Attr{Ino: 1, Mode: 0o40700, UID: 1, GID: 2, Nlink: 3, Mtime: -4}, Cookie: 9}))
	must(w.Name("f", 2, 1))
	must(w.Name(strings.Repeat("n", MaxName), 3, 9))
	must(w.Inode(&MapInode{Attr: Attr{Ino: 2, Mode: 0o100600, Nlink: 1, Size: 1 << 40, Mtime: 5}}))
	must(w.Tables(0, refs[:50]))
	must(w.Tables(60, append([]TableRef{0}, refs[50:]...)))
	must(w.Inode(&MapInode{Attr: Attr{Ino: 3, Mode: 0o120777, Nlink: 1}, Target: strings.Repeat("t", MaxTarget), Parent: 1}))
	must(w.Mark(4, 5, 6))
	_, size, err := w.Finish(MapHeader{Seq: 99, Generation: 5, Segment: 4, Block: 17, NextIno: 4})
	must(err)
	if size != int64(len(s.b)) {
		t.Fatalf("size %d of %d", size, len(s.b))
	}
	return s.b, refs
}

func readMap(b []byte) (MapHeader, []MapEntry, error) {
	r, err := OpenMap(bytes.NewReader(b), "map-00000007", int64(len(b)), testTimeline, 7)
	if err != nil {
		return MapHeader{}, nil, err
	}
	var out []MapEntry
	for r.Next() {
		e := *r.Entry()
		e.Tables = append([]TableRef(nil), e.Tables...)
		out = append(out, e)
	}
	return r.Header(), out, r.Err()
}

func TestMapRoundTrip(t *testing.T) {
	b, refs := testMap(t)
	h, entries, err := readMap(b)
	if err != nil {
		t.Fatal(err)
	}
	h.catalog, h.catalogBytes, h.entries = 0, 0, 0
	var sum uint64
	for _, r := range refs {
		sum += uint64(r.Bytes())
	}
	if want := (MapHeader{Timeline: testTimeline, Number: 7, Seq: 99, Generation: 5, Segment: 4, Block: 17, NextIno: 4, Tables: 70, TableBytes: sum}); h != want || h.Full() {
		t.Errorf("header %+v, want %+v", h, want)
	}
	var kinds []MapEntryKind
	for _, e := range entries {
		kinds = append(kinds, e.Kind)
	}
	if want := []MapEntryKind{1, 1, 2, 3, 3, 2, 4, 4, 2, 5}; !reflect.DeepEqual(kinds, want) {
		t.Fatalf("entries %v, want %v", kinds, want)
	}
	if e := entries[1]; e.Slot != 3 || e.File != (FileID{testTimeline, FileMap, 7}) {
		t.Errorf("file %+v", e)
	}
	if e := entries[2].Inode; e.Ino != 1 || e.Mode != 0o40700 || e.UID != 1 || e.GID != 2 || e.Nlink != 3 || e.Mtime != -4 || e.Cookie != 9 {
		t.Errorf("inode %+v", e)
	}
	if e := entries[4].Name; e.Name != strings.Repeat("n", MaxName) || e.Ino != 3 || e.Cookie != 9 {
		t.Errorf("name %+v", e)
	}
	if e := entries[7]; e.First != 60 || len(e.Tables) != 21 || e.Tables[0] != 0 || !reflect.DeepEqual(e.Tables[1:], refs[50:]) {
		t.Errorf("tables %+v", e)
	}
	if e := entries[8].Inode; len(e.Target) != MaxTarget || e.Parent != 1 {
		t.Errorf("link %+v", e)
	}
	if e := entries[9]; e.MarkSeq != 4 || e.MarkLSN != 5 || e.MarkTime != 6 {
		t.Errorf("mark %+v", e)
	}
	var buf TableBuffer
	for i, r := range refs {
		if r.Slot() != 3 {
			t.Fatalf("table %d in slot %d", i, r.Slot())
		}
		var got [TablePages]uint64
		if err := ReadTable(bytes.NewReader(b), "m", r, 2, uint32(i), &buf, &got); err != nil || got != *testTable(i) {
			t.Fatalf("table %d: %v, %v", i, got, err)
		}
		if err := ReadTable(bytes.NewReader(b), "m", r, 2, uint32(i+1), &buf, &got); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("table %d read as another: %v", i, err)
		}
	}
}

// TestMapDamage changes every part of a map and sees that the part is refused.
func TestMapDamage(t *testing.T) {
	whole, refs := testMap(t)
	for at := 0; at < len(whole); at += 61 {
		bad := bytes.Clone(whole)
		bad[at] ^= 0x20
		_, _, err := readMap(bad)
		var buf TableBuffer
		for i, r := range refs {
			var got [TablePages]uint64
			err = errors.Join(err, ReadTable(bytes.NewReader(bad), "m", r, 2, uint32(i), &buf, &got))
		}
		if !errors.Is(err, ErrCorrupt) {
			t.Fatalf("byte %d: %v", at, err)
		}
	}
	for cut := 0; cut < len(whole); cut += 997 {
		if _, _, err := readMap(whole[:cut]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut at %d: %v", cut, err)
		}
	}
	if _, err := OpenMap(bytes.NewReader(whole), "m", int64(len(whole)), testTimeline, 8); !errors.Is(err, ErrCorrupt) {
		t.Errorf("another number: %v", err)
	}
	if _, err := OpenMap(bytes.NewReader(whole), "m", int64(len(whole)), "ff0102030405060708090a0b0c0d0e0f", 7); !errors.Is(err, ErrCorrupt) {
		t.Errorf("another timeline: %v", err)
	}
}

// TestMapGolden keeps the bytes of version 1 of maps. The file is never
// written again.
func TestMapGolden(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "map-v1.hex"))
	if err != nil {
		t.Fatal(err)
	}
	golden, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatal(err)
	}
	now, _ := goldenMap(t)
	if !bytes.Equal(now, golden) {
		t.Fatal("a map is written otherwise than in version 1")
	}
}

// goldenMap is small enough to be kept.
func goldenMap(t testing.TB) ([]byte, TableRef) {
	t.Helper()
	var s sink
	w, err := NewMapWriter(&s, testTimeline, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	r, err := w.Table(2, 0, testTable(30))
	for _, e := range []error{err,
		w.File(0, FileID{testTimeline, FileMap, 1}), w.File(0, FileID{testTimeline, FileLog, 1}),
		w.Inode(&MapInode{Attr: Attr{Ino: 1, Mode: 0o40700, Nlink: 2, Mtime: 3}, Cookie: 1}), w.Name("f", 2, 1),
		w.Inode(&MapInode{Attr: Attr{Ino: 2, Mode: 0o100600, UID: 5, GID: 6, Nlink: 1, Size: 512 << 10, Mtime: 4}}), w.Tables(0, []TableRef{r}),
		w.Mark(3, 0x1000, 9)} {
		if e != nil {
			t.Fatal(e)
		}
	}
	if _, _, err := w.Finish(MapHeader{Seq: 8, Generation: 1, Segment: 1, Block: 40, NextIno: 3}); err != nil {
		t.Fatal(err)
	}
	return s.b, r
}

// FuzzMap puts any bytes anywhere into a good map, with or without checksums
// that fit. Whatever is read can be written and read again.
func FuzzMap(f *testing.F) {
	whole, ref := goldenMap(f)
	f.Add(uint16(0), []byte{1}, uint16(len(whole)), false)
	f.Add(uint16(BlockSize+600), []byte{2, 0, 1, 0}, uint16(len(whole)), true)
	f.Add(uint16(56), []byte{0, 0, 1}, uint16(len(whole)), true)
	f.Fuzz(func(t *testing.T, at uint16, patch []byte, cut uint16, fit bool) {
		b := bytes.Clone(whole)
		copy(b[min(int(at), len(b)):], patch)
		b = b[:min(int(cut), len(b))]
		if fit && len(b) >= BlockSize {
			le.PutUint32(b[12:], headerSum(b))
			if c := le.Uint64(b[56:]); c+catalogHead <= uint64(len(b)) && c >= BlockSize {
				if n := uint64(le.Uint32(b[c:])); c+catalogHead+n <= uint64(len(b)) {
					s, _ := salt(testTimeline)
					le.PutUint32(b[c+4:], catalogSum(s, 1, 0, b[c+catalogHead:c+catalogHead+n]))
				}
			}
		}
		checkMap(t, b, ref)
	})
}

func checkMap(t *testing.T, b []byte, ref TableRef) {
	t.Helper()
	var buf TableBuffer
	var table [TablePages]uint64
	if err := ReadTable(bytes.NewReader(b), "m", ref, 2, 0, &buf, &table); err != nil && !errors.Is(err, ErrCorrupt) {
		t.Fatalf("table: %v", err)
	}
	r, err := OpenMap(bytes.NewReader(b), "m", int64(len(b)), testTimeline, 1)
	if err != nil {
		if !errors.Is(err, ErrCorrupt) {
			t.Fatalf("neither a map nor damage: %v", err)
		}
		return
	}
	var s sink
	w, err := NewMapWriter(&s, testTimeline, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for ; r.Next(); n++ {
		var err error
		switch e := r.Entry(); e.Kind {
		case EntryFile:
			err = w.File(e.Slot, e.File)
		case EntryInode:
			err = w.Inode(&e.Inode)
		case EntryName:
			err = w.Name(e.Name.Name, e.Name.Ino, e.Name.Cookie)
		case EntryTables:
			err = w.Tables(e.First, e.Tables)
		case EntryMark:
			err = w.Mark(e.MarkSeq, e.MarkLSN, e.MarkTime)
		}
		if err != nil {
			t.Fatalf("entry %+v read and written: %v", r.Entry(), err)
		}
	}
	if r.Err() != nil {
		if !errors.Is(r.Err(), ErrCorrupt) {
			t.Fatalf("neither an end nor damage: %v", r.Err())
		}
		return
	}
	if _, _, err := w.Finish(r.Header()); err != nil {
		t.Fatal(err)
	}
	again, err := OpenMap(bytes.NewReader(s.b), "m", int64(len(s.b)), testTimeline, 1)
	if err != nil {
		t.Fatal(err)
	}
	for again.Next() {
		n--
	}
	if again.Err() != nil || n != 0 {
		t.Fatalf("written and read again: %d entries too few, %v", n, again.Err())
	}
}

// TestScanFrom begins a scan inside a segment, and skips bodies that are gone.
func TestScanFrom(t *testing.T) {
	whole := testSegment(t, everyKind(), 4)
	all, s, err := scanAll(whole, 0)
	if err != nil {
		t.Fatal(err)
	}
	// The page of the fourth record stands at the end of the first batch.
	clear(whole[2*BlockSize+BlockSize : 2*BlockSize+BlockSize+PageSize])
	src := Source{R: bytes.NewReader(whole), File: "f", Size: s.End(), Whole: s.End(), Bodies: SkipBodies,
		Want: Header{Timeline: testTimeline, Segment: 1, FirstSeq: 5}}
	sc, err := NewScanner(src)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	var starts []int64
	var seqs []tarn.Seq
	for ; sc.Next(); n++ {
		if at, head := sc.Batch(); len(starts) == 0 || starts[len(starts)-1] != at {
			starts, seqs = append(starts, at), append(seqs, sc.Seq()-1)
			if head%BlockSize != 0 || head == 0 {
				t.Errorf("a head of %d bytes", head)
			}
		}
		if sc.Record().Kind != all[n].Kind {
			t.Fatalf("record %d is %+v", n, sc.Record())
		}
	}
	if sc.Err() != nil || n != len(all) || len(starts) != 3 {
		t.Fatalf("%d records in %d batches, %v", n, len(starts), sc.Err())
	}
	for i, at := range starts {
		src.From, src.Seq = at, seqs[i]
		sc, err := NewScanner(src)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for ; sc.Next(); n++ {
		}
		if sc.Err() != nil || n != len(all)-4*i {
			t.Fatalf("from %d: %d records, %v", at, n, sc.Err())
		}
	}
	src.From, src.Seq = starts[1], seqs[1]+1
	if sc, err := NewScanner(src); err != nil || sc.Next() || !errors.Is(sc.Err(), ErrCorrupt) {
		t.Fatalf("from a batch of another seq: %v", err)
	}
}
