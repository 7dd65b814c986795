package gateway

import (
	"context"
	"errors"
	"testing"

	"github.com/tarndb/tarn"
)

// sleepers is a router of computes that only want to be woken.
type sleepers struct {
	Router
	woken chan tarn.EndpointName
	err   error
}

func (r *sleepers) Wake(_ context.Context, n tarn.EndpointName) (tarn.ComputeStatus, error) {
	r.woken <- n
	return tarn.ComputeStatus{}, r.err
}

func TestTouch(t *testing.T) {
	r := &sleepers{woken: make(chan tarn.EndpointName, 10)}
	s := New(Config{Router: r})
	e := tarn.Endpoint{UID: "ep-a"}
	e.Name.Endpoint = "primary"
	one := &session{client: &client{s: s}, touched: s.touches.of(e)}
	two := &session{client: &client{s: s}, touched: s.touches.of(e)}
	woken := func() int {
		s.joined.Wait()
		n := len(r.woken)
		for range n {
			if got := <-r.woken; got != e.Name {
				t.Errorf("woke %v", got)
			}
		}
		return n
	}
	speak := []byte("Q")
	one.touch(speak)
	if n := woken(); n != 0 {
		t.Errorf("%d wakes right after the login, which was one", n)
	}
	late := func() { one.touched.at.Add(-int64(touchEvery)) }
	late()
	one.touch(terminate)
	if n := woken(); n != 0 {
		t.Errorf("%d wakes for a goodbye", n)
	}
	one.touch(speak)
	two.touch(speak) // it is one compute
	one.touch(speak)
	if n := woken(); n != 1 {
		t.Errorf("%d wakes for clients that speak at once, want 1", n)
	}
	r.err = errors.New("not now")
	late()
	one.touch(speak)
	if n := woken(); n != 1 {
		t.Errorf("%d wakes after a second, want 1", n)
	}
	// What did not work is tried again by whoever speaks next.
	two.touch(speak)
	if n := woken(); n != 1 {
		t.Errorf("%d wakes after one that failed, want 1", n)
	}
}
