package node

import (
	"context"
	"sync"
	"testing"

	"github.com/tarndb/tarn"
)

// restarting is a host that stops when asked and answers under another name
// some calls later.
type restarting struct {
	host
	mu       sync.Mutex
	stopping int // calls that are still refused
	asked    int
}

type stops struct{ error }

func (stops) Again() bool { return true }

func (h *restarting) Restart(_ context.Context, from string) (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.stopping > 0:
		if h.stopping--; h.stopping > 0 {
			return "", stops{tarn.Unavailable("the node stops")}
		}
		return "second", nil
	case from == "first":
		h.asked++
		h.stopping = 4
		return "", stops{tarn.Unavailable("the node stops")}
	}
	return "first", nil
}

// A caller that asks for a restart waits for the next node; the call that
// reaches that one asks for no other.
func TestRestart(t *testing.T) {
	h := &restarting{}
	socket := socketIn(t)
	serve(t, socket, h)
	if err := client(t, socket).Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if h.asked != 1 || h.stopping != 0 {
		t.Errorf("asked %d times, %d refusals are left", h.asked, h.stopping)
	}
}
