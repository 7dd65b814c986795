package plaindir

import (
	"path"
	"strings"
)

// emptied are directories of a data directory whose contents a copy leaves out,
// as Postgres's own base backups do: made anew at every start, or (slots) of no
// use in a copy.
func emptied(dir string) bool {
	switch dir {
	case "pg_stat_tmp", "pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_subtrans":
		return true
	}
	return false
}

// skipped are files and directories that a copy leaves out: what says that a
// Postgres runs here, what a start rebuilds, and temporary files and tables, which
// no WAL follows.
func skipped(name string) bool {
	base := path.Base(name)
	switch base {
	case "postmaster.pid", "postmaster.opts", "postgresql.auto.conf.tmp", "current_logfiles.tmp", "backup_manifest":
		return true
	}
	if strings.HasPrefix(base, "pg_internal.init") || strings.HasPrefix(base, "pgsql_tmp") {
		return true
	}
	// t<backend>_<relation>, below base/<database>.
	backend, relation, ok := strings.Cut(base, "_")
	return ok && strings.HasPrefix(name, "base/") && strings.HasPrefix(backend, "t") &&
		digits(backend[1:]) && relation != "" && digits(relation[:1])
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}
