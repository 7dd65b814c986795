package wal

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tarndb/tarn"
)

const mib = 1 << 20 // the smallest segment size keeps tests light

func newLog(t *testing.T, dir string) *Log {
	t.Helper()
	l := New(dir, nil)
	if err := l.Create(); err != nil {
		t.Fatal(err)
	}
	return l
}

func segment(no uint64) string { return Segment{TLI: 1, No: no}.Name(mib) }

func writeSegment(t *testing.T, dir string, no uint64) []byte {
	t.Helper()
	b := bytes.Repeat([]byte{byte(no), 0xA5}, mib/2)
	if err := os.WriteFile(filepath.Join(dir, segment(no)), b, 0o600); err != nil {
		t.Fatal(err)
	}
	return b
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return st.Sys().(*syscall.Stat_t).Ino
}

func TestForkLinksFinishedAndCopiesTheLast(t *testing.T) {
	root := t.TempDir()
	parent := newLog(t, filepath.Join(root, "parent"))
	child := New(filepath.Join(root, "child"), nil)
	// 3 is only in the archive already, 4 in both, 5 being written, 6 ahead.
	writeSegment(t, parent.archive(), 3)
	writeSegment(t, parent.Dir(), 4)
	if err := os.Link(filepath.Join(parent.Dir(), segment(4)), filepath.Join(parent.archive(), segment(4))); err != nil {
		t.Fatal(err)
	}
	five := writeSegment(t, parent.Dir(), 5)
	writeSegment(t, parent.Dir(), 6)
	history := filepath.Join(parent.archive(), "00000002.history")
	if err := os.WriteFile(history, []byte("1\t0/3000000\tno\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := Range{TLI: 1, From: 3*mib + 77, To: 5*mib + 1000, SegmentBytes: mib}
	if err := parent.Fork(t.Context(), child, r); err != nil {
		t.Fatal(err)
	}
	for no, dir := range map[uint64]string{3: parent.archive(), 4: parent.Dir()} {
		if inode(t, filepath.Join(dir, segment(no))) != inode(t, filepath.Join(child.Dir(), segment(no))) {
			t.Errorf("segment %d is not shared", no)
		}
	}
	if inode(t, filepath.Join(parent.Dir(), segment(5))) == inode(t, filepath.Join(child.Dir(), segment(5))) {
		t.Error("the segment being written is shared")
	}
	want := append(bytes.Clone(five[:1000]), make([]byte, mib-1000)...)
	if got, err := os.ReadFile(filepath.Join(child.Dir(), segment(5))); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the last segment is not the first 1000 bytes and zeros: %v", err)
	}
	if st, err := os.Stat(filepath.Join(child.Dir(), segment(5))); err != nil || st.Sys().(*syscall.Stat_t).Blocks*512 > 64<<10 {
		t.Errorf("the zeros take room on disk: %v", err)
	}
	if _, err := os.Stat(filepath.Join(child.Dir(), segment(6))); err == nil {
		t.Error("a segment behind the range came along")
	}
	if _, err := os.Stat(filepath.Join(child.Dir(), "00000002.history")); err != nil {
		t.Error(err)
	}

	// Ending on a boundary: nothing is cut, nothing follows.
	edge := New(filepath.Join(root, "edge"), nil)
	if err := parent.Fork(t.Context(), edge, Range{TLI: 1, From: 4 * mib, To: 5 * mib, SegmentBytes: mib}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(edge.Dir(), segment(5))); err == nil {
		t.Error("a range that ends on a boundary took the segment behind it")
	}

	// A hole is an error, not a child that ends early.
	err := parent.Fork(t.Context(), New(filepath.Join(root, "hole"), nil), Range{TLI: 1, From: 2 * mib, To: 5 * mib, SegmentBytes: mib})
	if tarn.KindOf(err) != tarn.KindNotFound || !strings.Contains(err.Error(), segment(2)) {
		t.Errorf("a fork over a missing segment: %v", err)
	}
}

func TestRestoreHoldsWhatTheArchiveAndPgWALHave(t *testing.T) {
	root := t.TempDir()
	parent, child := newLog(t, filepath.Join(root, "p")), newLog(t, filepath.Join(root, "c"))
	writeSegment(t, parent.archive(), 3)
	writeSegment(t, parent.Dir(), 4)
	r := Range{TLI: 1, From: 3 * mib, To: 4*mib + 8, SegmentBytes: mib}
	for range 2 { // again after a crash
		if err := parent.Restore(t.Context(), child, r); err != nil {
			t.Fatal(err)
		}
	}
	for _, no := range []uint64{3, 4} {
		dst := filepath.Join(root, "got")
		if err := runCommand(t, child, RestoreCommand, segment(no), dst); err != nil {
			t.Errorf("restore segment %d: %v", no, err)
		}
		os.Remove(dst)
	}
	if err := runCommand(t, child, RestoreCommand, segment(5), filepath.Join(root, "got")); err == nil {
		t.Error("restoring a segment that is not there succeeded")
	}
	if err := child.DropRestore(); err != nil {
		t.Fatal(err)
	}
	if err := child.DropRestore(); err != nil {
		t.Fatal(err)
	}
}

func TestArchiveCommandIsIdempotentAndNeverOverwrites(t *testing.T) {
	l := newLog(t, filepath.Join(t.TempDir(), "it's a $HOME \"dir\""))
	writeSegment(t, l.Dir(), 1)
	for range 2 {
		if err := runCommand(t, l, ArchiveCommand, segment(1), "pg_wal/"+segment(1)); err != nil {
			t.Fatal(err)
		}
	}
	if inode(t, filepath.Join(l.Dir(), segment(1))) != inode(t, filepath.Join(l.archive(), segment(1))) {
		t.Error("not archived by link")
	}
	kept := writeSegment(t, l.archive(), 2)
	if err := os.WriteFile(filepath.Join(l.Dir(), segment(2)), []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := runCommand(t, l, ArchiveCommand, segment(2), "pg_wal/"+segment(2)); err == nil {
		t.Error("archiving over another file succeeded")
	}
	if got, err := os.ReadFile(filepath.Join(l.archive(), segment(2))); err != nil || !bytes.Equal(got, kept) {
		t.Error("the archived segment changed")
	}
}

// runCommand does what Postgres does: it works in a data directory whose pg_wal
// points to l, and replaces %f and %p.
func runCommand(t *testing.T, l *Log, command, f, p string) error {
	t.Helper()
	data := t.TempDir()
	if err := os.Symlink(l.Dir(), filepath.Join(data, "pg_wal")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-c", strings.NewReplacer("%f", f, "%p", p).Replace(command))
	cmd.Dir = data
	return cmd.Run()
}

func TestPruneKeepsTheYoungAndTheNeeded(t *testing.T) {
	l := newLog(t, filepath.Join(t.TempDir(), "l"))
	now := time.Now()
	for no := uint64(1); no <= 4; no++ {
		writeSegment(t, l.archive(), no)
		age := 8 * 24 * time.Hour
		if no == 2 {
			age = time.Hour
		}
		if err := os.Chtimes(filepath.Join(l.archive(), segment(no)), now, now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	old := now.Add(-7 * 24 * time.Hour)
	if aged, err := l.HasAged(mib, old); err != nil || !aged {
		t.Fatalf("aged: %v, %v", aged, err)
	}
	n, err := l.Prune(t.Context(), 4*mib+5, mib, old)
	if err != nil || n != 2 { // 1 and 3; 2 is young, 4 is needed from its fifth byte on
		t.Fatalf("pruned %d, %v", n, err)
	}
	for no, want := range map[uint64]bool{1: false, 2: true, 3: false, 4: true} {
		if _, err := os.Stat(filepath.Join(l.archive(), segment(no))); (err == nil) != want {
			t.Errorf("segment %d: kept %v, want %v", no, err == nil, want)
		}
	}
}
