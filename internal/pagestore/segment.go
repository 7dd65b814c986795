package pagestore

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/tarndb/tarn/internal/layer"
)

// segment is one file of a log. Indexes and the log hold it; it is opened at
// the first use and closed when the last of them lets go.
type segment struct {
	files  fileSystem
	path   string
	number uint32

	opened atomic.Pointer[openFile]

	mu   sync.Mutex // guards refs and the opening; held while the file is opened, never by a read of an open one
	refs int
}

type openFile struct{ file }

func segmentName(number uint32) string { return fmt.Sprintf("log-%08d", number) }

// segmentNumber is the inverse of segmentName; 0 for other files.
func segmentNumber(name string) uint32 {
	digits, ok := strings.CutPrefix(name, "log-")
	if !ok || len(digits) != 8 {
		return 0
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}

func newSegment(files fileSystem, dir string, number uint32) *segment {
	return &segment{files: files, path: filepath.Join(dir, segmentName(number)), number: number}
}

func (s *segment) retain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refs++
}

func (s *segment) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refs--; s.refs > 0 {
		return
	}
	if f := s.opened.Swap(nil); f != nil {
		f.Close() // everything worth keeping was synced
	}
}

func (s *segment) open() (file, error) {
	if f := s.opened.Load(); f != nil {
		return f, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.opened.Load(); f != nil {
		return f, nil
	}
	f, err := s.files.Open(s.path, openExisting)
	if err != nil {
		return nil, err
	}
	s.opened.Store(&openFile{f})
	return f, nil
}

// create makes the file with its header, durable with its name.
func (s *segment) create(h layer.Header) error {
	b, err := h.Encode()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f, err := s.files.Open(s.path, createNew)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(b, 0); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = s.files.SyncDir(filepath.Dir(s.path))
	}
	if err != nil {
		f.Close()
		// Left behind it would be replaced by the next attempt, or be dropped
		// at the next opening.
		s.files.Remove(s.path)
		return err
	}
	s.opened.Store(&openFile{f})
	return nil
}
