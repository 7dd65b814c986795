// Package wal keeps the write-ahead log files of one timeline: on this computer
// the directory Postgres writes, the archive of finished segments, and what a
// child needs to begin or to replay; and beyond it copies in an object store,
// which bring all that back. It knows names, positions and files. It knows
// neither pages nor marks, reads no record but its length, and never decides how
// far a replay goes or what is still needed.
//
//	<dir>/pg_wal    what Postgres writes; its data directory points here
//	<dir>/archive   finished segments, a hard link each
//	<dir>/restore   only during a replay: what restore_command hands out
//
// Finished segments are immutable and shared by hard links between a parent, its
// archive and its children. That holds because computes run with
// wal_recycle=off: a recycled segment would be renamed and overwritten, and
// with it every link.
//
// # The object store
//
// A Remote holds WAL of many timelines; FORMAT.md draws it. An Uploader copies
// one run of Postgres, a second behind, and never a byte that is not on disk
// yet. Position says how far that reaches, Fetch brings back segments that
// were trimmed here, Rebuild makes the log of a computer that is gone.
package wal
