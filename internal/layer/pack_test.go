package layer

import (
	"bytes"
	"errors"
	"testing"
)

var testPackID = FileID{Timeline: testTimeline, Kind: FileLog, Number: 5}

func testPack(t testing.TB) ([]byte, *Pack) {
	t.Helper()
	p := NewPack(testPackID, 200*BlockSize, func(b uint32) bool { return b%7 < 3 || b > 150 })
	b, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b, p
}

func TestPack(t *testing.T) {
	b, p := testPack(t)
	whole := make([]byte, p.Size)
	for i := range whole {
		whole[i] = byte(1 + i/BlockSize + i)
	}
	packed := bytes.Clone(b)
	for i := range uint32(200) {
		if p.Has(i) {
			packed = append(packed, whole[i*BlockSize:][:BlockSize]...)
		} else {
			clear(whole[i*BlockSize:][:BlockSize])
		}
	}
	if int64(len(packed)) != p.Stored() {
		t.Fatalf("%d bytes, not %d", len(packed), p.Stored())
	}
	got, err := DecodePack("f", b, testPackID, p.Size)
	if err != nil || *got != *p {
		t.Fatalf("%+v, %v", got, err)
	}
	for _, r := range [][2]int64{{0, p.Size}, {0, 1}, {5, BlockSize}, {BlockSize - 1, 2}, {3 * BlockSize, 4 * BlockSize}, {100*BlockSize + 17, 60 * BlockSize}, {p.Size - 1, 1}} {
		out := make([]byte, 0, r[1])
		for part := range got.Parts(r[0], r[1]) {
			if part.At != r[0]+int64(len(out)) {
				t.Fatalf("a part at %d after %d bytes from %d", part.At, len(out), r[0])
			}
			if part.Stored < 0 {
				out = append(out, make([]byte, part.Bytes)...)
			} else {
				out = append(out, packed[part.Stored:][:part.Bytes]...)
			}
		}
		if !bytes.Equal(out, whole[r[0]:r[0]+r[1]]) {
			t.Fatalf("%d bytes from %d are others", r[1], r[0])
		}
	}
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 2
		if _, err := DecodePack("f", bad, testPackID, p.Size); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("damage of byte %d: %v", i, err)
		}
	}
	if _, err := DecodePack("f", b, testPackID, p.Size+BlockSize); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("another size: %v", err)
	}
}

// FuzzPack puts any bytes anywhere into a good header, with or without a
// checksum that fits: what is read can be written again, and its parts lie inside.
func FuzzPack(f *testing.F) {
	whole, p := testPack(f)
	f.Add(uint16(0), []byte{1}, false)
	f.Add(uint16(40), []byte{0, 0, 0, 8}, true)
	f.Add(uint16(BlockSize+24), []byte{255, 255}, true)
	f.Add(uint16(BlockSize+4000), []byte{1}, true)
	f.Fuzz(func(t *testing.T, at uint16, patch []byte, fit bool) {
		b := bytes.Clone(whole)
		copy(b[int(at)%PackHeader:], patch)
		if fit {
			le.PutUint32(b[12:], packSum(b))
		}
		got, err := DecodePack("f", b, testPackID, p.Size)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("neither a pack nor damage: %v", err)
			}
			return
		}
		sum := int64(0)
		for part := range got.Parts(0, got.Size) {
			if part.Stored >= 0 && (part.Stored < PackHeader || part.Stored+part.Bytes > got.Stored()) {
				t.Fatalf("part %+v of %d bytes", part, got.Stored())
			}
			sum += part.Bytes
		}
		if sum != got.Size {
			t.Fatalf("parts of %d bytes of %d", sum, got.Size)
		}
		if _, err := got.Encode(); err != nil {
			t.Fatal(err)
		}
	})
}
