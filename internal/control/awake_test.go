package control

import (
	"slices"
	"testing"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// staysAwake has an endpoint that is never suspended.
func staysAwake(t *testing.T, db *controldb.DB, c *Control, s *sweeper, node *scripted, ep tarn.EndpointName) {
	t.Helper()
	row, err := controldb.GetEndpoint(t.Context(), db, ep)
	ok(t, err)
	uid := row.UID
	// What is never suspended is started again, unless that was asked for.
	ctx := t.Context()
	_, err = c.UpdateEndpoint(ctx, ep, func(e *tarn.Endpoint) error { e.SuspendAfter = -1; return nil })
	ok(t, err)
	for _, step := range []struct {
		what string
		now  []tarn.ComputeStatus
		want []string
	}{
		{"it runs", []tarn.ComputeStatus{{Endpoint: uid, State: tarn.ComputeActive}}, nil},
		{"it was asked to stop", []tarn.ComputeStatus{{Endpoint: uid, State: tarn.ComputeStopped, Message: "asked to suspend"}}, nil},
		{"its node is a new one", nil, []string{"wake " + uid}},
		{"it failed just now", []tarn.ComputeStatus{{Endpoint: uid, State: tarn.ComputeFailed}}, nil},
	} {
		node.computes = step.now
		before := len(node.notes())
		ok(t, s.computes(ctx))
		if got := node.notes()[before:]; !slices.Equal(got, step.want) {
			t.Errorf("%s: node was asked to %q, want %q", step.what, got, step.want)
		}
	}
	clear(s.woken)
	before := len(node.notes())
	ok(t, s.computes(ctx))
	if got := node.notes()[before:]; !slices.Equal(got, []string{"wake " + uid}) {
		t.Errorf("later the node was asked to %q", got)
	}
	_, err = c.UpdateEndpoint(ctx, ep, func(e *tarn.Endpoint) error { e.SuspendAfter = time.Minute; return nil })
	ok(t, err)
}
