package delta

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/google/uuid"

	"github.com/tarndb/tarn/internal/blob"
)

// A deletion vector is a set of row positions of one data file that are
// deleted. Stored in a file, at the descriptor's offset:
//
//	┌──────────────┬──────────────┬──────────────────────┬──────────────┐
//	│ size, 4, BE  │ magic, 4, LE │ roaring64, portable  │ crc32, 4, BE │
//	└──────────────┴──────────────┴──────────────────────┴──────────────┘
//	                └──────── size bytes, under the crc ─┘
//
// Inline, only the middle part, in base 85 of ZeroMQ.
const dvMagic = 1681511377

// maxDV bounds the bytes of one vector that we take into memory.
const maxDV = 1 << 30

// deleted reads a deletion vector; nil when there is none.
func (s *Snapshot) deleted(ctx context.Context, d *dvDescriptor) (*roaring64.Bitmap, error) {
	if d == nil {
		return nil, nil
	}
	b, where, err := s.table.readDV(ctx, d)
	if err != nil {
		return nil, err
	}
	m, err := decodeDV(b)
	if err == nil && m.GetCardinality() != uint64(d.Cardinality) {
		err = fmt.Errorf("%d rows instead of %d", m.GetCardinality(), d.Cardinality)
	}
	if err != nil {
		return nil, &DamagedError{Path: where, Reason: "deletion vector", Err: err}
	}
	return m, nil
}

// readDV gives the bytes from the magic on, and where they stand.
func (t *place) readDV(ctx context.Context, d *dvDescriptor) ([]byte, string, error) {
	bad := func(where, reason string, err error) ([]byte, string, error) {
		return nil, where, &DamagedError{Path: where, Reason: "deletion vector: " + reason, Err: err}
	}
	logName := t.key(logFolder)
	if d.SizeInBytes < 4 || d.SizeInBytes > maxDV {
		return bad(logName, fmt.Sprintf("%d bytes", d.SizeInBytes), nil)
	}
	var key string
	var err error
	switch d.StorageType {
	case "i":
		b, err := z85Decode(d.PathOrDV)
		if err != nil || len(b) < int(d.SizeInBytes) {
			return bad(logName, "inline bytes", err)
		}
		return b[:d.SizeInBytes], logName, nil
	case "u", "p":
		if key, err = t.dvKey(d); err != nil {
			return nil, logName, err
		}
	default:
		return nil, "", &UnsupportedError{Feature: "deletion vector storage " + d.StorageType}
	}
	off := int64(0)
	if d.Offset != nil {
		off = int64(*d.Offset)
	}
	if off < 0 {
		return bad(key, fmt.Sprintf("offset %d", off), nil)
	}
	r, err := t.store.Get(ctx, key, off, int64(d.SizeInBytes)+8)
	if err != nil {
		return nil, key, missingInLog(key, err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, key, fmt.Errorf("read %s: %w", key, err)
	}
	if len(b) != int(d.SizeInBytes)+8 {
		return bad(key, fmt.Sprintf("%d bytes at %d instead of %d", len(b), off, d.SizeInBytes+8), nil)
	}
	if n := binary.BigEndian.Uint32(b); n != uint32(d.SizeInBytes) {
		return bad(key, fmt.Sprintf("size %d instead of %d at %d", n, d.SizeInBytes, off), nil)
	}
	data := b[4 : len(b)-4]
	if want, got := binary.BigEndian.Uint32(b[len(b)-4:]), crc32.ChecksumIEEE(data); got != want {
		return bad(key, fmt.Sprintf("crc %08x instead of %08x at %d", got, want, off), nil)
	}
	return data, key, nil
}

// dvKey gives the store's key of the file that holds a vector.
func (t *place) dvKey(d *dvDescriptor) (string, error) {
	if d.StorageType == "p" {
		return t.dataKey(d.PathOrDV)
	}
	bad := func(err error) error {
		return &DamagedError{Path: t.key(logFolder), Reason: "deletion vector: name " + d.PathOrDV, Err: err}
	}
	if len(d.PathOrDV) < 20 {
		return "", bad(nil)
	}
	at := len(d.PathOrDV) - 20
	raw, err := z85Decode(d.PathOrDV[at:])
	if err != nil {
		return "", bad(err)
	}
	id, err := uuid.FromBytes(raw)
	if err != nil {
		return "", bad(err)
	}
	key := "deletion_vector_" + id.String() + ".bin"
	if at > 0 {
		key = d.PathOrDV[:at] + "/" + key
	}
	if key = t.key(key); blob.CheckKey(key) != nil {
		return "", bad(nil)
	}
	return key, nil
}

// decodeDV parses the bytes from the magic on.
func decodeDV(b []byte) (m *roaring64.Bitmap, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("bitmap: %v", p)
		}
	}()
	if len(b) < 4 || binary.LittleEndian.Uint32(b) != dvMagic {
		return nil, errors.New("wrong magic")
	}
	m = roaring64.New()
	if _, err := m.ReadFrom(bytes.NewReader(b[4:])); err != nil {
		return nil, fmt.Errorf("bitmap: %w", err)
	}
	return m, nil
}

const z85Alphabet = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"

// z85Decode decodes base 85 as ZeroMQ writes it: 5 characters are 4 bytes. Some
// writers do not pad what they encode: then the last five begin with as many '#',
// which no whole five can, as bytes are missing.
func z85Decode(s string) ([]byte, error) {
	if len(s)%5 != 0 {
		return nil, fmt.Errorf("%d characters are not fives", len(s))
	}
	out := make([]byte, 0, len(s)/5*4)
	for i := 0; i < len(s); i += 5 {
		var v uint64
		five, bytesLeft := s[i:i+5], 4
		if tail := strings.TrimLeft(five, "#"); len(tail) < 5 && i+5 == len(s) {
			if len(tail) < 2 {
				return nil, fmt.Errorf("%q is not base 85", five)
			}
			five, bytesLeft = tail, len(tail)-1
		}
		for _, c := range []byte(five) {
			d := strings.IndexByte(z85Alphabet, c)
			if d < 0 {
				return nil, fmt.Errorf("character %q is not base 85", c)
			}
			v = v*85 + uint64(d)
		}
		if v >= 1<<(8*bytesLeft) {
			return nil, fmt.Errorf("%q overflows", s[i:i+5])
		}
		out = append(out, binary.BigEndian.AppendUint32(nil, uint32(v))[4-bytesLeft:]...)
	}
	return out, nil
}
