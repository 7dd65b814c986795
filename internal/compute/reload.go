package compute

import (
	"context"
	"fmt"
	"maps"
	"strings"
)

const (
	sqlReload  = `SELECT pg_reload_conf()`
	sqlPending = `SELECT COALESCE(string_agg(name, ', ' ORDER BY name), '') FROM pg_settings WHERE pending_restart`
)

// reload gives a running compute the settings that its endpoint has by now.
// What Postgres takes at its start only waits for that; the status says so.
func (w *watcher) reload(ctx context.Context) {
	f, l := w.f, w.l
	f.mu.Lock()
	s := l.spec
	f.mu.Unlock()
	if maps.Equal(s.Settings, w.set) {
		return
	}
	all, err := f.settings(s)
	if err == nil {
		_, file := live(all)
		err = w.e.writeSettings(file)
	}
	var pending string
	if err == nil {
		err = w.ask(ctx, func(s *session) error {
			if _, err := s.conn.Exec(ctx, sqlReload); err != nil {
				return fmt.Errorf("reload settings: %w", err)
			}
			return s.conn.QueryRow(ctx, sqlPending).Scan(&pending)
		})
	}
	if err != nil {
		f.log.Warn("settings not changed", "endpoint", s.Endpoint, "err", err)
		return
	}
	// Those on the command line are not in the file, so Postgres does not know.
	for _, name := range atStart {
		if w.set[name] != s.Settings[name] {
			pending = strings.TrimPrefix(pending+", "+name, ", ")
		}
	}
	w.set = maps.Clone(s.Settings)
	f.log.Info("settings changed", "endpoint", s.Endpoint)
	f.mu.Lock()
	defer f.mu.Unlock()
	l.status.Message = ""
	if pending != "" {
		l.status.Message = "takes effect at its next start: " + pending
	}
}
