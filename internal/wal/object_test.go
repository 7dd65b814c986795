package wal

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/layer"
)

func goldenObject(t testing.TB) []byte {
	p, err := newPacker()
	if err != nil {
		t.Fatal(err)
	}
	return p.pack(header{
		Kind: kindStretch, Timeline: testTimeline, Run: runID{Lease: 1, No: 2, Nonce: 3}, TLI: 4, SegmentBytes: mib,
		From: 5 * mib, To: 5*mib + 7, Time: time.Unix(1700000000, 9).UTC(),
	}, []byte("\x01\x02\x03\x04\x05\x06\x07"))
}

// The bytes of version 1, written once.
const goldenHex = "5441524e57414c000100010004000000" + "0123456789abcdef0123456789abcdef" + "01000000000000000200000003000000" +
	"0000500000000000" + "0700500000000000" + "09002a36fe9c9717"

func TestObjectVersion1(t *testing.T) {
	b := goldenObject(t)
	if got := hex.EncodeToString(b[:72]); got != goldenHex {
		t.Errorf("header is\n%s, want\n%s", got, goldenHex)
	}
	if len(b) != headerBytes+7 {
		t.Errorf("a payload that does not get shorter is not stored plain: %d bytes", len(b))
	}
}

func TestObjectRoundTrip(t *testing.T) {
	p, err := newPacker()
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		payload := bytes.Repeat(rapid.SliceOfN(rapid.Byte(), 1, 100).Draw(t, "bytes"), rapid.IntRange(1, 1000).Draw(t, "times"))
		h := header{
			Kind: kindStretch, Timeline: testTimeline, Run: runID{rapid.Uint64().Draw(t, "lease"), rapid.Uint32().Draw(t, "no"), rapid.Uint32().Draw(t, "nonce")},
			TLI: rapid.Uint32().Draw(t, "tli"), SegmentBytes: mib16, From: mib, Time: time.Unix(0, rapid.Int64().Draw(t, "time")).UTC(),
		}
		h.To = h.From + tarn.LSN(len(payload))
		b := p.pack(h, payload)
		got, back, err := p.parseObject("k", b)
		if err != nil || !bytes.Equal(back, payload) || got.Run != h.Run || got.TLI != h.TLI || got.From != h.From || got.To != h.To || !got.Time.Equal(h.Time) {
			t.Fatalf("%+v came back as %+v, %v", h, got, err)
		}
		at := rapid.IntRange(0, len(b)-1).Draw(t, "flip")
		b[at] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if _, _, err := p.parseObject("k", b); !errors.Is(err, layer.ErrCorrupt) {
			t.Fatalf("byte %d flipped: %v", at, err)
		}
	})
}

func FuzzObject(f *testing.F) {
	p, err := newPacker()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(goldenObject(f))
	f.Add(p.pack(header{Kind: kindHistory, Timeline: testTimeline, TLI: 2}, bytes.Repeat([]byte("1\t0/3000000\tno recovery target\n"), 9)))
	f.Add(p.pack(header{Kind: kindRun, Timeline: testTimeline, TLI: 2, From: 9, To: 9}, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, payload, err := p.parseObject("k", b)
		if err != nil {
			if !errors.Is(err, layer.ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		if again, back, err := p.parseObject("k", p.pack(h, payload)); err != nil || !bytes.Equal(back, payload) || again.Run != h.Run {
			t.Fatalf("%+v does not come back: %v", h, err)
		}
	})
}

func FuzzKeys(f *testing.F) {
	f.Add("000000010000000000000003/00000000-00100000-0000000000000001-00000002-00000003")
	f.Add("0000000000000001-00000002-00000003-00000001-0000000000300000")
	f.Fuzz(func(t *testing.T, key string) {
		if s, ok := parseStretch(key, mib, blob.Object{}); ok && s.key(mib) != key {
			t.Errorf("%q is read as %q", key, s.key(mib))
		}
		if r, ok := parseRun(key); ok && r.key() != key {
			t.Errorf("%q is read as %q", key, r.key())
		}
	})
}

func TestLogReadsAcrossTheMoveToTheArchive(t *testing.T) {
	l := newLog(t, filepath.Join(t.TempDir(), "l"))
	b := writeSegment(t, l.Dir(), 3)
	if err := os.Rename(filepath.Join(l.Dir(), segment(3)), filepath.Join(l.archive(), segment(3))); err != nil {
		t.Fatal(err)
	}
	got, err := l.read(1, 3*mib+10, 3*mib+20, mib)
	if err != nil || !bytes.Equal(got, b[10:20]) {
		t.Errorf("read %x, %v", got, err)
	}
	if from, err := l.oldest(1, 4*mib, mib); err != nil || from != 3*mib {
		t.Errorf("oldest %s, %v", from, err)
	}
	if _, err := l.oldest(1, 4*mib+1, mib); err == nil {
		t.Error("oldest of WAL that is not here")
	}
}
