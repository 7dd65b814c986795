package control

import "sync"

// signals are what the parts of a Control tell each other and the gateway.
type signals struct {
	asked     signal // an operation was recorded, or may be worked on now
	finished  signal // an operation is done
	addresses signal // an endpoint came, changed or went
}

// recorded tells workers of a new operation and the gateway of addresses that
// may have come with it.
func (s *signals) recorded() {
	s.asked.fire()
	s.addresses.fire()
}

// performed tells those who wait for an operation, the workers that may go on
// after it, and the gateway.
func (s *signals) performed() {
	s.finished.fire()
	s.recorded()
}

// signal tells everybody who waits that something happened.
type signal struct {
	mu sync.Mutex
	ch chan struct{} // closed and replaced by fire
}

// next is closed when the signal is fired next.
func (s *signal) next() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) fire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}
