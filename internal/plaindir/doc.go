// Package plaindir keeps timelines as plain directories, for machines that
// cannot mount: the second kind of volume beside the page store. It knows how a
// directory is copied that a Postgres may be writing, by reflink (FICLONE) where
// the file system can and byte by byte where not, which copies are kept as bases
// for forks at a past time, and how all of it survives a crash. It does not know
// WAL, LSNs' meaning, branches or who may do what.
//
//	<dir>/LOCK                  one process at a time
//	<dir>/<id>/manifest         what is known of the timeline; see FORMAT.md
//	<dir>/<id>/data/            what Postgres works in
//	<dir>/<id>/bases/<seq>/     data as it was at a mark, never changed
//	<dir>/<id>.making           being made, <id>.deleted being removed: Open
//	                            clears both away
//
// # Seq
//
// Nobody can count what Postgres writes into a plain directory. A seq here is
// only an order: it moves when the directory is shown to Postgres and with every
// mark, so that a mark stands at the head if and only if nothing was written
// after it. A point can be forked at when its base is kept, or when it is the
// head.
//
// # Why a copy of a running data directory is right
//
// A copy takes time, and Postgres goes on writing. What is copied is therefore
// no moment's state; it becomes one through WAL, as with Postgres's own base
// backups. Let R be the redo position in the pg_control that was copied, t0 the
// time at which it was read, t1 the end of the copy, and L any LSN read as
// flushed after t1.
//
//  1. pg_control is copied before everything else. Postgres writes a checkpoint
//     into it only after every change with an LSN below R is in the files. So
//     every page copied after t0 has all changes below R. (Copied last, it could
//     name a redo position younger than pages copied before.)
//  2. A page reaches its file only after the WAL of its changes was flushed. So
//     no page has a change at or above L, and WAL from R to L has every change
//     that a copied page may have or lack.
//  3. A page may be copied while it is being written: half old, half new. It was
//     then changed after R. With full_page_writes on, which this kind of volume
//     needs, the first change of a page after R carries the whole page, and
//     replay puts it in the place of whatever was copied. A page of which only
//     hint bits were written has no such record and needs none: each of its
//     bits is valid whether it is old or new. Pages of pg_xact and its like
//     have no whole-page records either: what commits after R is set again,
//     bit by bit, by replay.
//  4. A file that came after its directory was read was made by a change after
//     R: replay makes it. One that went while it was copied was removed by a
//     change after R: replay removes it. One that grew or was cut is made longer
//     or cut by replay.
//  5. pg_control says "in production", so that Postgres recovers: from R, with
//     every WAL record it finds. The caller gives it WAL from R to L and not one
//     byte more. That is crash recovery, as after a kill at L.
//
// What backup_label would add is that Postgres finds R elsewhere than in
// pg_control, which (1) makes unnecessary, and that it notices when WAL up to the
// end of the copy is missing; the caller, which links every segment of R to L by
// name and fails when one is not there, takes that on. A clone by reflink is the
// same with t1 − t0 small: it is atomic for each file, but not over files.
//
// One case is excluded as for base backups: CREATE DATABASE with STRATEGY
// file_copy copies its template without WAL, so a template that is written
// between that and the end of the copy may be seen changed in the new database.
package plaindir
