package compute

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/pagestore"
	"github.com/tarndb/tarn/internal/wal"
)

// leased is a volume of a storage that several computers share.
type leased interface {
	Lease() pagestore.Lease
	// Lost is closed when another computer took the timeline.
	Lost() <-chan struct{}
}

// lender is storage that several computers share.
type lender interface {
	Lease(id tarn.TimelineID) pagestore.Lease
}

// tenancy is what a machine has of storage that several share.
type tenancy struct{ *machine }

// leaseOf is what this computer has of a timeline; everything where storage is
// not shared.
func (m tenancy) leaseOf(id tarn.TimelineID) pagestore.Lease {
	if s, ok := m.store.(lender); ok {
		return s.Lease(id)
	}
	return pagestore.Lease{Held: true, Alone: true}
}

// isMissing tells whether the object store has none of a timeline's pages.
func (m tenancy) isMissing(id tarn.TimelineID) bool {
	now := m.leaseOf(id)
	return now.Alone && now.Epoch != 0
}

// goesOn tells whether this computer's WAL of a timeline is of the same line of
// history as the pages that it holds under a lease. It is not when another
// computer had the timeline since: then WAL comes from the object store, as the
// pages did.
func (m tenancy) goesOn(id tarn.TimelineID, now pagestore.Lease) (bool, error) {
	if m.o.Remote.WAL == nil || now.Epoch == 0 {
		return true, nil
	}
	log := m.walOf(id)
	had, err := log.Lease().Read()
	if err != nil {
		return false, fmt.Errorf("look whose WAL of timeline %s is here: %w", id, err)
	}
	if had == now.Epoch {
		return true, nil
	}
	if now.Alone {
		return true, log.Lease().Write(now.Epoch)
	}
	return false, nil
}

// regain makes sure that a timeline is this computer's, pages and WAL, before
// somebody works with it. The caller holds it.
//
//  1. Take it, unless it is held.           crash: held, with WAL of before
//  2. When the WAL is of another line of    crash: WAL is away, and comes back
//     history, put it aside: it is away.    with the pages (rebuild)
func (k *maker) regain(ctx context.Context, id tarn.TimelineID) error {
	now := tenancy{k.machine}.leaseOf(id)
	if !now.Held {
		v, err := k.store.OpenVolume(ctx, id)
		if err == nil {
			err = v.Close()
		}
		if err != nil {
			return err
		}
		now = tenancy{k.machine}.leaseOf(id)
	}
	ok, err := tenancy{k.machine}.goesOn(id, now)
	if err != nil || ok {
		return err
	}
	k.log.Warn("another node had the timeline: its WAL here gives way to the object store", "timeline", string(id))
	stale := wal.New(k.path("wal", string(id)+".stale"), k.owner())
	if err := stale.Remove(); err != nil {
		return err
	}
	if err := errors.Join(os.Rename(k.path("wal", string(id)), k.path("wal", string(id)+".stale")), syncDir(k.path("wal"))); err != nil {
		return err
	}
	k.away.note(id, nil)
	return stale.Remove()
}

// overtakenError is why a compute ended whose timeline another computer took.
// Its life ends with it: a start would fight for the timeline, and the computer
// that has it serves it. A connection that comes later tries all the same.
type overtakenError struct{ error }

func (e overtakenError) Unwrap() error { return e.error }

func overtakenBy(cause error) error {
	err := tarn.Conflict("another computer took its branch over; what was committed here since is not part of it")
	if cause != nil {
		err = tarn.Conflict("another computer took its branch over; what was committed here since is not part of it: %w", cause)
	}
	return overtakenError{err.WithHint("connect to the Tarn that holds the storage now; stop this one with tarn down")}
}

// lost is closed when another computer took the engine's timeline: its pages.
func (e *engine) lost() <-chan struct{} {
	if v, ok := e.volume.(leased); ok {
		return v.Lost()
	}
	return nil
}

// outrun is closed when another computer writes the engine's WAL.
func (e *engine) outrun() <-chan struct{} {
	if e.copying == nil {
		return nil
	}
	return e.copying.ended
}

// endOvertaken ends a life whose compute is gone for that reason.
func (f runner) endOvertaken(l *life, err error) {
	f.end(l, tarn.ComputeFailed, fmt.Sprint(err), err)
}
