package wal

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/tarndb/tarn"
)

// The commands Postgres runs in its data directory, where pg_wal is a symbolic
// link to Dir: "pg_wal/.." is therefore the timeline's own directory. So the
// text is fixed and no path of ours needs quoting for a shell.
//
// Archiving is a hard link. It succeeds again when it is retried after a crash
// that lost the answer, and fails when another file has that name. The link
// needs no sync of its own: Postgres then renames its .done file durably,
// and a journaling file system does not keep the later of two names in one tree
// while losing the earlier. Restoring is a link too: Postgres reads restored
// segments and writes only into those of the TLI it begins.
const (
	ArchiveCommand = `test "pg_wal/../archive/%f" -ef "%p" || ln "%p" "pg_wal/../archive/%f"`
	RestoreCommand = `test -e "pg_wal/../restore/%f" && ln "pg_wal/../restore/%f" "%p"`
)

// Owner is the OS user who owns the files: the one Postgres runs as.
type Owner struct{ UID, GID int }

// Log is the WAL of one timeline on this computer.
type Log struct {
	dir    string
	owner  *Owner
	remote *Remote // what holds trimmed segments; nil without one
	id     tarn.TimelineID
}

// New names the WAL kept in dir, an absolute path; it does no I/O. A nil owner
// means ourselves.
func New(dir string, owner *Owner) *Log { return &Log{dir: dir, owner: owner} }

// Backed is the log with a Remote behind it, which holds it as timeline id: Fork
// and Restore fetch the segments that were trimmed here. A nil Remote is none.
func (l *Log) Backed(r *Remote, id tarn.TimelineID) *Log {
	b := *l
	b.remote, b.id = r, id
	return &b
}

// Dir is the directory Postgres writes, for its pg_wal to point to.
func (l *Log) Dir() string { return filepath.Join(l.dir, "pg_wal") }

func (l *Log) archive() string { return filepath.Join(l.dir, "archive") }
func (l *Log) restore() string { return filepath.Join(l.dir, "restore") }

// Create makes the empty directories; existing ones stay.
func (l *Log) Create() error {
	// The timeline's own directory is ours; Postgres only passes through.
	if err := os.MkdirAll(l.dir, 0o755); err != nil {
		return fmt.Errorf("create WAL directory: %w", err)
	}
	for _, dir := range [...]string{l.Dir(), filepath.Join(l.Dir(), "archive_status"), l.archive()} {
		if err := l.makeDir(dir); err != nil {
			return fmt.Errorf("create WAL directory: %w", err)
		}
	}
	return nil
}

// CreateBare makes the directories for initdb, which wants pg_wal empty.
func (l *Log) CreateBare() error {
	if err := os.MkdirAll(l.dir, 0o755); err != nil {
		return fmt.Errorf("create WAL directory: %w", err)
	}
	for _, dir := range [...]string{l.Dir(), l.archive()} {
		if err := l.makeDir(dir); err != nil {
			return fmt.Errorf("create WAL directory: %w", err)
		}
	}
	return nil
}

func (l *Log) makeDir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if l.owner == nil {
		return nil
	}
	return os.Chown(dir, l.owner.UID, l.owner.GID)
}

// Sync makes the names of the files durable, up to the timeline's own directory.
// What is in the files Postgres or Fork has synced.
func (l *Log) Sync() error {
	for _, dir := range [...]string{l.Dir(), l.dir, filepath.Dir(l.dir)} {
		if err := syncDir(dir); err != nil {
			return fmt.Errorf("sync WAL directory: %w", err)
		}
	}
	return nil
}

// Remove deletes everything. Children have links of their own.
func (l *Log) Remove() error {
	if err := os.RemoveAll(l.dir); err != nil {
		return fmt.Errorf("remove WAL directory: %w", err)
	}
	return nil
}

// DropRestore removes what Restore put together; nothing there is success.
func (l *Log) DropRestore() error {
	if err := os.RemoveAll(l.restore()); err != nil {
		return fmt.Errorf("remove restored WAL: %w", err)
	}
	return nil
}

// find opens a segment where it is now. Postgres removes a segment from pg_wal
// only after it was archived, so whoever looks in pg_wal first and in the
// archive second always finds it.
func (l *Log) find(name string) (string, error) {
	for _, dir := range [...]string{l.Dir(), l.archive()} {
		path := filepath.Join(dir, name)
		_, err := os.Lstat(path)
		if err == nil {
			return path, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return "", tarn.NotFound("WAL segment %s is neither in pg_wal nor in the archive of %s", name, l.dir)
}

// RecordEnd is where the record that begins at lsn ends.
func (l *Log) RecordEnd(tli uint32, lsn tarn.LSN, size uint32) (tarn.LSN, error) {
	path, err := l.find(SegmentAt(tli, lsn, size).Name(size))
	if err != nil {
		return 0, fmt.Errorf("read WAL record at %s: %w", lsn, err)
	}
	f, err := os.Open(path)
	if err != nil {
		return 0, fmt.Errorf("read WAL record at %s: %w", lsn, err)
	}
	defer f.Close()
	// xl_tot_len comes first and, aligned to 8, never crosses a page.
	var b [4]byte
	if _, err := f.ReadAt(b[:], int64(uint64(lsn)%uint64(size))); err != nil {
		return 0, fmt.Errorf("read WAL record at %s: %w", lsn, err)
	}
	n := binary.LittleEndian.Uint32(b[:])
	const most = 1 << 30
	if n < minRecordBytes || n > most {
		return 0, fmt.Errorf("read WAL record at %s in %s: expected a length of %d to %d, found %d", lsn, path, minRecordBytes, most, n)
	}
	return RecordEnd(lsn, n, size), nil
}

// Prune removes archived segments that end at or before keep and were finished
// before old. It returns how many.
func (l *Log) Prune(ctx context.Context, keep tarn.LSN, size uint32, old time.Time) (int, error) {
	names, err := l.agedSegments(size, old)
	if err != nil {
		return 0, fmt.Errorf("prune WAL archive: %w", err)
	}
	n := 0
	for _, s := range names {
		if ctx.Err() != nil {
			return n, context.Cause(ctx)
		}
		if s.End(size) > keep {
			continue
		}
		if err := os.Remove(filepath.Join(l.archive(), s.Name(size))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return n, fmt.Errorf("prune WAL archive: %w", err)
		}
		n++
	}
	return n, nil
}

// HasAged tells whether the archive holds a segment finished before old: only
// then is it worth finding out what may go.
func (l *Log) HasAged(size uint32, old time.Time) (bool, error) {
	aged, err := l.agedSegments(size, old)
	return len(aged) > 0, err
}

func (l *Log) agedSegments(size uint32, old time.Time) ([]Segment, error) {
	entries, err := os.ReadDir(l.archive())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var aged []Segment
	for _, e := range entries {
		s, ok := ParseSegment(e.Name(), size)
		if !ok {
			continue
		}
		st, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if st.ModTime().Before(old) {
			aged = append(aged, s)
		}
	}
	slices.SortFunc(aged, func(a, b Segment) int { return cmp.Compare(a.No, b.No) })
	return aged, nil
}

// copyHead makes dst a segment of size bytes that holds the first n bytes of
// src and zeros after them, which take no room.
func (l *Log) copyHead(src, dst string, n int64, size uint32) (err error) {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if l.owner != nil {
		if err := out.Chown(l.owner.UID, l.owner.GID); err != nil {
			return err
		}
	}
	if _, err := io.CopyN(out, in, n); err != nil {
		return fmt.Errorf("copy %d bytes of %s: %w", n, src, err)
	}
	if err := out.Truncate(int64(size)); err != nil {
		return err
	}
	return out.Sync()
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
