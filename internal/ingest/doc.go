// Package ingest reads a Postgres table in micro-batches along a checkpoint
// column, over one connection, and writes them to a Delta table, each version
// of a row once: for tables that cannot be followed by replication (another
// vendor's server, a role without that right, a read replica). It knows how to
// tell what was read from what was not, and how a batch and its checkpoint become
// durable. It does not know whose database it is, nor who may write the table.
//
// # Why a checkpoint column is not enough
//
// `WHERE id > last ORDER BY id LIMIT n` loses rows: ids and times are given out
// when a row is written and become visible when its transaction commits, which
// may be after a row with a higher one. See Cursor for what is remembered
// instead.
//
// What is not seen: deletions (follow the table with package feed, or mark rows
// deleted), and versions of a row that were replaced between two looks.
//
// # What happens once
//
// A batch of round n is written with the Delta app transaction (source, n), and
// before that the checkpoint table holds both the cursor of round n-1 and the
// one of round n. Which of them is right is what the target says: see Ingest.Next.
package ingest
