package compute

import "github.com/tarndb/tarn"

// copyOf tells how far the object store has a timeline; nil without one.
func (f *Fleet) copyOf(t timeline) *tarn.CopyState {
	if f.o.Remote.WAL == nil {
		return nil
	}
	s := &tarn.CopyState{BackLSN: t.BackLSN, BackTime: t.BackTime}
	if why, ok := f.maker.away.has(t.ID); ok {
		s.Away = true
		if why != nil {
			s.Problem = why.Error()
		}
		return s
	}
	// Without pages and record there the WAL brings nothing back.
	s.Waiting = (tenancy{f.machine}).isMissing(t.ID) || f.maker.copies != nil && !f.maker.copies.isCopied(t)
	if e := f.serving(t.ID); e != nil && e.copying != nil {
		lag := e.copying.uploader.Lag()
		s.LagBytes, s.LagAge = lag.Bytes, lag.Age
		s.Waiting = s.Waiting || e.copying.uploader.Done() == 0 // nobody knows yet how much is missing
		return s
	}
	s.Waiting = s.Waiting || !f.rest.isCopied(t.ID)
	return s
}
