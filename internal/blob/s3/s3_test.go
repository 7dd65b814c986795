package s3_test

import (
	"testing"

	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/blob/blobtest"
	"github.com/tarndb/tarn/internal/blob/s3/s3test"
)

func TestConformance(t *testing.T) {
	server := s3test.Start(t)
	blobtest.Run(t, func(t *testing.T) blob.Store { return server.Store(t) })
}
