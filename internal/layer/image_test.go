package layer

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"
)

func testImage(t testing.TB) ([]byte, ImageHeader) {
	t.Helper()
	h := ImageHeader{Timeline: testTimeline, Number: 3, Pages: 2, Seq: 99}
	b, err := h.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return append(append(b, testPage(1)...), testPage(2)...), h
}

func TestImageHeader(t *testing.T) {
	b, want := testImage(t)
	const golden = "5441524e494d47000100000094598fc2000102030405060708090a0b0c0d0e0f03000000020000006300000000000000"
	if got := hex.EncodeToString(b[:48]); got != golden {
		t.Errorf("the header is %s, was %s", got, golden)
	}
	got, err := DecodeImageHeader("img", b, int64(len(b)), testTimeline, 3)
	if err != nil || got != want {
		t.Fatalf("%+v, %v", got, err)
	}
	for i := range BlockSize {
		bad := bytes.Clone(b)
		bad[i] ^= 8
		if _, err := DecodeImageHeader("img", bad, int64(len(bad)), testTimeline, 3); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("damage of byte %d: %v", i, err)
		}
	}
	for _, size := range []int64{0, BlockSize - 1, BlockSize, int64(len(b)) - 1} {
		if _, err := DecodeImageHeader("img", b[:min(size, BlockSize)], size, testTimeline, 3); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("%d bytes: %v", size, err)
		}
	}
	if _, err := DecodeImageHeader("img", b, int64(len(b)), testTimeline, 4); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("another number: %v", err)
	}
}

// FuzzImage puts any bytes anywhere into a good header, with or without a
// checksum that fits: what is read can be written again.
func FuzzImage(f *testing.F) {
	whole, _ := testImage(f)
	f.Add(uint16(0), []byte{1}, uint32(len(whole)), false)
	f.Add(uint16(36), []byte{255, 255, 255, 255}, uint32(len(whole)), true)
	f.Add(uint16(8), []byte{2}, uint32(BlockSize), true)
	f.Fuzz(func(t *testing.T, at uint16, patch []byte, size uint32, fit bool) {
		b := bytes.Clone(whole[:BlockSize])
		copy(b[int(at)%BlockSize:], patch)
		if fit {
			le.PutUint32(b[12:], headerSum(b))
		}
		h, err := DecodeImageHeader("img", b[:min(int(size), BlockSize)], int64(size), testTimeline, 3)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("neither an image nor damage: %v", err)
			}
			return
		}
		again, err := h.Encode()
		if err != nil || !bytes.Equal(again[:12], b[:12]) || !bytes.Equal(again[16:48], b[16:48]) {
			t.Fatalf("%+v written again: %v", h, err)
		}
	})
}
