package pagestore

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
)

// FuzzManifest reads any bytes, with a checksum that fits, as a manifest. What
// it gives can be written and read again.
func FuzzManifest(f *testing.F) {
	m := &manifest{Epoch: 3, Timeline: timelineNumber(7), Parent: tarn.Point{Timeline: timelineNumber(6), Seq: 55}, History: time.Hour,
		Closed: closed{Head: 99, Segment: 2, Bytes: 8192, Marks: []tarn.Mark{{Seq: 60, LSN: 61, Time: time.Unix(62, 63).UTC()}}},
		Layers: []layerFile{{layer.FileLog, 2, 55, 99, 8192, 0}}, Counted: counted{Log: 2},
		Foreign: []layer.FileID{{Timeline: timelineNumber(6), Kind: layer.FileMap, Number: 9}},
		Swept:   swept{Head: 77, Time: time.Unix(5, 0).UTC(), Marks: []tarn.Mark{{Seq: 56, LSN: 1}}}}
	b, err := m.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[:len(b)-4])
	f.Add(b[:manifestFixed1])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := decodeManifest("MANIFEST", le.AppendUint32(b[:len(b):len(b)], layer.Checksum(b)))
		if err != nil {
			if !errors.Is(err, layer.ErrCorrupt) {
				t.Fatalf("neither a manifest nor damage: %v", err)
			}
			return
		}
		again, err := got.encode()
		if err != nil {
			return // an id that is none
		}
		twice, err := decodeManifest("MANIFEST", again)
		if err != nil || !reflect.DeepEqual(got, twice) {
			t.Fatalf("%+v written and read again: %+v, %v", got, twice, err)
		}
	})
}

// FuzzRemoteManifest does the same with a bucket's manifest.
func FuzzRemoteManifest(f *testing.F) {
	m := &remoteManifest{Epoch: 5, Holder: string(timelineNumber(9)), Objects: []object{{layer.FileLog, 2, 4, 8192, 0x123456}, {layer.FileMap, 1, 5, 4096, 0}},
		Man: &manifest{Epoch: 3, Timeline: timelineNumber(7), History: -1, Closed: closed{Head: 99, Segment: 2, Bytes: 8192},
			Layers: []layerFile{{layer.FileLog, 2, 0, 0, 8192, 0}, {layer.FileMap, 1, 50, 50, 4096, 1}}, Counted: counted{Log: 2, Map: 1}}}
	b, err := m.encode()
	if err != nil {
		f.Fatal(err)
	}
	got, err := decodeRemote("MANIFEST", b, timelineNumber(7))
	if err != nil || !reflect.DeepEqual(got, m) {
		f.Fatalf("%+v written and read: %+v, %v", m, got, err)
	}
	f.Add(b[:len(b)-4])
	f.Add(b[:remoteFixed])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := decodeRemote("MANIFEST", le.AppendUint32(b[:len(b):len(b)], layer.Checksum(b)), timelineNumber(7))
		if err != nil {
			if !errors.Is(err, layer.ErrCorrupt) {
				t.Fatalf("neither a manifest nor damage: %v", err)
			}
			return
		}
		if _, err := got.encode(); err != nil {
			t.Fatalf("%+v cannot be written: %v", got, err)
		}
	})
}
