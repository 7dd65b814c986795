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
