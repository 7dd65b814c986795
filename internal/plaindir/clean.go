package plaindir

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
)

// Suffixes of directories that are not there yet or no more.
const (
	making  = ".making"
	deleted = ".deleted"
)

// discard removes what a crash or a failure left.
func discard(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	return nil
}

// setAside makes a directory count as removed, durably, and then removes it.
//
//  1. Rename it to <name>.deleted, synced.   crash: either; then clean goes on
//  2. Remove its files and itself.           crash: clean goes on
//
// The error is of step 1 only; what step 2 leaves goes at the next Open.
func setAside(dir string, log *slog.Logger) error {
	aside := dir + deleted
	if err := discard(aside); err != nil {
		return err
	}
	if err := os.Rename(dir, aside); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(dir)); err != nil {
		return errors.Join(err, os.Rename(aside, dir))
	}
	if err := discard(aside); err != nil {
		log.Warn("what was deleted is not removed yet", "path", aside, "err", err)
	}
	return nil
}

// settleName gives a made directory its name, durably.
func settleName(dir string) error {
	if err := os.Rename(dir+making, dir); err != nil {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

// unfinished tells whether a name is that of something half made or half
// removed.
func unfinished(name string) bool {
	return strings.HasSuffix(name, making) || strings.HasSuffix(name, deleted)
}

// cleanBases removes the bases that the manifest does not name.
func cleanBases(dir string, m *manifest) error {
	entries, err := os.ReadDir(filepath.Join(dir, "bases"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		var seq tarn.Seq
		if _, err := fmt.Sscanf(e.Name(), "%d", &seq); err == nil && e.Name() == seqName(seq) && m.hasBase(seq) {
			continue
		}
		if err := discard(filepath.Join(dir, "bases", e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func seqName(seq tarn.Seq) string { return fmt.Sprintf("%d", uint64(seq)) }

// diskUsage is what the files below dir take, shared extents included.
func diskUsage(dir string) (int64, error) {
	var sum int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return gone(err)
		}
		info, err := d.Info()
		if err != nil {
			return gone(err)
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			sum += st.Blocks * 512
		}
		return nil
	})
	return sum, err
}

// usage is the space of the file system, in bytes.
func usage(dir string) (total, free int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, err
	}
	return int64(st.Blocks) * st.Bsize, int64(st.Bavail) * st.Bsize, nil
}

// checkSpace refuses a copy that could only fill the disk: the Postgres
// processes that write there would stop before it is noticed.
func checkSpace(dir string, need int64) error {
	total, free, err := usage(dir)
	if err != nil {
		return err
	}
	if free-need < total/50 {
		return tarn.Unavailable("a copy needs %d MiB, and %d MiB are free: %w", need>>20, free>>20, unix.ENOSPC).
			WithHint("delete branches, or put the data directory on a file system with reflinks (xfs, btrfs)")
	}
	return nil
}
