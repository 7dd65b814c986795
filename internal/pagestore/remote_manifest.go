package pagestore

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
)

// remoteManifest is what makes a timeline readable from the bucket: who may
// write it, the objects there are, and the timeline's manifest as of its last
// record in them. FORMAT.md draws its bytes.
type remoteManifest struct {
	Epoch   uint64 // grows with every change of Holder
	Holder  string // node; "" = nobody
	Gone    bool   // the timeline is deleted; what is left of it is garbage
	Objects []object
	Man     *manifest // lists only what Objects has
}

// object is a layer in the bucket.
type object struct {
	Kind   layer.FileKind
	Number uint32
	Epoch  uint64 // of the lease under which it was uploaded
	Bytes  int64  // of the object
	Pack   uint32 // 24 bits that tell packed copies apart; 0 = the layer as it was
}

func (o object) id(t tarn.TimelineID) layer.FileID {
	return layer.FileID{Timeline: t, Kind: o.Kind, Number: o.Number}
}

const (
	remoteMagic   = "TARNREM\x00"
	remoteVersion = 2
	remoteFixed   = 56
	remoteObject  = 24
)

// find gives the object of a layer.
func (m *remoteManifest) find(k layer.FileKind, number uint32) (object, bool) {
	if m == nil {
		return object{}, false
	}
	i := slices.IndexFunc(m.Objects, func(o object) bool { return o.Kind == k && o.Number == number })
	if i < 0 {
		return object{}, false
	}
	return m.Objects[i], true
}

func (m *remoteManifest) encode() ([]byte, error) {
	body, err := m.Man.encode()
	if err != nil {
		return nil, err
	}
	b := make([]byte, remoteFixed, remoteFixed+remoteObject*len(m.Objects)+len(body)+4)
	copy(b, remoteMagic)
	le.PutUint32(b[8:], remoteVersion)
	if m.Gone {
		b[12] = 1
	}
	le.PutUint64(b[16:], m.Epoch)
	if m.Holder != "" {
		if _, err := hex.Decode(b[24:40], []byte(m.Holder)); err != nil {
			return nil, fmt.Errorf("encode holder %q: %w", m.Holder, err)
		}
	}
	le.PutUint32(b[40:], uint32(len(m.Objects)))
	le.PutUint32(b[44:], uint32(len(body)))
	objects := slices.SortedFunc(slices.Values(m.Objects), func(a, c object) int {
		return cmp.Or(cmp.Compare(a.Kind, c.Kind), cmp.Compare(a.Number, c.Number))
	})
	for _, o := range objects {
		b = append(b, byte(o.Kind), byte(o.Pack), byte(o.Pack>>8), byte(o.Pack>>16))
		b = le.AppendUint32(b, o.Number)
		b = le.AppendUint64(b, o.Epoch)
		b = le.AppendUint64(b, uint64(o.Bytes))
	}
	b = append(b, body...)
	return le.AppendUint32(b, layer.Checksum(b)), nil
}

// same reports whether m says what another one does.
func (m *remoteManifest) same(other *remoteManifest) (bool, error) {
	if other == nil {
		return false, nil
	}
	a, err := m.encode()
	if err != nil {
		return false, err
	}
	b, err := other.encode()
	return bytes.Equal(a, b), err
}

// decodeRemote reads a manifest of the bucket; key is for the error, a
// *layer.CorruptError.
func decodeRemote(key string, b []byte, want tarn.TimelineID) (*remoteManifest, error) {
	corrupt := func(at int64, expected, format string, args ...any) error {
		return &layer.CorruptError{File: key, Offset: at, Expected: expected, Found: fmt.Sprintf(format, args...)}
	}
	if len(b) < remoteFixed+4 || string(b[:8]) != remoteMagic {
		return nil, corrupt(0, "a manifest of a bucket", "%d bytes beginning %q", len(b), b[:min(8, len(b))])
	}
	body := b[:len(b)-4]
	if got, want := layer.Checksum(body), le.Uint32(b[len(body):]); got != want {
		return nil, corrupt(int64(len(body)), fmt.Sprintf("checksum %08x", got), "%08x", want)
	}
	if v := le.Uint32(b[8:]); v == 0 || v > remoteVersion {
		return nil, corrupt(8, fmt.Sprintf("version 1 to %d", remoteVersion), "%d", v)
	}
	m := &remoteManifest{Epoch: le.Uint64(b[16:]), Gone: b[12] == 1}
	if [16]byte(b[24:40]) != [16]byte{} {
		m.Holder = hex.EncodeToString(b[24:40])
	}
	objects, inner := uint64(le.Uint32(b[40:])), uint64(le.Uint32(b[44:]))
	rest := body[remoteFixed:]
	if uint64(len(rest)) != objects*remoteObject+inner {
		return nil, corrupt(40, fmt.Sprintf("%d bytes behind the fixed part", len(rest)), "%d objects and %d bytes", objects, inner)
	}
	for ; objects > 0; objects, rest = objects-1, rest[remoteObject:] {
		o := object{Kind: layer.FileKind(rest[0]), Number: le.Uint32(rest[4:]), Epoch: le.Uint64(rest[8:]), Bytes: int64(le.Uint64(rest[16:])), Pack: le.Uint32(rest) >> 8}
		if o.Kind < layer.FileLog || o.Kind > layer.FileImage || o.Number == 0 || o.Bytes < 0 {
			return nil, corrupt(remoteFixed, "objects", "kind %d, number %d, %d bytes", o.Kind, o.Number, o.Bytes)
		}
		m.Objects = append(m.Objects, o)
	}
	man, err := decodeManifest(key, rest)
	if err != nil {
		return nil, err
	}
	if man.Timeline != want {
		return nil, corrupt(int64(len(body)-len(rest))+24, string(want), "%s", man.Timeline)
	}
	m.Man = man
	return m, nil
}
