package control

import (
	"maps"
	"slices"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/compute"
)

// Limits of what can be asked, as published where they are.
const (
	maxDisplayName = 256 // bytes

	minCU       = 0.5
	defaultMax  = 2.0
	maxCU       = 112.0
	maxRangeCU  = 64.0 // above, a size must be fixed
	maxSpreadCU = 16.0

	minSuspend = time.Second // the published 60 s is a rule of the doors
	maxSuspend = 7 * 24 * time.Hour
	minFreeze  = 2 * time.Second // the gateway tells a compute of its clients once a second

	maxBranchLife = 30 * 24 * time.Hour
)

// fillEndpoint puts defaults where nothing was asked.
func fillEndpoint(e *tarn.EndpointSpec) {
	if e.Type == "" {
		e.Type = tarn.ReadWrite
	}
	if e.MinCU == 0 {
		e.MinCU = minCU
		if e.MaxCU > maxSpreadCU {
			e.MinCU = e.MaxCU - maxSpreadCU
		}
		if e.MaxCU > maxRangeCU {
			e.MinCU = e.MaxCU
		}
	}
	if e.MaxCU == 0 {
		e.MaxCU = max(defaultMax, e.MinCU)
	}
	if e.SuspendAfter == 0 {
		e.SuspendAfter = tarn.DefaultSuspendAfter
	}
	if e.FreezeAfter == 0 {
		e.FreezeAfter = tarn.DefaultFreezeAfter
	}
}

func checkEndpoint(e tarn.EndpointSpec) error {
	switch {
	// Written so that NaN fails.
	case !(e.MinCU >= minCU && e.MinCU <= e.MaxCU && e.MaxCU <= maxCU):
		return tarn.Invalid("size %g to %g CU: want %g <= min <= max <= %g", e.MinCU, e.MaxCU, minCU, maxCU)
	case e.MinCU != e.MaxCU && (e.MaxCU > maxRangeCU || e.MaxCU-e.MinCU > maxSpreadCU):
		return tarn.Invalid("size %g to %g CU: a range spans at most %g CU and ends at most at %g", e.MinCU, e.MaxCU, maxSpreadCU, maxRangeCU)
	case e.SuspendAfter >= 0 && (e.SuspendAfter < minSuspend || e.SuspendAfter > maxSuspend):
		return tarn.Invalid("suspend after %s: want %s to %s, or a negative time for never", e.SuspendAfter, minSuspend, maxSuspend)
	}
	if e.FreezeAfter >= 0 && (e.FreezeAfter < minFreeze || e.FreezeAfter > maxSuspend) {
		return tarn.Invalid("freeze after %s: want %s to %s, or a negative time for never", e.FreezeAfter, minFreeze, maxSuspend)
	}
	for _, name := range slices.Sorted(maps.Keys(e.Settings)) {
		if err := checkSetting(name, e.Settings[name]); err != nil {
			return err
		}
	}
	return nil
}

// ownSettings are Postgres settings that say where a compute lives, who may
// come in and what the server runs beside the database; they are Tarn's alone.
// The node has further ones that it depends on.
var ownSettings = []string{
	"bonjour", "config_file", "data_directory", "external_pid_file", "full_page_writes", "fsync", "hba_file", "ident_file",
	"listen_addresses", "local_preload_libraries", "log_directory", "log_filename", "logging_collector", "port", "ssl_passphrase_command",
	"unix_socket_directories", "unix_socket_group", "unix_socket_permissions", "zero_damaged_pages",
}

func isOwn(name string) bool { return slices.Contains(ownSettings, name) || compute.Reserved(name) }

func fillProject(s *tarn.ProjectSpec) {
	if s.DisplayName == "" {
		s.DisplayName = s.Name.Project
	}
	switch {
	case s.History == 0:
		s.History = tarn.DefaultHistory
	case s.History < 0:
		s.History = tarn.NoHistory
	}
	fillEndpoint(&s.Endpoint)
}

func checkProject(s tarn.ProjectSpec) error {
	if _, err := tarn.ParseID("project", s.Name.Project); err != nil {
		return err
	}
	switch {
	case len(s.DisplayName) > maxDisplayName:
		return tarn.Invalid("display name has %d bytes, want at most %d", len(s.DisplayName), maxDisplayName)
	case s.History > tarn.MaxHistory:
		return tarn.Invalid("history of %s: want at most %s", tarn.Span(s.History), tarn.Span(tarn.MaxHistory))
	}
	return checkEndpoint(s.Endpoint)
}

// checkExpiry holds a branch's expiry to the published rules.
func checkExpiry(b tarn.Branch) error {
	switch {
	case b.ExpireTime.IsZero():
		return nil
	case b.Default:
		return tarn.Invalid("the default branch cannot expire")
	case b.Protected:
		return tarn.Invalid("a protected branch cannot expire").WithHint("Take away its protection, or its expiry.")
	case b.ExpireTime.Before(time.Now()):
		return tarn.Invalid("expiry %s is in the past", b.ExpireTime.UTC().Format(time.RFC3339))
	case time.Until(b.ExpireTime) > maxBranchLife+time.Minute:
		return tarn.Invalid("expiry %s is more than 30 days away", b.ExpireTime.UTC().Format(time.RFC3339))
	}
	return nil
}
