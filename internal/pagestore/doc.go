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
//	Store.collecting  who collects or compacts
//	Volume.mapping    who writes a map of an open volume
//	remoteLine.tend   who uploads a timeline's layers or collects them
//	timeline.turn     who reads or rewrites a closed timeline's files, and who
//	                  replaces a manifest
//	remoteLine.turn   who reads or replaces a manifest in the bucket
//	Store.mu *        the map of timelines, their states, the cache
//	Volume.freeze     operations that change something hold it shared; a fork
//	                  takes it alone for the moment in which it copies the index
//	Volume.names      order of operations on names
//	node.write        order of writes of one file; reads do not wait for it
//	log.syncing       who syncs
//	log.writing       who writes batches out and makes room
//	index.tree *      contents of directories
//	index.files *     changes of the lists of files
//	log.mu *          batches in memory
//
// Attributes, page tables in memory and the table of inodes are read without a
// lock.
//
// # The bucket
//
// With Options.Remote the layers of a timeline go to a blob store as they become
// immutable, and after them a manifest that lists them; the directory is then a
// cache, and one node among several that may hold a timeline. What the bucket
// has of a timeline is the timeline as it stood at one seq, never more and never
// less.
//
// # Maps
//
// What is visible at a seq is a function of the log before it. A map is that at
// one seq, written down, so that opening a volume reads the newest map and the
// log behind it. In memory a volume has its names and, for each 512 KiB of its
// files, where a map has the page table; tables come into memory as they are
// wanted and leave it again, but for those that changed since the last map. An
// idle timeline has nothing in memory.
//
// # Garbage
//
// Kept is what is visible from the head of a timeline, from the seqs at which
// others began in it, and from its marks inside the window. A collection marks
// all of that, page by page, and gives the rest back (collection).
//
// # Order
//
// Where much was written in random order, reading a file in order takes a read
// per page. A compaction writes such stretches anew into images, beside whoever
// reads and writes (compaction).
package pagestore
