package pagestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/tarndb/tarn/internal/layer"
)

// reread reads a page that is damaged from the bucket and repairs the copy.
func (c *contents) reread(ref pageRef, p []byte, bad error) error {
	seg := c.ix.segment(ref.place())
	if seg == nil {
		return bad
	}
	f, err := seg.open()
	if err != nil {
		return errors.Join(bad, err)
	}
	off := int64(ref.place().block()) * layer.BlockSize
	return reread(f, p[:layer.PageSize], off, bad, func() error {
		return checkPages(seg.path, off, p, []uint32{ref.crc()})
	})
}

// rangeAt is a range of a file in memory.
type rangeAt struct {
	b   []byte
	off int64
}

func (r rangeAt) ReadAt(p []byte, off int64) (int, error) {
	if off < r.off || off > r.off+int64(len(r.b)) {
		return 0, io.EOF
	}
	n := copy(p, r.b[off-r.off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

const mendBytes = 1 << 20

// mended calls do again when it found a damaged layer and the bucket has
// another copy that differs, which then takes its place.
func (s *shelf) mended(do func() error) error {
	for {
		err := do()
		var bad *layer.CorruptError
		if s.remote == nil || !errors.As(err, &bad) {
			return err
		}
		changed, e := s.remote.files.mend(bad)
		if e != nil {
			return errors.Join(err, e)
		}
		if !changed {
			return err
		}
	}
}

// mend compares what stands at a damaged place with the bucket, and puts that
// in its place. It reports whether anything differed.
func (l *layeredFiles) mend(bad *layer.CorruptError) (bool, error) {
	ref, ok := l.find(bad.File)
	if !ok || bad.Offset >= ref.bytes {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), remoteTimeout)
	defer cancel()
	off := bad.Offset / layer.BlockSize * layer.BlockSize
	good, err := l.direct(ctx, ref, off, min(mendBytes, ref.bytes-off))
	if err != nil {
		return false, err
	}
	f, err := l.Open(bad.File, openExisting)
	if err != nil {
		return false, err
	}
	defer f.Close()
	have := make([]byte, len(good))
	if n, err := f.ReadAt(have, off); n < len(have) && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("read %s at byte %d: %w", bad.File, off, err)
	}
	changed := false
	for at := 0; at < len(good); at += layer.BlockSize {
		end := min(at+layer.BlockSize, len(good))
		if bytes.Equal(good[at:end], have[at:end]) {
			continue
		}
		if lf := f.(*layeredFile); !lf.isLocal() {
			l.invalidate(ctx, ref, off+int64(at), int64(end-at))
		} else if _, err := f.WriteAt(good[at:end], off+int64(at)); err != nil {
			return false, fmt.Errorf("repair %s at byte %d: %w", bad.File, off+int64(at), err)
		}
		changed = true
	}
	if changed {
		l.slog.Warn("layer repaired from the bucket", "path", bad.File, "count", len(good))
	}
	return changed, nil
}

func (f *layeredFile) isLocal() bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.local != nil
}
