package layer

import (
	"encoding/hex"
	"fmt"
	"iter"
	"math/bits"

	"github.com/tarndb/tarn"
)

// PackVersion is the format of packed layers that this package writes and the
// only one it reads.
const PackVersion = 1

const (
	packMagic = "TARNPAK\x00"
	// PackHeader is what a packed layer begins with, bytes: a block that says
	// which layer it is, and one with a bit for each block that it has.
	PackHeader = 2 * BlockSize
	packWords  = MaxSegmentBytes / BlockSize / 64
)

// Pack says which blocks of a segment or image are in its packed copy: in an
// object store, which knows no holes. Blocks that it does not have are zeros.
type Pack struct {
	ID   FileID
	Size int64 // of the layer, bytes

	kept   [packWords]uint64
	before [packWords]uint32 // blocks kept before each word
}

// NewPack makes a pack of the blocks whose bit is set.
func NewPack(id FileID, size int64, kept func(block uint32) bool) *Pack {
	p := &Pack{ID: id, Size: size}
	for block := range uint32((size + BlockSize - 1) / BlockSize) {
		if kept(block) {
			p.kept[block/64] |= 1 << (block % 64)
		}
	}
	p.count()
	return p
}

func (p *Pack) count() {
	n := uint32(0)
	for i, w := range p.kept {
		p.before[i] = n
		n += uint32(bits.OnesCount64(w))
	}
}

func (p *Pack) blocks() int64 {
	return int64(p.before[packWords-1]) + int64(bits.OnesCount64(p.kept[packWords-1]))
}

// Stored is the length of the packed copy, bytes.
func (p *Pack) Stored() int64 { return PackHeader + p.blocks()*BlockSize }

// Has reports whether a block is in the packed copy.
func (p *Pack) Has(block uint32) bool { return p.kept[block/64]&(1<<(block%64)) != 0 }

// PackPart is a range of a layer that stands in one piece in its packed copy, or
// not at all.
type PackPart struct {
	At     int64 // in the layer
	Bytes  int64
	Stored int64 // in the packed copy; -1 = zeros
}

// Parts gives a range of the layer part by part. The range is inside the layer.
func (p *Pack) Parts(off, n int64) iter.Seq[PackPart] {
	return func(yield func(PackPart) bool) {
		for end := off + n; off < end; {
			block := uint32(off / BlockSize)
			has := p.Has(block)
			next := block + 1
			for int64(next)*BlockSize < end && p.Has(next) == has {
				next++
			}
			part := PackPart{At: off, Bytes: min(int64(next)*BlockSize, end) - off, Stored: -1}
			if has {
				i := int64(p.before[block/64]) + int64(bits.OnesCount64(p.kept[block/64]&(1<<(block%64)-1)))
				part.Stored = PackHeader + i*BlockSize + off%BlockSize
			}
			if !yield(part) {
				return
			}
			off += part.Bytes
		}
	}
}

// Encode gives the two blocks that the packed copy begins with.
func (p *Pack) Encode() ([]byte, error) {
	b := make([]byte, PackHeader)
	copy(b, packMagic)
	le.PutUint32(b[8:], PackVersion)
	if len(p.ID.Timeline) != 32 {
		return nil, fmt.Errorf("encode pack: timeline %q is no 32 hexadecimal digits", p.ID.Timeline)
	}
	if _, err := hex.Decode(b[16:32], []byte(p.ID.Timeline)); err != nil {
		return nil, fmt.Errorf("encode pack: %w", err)
	}
	b[32] = byte(p.ID.Kind)
	le.PutUint32(b[36:], p.ID.Number)
	le.PutUint64(b[40:], uint64(p.Size))
	for i, w := range p.kept {
		le.PutUint64(b[BlockSize+8*i:], w)
	}
	le.PutUint32(b[12:], packSum(b))
	return b, nil
}

// packSum covers the two blocks but for the four bytes of the sum itself.
func packSum(b []byte) uint32 {
	return Checksum(append(append(make([]byte, 0, PackHeader), b[:12]...), b[16:PackHeader]...))
}

// DecodePack reads the two blocks; file is for the error, a *CorruptError. size
// is that of the layer as it is known elsewhere.
func DecodePack(file string, b []byte, id FileID, size int64) (*Pack, error) {
	corrupt := func(at int64, expected, format string, args ...any) (*Pack, error) {
		return nil, &CorruptError{file, at, expected, fmt.Sprintf(format, args...)}
	}
	if len(b) < PackHeader {
		return corrupt(0, fmt.Sprintf("the header of a packed layer, %d bytes", PackHeader), "%d bytes", len(b))
	}
	if string(b[:8]) != packMagic {
		return corrupt(0, fmt.Sprintf("magic %q", packMagic), "%q", b[:8])
	}
	if got, want := packSum(b), le.Uint32(b[12:]); got != want {
		return corrupt(12, fmt.Sprintf("checksum %08x", want), "%08x", got)
	}
	if v := le.Uint32(b[8:]); v != PackVersion {
		return corrupt(8, fmt.Sprintf("format version %d", PackVersion), "%d", v)
	}
	p := &Pack{ID: FileID{Timeline: tarn.TimelineID(hex.EncodeToString(b[16:32])), Kind: FileKind(b[32]), Number: le.Uint32(b[36:])},
		Size: int64(le.Uint64(b[40:]))}
	if p.ID != id || p.Size != size {
		return corrupt(16, fmt.Sprintf("layer %+v of %d bytes", id, size), "%+v of %d bytes", p.ID, p.Size)
	}
	blocks := (size + BlockSize - 1) / BlockSize
	if size < 0 || blocks > packWords*64 {
		return corrupt(40, fmt.Sprintf("a layer of at most %d bytes", MaxSegmentBytes), "%d", size)
	}
	for i := range p.kept {
		p.kept[i] = le.Uint64(b[BlockSize+8*i:])
		if left := blocks - int64(i)*64; left < 64 && p.kept[i]>>max(left, 0) != 0 {
			return corrupt(BlockSize+8*int64(i), fmt.Sprintf("bits of %d blocks", blocks), "%016x", p.kept[i])
		}
	}
	p.count()
	return p, nil
}
