package postgres

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// freezeLook is how often processes are looked at that are to stop.
const freezeLook = time.Millisecond

// Freeze stops the postmaster and its children with SIGSTOP and returns when all
// have stopped: for computers without control groups, which do it better. The
// postmaster stops first, so that it forks no more. When ctx ends before, they go
// on.
func (s *Server) Freeze(ctx context.Context) error {
	err := s.stopAll(ctx)
	if err != nil {
		err = fmt.Errorf("freeze Postgres %d: %w", s.proc.pid, err)
		if terr := s.Thaw(); terr != nil {
			err = fmt.Errorf("%w; %w", err, terr)
		}
	}
	return err
}

func (s *Server) stopAll(ctx context.Context) error {
	if err := s.proc.kill(unix.SIGSTOP); err != nil {
		return err
	}
	tick := time.NewTicker(freezeLook)
	defer tick.Stop()
	for {
		children, err := descendants(s.proc.pid)
		if err != nil {
			return err
		}
		all := append(children, s.proc)
		for _, p := range children {
			if err := p.kill(unix.SIGSTOP); err != nil {
				return err
			}
		}
		if !slices.ContainsFunc(all, process.goes) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// goes tells whether a process is neither stopped nor over.
func (p process) goes() bool {
	now, ok := readProcess(p.pid)
	return ok && now.start == p.start && !now.ended && !now.stopped
}

// Thaw lets a frozen server go on.
func (s *Server) Thaw() error {
	children, err := descendants(s.proc.pid)
	if err != nil {
		return fmt.Errorf("thaw Postgres %d: %w", s.proc.pid, err)
	}
	for _, p := range append(children, s.proc) {
		if err := p.kill(unix.SIGCONT); err != nil {
			return fmt.Errorf("thaw Postgres %d: %w", s.proc.pid, err)
		}
	}
	return nil
}
