// Package duck speaks DuckDB's C interface, whose shared library it loads at
// run time: it needs no C compiler, and a program that never opens the library
// is none the larger. It knows databases in memory, connections, statements and
// results in Arrow's form; it knows no table of ours and decides nothing about
// what a statement may do.
//
// A library that crashes takes the process with it. Only the process of a
// warehouse opens one.
package duck

import (
	"fmt"
	"unsafe"

	"github.com/ebitengine/purego"

	"github.com/tarndb/tarn"
)

// Version is the DuckDB that Tarn is built and tested with; others of the same
// first two numbers are taken, too.
const Version = "v1.5.5"

// result is duckdb_result: six words that the caller owns.
type result struct {
	a, b, c uint64
	d, e, f uintptr
}

// progress is duckdb_query_progress_type.
type progress struct {
	percentage float64 // -1 = unknown
	_, _       uint64  // rows done and in all
}

// Library is a loaded libduckdb. It is never unloaded. It is safe for
// concurrent use.
type Library struct {
	general    general
	connection connectionCalls
	statement  statementCalls
	arrow      arrowCalls
}

// What is called of the library, by what it is about. A pointer of C is a
// uintptr here, a place for one an unsafe.Pointer.
type general struct {
	version       func() string
	createConfig  func(out unsafe.Pointer) int32
	setConfig     func(config uintptr, name, value string) int32
	destroyConfig func(config unsafe.Pointer)
	open          func(path string, out unsafe.Pointer, config uintptr, message unsafe.Pointer) int32
	close         func(db unsafe.Pointer)
	free          func(p uintptr)
}

type connectionCalls struct {
	connect       func(db uintptr, out unsafe.Pointer) int32
	disconnect    func(conn unsafe.Pointer)
	interrupt     func(conn uintptr)
	progress      func(conn uintptr) progress
	query         func(conn uintptr, sql string, out unsafe.Pointer) int32
	resultError   func(r unsafe.Pointer) string
	destroyResult func(r unsafe.Pointer)
}

type statementCalls struct {
	prepare      func(conn uintptr, sql string, out unsafe.Pointer) int32
	prepareError func(s uintptr) string
	destroy      func(s unsafe.Pointer)
	params       func(s uintptr) uint64
	index        func(s uintptr, out unsafe.Pointer, name string) int32
	bindText     func(s uintptr, index uint64, text unsafe.Pointer, n uint64) int32
	bindNull     func(s uintptr, index uint64) int32
	execute      func(s uintptr, out unsafe.Pointer) int32
}

type arrowCalls struct {
	columns      func(r unsafe.Pointer) uint64
	columnName   func(r unsafe.Pointer, i uint64) string
	columnType   func(r unsafe.Pointer, i uint64) uintptr
	destroyType  func(t unsafe.Pointer)
	fetch        func(r result) uintptr
	destroyChunk func(c unsafe.Pointer)
	options      func(r unsafe.Pointer) uintptr
	destroy      func(options unsafe.Pointer)
	schema       func(options uintptr, types, names unsafe.Pointer, n uint64, out unsafe.Pointer) uintptr
	array        func(options, chunk uintptr, out unsafe.Pointer) uintptr
	hasError     func(e uintptr) bool
	message      func(e uintptr) string
	destroyError func(e unsafe.Pointer)
}

// Load opens the shared library at path. KindUnavailable when it cannot be
// loaded, or is another version.
func Load(path string) (l *Library, err error) {
	handle, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, tarn.Unavailable("load DuckDB: %w", err)
	}
	defer func() {
		if p := recover(); p != nil {
			l, err = nil, tarn.Unavailable("load DuckDB from %s: %v", path, p)
		}
	}()
	l = &Library{}
	for name, fn := range map[string]any{
		"duckdb_library_version": &l.general.version,
		"duckdb_create_config":   &l.general.createConfig,
		"duckdb_set_config":      &l.general.setConfig,
		"duckdb_destroy_config":  &l.general.destroyConfig,
		"duckdb_open_ext":        &l.general.open,
		"duckdb_close":           &l.general.close,
		"duckdb_free":            &l.general.free,

		"duckdb_connect":        &l.connection.connect,
		"duckdb_disconnect":     &l.connection.disconnect,
		"duckdb_interrupt":      &l.connection.interrupt,
		"duckdb_query_progress": &l.connection.progress,
		"duckdb_query":          &l.connection.query,
		"duckdb_result_error":   &l.connection.resultError,
		"duckdb_destroy_result": &l.connection.destroyResult,

		"duckdb_prepare":                    &l.statement.prepare,
		"duckdb_prepare_error":              &l.statement.prepareError,
		"duckdb_destroy_prepare":            &l.statement.destroy,
		"duckdb_nparams":                    &l.statement.params,
		"duckdb_bind_parameter_index":       &l.statement.index,
		"duckdb_bind_varchar_length":        &l.statement.bindText,
		"duckdb_bind_null":                  &l.statement.bindNull,
		"duckdb_execute_prepared_streaming": &l.statement.execute,

		"duckdb_column_count":             &l.arrow.columns,
		"duckdb_column_name":              &l.arrow.columnName,
		"duckdb_column_logical_type":      &l.arrow.columnType,
		"duckdb_destroy_logical_type":     &l.arrow.destroyType,
		"duckdb_fetch_chunk":              &l.arrow.fetch,
		"duckdb_destroy_data_chunk":       &l.arrow.destroyChunk,
		"duckdb_result_get_arrow_options": &l.arrow.options,
		"duckdb_destroy_arrow_options":    &l.arrow.destroy,
		"duckdb_to_arrow_schema":          &l.arrow.schema,
		"duckdb_data_chunk_to_arrow":      &l.arrow.array,
		"duckdb_error_data_has_error":     &l.arrow.hasError,
		"duckdb_error_data_message":       &l.arrow.message,
		"duckdb_destroy_error_data":       &l.arrow.destroyError,
	} {
		purego.RegisterLibFunc(fn, handle, name)
	}
	// Structures are read by their layout, which a minor version may change.
	if have := l.Version(); minor(have) != minor(Version) {
		return nil, tarn.Unavailable("%s is DuckDB %s, this Tarn needs %s", path, have, Version)
	}
	return l, nil
}

// minor is the part of a version up to its second number.
func minor(version string) string {
	var a, b int
	if n, err := fmt.Sscanf(version, "v%d.%d", &a, &b); n != 2 || err != nil {
		return version
	}
	return fmt.Sprintf("v%d.%d", a, b)
}

// Version is the library's own, e.g. v1.5.5.
func (l *Library) Version() string { return l.general.version() }
