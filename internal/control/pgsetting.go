package control

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/tarndb/tarn"
)

// valueKind is how a Postgres setting is written.
type valueKind uint8

const (
	number valueKind = iota // a whole number, with one of its units or without
	real
	boolean
	word // one of a list
	text
)

// pgSetting is what an endpoint may say of a Postgres setting. Bounds are in the
// setting's own unit, as pg_settings has them; where no version of 15 to 18
// differs they are Postgres's own.
type pgSetting struct {
	kind     valueKind
	min, max float64
	unit     string // "ms", "s", "kB", "8kB" or "min"; "" = none
	words    []string
}

const most = math.MaxInt32

var onOff = pgSetting{kind: boolean}

func ms(least, upTo float64) pgSetting   { return pgSetting{min: least, max: upTo, unit: "ms"} }
func kB(least, upTo float64) pgSetting   { return pgSetting{min: least, max: upTo, unit: "kB"} }
func n(least, upTo float64) pgSetting    { return pgSetting{min: least, max: upTo} }
func cost(least, upTo float64) pgSetting { return pgSetting{kind: real, min: least, max: upTo} }
func oneOf(words ...string) pgSetting    { return pgSetting{kind: word, words: words} }

// allowed are the settings an endpoint may have. What is not here is refused: it
// would say where a compute lives, who comes in or what runs beside the
// database, or it makes commits less durable for everybody unasked.
func allowed() map[string]pgSetting {
	return map[string]pgSetting{
		// Time limits.
		"statement_timeout": ms(0, most), "lock_timeout": ms(0, most), "idle_in_transaction_session_timeout": ms(0, most),
		"idle_session_timeout": ms(0, most), "transaction_timeout": ms(0, most), "deadlock_timeout": ms(1, most),
		"tcp_user_timeout": ms(0, most), "client_connection_check_interval": ms(0, most),
		// Memory.
		"work_mem": kB(64, most), "maintenance_work_mem": kB(1024, most), "autovacuum_work_mem": kB(-1, most), "logical_decoding_work_mem": kB(64, most),
		"hash_mem_multiplier": cost(1, 1000), "temp_buffers": {min: 100, max: most / 2, unit: "8kB"}, "temp_file_limit": kB(-1, most),
		"effective_cache_size": {min: 1, max: most, unit: "8kB"},
		// Planner.
		"random_page_cost": cost(0, 1e10), "seq_page_cost": cost(0, 1e10), "cpu_tuple_cost": cost(0, 1e10), "cpu_index_tuple_cost": cost(0, 1e10),
		"cpu_operator_cost": cost(0, 1e10), "parallel_setup_cost": cost(0, 1e10), "parallel_tuple_cost": cost(0, 1e10), "jit": onOff,
		"jit_above_cost": cost(-1, 1e10), "default_statistics_target": n(1, 10000), "effective_io_concurrency": n(0, 1000), "maintenance_io_concurrency": n(0, 1000),
		"enable_seqscan": onOff, "enable_indexscan": onOff, "enable_indexonlyscan": onOff, "enable_bitmapscan": onOff, "enable_hashjoin": onOff,
		"enable_mergejoin": onOff, "enable_nestloop": onOff, "enable_sort": onOff, "enable_hashagg": onOff, "enable_material": onOff, "enable_memoize": onOff,
		"enable_partitionwise_join": onOff, "enable_partitionwise_aggregate": onOff, "enable_parallel_append": onOff, "enable_parallel_hash": onOff,
		"from_collapse_limit": n(1, most), "join_collapse_limit": n(1, most), "geqo": onOff, "geqo_threshold": n(2, most), "cursor_tuple_fraction": cost(0, 1),
		"plan_cache_mode": oneOf("auto", "force_generic_plan", "force_custom_plan"), "constraint_exclusion": oneOf("partition", "on", "off"),
		"max_parallel_workers": n(0, 1024), "max_parallel_workers_per_gather": n(0, 1024), "max_parallel_maintenance_workers": n(0, 1024),
		"parallel_leader_participation": onOff, "min_parallel_table_scan_size": {min: 0, max: 715827882, unit: "8kB"},
		// Taken when the compute starts next.
		"max_connections": n(10, 4000), "max_worker_processes": n(8, 1024), "max_prepared_transactions": n(0, 4000), "max_locks_per_transaction": n(10, 100000),
		"max_replication_slots": n(4, 1000), "max_wal_senders": n(4, 1000), "max_logical_replication_workers": n(0, 1000), "track_activity_query_size": {min: 100, max: 1 << 20, unit: "B"},
		// Vacuum.
		"autovacuum": onOff, "autovacuum_naptime": {min: 1, max: 2147483, unit: "s"}, "autovacuum_max_workers": n(1, 100), "autovacuum_vacuum_threshold": n(0, most),
		"autovacuum_analyze_threshold": n(0, most), "autovacuum_vacuum_scale_factor": cost(0, 100), "autovacuum_analyze_scale_factor": cost(0, 100),
		"autovacuum_vacuum_insert_threshold": n(-1, most), "autovacuum_vacuum_insert_scale_factor": cost(0, 100), "autovacuum_vacuum_cost_delay": {kind: real, min: -1, max: 100, unit: "ms"},
		"autovacuum_vacuum_cost_limit": n(-1, 10000), "vacuum_cost_delay": {kind: real, min: 0, max: 100, unit: "ms"}, "vacuum_cost_limit": n(1, 10000),
		"vacuum_freeze_min_age": n(0, 1e9), "vacuum_freeze_table_age": n(0, 2e9),
		// WAL and replication; a commit that does not wait is the user's own choice.
		"synchronous_commit": oneOf("on", "off", "local", "remote_write", "remote_apply"), "checkpoint_timeout": {min: 30, max: 86400, unit: "s"}, "max_wal_size": {min: 2, max: most, unit: "MB"},
		"min_wal_size": {min: 2, max: most, unit: "MB"}, "checkpoint_completion_target": cost(0, 1), "wal_compression": oneOf("on", "off", "pglz", "lz4", "zstd"), "commit_delay": n(0, 100000),
		"commit_siblings": n(0, 1000), "max_slot_wal_keep_size": {min: -1, max: most, unit: "MB"}, "wal_sender_timeout": ms(0, most), "max_standby_streaming_delay": ms(-1, most),
		"hot_standby_feedback": onOff, "track_commit_timestamp": onOff,
		// What sessions begin with.
		"default_transaction_isolation": oneOf("serializable", "repeatable read", "read committed", "read uncommitted"), "default_transaction_read_only": onOff,
		"default_transaction_deferrable": onOff, "search_path": {kind: text}, "timezone": {kind: text}, "datestyle": {kind: text}, "intervalstyle": oneOf("postgres", "postgres_verbose", "sql_standard", "iso_8601"),
		"client_min_messages": {kind: text}, "default_text_search_config": {kind: text}, "bytea_output": oneOf("hex", "escape"), "xmlbinary": oneOf("base64", "hex"), "xmloption": oneOf("content", "document"),
		"extra_float_digits": n(-15, 3), "gin_fuzzy_search_limit": n(0, most), "gin_pending_list_limit": kB(64, most), "row_security": onOff, "lo_compat_privileges": onOff,
		"standard_conforming_strings": onOff, "quote_all_identifiers": onOff, "transform_null_equals": onOff, "array_nulls": onOff, "backslash_quote": oneOf("safe_encoding", "on", "off"), "default_toast_compression": oneOf("pglz", "lz4"),
		// Statistics and the log.
		"track_activities": onOff, "track_counts": onOff, "track_io_timing": onOff, "track_wal_io_timing": onOff, "track_functions": oneOf("none", "pl", "all"), "compute_query_id": oneOf("auto", "on", "off", "regress"),
		"log_statement": oneOf("none", "ddl", "mod", "all"), "log_min_duration_statement": ms(-1, most), "log_min_messages": {kind: text}, "log_min_error_statement": {kind: text}, "log_error_verbosity": oneOf("terse", "default", "verbose"),
		"log_lock_waits": onOff, "log_temp_files": kB(-1, most), "log_checkpoints": onOff, "log_connections": {kind: text}, "log_disconnections": onOff, "log_duration": onOff, "log_autovacuum_min_duration": ms(-1, most),
		"password_encryption": oneOf("scram-sha-256"), "max_pred_locks_per_transaction": n(10, 100000), "old_snapshot_threshold": {min: -1, max: 86400, unit: "min"},
	}
}

// checkSetting refuses a Postgres setting that an endpoint may not have, or a
// value that Postgres would refuse. Names with a dot belong to extensions, which
// judge them themselves.
func checkSetting(name, value string) error {
	plain := strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_.") == ""
	switch {
	case name == "" || !plain || name[0] == '.' || name[0] >= '0' && name[0] <= '9':
		return tarn.Invalid("setting %q is not the name of a Postgres setting", name)
	case len(value) > 1024 || strings.ContainsAny(value, "\x00\n\r"):
		return tarn.Invalid("setting %s: its value is too long or holds a character that is not allowed", name)
	case isOwn(name):
		return tarn.Invalid("setting %s is Tarn's own", name).WithHint("Remove it from the endpoint's settings.")
	case strings.Contains(name, "."):
		return nil
	}
	s, ok := allowed()[name]
	if !ok {
		return tarn.Invalid("setting %s cannot be set for an endpoint", name).WithHint("docs/computes.md lists those that can; many others can be set with ALTER DATABASE or ALTER ROLE.")
	}
	if why := s.refuses(strings.TrimSpace(value)); why != "" {
		return tarn.Invalid("setting %s: %q: %s", name, value, why)
	}
	return nil
}

// refuses says why a value is none of the setting's; "" = it is one.
func (s pgSetting) refuses(v string) string {
	switch s.kind {
	case boolean:
		if !slices.Contains([]string{"on", "off", "true", "false", "yes", "no", "1", "0"}, strings.ToLower(v)) {
			return "want on or off"
		}
	case word:
		if !slices.Contains(s.words, strings.ToLower(v)) {
			return "want one of " + strings.Join(s.words, ", ")
		}
	case number, real:
		x, ok := s.parse(v)
		if !ok {
			return s.want("want a number")
		}
		if !(x >= s.min && x <= s.max) {
			return s.want("out of range: want")
		}
	}
	return ""
}

func (s pgSetting) want(word string) string {
	w := word + " " + strconv.FormatFloat(s.min, 'f', -1, 64) + " to " + strconv.FormatFloat(s.max, 'f', -1, 64)
	if s.unit != "" {
		w += " (" + s.unit + ")"
	}
	return w
}

// The units Postgres knows, as parts of the smallest: bytes and microseconds.
func units(of string) map[string]float64 {
	switch of {
	case "B", "kB", "8kB", "MB":
		return map[string]float64{"B": 1, "kB": 1 << 10, "8kB": 8 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}
	case "ms", "s", "min":
		return map[string]float64{"us": 1, "ms": 1e3, "s": 1e6, "min": 60e6, "h": 3600e6, "d": 24 * 3600e6}
	}
	return nil
}

// parse reads a number with or without a unit, in the setting's own.
func (s pgSetting) parse(v string) (float64, bool) {
	digits := strings.TrimRight(v, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	unit := v[len(digits):]
	x, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
	if err != nil || math.IsNaN(x) || math.IsInf(x, 0) {
		return 0, false
	}
	if unit != "" {
		all := units(s.unit)
		f, known := all[unit]
		if !known {
			return 0, false
		}
		x = x * f / all[s.unit]
	} else if s.kind == number && x != math.Trunc(x) {
		return 0, false
	}
	return x, true
}
