// Package wal keeps the write-ahead log files of one timeline on this
// computer: the directory Postgres writes, the archive of finished segments,
// and what a child needs to begin or to replay. It knows names, positions and
// files. It knows neither pages nor marks, reads no record but its length, and
// never decides how far a replay goes.
//
//	<dir>/pg_wal    what Postgres writes; its data directory points here
//	<dir>/archive   every finished segment, a hard link each
//	<dir>/restore   only during a replay: what restore_command hands out
//
// Finished segments are immutable and shared by hard links between a parent, its
// archive and its children. That holds because computes run with
// wal_recycle=off: a recycled segment would be renamed and overwritten, and
// with it every link.
package wal
