package pagestore

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/tarndb/tarn/internal/layer"
)

// segment is one file of a timeline: of its log, a map or an image. Indexes and
// the log hold it; it is opened at the first use and closed when the last of
// them lets go.
type segment struct {
	files fileSystem
	path  string
	id    layer.FileID

	opened atomic.Pointer[openFile]

	mu   sync.Mutex // guards refs and the opening; held while the file is opened, never by a read of an open one
	refs int
}

type openFile struct{ file }

// errNoFile says that a place names a file that its index does not have.
var errNoFile = errors.New("no such file of the timeline")

func prefix(k layer.FileKind) string {
	switch k {
	case layer.FileLog:
		return "log-"
	case layer.FileMap:
		return "map-"
	case layer.FileImage:
		return "img-"
	}
	panic(fmt.Sprintf("pagestore: name a file of kind %d", k))
}

func fileName(k layer.FileKind, number uint32) string {
	return fmt.Sprintf("%s%08d", prefix(k), number)
}

// fileNumber is the inverse of fileName; 0 for other files.
func fileNumber(k layer.FileKind, name string) uint32 {
	digits, ok := strings.CutPrefix(name, prefix(k))
	if !ok || len(digits) != 8 {
		return 0
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}

// newSegment names a file; timelines is the directory of all timelines.
func newSegment(files fileSystem, timelines string, id layer.FileID) *segment {
	return &segment{files: files, path: filepath.Join(timelines, string(id.Timeline), fileName(id.Kind, id.Number)), id: id}
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

// create makes the file with what it begins with, durable with its name.
func (s *segment) create(first []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, err := s.files.Open(s.path, createNew)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(first, 0); err == nil {
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
