package gateway

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/tarndb/tarn"
)

// doors is which addresses are wanted and which are open.
type doors struct {
	changed chan struct{} // capacity 1: something new is wanted

	mu     sync.Mutex // not held across I/O
	wanted []netip.AddrPort
	asked  uint64                            // grows with every change of wanted
	tried  uint64                            // value of asked when all were last tried
	turn   chan struct{}                     // closed and replaced when tried grows
	open   map[netip.AddrPort]netip.AddrPort // wanted → bound
	shut   map[netip.AddrPort]error          // wanted → why not
}

func (d *doors) init() {
	d.changed = make(chan struct{}, 1)
	d.turn = make(chan struct{})
}

// SetAddresses says on which addresses endpoints are reached; the shared
// address of the configuration stays beside them. It returns at once; Run
// opens and closes what is needed. Sessions on an address that is no longer
// wanted go on.
func (s *Server) SetAddresses(addrs []netip.AddrPort) {
	want := slices.Clone(addrs)
	if s.c.Main.IsValid() {
		want = append(want, s.c.Main)
	}
	want = slices.DeleteFunc(want, func(a netip.AddrPort) bool {
		// A listener on every address of its port serves this one already,
		// and Linux would refuse a second.
		m := s.c.Main
		return m.IsValid() && m.Addr().IsUnspecified() && a != m && a.Port() == m.Port()
	})
	slices.SortFunc(want, netip.AddrPort.Compare)
	d := &s.doors
	d.mu.Lock()
	d.wanted = slices.Compact(want)
	d.asked++
	d.mu.Unlock()
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

// Listening lists the addresses that are open now.
func (s *Server) Listening() []netip.AddrPort {
	s.doors.mu.Lock()
	defer s.doors.mu.Unlock()
	return slices.SortedFunc(maps.Values(s.doors.open), netip.AddrPort.Compare)
}

// WaitListening waits until every wanted address was tried. Its error, of
// tarn.KindUnavailable, names the ones that could not be bound; they are
// tried again without end.
func (s *Server) WaitListening(ctx context.Context) error {
	d := &s.doors
	for {
		d.mu.Lock()
		turn, done := d.turn, d.tried == d.asked
		shut := slices.Collect(maps.Values(d.shut))
		d.mu.Unlock()
		if done {
			if len(shut) == 0 {
				return nil
			}
			return tarn.Unavailable("open gateway addresses: %w", errors.Join(shut...)).
				WithHint("Something else listens there; stop it, or give the gateway another port.")
		}
		select {
		case <-turn:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// door is one listener and the goroutine that accepts on it.
type door struct {
	ln   *net.TCPListener
	done chan struct{}
}

// listen keeps the wanted addresses open until ctx ends.
func (s *Server) listen(ctx context.Context) {
	open := make(map[netip.AddrPort]*door)
	defer func() {
		for _, d := range open {
			d.ln.Close()
		}
		for _, d := range open {
			<-d.done
		}
	}()
	retry := time.NewTicker(s.c.Retry)
	defer retry.Stop()
	sweep := time.NewTicker(time.Second)
	defer sweep.Stop()
	for {
		s.arrange(ctx, open)
		for again := false; !again; {
			select {
			case <-ctx.Done():
				return
			case <-s.doors.changed:
				again = true
			case <-retry.C:
				again = true
			case <-sweep.C:
				s.roles.sweep()
				s.cert.refresh(s.log)
				s.pools.sweep()
				for _, x := range s.sessions.silent() {
					x.wake()
				}
			}
		}
	}
}

// arrange makes the open listeners the wanted ones, as far as they can be
// bound.
func (s *Server) arrange(ctx context.Context, open map[netip.AddrPort]*door) {
	d := &s.doors
	d.mu.Lock()
	wanted, asked, before := slices.Clone(d.wanted), d.asked, d.shut
	d.mu.Unlock()

	for a, o := range open {
		if !slices.Contains(wanted, a) {
			o.ln.Close()
			<-o.done
			delete(open, a)
			s.log.Info("gateway address closed", "addr", a.String())
		}
	}
	shut := make(map[netip.AddrPort]error)
	var lc net.ListenConfig
	for _, a := range wanted {
		if open[a] != nil {
			continue
		}
		ln, err := lc.Listen(ctx, "tcp", a.String())
		if err != nil {
			shut[a] = err
			if before[a] == nil { // say it once, not at every attempt
				s.log.Warn("gateway address cannot be bound", "addr", a.String(), "err", err)
			}
			continue
		}
		o := &door{ln: ln.(*net.TCPListener), done: make(chan struct{})}
		open[a] = o
		go s.accept(ctx, o)
		s.log.Info("gateway address open", "addr", ln.Addr().String())
	}

	bound := make(map[netip.AddrPort]netip.AddrPort, len(open))
	for a, o := range open {
		bound[a] = o.ln.Addr().(*net.TCPAddr).AddrPort()
	}
	d.mu.Lock()
	d.open, d.shut, d.tried = bound, shut, asked
	close(d.turn)
	d.turn = make(chan struct{})
	d.mu.Unlock()
}

// accept takes connections until its listener is closed.
func (s *Server) accept(ctx context.Context, d *door) {
	defer close(d.done)
	pause := time.Duration(0)
	for {
		conn, err := d.ln.AcceptTCP()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // out of files, or the peer left already: wait, go on
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.log.Warn("gateway accept", "addr", d.ln.Addr().String(), "err", err)
			if wait(ctx, pause) != nil {
				return
			}
			continue
		}
		pause = 0
		s.take(ctx, conn)
	}
}

// take starts a connection's goroutine. s.joined waits for it.
func (s *Server) take(ctx context.Context, conn *net.TCPConn) {
	c := newClient(s, conn)
	if err := s.admit(c); err != nil {
		s.log.Warn("gateway refused a client", "addr", c.remote.String(), "err", err)
		var f *fatal
		if errors.As(err, &f) {
			conn.SetDeadline(time.Now().Add(lingering))
			send(conn, f.response()) // a courtesy: it is closed in any case
		}
		conn.Close()
		return
	}
	go func() {
		defer s.leave(c)
		c.serve(ctx)
	}()
}

// wait is a pause that ends early with ctx.
func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait %s: %w", d, context.Cause(ctx))
	}
}
