package faulty_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/blob/blobtest"
	"github.com/tarndb/tarn/internal/blob/faulty"
	"github.com/tarndb/tarn/internal/blob/memory"
)

// A store without faults, or with slow reads only, is a good store.
func TestConformance(t *testing.T) {
	for name, plan := range map[string]faulty.Plan{
		"no plan": nil,
		"short":   func(faulty.Call) faulty.Fault { return faulty.Short },
		"slow":    faulty.Seeded(1, 0.1, faulty.Slow),
	} {
		t.Run(name, func(t *testing.T) {
			blobtest.Run(t, func(t *testing.T) blob.Store { return faulty.New(memory.New(), plan) })
		})
	}
}

func TestWriteFaults(t *testing.T) {
	for _, c := range []struct {
		fault   faulty.Fault
		written bool
		is      error
	}{
		{faulty.Fail, false, faulty.ErrInjected},
		{faulty.Lost, true, blob.ErrAmbiguous},
		{faulty.Unsent, false, blob.ErrAmbiguous},
		{faulty.DieBefore, false, faulty.ErrInjected},
		{faulty.DieAfter, true, faulty.ErrInjected},
	} {
		under := memory.New()
		s := faulty.New(under, faulty.At(1, c.fault))
		if err := s.Put(t.Context(), "first", strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
		if err := s.PutIfAbsent(t.Context(), "k", []byte("x")); !errors.Is(err, c.is) {
			t.Errorf("fault %d: error %v, want %v", c.fault, err, c.is)
		}
		_, err := under.Head(t.Context(), "k")
		if written := err == nil; written != c.written {
			t.Errorf("fault %d: written is %v", c.fault, written)
		}
		err = s.Put(t.Context(), "later", strings.NewReader("x"))
		if dies := c.fault == faulty.DieBefore || c.fault == faulty.DieAfter; dies != (err != nil) {
			t.Errorf("fault %d: a later call says %v", c.fault, err)
		}
		if s.Calls() != 3 {
			t.Errorf("counted %d calls", s.Calls())
		}
	}
}

func TestTornRead(t *testing.T) {
	under := memory.New()
	if err := under.Put(t.Context(), "k", strings.NewReader("0123456789")); err != nil {
		t.Fatal(err)
	}
	r, err := faulty.New(under, faulty.At(0, faulty.Torn)).Get(t.Context(), "k", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, err := io.ReadAll(r); string(b) != "01234" || !errors.Is(err, faulty.ErrInjected) {
		t.Errorf("read %q, %v", b, err)
	}
}

func TestCutRead(t *testing.T) {
	under := memory.New()
	for _, key := range []string{"k", "l"} {
		if err := under.Put(t.Context(), key, strings.NewReader("0123456789")); err != nil {
			t.Fatal(err)
		}
	}
	s := faulty.New(under, faulty.Script(faulty.Cut, faulty.Cut))
	r, err := s.Get(t.Context(), "k", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, err := io.ReadAll(r); string(b) != "01234" || err != nil {
		t.Errorf("read %q, %v", b, err)
	}
	n := 0
	for _, err := range s.List(t.Context(), "", "") {
		if n++; err != nil {
			t.Error(err)
		}
	}
	if n != 1 {
		t.Errorf("listed %d objects", n)
	}
}

// A call that hangs ends with its context, and says what is known then.
func TestHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		under := memory.New()
		cause := errors.New("given up")
		for _, fault := range []faulty.Fault{faulty.Hang, faulty.HangAfter, faulty.Slow} {
			s := faulty.New(under, faulty.Only(faulty.Script(faulty.None, fault), faulty.PutIfAbsent))
			s.Slowness = time.Hour
			key := fmt.Sprint(fault)
			if err := s.PutIfAbsent(t.Context(), key+"/first", nil); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Head(t.Context(), key+"/first"); err != nil { // is not counted
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, cause)
			err := s.PutIfAbsent(ctx, key, []byte("x"))
			cancel()
			_, missing := under.Head(t.Context(), key)
			after := fault == faulty.HangAfter
			if !errors.Is(err, cause) || errors.Is(err, blob.ErrAmbiguous) != after || (missing == nil) != after {
				t.Errorf("fault %d: %v; head says %v", fault, err, missing)
			}
			if err := s.PutIfAbsent(t.Context(), key+"/last", nil); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestSeededIsDeterministic(t *testing.T) {
	draw := func(seed uint64) []faulty.Fault {
		plan := faulty.Seeded(seed, 0.5, faulty.Fail, faulty.Lost)
		got := make([]faulty.Fault, 100)
		for i := range got {
			got[i] = plan(faulty.Call{N: i})
		}
		return got
	}
	if !slices.Equal(draw(7), draw(7)) {
		t.Error("one seed gave two plans")
	}
	if slices.Equal(draw(7), draw(8)) {
		t.Error("two seeds gave one plan")
	}
}
