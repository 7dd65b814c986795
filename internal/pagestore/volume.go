package pagestore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
)

// Volume is the writable head of a timeline: the file operations that a mount
// needs. Its methods may be called by many at once. Errors of file operations
// unwrap to a syscall.Errno.
type Volume struct {
	store *Store
	of    *timeline
	ix    *index
	log   *log

	contents contents // over the same index and log

	freeze sync.RWMutex // shared by whoever changes something, exclusive for pin and close
	names  sync.Mutex   // order of changes of names
	closed atomic.Bool  // set under freeze
	held   []layer.Ino  // without a name, but to be there at the next opening

	// swept is the head of the last collection: marks name later seqs. Changes
	// under freeze.
	swept   atomic.Uint64
	mapping sync.Mutex // one map at a time; held while it is written

	loss // of the timeline to another node
}

// fileError says what a file operation was doing.
type fileError struct {
	op   string
	ino  layer.Ino
	name string // may be empty
	err  error
}

func (e *fileError) Error() string {
	if e.name == "" {
		return fmt.Sprintf("%s inode %d: %v", e.op, e.ino, e.err)
	}
	return fmt.Sprintf("%s %q in directory %d: %v", e.op, e.name, e.ino, e.err)
}

func (e *fileError) Unwrap() error { return e.err }

// Head is the seq of the next record: everything written so far stands before
// it.
func (v *Volume) Head() tarn.Seq { return tarn.Seq(v.log.appended.Load()) }

// Mark appends m as a record and makes it durable. m.Seq is a past seq of the
// timeline; KindConflict when what stood there has been collected since, and
// the caller reads seq and LSN again.
func (v *Volume) Mark(ctx context.Context, m tarn.Mark) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("mark timeline %s: %w", v.of.id, context.Cause(ctx))
	}
	if head := v.Head(); m.Seq > head {
		return tarn.Invalid("mark timeline %s at seq %d: it has %d records", v.of.id, m.Seq, head)
	}
	if err := v.appendMark(m); err != nil {
		return fmt.Errorf("mark timeline %s: %w", v.of.id, err)
	}
	if err := v.log.sync(); err != nil {
		return fmt.Errorf("mark timeline %s: %w", v.of.id, err)
	}
	return nil
}

func (v *Volume) appendMark(m tarn.Mark) error {
	if err := v.enter(); err != nil {
		return err
	}
	defer v.freeze.RUnlock()
	if swept := tarn.Seq(v.swept.Load()); m.Seq < swept {
		return tarn.Conflict("seq %d is not kept any more, only those from %d on", m.Seq, swept)
	}
	v.names.Lock()
	defer v.names.Unlock()
	r := layer.Record{Kind: layer.KindMark, MarkSeq: uint64(m.Seq), MarkLSN: uint64(m.LSN), Time: int64(nanos(m.Time))}
	return v.commit(&r)
}

// marks gives a copy of the retained marks.
func (v *Volume) marks() []tarn.Mark {
	v.names.Lock()
	defer v.names.Unlock()
	return append([]tarn.Mark(nil), v.ix.marks...)
}

// Sync makes everything before it durable.
func (v *Volume) Sync() error {
	if v.closed.Load() {
		return fmt.Errorf("sync timeline %s: %w", v.of.id, errClosed)
	}
	err := v.log.sync()
	if err == nil {
		err = v.store.remote.mayWrite(v) // what is durable here counts only while the timeline is ours
	}
	if err != nil {
		return fmt.Errorf("sync timeline %s: %w", v.of.id, err)
	}
	return nil
}

// Usage gives the bytes of the file system the store stands on.
func (v *Volume) Usage() (total, free uint64, err error) {
	if total, free, err = v.store.files.Usage(v.store.dir); err != nil {
		return 0, 0, fmt.Errorf("usage of timeline %s: %w", v.of.id, err)
	}
	return total, free, nil
}

// Forget says that the kernel holds no reference to a file any more: one
// without a name goes.
func (v *Volume) Forget(ino layer.Ino) {
	v.names.Lock() // a name can neither come nor go meanwhile
	defer v.names.Unlock()
	if n := v.ix.inodes.get(ino); n != nil && n.nlink.Load() == 0 {
		v.ix.inodes.remove(ino)
	}
}

// Hold says that the files in held stay at Close although they have no name: the
// kernel has them open, and ReopenVolume is to have them too. It is called when
// nothing else is done to the volume any more.
func (v *Volume) Hold(held []layer.Ino) { v.held = held }

// Close makes everything durable and ends the volume. When the disk is full the volume stays open
// and Close can be tried again. Closing twice is no error.
func (v *Volume) Close() error { return v.store.closeVolume(v) }

var errClosed = fmt.Errorf("%w: volume is closed", syscall.EIO)

// enter begins an operation that changes something; freeze.RUnlock ends it.
func (v *Volume) enter() error {
	if err := v.store.remote.mayWrite(v); err != nil {
		return err
	}
	v.freeze.RLock()
	if v.closed.Load() {
		v.freeze.RUnlock()
		return errClosed
	}
	return nil
}

// commit appends a record and makes it visible. The caller has checked that
// it can be applied and keeps the order of what it concerns.
func (v *Volume) commit(r *layer.Record) error {
	if _, err := v.log.append(nil, r); err != nil {
		return err
	}
	if err := v.ix.apply(r, 0); err != nil {
		panic("pagestore: a checked record does not apply: " + err.Error())
	}
	return nil
}

// pin copies the index as it stands at one seq.
func (v *Volume) pin() (*index, error) {
	v.freeze.Lock()
	defer v.freeze.Unlock()
	if v.closed.Load() {
		return nil, errClosed
	}
	v.ix.seq = v.Head()
	return v.ix.clone(), nil
}

// purpose says what a snapshot is for.
type purpose uint8

const (
	forMap    purpose = iota
	sweptHere         // a collection: marks name no earlier seq any more
)

// snapshot copies all of the index as it stands at the end of a batch, and says
// where the log goes on.
func (v *Volume) snapshot(p purpose) (*index, position, error) {
	v.freeze.Lock()
	defer v.freeze.Unlock()
	if v.closed.Load() {
		return nil, position{}, errClosed
	}
	at := v.log.endBatch()
	v.ix.seq = v.Head()
	if p == sweptHere {
		v.swept.Store(uint64(v.ix.seq))
	}
	return v.ix.snapshot(), at, nil
}

// shut stops every change, makes what there is durable and says where the log
// ends. It fails with ENOSPC and the volume goes on, or with EIO and it does
// not.
func (v *Volume) shut() (end, error) {
	v.freeze.Lock()
	defer v.freeze.Unlock()
	if v.closed.Load() {
		return end{}, errClosed
	}
	err := v.log.sync()
	if err != nil && !errors.Is(err, syscall.EIO) {
		return end{}, err
	}
	v.closed.Store(true)
	if err != nil {
		return end{}, err
	}
	v.ix.seq = v.Head()
	v.ix.keep = dropOrphans
	v.ix.dropNameless(v.held...)
	return v.log.finish()
}
