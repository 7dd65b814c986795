package memory_test

import (
	"testing"

	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/blob/blobtest"
	"github.com/tarndb/tarn/internal/blob/memory"
)

func TestConformance(t *testing.T) {
	blobtest.Run(t, func(t *testing.T) blob.Store { return memory.New() })
}

// What is below a folder of a store is a store, and sees nothing beside it.
func TestBelow(t *testing.T) {
	blobtest.Run(t, func(t *testing.T) blob.Store {
		all := memory.New()
		for _, beside := range []string{"a", "lake", "lake-2/a", "lakes/a"} {
			if err := all.PutIfAbsent(t.Context(), beside, []byte("beside")); err != nil {
				t.Fatal(err)
			}
		}
		s, err := blob.Below(all, "lake/gold/users")
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
	if _, err := blob.Below(memory.New(), "../lake"); err == nil {
		t.Error("a folder outside the store was opened")
	}
}
