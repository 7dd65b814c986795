package wal

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
)

// kind says what an object of the store is.
type kind uint8

const (
	kindStretch kind = 1 // bytes From to To of one segment
	kindRun     kind = 2 // a run began at From, which is To
	kindHistory kind = 3 // the history file of a TLI
)

const (
	codecPlain = 0
	codecZstd  = 1
)

// The header of an object; FORMAT.md draws it.
const (
	objectMagic   = "TARNWAL\x00"
	objectVersion = 1
	headerBytes   = 96
	// maxPayload bounds what one object may make us allocate.
	maxPayload = blockBytes
)

// header is what every object says of itself.
type header struct {
	Kind         kind
	Timeline     tarn.TimelineID
	Run          runID
	TLI          uint32
	SegmentBytes uint32
	From, To     tarn.LSN
	Time         time.Time // when Postgres was asked how far it has flushed
	Sum          uint32    // CRC32C of the payload as it was

	codec     uint8
	bytes     uint32 // of the payload as it was
	stored    uint32 // of the payload as it is stored
	storedSum uint32
}

func castagnoli(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// packer turns payloads into objects and back. It is safe for concurrent use.
type packer struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
}

func newPacker() (*packer, error) {
	// The payload has a sum of its own. A small window keeps an encoder at some
	// MiB; WAL repeats itself within pages, not across megabytes.
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2),
		zstd.WithEncoderCRC(false), zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, err
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxMemory(maxPayload), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, err
	}
	return &packer{enc: enc, dec: dec}, nil
}

// pack makes an object of a payload, compressed where that is shorter.
func (p *packer) pack(h header, payload []byte) []byte {
	b := make([]byte, headerBytes, headerBytes+len(payload)/2+64)
	h.codec, h.bytes, h.Sum = codecZstd, uint32(len(payload)), castagnoli(payload)
	b = p.enc.EncodeAll(payload, b)
	if len(b)-headerBytes >= len(payload) {
		h.codec, b = codecPlain, append(b[:headerBytes], payload...)
	}
	h.stored, h.storedSum = uint32(len(b)-headerBytes), castagnoli(b[headerBytes:])
	h.encode(b[:headerBytes])
	return b
}

func (h header) encode(b []byte) {
	le := binary.LittleEndian
	copy(b, objectMagic)
	le.PutUint16(b[8:], objectVersion)
	b[10], b[11] = byte(h.Kind), h.codec
	le.PutUint32(b[12:], h.TLI)
	// A timeline's id was validated where it became one.
	_, _ = hex.Decode(b[16:32], []byte(h.Timeline))
	le.PutUint64(b[32:], h.Run.Lease)
	le.PutUint32(b[40:], h.Run.No)
	le.PutUint32(b[44:], h.Run.Nonce)
	le.PutUint64(b[48:], uint64(h.From))
	le.PutUint64(b[56:], uint64(h.To))
	le.PutUint64(b[64:], uint64(h.Time.UnixNano()))
	le.PutUint32(b[72:], h.SegmentBytes)
	le.PutUint32(b[76:], h.bytes)
	le.PutUint32(b[80:], h.stored)
	le.PutUint32(b[84:], h.Sum)
	le.PutUint32(b[88:], h.storedSum)
	le.PutUint32(b[92:], castagnoli(b[:92]))
}

// parseHeader reads an object's header; key names it in errors.
func parseHeader(key string, b []byte) (header, error) {
	le := binary.LittleEndian
	corrupt := func(at int64, expected, found string, args ...any) (header, error) {
		return header{}, &layer.CorruptError{File: key, Offset: at, Expected: expected, Found: fmt.Sprintf(found, args...)}
	}
	if len(b) < headerBytes {
		return corrupt(0, fmt.Sprintf("a header of %d bytes", headerBytes), "%d bytes", len(b))
	}
	if string(b[:8]) != objectMagic {
		return corrupt(0, fmt.Sprintf("%q", objectMagic), "%q", b[:8])
	}
	if v := le.Uint16(b[8:]); v != objectVersion {
		return corrupt(8, fmt.Sprintf("version %d", objectVersion), "%d", v)
	}
	if want, got := le.Uint32(b[92:]), castagnoli(b[:92]); want != got {
		return corrupt(92, fmt.Sprintf("header checksum %08x", want), "%08x", got)
	}
	h := header{
		Kind: kind(b[10]), codec: b[11], TLI: le.Uint32(b[12:]), Timeline: tarn.TimelineID(hex.EncodeToString(b[16:32])),
		Run:  runID{Lease: le.Uint64(b[32:]), No: le.Uint32(b[40:]), Nonce: le.Uint32(b[44:])},
		From: tarn.LSN(le.Uint64(b[48:])), To: tarn.LSN(le.Uint64(b[56:])), Time: time.Unix(0, int64(le.Uint64(b[64:]))).UTC(),
		SegmentBytes: le.Uint32(b[72:]), bytes: le.Uint32(b[76:]), stored: le.Uint32(b[80:]), Sum: le.Uint32(b[84:]), storedSum: le.Uint32(b[88:]),
	}
	switch {
	case h.Kind < kindStretch || h.Kind > kindHistory:
		return corrupt(10, "kind 1 to 3", "%d", h.Kind)
	case h.codec > codecZstd:
		return corrupt(11, "codec 0 or 1", "%d", h.codec)
	case h.bytes > maxPayload:
		return corrupt(76, fmt.Sprintf("at most %d bytes", maxPayload), "%d", h.bytes)
	case h.codec == codecPlain && h.stored != h.bytes || h.stored > h.bytes:
		return corrupt(80, fmt.Sprintf("at most %d stored bytes", h.bytes), "%d", h.stored)
	case h.Kind == kindStretch && (h.To <= h.From || uint64(h.To-h.From) != uint64(h.bytes)):
		return corrupt(48, fmt.Sprintf("a stretch of %d bytes", h.bytes), "%s to %s", h.From, h.To)
	}
	return h, nil
}

// parseObject reads a whole object and checks everything it says of itself.
func (p *packer) parseObject(key string, b []byte) (header, []byte, error) {
	h, err := parseHeader(key, b)
	if err != nil {
		return h, nil, err
	}
	corrupt := func(at int64, expected, found string) (header, []byte, error) {
		return header{}, nil, &layer.CorruptError{File: key, Offset: at, Expected: expected, Found: found}
	}
	stored := b[headerBytes:]
	if len(stored) != int(h.stored) {
		return corrupt(headerBytes, fmt.Sprintf("%d bytes of payload", h.stored), fmt.Sprint(len(stored)))
	}
	if got := castagnoli(stored); got != h.storedSum {
		return corrupt(headerBytes, fmt.Sprintf("checksum %08x", h.storedSum), fmt.Sprintf("%08x", got))
	}
	payload := stored
	if h.codec == codecZstd {
		if payload, err = p.dec.DecodeAll(stored, make([]byte, 0, h.bytes)); err != nil {
			return corrupt(headerBytes, "a zstd frame", err.Error())
		}
	}
	if len(payload) != int(h.bytes) || castagnoli(payload) != h.Sum {
		return corrupt(headerBytes, fmt.Sprintf("%d bytes with checksum %08x", h.bytes, h.Sum), fmt.Sprintf("%d with %08x", len(payload), castagnoli(payload)))
	}
	return h, payload, nil
}
