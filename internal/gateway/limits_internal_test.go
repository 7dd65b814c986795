package gateway

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

func TestFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFailures()
		k := failKey{"ep-a", "ada", netip.MustParseAddr("10.0.0.1")}
		var got []time.Duration
		for range 12 {
			got = append(got, f.delay(k))
			f.add(k)
		}
		want := "[0s 0s 0s 0s 0s 250ms 500ms 1s 2s 4s 4s 4s]"
		if fmt.Sprint(got) != want {
			t.Errorf("delays %v, want %v", got, want)
		}
		other := k
		other.role = "bob"
		if f.delay(other) != 0 {
			t.Error("another role waits")
		}
		<-time.After(failMemory + time.Second)
		if f.delay(k) != 0 {
			t.Error("old failures are not forgotten")
		}
		f.add(k)
		if f.delay(k) != 0 {
			t.Error("old failures count again")
		}
		for range 2 * bookSize {
			k.role += "x"[:len(k.role)%2] + "y"
			f.add(failKey{role: k.role[max(0, len(k.role)-20):], endpoint: fmt.Sprint(len(k.role))})
		}
		if len(f.by) > bookSize {
			t.Errorf("%d keys are remembered", len(f.by))
		}
	})
}

func TestWakeLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWakeLimit()
		a := netip.MustParseAddr("10.0.0.1")
		took := func(from netip.Addr) (*permit, time.Duration) {
			began := time.Now()
			p, err := w.take(t.Context(), from, "ep-a")
			if err != nil {
				t.Fatal(err)
			}
			p.woken()
			return p, time.Since(began)
		}
		for range wakeBurst {
			if _, d := took(a); d != 0 {
				t.Fatalf("waited %v within the burst", d)
			}
		}
		p, d := took(a)
		if d != wakeRefill {
			t.Errorf("waited %v after the burst, want %v", d, wakeRefill)
		}
		p.refund()
		p.refund() // only once
		if _, d := took(a); d != 0 {
			t.Errorf("waited %v with the allowance given back", d)
		}
		if _, d := took(netip.MustParseAddr("10.0.0.2")); d != 0 {
			t.Errorf("another address waited %v", d)
		}
		// Who joins a wake under way does not pay for it.
		first, err := w.take(t.Context(), netip.MustParseAddr("10.0.0.3"), "ep-b")
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			p, err := w.take(t.Context(), a, "ep-b")
			if err != nil {
				t.Fatal(err)
			}
			defer p.woken()
		}
		first.woken()
		// Giving up costs nothing either.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := w.take(ctx, a, "ep-c"); err == nil {
			t.Error("no wait")
		}
		if _, d := took(a); d > wakeRefill {
			t.Errorf("waited %v", d)
		}
		if len(w.waking) != 1 {
			t.Errorf("wakes under way: %v", w.waking)
		}
	})
}

func TestNetwork(t *testing.T) {
	for in, want := range map[string]string{
		"10.1.2.3": "10.1.2.3", "::ffff:10.1.2.3": "10.1.2.3", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::", "fe80::1%eth0": "fe80::",
	} {
		if got := network(netip.MustParseAddr(in)).String(); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}
