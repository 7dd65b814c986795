package delta_test

import (
	"errors"
	"testing"

	"github.com/tarndb/tarn/internal/blob/faulty"
	"github.com/tarndb/tarn/internal/blob/memory"
	"github.com/tarndb/tarn/internal/delta"
)

// A store that fails is not a table that is damaged: whichever read fails or
// breaks off, the store's error comes out, and nothing calls for giving up.
func TestStoreFaultIsNoDamage(t *testing.T) {
	store := memory.New()
	tab := create(t, store, delta.Metadata{Schema: people(), Properties: map[string]string{"delta.checkpointInterval": "2", "delta.enableDeletionVectors": "true"}})
	for i := range 5 {
		write(t, tab, person(2*i, "name", "town"), person(2*i+1, "name", "town"))
	}
	if _, err := tab.Commit(t.Context(), delta.CommitOptions{}, func(x *delta.Tx) error {
		_, err := x.Delete(t.Context(), delta.Eq("id", 3))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for _, fault := range []faulty.Fault{faulty.Fail, faulty.Torn} {
		for n := 0; ; n++ {
			bad := faulty.New(store, faulty.At(n, fault))
			table, err := delta.Open(t.Context(), bad, "t")
			var rows []string
			if err == nil {
				var snap *delta.Snapshot
				if snap, err = table.Latest(t.Context()); err == nil {
					rows, err = scan(t.Context(), snap, delta.ScanOptions{})
				}
			}
			if bad.Calls() <= n {
				if err != nil || n < 10 {
					t.Errorf("%d calls and error %v", n, err)
				}
				break
			}
			if err == nil && len(rows) != 9 {
				t.Errorf("call %d: %d rows and no error", n, len(rows))
			}
			if err != nil && (delta.IsRefusal(err) || !errors.Is(err, faulty.ErrInjected)) {
				t.Errorf("call %d: %v", n, err)
			}
		}
	}
}
