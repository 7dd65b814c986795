// Package compute is the fleet of one computer: the computes of its endpoints
// and the timelines they serve. It wakes, watches, marks, restarts and suspends
// computes, and makes timelines from templates, from running or stopped parents
// and from any past time or LSN of one. It knows two kinds of storage (the
// page store with its mounts, and plain directories), Postgres processes and
// WAL files, and how they fit together so that a branch is always one Postgres
// can recover. It knows nothing of projects, endpoints' names, roles of users or
// who may do what: control says what is wanted.
//
// # The data directory
//
//	volumes.json           what kind of volumes it has (VolumeKind)
//	store/                 the page store, or
//	plain/                 the plain directories (package plaindir)
//	timelines/<id>.json    a complete timeline; the last thing written of it
//	timelines/<id>.gone    one that is deleted, its record in the object store is not
//	wal/<id>/              its WAL (package wal)
//	wal-abandoned/<id>     a timeline that is gone, its copy in the object store is not
//	mnt/<name>/            where a volume is mounted while Postgres uses it; a
//	                       link to it where it is a plain directory
//	run/<name>/            its socket, mode 0700; run/<name>.pid its postmaster
//	log/<name>.log         what Postgres says
//
// A name is an endpoint's UID, or "_" and a timeline's id where Postgres runs
// for the fleet itself. Nothing in mnt and run outlives the process: after a
// crash Open kills what it finds there, and the storage and Postgres recover
// when the endpoint is woken next. A process may execute its program anew under
// running computes, though: see Handed.
//
// # The object store
//
// With Options.Remote WAL is copied a second behind: by the compute that writes
// it (copying), for timelines at rest by the copier. What was copied may leave
// this computer, and on another one it is what a timeline comes back from,
// behind pages that are as old or older (rebuild). So pages leave this computer
// only after the WAL that covers them (atRest.follow). Records are copied
// too, and fill an empty directory; a timeline that then is in the object store
// only is away until somebody wants it, or the copier comes by.
//
// Another computer may take a timeline when this one was silent for a lease. A
// compute that is overtaken ends at once (engine.overtaken), and what it wrote
// meanwhile counts nowhere: the epoch of the lease orders manifests and runs of
// WAL.
//
// # Marks
//
// A mark's fields are read in this order, S before L before T, because pages
// only reach the volume after the WAL that changed them was flushed: every page
// before S carries an LSN of at most L. Where S is a copy of a plain directory,
// which takes a while, L is read when the copy is complete.
package compute
