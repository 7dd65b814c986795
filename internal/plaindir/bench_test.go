package plaindir

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// BenchmarkFork forks a directory of a thousand small files, as a new database
// has them, and one table of so many megabytes. TMPDIR says on what file system:
//
//	TMPDIR=/mnt/xfs go test -run - -bench Fork -benchtime 3x ./internal/plaindir
func BenchmarkFork(b *testing.B) {
	for _, mib := range []int{0, 100, 1000, 4000} {
		b.Run(fmt.Sprintf("%dMiB", mib), func(b *testing.B) {
			s, err := Open(b.Context(), filepath.Join(b.TempDir(), "s"), Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			b.Logf("reflink: %v", s.Reflink())
			if err := s.Create(b.Context(), id(1), Root{Mode: 0o700, UID: os.Geteuid(), GID: os.Getegid()}); err != nil {
				b.Fatal(err)
			}
			dir := s.path(id(1), "data", "base", "5")
			if err := os.MkdirAll(dir, 0o700); err != nil {
				b.Fatal(err)
			}
			for n := range 1000 {
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(n)), bytes.Repeat([]byte{1}, 32<<10), 0o600); err != nil {
					b.Fatal(err)
				}
			}
			table, err := os.Create(filepath.Join(dir, "table"))
			if err != nil {
				b.Fatal(err)
			}
			piece := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
			for range mib {
				if _, err := table.Write(piece); err != nil {
					b.Fatal(err)
				}
			}
			if err := table.Close(); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := s.Fork(b.Context(), id(1), id(2)); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := s.Delete(b.Context(), id(2)); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}
