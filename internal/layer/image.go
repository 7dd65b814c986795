package layer

import (
	"encoding/hex"
	"fmt"

	"github.com/tarndb/tarn"
)

// ImageVersion is the format of images that this package writes and the only
// one it reads.
const ImageVersion = 1

const imageMagic = "TARNIMG\x00"

// ImageHeader is the first block of an image. Behind it stand pages, one after
// the other; which ones they are, the KindMove records say, and their checksums
// stand where the places of pages do.
type ImageHeader struct {
	Timeline tarn.TimelineID
	Number   uint32 // among the images of the timeline, from 1
	Pages    uint32
	Seq      tarn.Seq // the pages were visible at it
}

// Encode gives the header's block.
func (h ImageHeader) Encode() ([]byte, error) {
	b := make([]byte, BlockSize)
	copy(b, imageMagic)
	le.PutUint32(b[8:], ImageVersion)
	if len(h.Timeline) != 32 {
		return nil, fmt.Errorf("encode image header: timeline %q is no 32 hexadecimal digits", h.Timeline)
	}
	if _, err := hex.Decode(b[16:32], []byte(h.Timeline)); err != nil {
		return nil, fmt.Errorf("encode image header: %w", err)
	}
	le.PutUint32(b[32:], h.Number)
	le.PutUint32(b[36:], h.Pages)
	le.PutUint64(b[40:], uint64(h.Seq))
	le.PutUint32(b[12:], headerSum(b))
	return b, nil
}

// DecodeImageHeader reads an image's first block and compares it with what is
// wanted and with the size of the file; the error is a *CorruptError.
func DecodeImageHeader(file string, b []byte, size int64, timeline tarn.TimelineID, number uint32) (ImageHeader, error) {
	corrupt := func(at int64, expected, format string, args ...any) (ImageHeader, error) {
		return ImageHeader{}, &CorruptError{file, at, expected, fmt.Sprintf(format, args...)}
	}
	if len(b) < BlockSize {
		return corrupt(0, "an image header of 4096 bytes", "%d bytes", len(b))
	}
	if string(b[:8]) != imageMagic {
		return corrupt(0, fmt.Sprintf("magic %q", imageMagic), "%q", b[:8])
	}
	if got, want := headerSum(b), le.Uint32(b[12:]); got != want {
		return corrupt(12, fmt.Sprintf("checksum %08x", want), "%08x", got)
	}
	if v := le.Uint32(b[8:]); v != ImageVersion {
		return corrupt(8, fmt.Sprintf("format version %d", ImageVersion), "%d", v)
	}
	h := ImageHeader{Timeline: tarn.TimelineID(hex.EncodeToString(b[16:32])), Number: le.Uint32(b[32:]),
		Pages: le.Uint32(b[36:]), Seq: tarn.Seq(le.Uint64(b[40:]))}
	if h.Timeline != timeline || h.Number != number {
		return corrupt(16, fmt.Sprintf("image %d of timeline %s", number, timeline), "image %d of timeline %s", h.Number, h.Timeline)
	}
	if want := BlockSize + int64(h.Pages)*PageSize; size < want || want > MaxSegmentBytes {
		return corrupt(36, fmt.Sprintf("%d pages in %d bytes", (size-BlockSize)/PageSize, size), "%d", h.Pages)
	}
	return h, nil
}
