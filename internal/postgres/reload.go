package postgres

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Reload has the server read its configuration again.
func (s *Server) Reload() error {
	if err := s.signal(unix.SIGHUP); err != nil {
		return fmt.Errorf("reload the settings of Postgres %d: %w", s.proc.pid, err)
	}
	return nil
}
