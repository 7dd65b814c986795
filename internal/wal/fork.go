package wal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tarndb/tarn"
)

// Range is a stretch of WAL: bytes From to To of TLI, in segments of
// SegmentBytes.
type Range struct {
	TLI          uint32
	From, To     tarn.LSN
	SegmentBytes uint32
}

// segments lists the whole segments of the range, and the one that is cut with
// the number of its bytes that belong to the range; cut is 0 when the range
// ends on a boundary.
func (r Range) segments() (whole []Segment, last Segment, cut int64) {
	first := SegmentAt(r.TLI, r.From, r.SegmentBytes)
	last = SegmentAt(r.TLI, r.To, r.SegmentBytes)
	for no := first.No; no < last.No; no++ {
		whole = append(whole, Segment{TLI: r.TLI, No: no})
	}
	return whole, last, int64(uint64(r.To) % uint64(r.SegmentBytes))
}

// Fork puts the WAL of r into child's pg_wal, and not one byte behind r.To:
// Postgres replays all WAL it finds there before it looks at a target. The
// caller has pinned the pages before, and knows that everything up to r.To is
// on disk.
//
// The last segment is always copied: a hard link of a segment that the
// parent goes on writing would corrupt both. Those before it are links, also
// when the parent's checkpoint moved one to the archive a moment ago (find).
//
//  1. Make child's directories.
//  2. Link whole segments and histories, copy the last.
//  3. Sync child's directories. A crash before leaves a directory that nobody
//     published; the caller removes it and begins again.
func (l *Log) Fork(ctx context.Context, child *Log, r Range) error {
	if err := child.Create(); err != nil {
		return err
	}
	if err := l.collect(ctx, child, child.Dir(), r); err != nil {
		return fmt.Errorf("fork WAL %s to %s: %w", r.From, r.To, err)
	}
	if err := child.Sync(); err != nil {
		return fmt.Errorf("fork WAL %s to %s: %w", r.From, r.To, err)
	}
	return nil
}

// Restore makes child's restore directory from the WAL of r, for a replay by
// RestoreCommand. It lasts until DropRestore and need not survive a crash.
func (l *Log) Restore(ctx context.Context, child *Log, r Range) error {
	err := child.DropRestore()
	if err == nil {
		err = child.makeDir(child.restore())
	}
	if err == nil {
		err = l.collect(ctx, child, child.restore(), r)
	}
	if err != nil {
		return fmt.Errorf("gather WAL %s to %s for a replay: %w", r.From, r.To, err)
	}
	return nil
}

func (l *Log) collect(ctx context.Context, child *Log, dir string, r Range) error {
	if r.To < r.From || r.SegmentBytes == 0 {
		return fmt.Errorf("range %s to %s of segments of %d bytes is none", r.From, r.To, r.SegmentBytes)
	}
	if l.remote != nil {
		if err := l.remote.Fetch(ctx, l.id, l, r); err != nil {
			return err
		}
	}
	whole, last, cut := r.segments()
	for _, s := range whole {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := l.link(s.Name(r.SegmentBytes), dir); err != nil {
			return err
		}
	}
	if cut > 0 {
		name := last.Name(r.SegmentBytes)
		if err := l.copyFound(child, name, filepath.Join(dir, name), cut, r.SegmentBytes); err != nil {
			return err
		}
	}
	return l.linkHistories(dir)
}

// link links a finished segment into dir, wherever it is now.
func (l *Log) link(name, dir string) error {
	path, err := l.find(name)
	if err != nil {
		return err
	}
	err = linkOver(path, filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		// It left pg_wal between the look and the link: it is in the archive.
		err = linkOver(filepath.Join(l.archive(), name), filepath.Join(dir, name))
	}
	return err
}

func (l *Log) copyFound(child *Log, name, dst string, n int64, size uint32) error {
	path, err := l.find(name)
	if err != nil {
		return err
	}
	err = child.copyHead(path, dst, n, size)
	if errors.Is(err, fs.ErrNotExist) {
		err = child.copyHead(filepath.Join(l.archive(), name), dst, n, size)
	}
	return err
}

// linkHistories links every history of a TLI: they are written once.
func (l *Log) linkHistories(dir string) error {
	for _, from := range [...]string{l.Dir(), l.archive()} {
		entries, err := os.ReadDir(from)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if !isHistory(e.Name()) {
				continue
			}
			if err := linkOver(filepath.Join(from, e.Name()), filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// linkOver links src as dst; a dst that is there already is the same file by
// construction and stays.
func linkOver(src, dst string) error {
	if err := os.Link(src, dst); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}
