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
