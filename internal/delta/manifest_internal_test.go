package delta

import (
	"fmt"
	"testing"
	"time"

	"github.com/tarndb/tarn/internal/blob/memory"
)

// A checkpoint of version 2 with sidecars is read as it was written, and its
// sidecars go with it.
func TestSidecars(t *testing.T) {
	store := memory.New()
	tab, err := Create(t.Context(), store, "t", Metadata{Schema: Schema{Fields: []Field{{Name: "id", Type: "long"}}}, Properties: map[string]string{"delta.checkpointPolicy": "v2"}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := tab.Latest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.state = s.state.clone()
	for i := range 25 {
		s.state.apply(action{Add: &addAction{Path: fmt.Sprintf("f%02d", i), Size: int64(i), Stats: `{"numRecords":1}`, rows: -1}})
	}
	now := time.Now().UnixMilli()
	s.state.apply(action{Remove: &removeAction{Path: "gone", DeletionTimestamp: &now}})
	s.state.apply(action{Txn: &txnAction{AppID: "app", Version: 7}})
	if _, err := tab.putManifest(t.Context(), 0, s.checkpointActions(time.Now()), 10); err != nil {
		t.Fatal(err)
	}
	g, err := tab.listSegment(t.Context(), latest, 0)
	if err != nil || len(g.checkpoints) != 1 {
		t.Fatalf("%d checkpoints: %v", len(g.checkpoints), err)
	}
	back, err := tab.readCheckpoint(t.Context(), g.checkpoints[0])
	if err != nil {
		t.Fatal(err)
	}
	if len(back.files) != 25 || len(back.tombs) != 1 || back.txns["app"] == nil || back.metadata.ID != s.ID() {
		t.Errorf("read back: %d files, %d tombstones, %v", len(back.files), len(back.tombs), back.txns)
	}
	sidecars := func() (n int) {
		for _, err := range store.List(t.Context(), "t/"+sidecarFolder, "") {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		return n
	}
	if n := sidecars(); n != 3 {
		t.Errorf("%d sidecars of 10 actions for 26", n)
	}
	old := time.Now().Add(time.Hour) // everything is older
	if err := tab.cleanSidecars(t.Context(), g, 0, old); err != nil || sidecars() != 3 {
		t.Errorf("%d of the sidecars that are named are left: %v", sidecars(), err)
	}
	if err := store.Delete(t.Context(), g.checkpoints[0].files[0].Key); err != nil {
		t.Fatal(err)
	}
	g.checkpoints = nil
	if err := tab.cleanSidecars(t.Context(), g, 0, time.Now().Add(-time.Hour)); err != nil || sidecars() != 3 {
		t.Errorf("%d of the young sidecars are left: %v", sidecars(), err)
	}
	if err := tab.cleanSidecars(t.Context(), g, 0, old); err != nil || sidecars() != 0 {
		t.Errorf("%d of the sidecars that nobody names are left: %v", sidecars(), err)
	}
}
