package gateway

import (
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// TestRefusalLabelsAreBounded: whatever SQLSTATEs computes make up, the metric
// of refusals has no more series than the gateway has codes, and "other".
func TestRefusalLabelsAreBounded(t *testing.T) {
	m := newMetrics(nil)
	for i := range 5000 {
		m.refused(&fatal{code: fmt.Sprintf("U%04d", i)})
		m.refused(&fatal{code: codePassword, raw: []byte("E")})
	}
	for _, code := range ownCodes {
		m.refused(&fatal{code: code})
	}
	series := make(chan prometheus.Metric, 20_000)
	m.refusals.Collect(series)
	if n, want := len(series), len(ownCodes)+1; n != want {
		t.Errorf("%d series of refusals, want %d", n, want)
	}
}
