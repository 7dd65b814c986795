package wal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tarndb/tarn"
)

// open opens a segment where it is now.
func (l *Log) open(name string) (*os.File, error) {
	path, err := l.find(name)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		// It left pg_wal between the look and the opening: it is in the archive.
		f, err = os.Open(filepath.Join(l.archive(), name))
	}
	return f, err
}

// read reads from..to, which lie in one segment.
func (l *Log) read(tli uint32, from, to tarn.LSN, size uint32) (b []byte, err error) {
	s := SegmentAt(tli, from, size)
	f, err := l.open(s.Name(size))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b = make([]byte, to-from)
	if _, err := io.ReadFull(io.NewSectionReader(f, int64(from-s.Start(size)), int64(len(b))), b); err != nil {
		return nil, fmt.Errorf("read %s at byte %d: %w", f.Name(), from-s.Start(size), err)
	}
	return b, nil
}

// oldest is the first position from which this computer has all WAL up to end.
func (l *Log) oldest(tli uint32, end tarn.LSN, size uint32) (tarn.LSN, error) {
	have, err := l.segments(size)
	if err != nil {
		return 0, err
	}
	if end == 0 {
		return 0, tarn.Invalid("WAL of %s: nothing was flushed", l.dir)
	}
	last := SegmentAt(tli, end-1, size)
	if !have[last] {
		return 0, tarn.NotFound("WAL segment %s is neither in pg_wal nor in the archive of %s", last.Name(size), l.dir)
	}
	for last.No > 0 && have[Segment{TLI: tli, No: last.No - 1}] {
		last.No--
	}
	return last.Start(size), nil
}

// segments are those in pg_wal and the archive.
func (l *Log) segments(size uint32) (map[Segment]bool, error) {
	have := map[Segment]bool{}
	// In this order: see find.
	for _, dir := range [...]string{l.Dir(), l.archive()} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if s, ok := ParseSegment(e.Name(), size); ok {
				have[s] = true
			}
		}
	}
	return have, nil
}

// histories are the histories of TLIs, by name.
func (l *Log) histories() (map[string][]byte, error) {
	all := map[string][]byte{}
	for _, dir := range [...]string{l.Dir(), l.archive()} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if !isHistory(e.Name()) || all[e.Name()] != nil {
				continue
			}
			b, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if errors.Is(err, fs.ErrNotExist) {
				continue // it is in the archive
			}
			if err != nil {
				return nil, err
			}
			all[e.Name()] = b
		}
	}
	return all, nil
}
