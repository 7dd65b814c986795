// Package pagestore knows timelines: their directories, manifests and logs,
// what is visible at every point of them, and how one forks from another. Its
// volumes are the writable heads of timelines; they offer the file operations
// a mount needs. It does not know FUSE, Postgres, WAL, branches or who may do
// what. FORMAT.md has the files, ../layer/FORMAT.md the bytes of the log.
//
// # Locks
//
// From the outside in; none of those marked * is ever held across I/O:
//
//	timeline.turn     who reads or rewrites a closed timeline's files
//	Store.mu *        the map of timelines, their states, the cache
//	Volume.freeze     operations that change something hold it shared; a fork
//	                  takes it alone for the moment in which it copies the index
//	Volume.names      order of operations on names
//	node.write        order of writes of one file; reads do not take it
//	log.syncing       who syncs
//	log.writing       who writes batches out and makes room
//	index.tree *      contents of directories
//	log.mu *          batches in memory
//
// Attributes, page tables and the table of inodes are read without a lock.
package pagestore
