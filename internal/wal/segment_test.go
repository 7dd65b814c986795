package wal

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/tarndb/tarn"
)

const mib16 = 16 << 20

func TestSegmentNames(t *testing.T) {
	for _, c := range []struct {
		tli  uint32
		lsn  tarn.LSN
		size uint32
		name string
	}{
		{1, 0x1000000, mib16, "000000010000000000000001"},
		{1, 0x1FFFFFF, mib16, "000000010000000000000001"},
		{2, 0x16_B374D848, mib16, "0000000200000016000000B3"},
		{10, 0xFF_FFFFFFFF, mib16, "0000000A000000FF000000FF"},
		{1, 0x1_00000000, 1 << 20, "000000010000000100000000"},
		{1, 0x0_FFF00000, 1 << 20, "000000010000000000000FFF"},
	} {
		s := SegmentAt(c.tli, c.lsn, c.size)
		if got := s.Name(c.size); got != c.name {
			t.Errorf("segment of %s: %s, want %s", c.lsn, got, c.name)
		}
		if c.lsn < s.Start(c.size) || c.lsn >= s.End(c.size) {
			t.Errorf("%s is not in %s..%s", c.lsn, s.Start(c.size), s.End(c.size))
		}
	}
	for _, name := range []string{"", "00000002.history", "000000010000000000000001.partial", "00000001000000000000000G",
		"00000001000000000000000a", "0000000100000000000001FF", "000000010000000000000001.00000028.backup"} {
		if s, ok := ParseSegment(name, mib16); ok {
			t.Errorf("%q parsed as %v", name, s)
		}
	}
	if !isHistory("00000002.history") || isHistory("0000002.history") || isHistory("000000010000000000000001") {
		t.Error("histories are not told from segments")
	}
}

func TestSegmentNamesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := uint32(1) << rapid.IntRange(20, 30).Draw(t, "log2 size")
		s := SegmentAt(rapid.Uint32().Draw(t, "tli"), tarn.LSN(rapid.Uint64().Draw(t, "lsn")), size)
		if got, ok := ParseSegment(s.Name(size), size); !ok || got != s {
			t.Fatalf("%v is named %s, which reads %v, %v", s, s.Name(size), got, ok)
		}
	})
}

func TestRecordEnd(t *testing.T) {
	for _, c := range []struct {
		start tarn.LSN
		n     uint32
		want  tarn.LSN
	}{
		{0x1000028, 114, 0x10000A0},       // 40 + 114 = 154, aligned 160
		{0x1001F00, 0x100, 0x1002000},     // ends with its page
		{0x1001F00, 0x101, 0x1002020},     // one byte behind a page's header (24), aligned
		{0x1001F00, 0x118, 0x1002030},     // 0x18 behind the header
		{0x1FFFFF8, 0x20, 0x2000040},      // 8 bytes, a long header (40), 24 bytes
		{0x1001FE8, 24 + 8192, 0x1004030}, // a whole page (8168) between, and 24 behind
	} {
		if got := RecordEnd(c.start, c.n, mib16); got != c.want {
			t.Errorf("a record of %d bytes at %s ends at %s, want %s", c.n, c.start, got, c.want)
		}
	}
}
