// Package faulty puts faults between a blob store and its user: refused calls,
// writes whose answer is lost, calls that take long or never end, short, broken
// and truncated reads, and the death of the user's process at any call. It knows when and how to fail; it knows nothing
// of what its user does. The same plan gives the same faults.
package faulty

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/tarndb/tarn/internal/blob"
)

// ErrInjected is in the chain of every error that comes from a plan.
var ErrInjected = errors.New("injected fault")

// Op names the store's methods.
type Op string

// The operations a plan is asked about.
const (
	Get         Op = "get"
	Head        Op = "head"
	List        Op = "list"
	Put         Op = "put"
	PutIfAbsent Op = "put if absent"
	PutIfMatch  Op = "put if match"
	Delete      Op = "delete"
)

// Fault is what happens to one call.
type Fault int

// The faults. One that makes no sense for a call (Lost on a Get) acts as Fail.
const (
	None      Fault = iota
	Fail            // the call does nothing and fails
	Lost            // a write happens, its answer is ErrAmbiguous
	Unsent          // a write does not happen, its answer is ErrAmbiguous
	Short           // a Get hands out its bytes one at a time
	Torn            // a Get breaks off after half of its bytes; a List after one object
	DieBefore       // the process dies before the call: it and all later calls fail
	DieAfter        // the process dies after the call took effect
	Slow            // the call takes a while longer, see Store.Slowness, and succeeds
	Hang            // the call does nothing and returns when its context ends
	HangAfter       // a write happens, and returns ErrAmbiguous when its context ends
	Cut             // a Get ends after half of its bytes as if that were all; a List after one object
)

// Call is one use of the store, counted from 0.
type Call struct {
	N   int
	Op  Op
	Key string // the prefix for a List
}

// Plan says what happens to a call.
type Plan func(Call) Fault

// At fails the n-th call only.
func At(n int, f Fault) Plan {
	return func(c Call) Fault {
		if c.N == n {
			return f
		}
		return None
	}
}

// Seeded fails a share (0 to 1) of the calls, each with one of faults.
func Seeded(seed uint64, share float64, faults ...Fault) Plan {
	r := rand.New(rand.NewPCG(seed, 0))
	return func(Call) Fault {
		if r.Float64() >= share {
			return None
		}
		return faults[r.IntN(len(faults))]
	}
}

// Script gives the n-th call the n-th of faults, and None to those behind.
func Script(faults ...Fault) Plan {
	return func(c Call) Fault {
		if c.N < len(faults) {
			return faults[c.N]
		}
		return None
	}
}

// Only asks plan about calls of ops, which it sees numbered from 0 among
// themselves; other calls are None.
func Only(plan Plan, ops ...Op) Plan {
	n := 0
	return func(c Call) Fault {
		if !slices.Contains(ops, c.Op) {
			return None
		}
		c.N = n
		n++
		return plan(c)
	}
}

// Store is a store with faults before it.
type Store struct {
	// Slowness is what Slow adds to a call; 0 means 10 ms. Set it before use.
	Slowness time.Duration

	under blob.Store

	mu   sync.Mutex // guards all below; not held across calls to under
	plan Plan
	n    int
	dead bool
}

var _ blob.Store = (*Store)(nil)

// New puts plan before s. A nil plan only counts.
func New(s blob.Store, plan Plan) *Store { return &Store{under: s, plan: plan} }

// Calls is the number of calls so far.
func (s *Store) Calls() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}

// next counts the call and asks the plan.
func (s *Store) next(op Op, key string) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := Call{N: s.n, Op: op, Key: key}
	s.n++
	if s.dead {
		return DieBefore
	}
	if s.plan == nil {
		return None
	}
	f := s.plan(c)
	if f == DieBefore || f == DieAfter {
		s.dead = true
	}
	return f
}

func injected(op Op, key string) error { return fmt.Errorf("%s %s: %w", op, key, ErrInjected) }

// late waits where a call is to be slow or to hang, and gives the fault that is
// left of it.
func (s *Store) late(ctx context.Context, f Fault) (Fault, error) {
	switch f {
	case Slow:
		timer := time.NewTimer(cmp.Or(s.Slowness, 10*time.Millisecond))
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return f, context.Cause(ctx)
		case <-timer.C:
			return None, nil
		}
	case Hang:
		<-ctx.Done()
		return f, context.Cause(ctx)
	}
	return f, nil
}

// write runs one writing call under the plan.
func (s *Store) write(ctx context.Context, op Op, key string, do func() error) error {
	f, err := s.late(ctx, s.next(op, key))
	if err != nil {
		return fmt.Errorf("%s %s: %w: %w", op, key, ErrInjected, err)
	}
	switch f {
	case None, Short:
		return do()
	case HangAfter:
		if err := do(); err != nil {
			return err
		}
		<-ctx.Done()
		return fmt.Errorf("%s %s: %w: %w: %w", op, key, blob.ErrAmbiguous, ErrInjected, context.Cause(ctx))
	case Lost:
		if err := do(); err != nil {
			return err
		}
		return fmt.Errorf("%s %s: %w: %w", op, key, blob.ErrAmbiguous, ErrInjected)
	case Unsent:
		return fmt.Errorf("%s %s: %w: %w", op, key, blob.ErrAmbiguous, ErrInjected)
	case DieAfter:
		if err := do(); err != nil {
			return err
		}
	}
	return injected(op, key)
}

// Get reads under the plan.
func (s *Store) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	f, err := s.late(ctx, s.next(Get, key))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: %w", Get, key, ErrInjected, err)
	}
	switch f {
	case None, Short, Torn, Cut:
	default:
		return nil, injected(Get, key)
	}
	r, err := s.under.Get(ctx, key, off, n)
	if err != nil || f == None {
		return r, err
	}
	if f == Short {
		return &trickle{r}, nil
	}
	b, err := io.ReadAll(r)
	r.Close()
	if err != nil {
		return nil, err
	}
	end := injected(Get, key)
	if f == Cut {
		end = io.EOF
	}
	return &torn{b: b[:len(b)/2], err: end}, nil
}

// trickle hands out one byte per Read.
type trickle struct{ io.ReadCloser }

func (t *trickle) Read(p []byte) (int, error) { return t.ReadCloser.Read(p[:min(1, len(p))]) }

// torn breaks off where its bytes end.
type torn struct {
	b   []byte
	err error
}

func (t *torn) Read(p []byte) (int, error) {
	if len(t.b) == 0 {
		return 0, t.err
	}
	n := copy(p, t.b)
	t.b = t.b[n:]
	return n, nil
}

func (t *torn) Close() error { return nil }

// Head describes one object under the plan.
func (s *Store) Head(ctx context.Context, key string) (blob.Object, error) {
	f, err := s.late(ctx, s.next(Head, key))
	if err != nil {
		return blob.Object{}, fmt.Errorf("%s %s: %w: %w", Head, key, ErrInjected, err)
	}
	if f == None || f == Short {
		return s.under.Head(ctx, key)
	}
	return blob.Object{}, injected(Head, key)
}

// List lists under the plan.
func (s *Store) List(ctx context.Context, prefix, startAfter string) iter.Seq2[blob.Object, error] {
	return func(yield func(blob.Object, error) bool) {
		f, err := s.late(ctx, s.next(List, prefix))
		if err != nil {
			yield(blob.Object{}, fmt.Errorf("%s %s: %w: %w", List, prefix, ErrInjected, err))
			return
		}
		if f != None && f != Short && f != Torn && f != Cut {
			yield(blob.Object{}, injected(List, prefix))
			return
		}
		for o, err := range s.under.List(ctx, prefix, startAfter) {
			if !yield(o, err) {
				return
			}
			if f == Cut {
				return
			}
			if f == Torn {
				yield(blob.Object{}, injected(List, prefix))
				return
			}
		}
	}
}

// Put writes under the plan.
func (s *Store) Put(ctx context.Context, key string, r io.Reader) error {
	return s.write(ctx, Put, key, func() error { return s.under.Put(ctx, key, r) })
}

// PutIfAbsent writes under the plan.
func (s *Store) PutIfAbsent(ctx context.Context, key string, b []byte) error {
	return s.write(ctx, PutIfAbsent, key, func() error { return s.under.PutIfAbsent(ctx, key, b) })
}

// PutIfMatch writes under the plan.
func (s *Store) PutIfMatch(ctx context.Context, key, etag string, b []byte) (string, error) {
	var tag string
	err := s.write(ctx, PutIfMatch, key, func() error {
		var err error
		tag, err = s.under.PutIfMatch(ctx, key, etag, b)
		return err
	})
	if err != nil {
		return "", err
	}
	return tag, nil
}

// Delete removes under the plan.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	key := ""
	if len(keys) > 0 {
		key = keys[0]
	}
	return s.write(ctx, Delete, key, func() error { return s.under.Delete(ctx, keys...) })
}

// URL is that of the store behind.
func (s *Store) URL() string { return s.under.URL() }
