package compute

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/wal"
)

const (
	minCU   = 0.5
	cuBytes = 2 << 30 // memory of one CU

	// cloneSince is the Postgres that has the settings file_copy_method and
	// io_max_concurrency. Older ones read and write every page of a template.
	cloneSince = 18
)

// ours are the settings the page store, forks and suspends stand on. Nobody
// may change them.
var ours = map[string]string{
	"full_page_writes":  "off", // a page write is atomic in the page store
	"wal_recycle":       "off", // finished segments are shared by hard links
	"wal_init_zero":     "on",  // a commit into a hole of its segment makes the file system commit where that is, too
	"wal_level":         "logical",
	"fsync":             "on",
	"archive_mode":      "on",
	"archive_command":   wal.ArchiveCommand,
	"logging_collector": "off",
	"hot_standby":       "off",
}

// forbidden are further settings that would break what we do with a compute.
var forbidden = [...]string{
	"allow_in_place_tablespaces", "archive_library", "archive_cleanup_command", "cluster_name", "log_destination", "primary_conninfo", "primary_slot_name",
	"recovery_end_command", "recovery_min_apply_delay", "recovery_prefetch", "recovery_target", "recovery_target_action",
	"recovery_target_inclusive", "recovery_target_lsn", "recovery_target_name", "recovery_target_time", "recovery_target_timeline",
	"recovery_target_xid", "restore_command", "ssl",
}

// defaults may be changed by an endpoint's own settings.
var defaults = map[string]string{
	"checkpoint_timeout":         "5min",
	"max_wal_size":               "2GB",
	"max_slot_wal_keep_size":     "16GB", // a dead consumer must not fill the disk
	"max_files_per_process":      "200",  // each open file costs memory in the kernel and in the volume
	"max_replication_slots":      "32",
	"max_wal_senders":            "32",
	"max_worker_processes":       "16",
	"wal_buffers":                "4MB", // zeroed at every start; Postgres's own choice is up to 16 MB
	"log_checkpoints":            "off",
	"log_line_prefix":            "%m [%p] %q%u@%d %a ",
	"log_min_duration_statement": "-1",
}

// settingsFor are all settings of an endpoint's compute. base is the size in CU
// that it always has, memory is this computer's, in bytes.
func settingsFor(s tarn.ComputeSpec, base float64, memory int64) (map[string]string, error) {
	m := maps.Clone(defaults)
	m["max_connections"] = strconv.Itoa(maxConnections(s.MaxCU))
	m["shared_buffers"] = fmt.Sprintf("%dMB", sharedBuffers(base, memory)>>20)
	if s.PGVersion >= cloneSince {
		// Postgres's own choice, up to 64 for each connection that may come, is
		// half of the memory it prepares at a start. effective_io_concurrency
		// is 16.
		m["io_max_concurrency"] = "16"
		// copy_file_range, which shares pages within a volume: CREATE DATABASE
		// … STRATEGY file_copy then takes no time and no space.
		m["file_copy_method"] = "clone"
	}
	for name, value := range s.Settings {
		if Reserved(name) {
			return nil, tarn.Invalid("setting %s: Tarn sets it itself", name).WithHint("remove it from the endpoint's settings")
		}
		m[name] = value
	}
	maps.Copy(m, ours)
	m["cluster_name"] = s.Endpoint
	return m, nil
}

// atStart are the settings, besides ours, that Postgres takes when it starts and
// that are on its command line. All others are in a file, which can be read again
// while it runs.
var atStart = [...]string{
	"cluster_name", "max_connections", "shared_buffers", "max_files_per_process", "max_replication_slots", "max_wal_senders",
	"max_worker_processes", "max_prepared_transactions", "max_locks_per_transaction", "primary_conninfo", "recovery_target_timeline",
	"restore_command", "recovery_target_action", "recovery_target_time", "recovery_target_lsn", "recovery_target_inclusive",
	"wal_retrieve_retry_interval", "wal_buffers", "io_max_concurrency",
}

// live is what of settings goes into the file: lines for postgresql.conf. args is
// the rest.
func live(settings map[string]string) (args map[string]string, file string) {
	args = make(map[string]string)
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		if _, mine := ours[name]; mine || slices.Contains(atStart[:], name) {
			args[name] = settings[name]
			continue
		}
		fmt.Fprintf(&b, "%s = '%s'\n", name, confQuote.Replace(settings[name]))
	}
	return args, b.String()
}

// confQuote quotes a value or a path for postgresql.conf.
var confQuote = strings.NewReplacer(`\`, `\\`, `'`, `''`, "\n", `\n`)

// Reserved says whether a Postgres setting is the fleet's alone: a compute whose
// endpoint asks for it does not start.
func Reserved(name string) bool {
	_, mine := ours[name]
	return mine || slices.Contains(forbidden[:], name)
}

// maxConnections is the published limit by size.
func maxConnections(cu float64) int {
	const perCU, most = 209, 4000
	switch {
	case cu <= 0.5:
		return 104
	case cu == 2:
		return 419
	case cu == 3:
		return 629
	}
	return min(int(perCU*cu), most)
}

// sharedBuffers is 30 % of the compute's memory, which is at most half of this
// computer's: several computes share it, and pages cached once more by the
// kernel are not lost. They cannot change while it runs and the kernel cannot
// take them back, so a compute whose size changes has them by its smallest: it
// must fit into that again. What it grows by is the kernel's page cache.
func sharedBuffers(cu float64, memory int64) int64 {
	cu = max(cu, minCU)
	bytes := min(int64(cu*cuBytes), memory/2)
	return max(bytes*30/100, 32<<20)
}

// machineMemory is this computer's memory in bytes.
func machineMemory() (int64, error) {
	const path = "/proc/meminfo"
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("ask for the memory of this computer: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read %s: %w", path, err)
			}
			return kb << 10, nil
		}
	}
	return 0, fmt.Errorf("read %s: no MemTotal", path)
}
