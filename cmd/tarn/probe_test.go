package main

import (
	"context"
	"testing"

	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/blob/faulty"
	"github.com/tarndb/tarn/internal/blob/memory"
)

// A storage that loses answers is tried again; one without conditional writes is
// refused.
func TestProbe(t *testing.T) {
	for write := range 4 {
		for _, f := range []faulty.Fault{faulty.Lost, faulty.Unsent} {
			if err := probe(t.Context(), faulty.New(memory.New(), faulty.Only(faulty.At(write, f), faulty.PutIfAbsent, faulty.PutIfMatch))); err != nil {
				t.Errorf("fault %d at write %d: %v", f, write, err)
			}
		}
	}
	if err := probe(t.Context(), careless{memory.New()}); err == nil {
		t.Error("a store that replaces what is there was accepted")
	}
}

// careless forgets the condition of a write.
type careless struct{ *memory.Store }

func (c careless) PutIfAbsent(ctx context.Context, key string, b []byte) error {
	if err := c.Delete(ctx, key); err != nil {
		return err
	}
	return c.Store.PutIfAbsent(ctx, key, b)
}

var _ blob.Store = careless{}
