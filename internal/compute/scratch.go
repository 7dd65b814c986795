package compute

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn/internal/layer"
	"github.com/tarndb/tarn/internal/volumefs"
)

// scratchDirs are directories of a data directory whose files mean nothing to
// any other start of Postgres, crash or not. But for the first they are those
// that pg_basebackup copies empty, and replaces links of
// (backup/basebackup.c, excludeDirContents).
var scratchDirs = [...]string{
	"base/pgsql_tmp", // what a sort or a hash join spills; made when it is first needed, and emptied by every start
	"pg_subtrans",    // parents of subtransactions in progress: zeroed by every start (StartupSUBTRANS), which learns those of prepared ones anew
	"pg_notify",      // notifications for sessions that are connected: emptied by every start (AsyncShmemInit)
	"pg_serial",      // committed serializable transactions that running ones overlap: none after a start (SerialInit)
	"pg_snapshots",   // exported snapshots, which end with their transaction: emptied by every start
	"pg_dynshmem",    // shared memory of dynamic_shared_memory_type=mmap: emptied by every start
	"pg_stat_tmp",    // unused since Postgres 15 but by extensions; emptied by every start
}

// SpillFiles are what logical decoding writes of a transaction that outgrows
// logical_decoding_work_mem, in small writes that the log would keep for as long
// as its history. A walsender reads them back itself, every start of Postgres and
// of decoding on the slot removes what is left (StartupReorderBuffer,
// ReorderBufferCleanupSerializedTXNs), and a fork has no slots. What stands
// beside them, the slot's state, must be as durable as the data; so must
// pg_logical/snapshots, without which decoding could not begin again where it
// was, and pg_logical/mappings.
var SpillFiles = volumefs.ApartRule{
	Name: func(name string) bool { return strings.HasPrefix(name, "xid-") && strings.HasSuffix(name, ".spill") },
	Directory: func(v volumefs.Volume, dir layer.Ino) (bool, error) {
		slots, err := v.Lookup(layer.RootIno, "pg_replslot")
		if err != nil {
			return false, err
		}
		for after := uint64(0); ; {
			entries, err := v.ReadDir(slots.Ino, after, 64)
			if err != nil || len(entries) == 0 {
				return false, err
			}
			for _, e := range entries {
				if after = e.Cookie; e.Ino == dir {
					return true, nil
				}
			}
		}
	},
}

// scratch is where an engine's scratch files are: on this computer, not in the
// timeline, which would keep them for as long as its history.
func (m *machine) scratch(name string) string { return m.path("tmp", name) }

// pointScratch puts links to empty directories of this engine in place of the
// scratch directories. A fork has its parent's links: Postgres must not start
// with them, since it begins by removing what it finds there.
//
//  1. Make the directories, empty.
//  2. Remove what is in the links' places. A crash leaves nothing there, which
//     Postgres takes too.
//  3. Make the links. The volume is only opened: see engine.
func (e *engine) pointScratch() error {
	dir := e.on.scratch(e.name)
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("empty scratch space: %w", err)
	}
	for _, name := range scratchDirs {
		own := filepath.Join(dir, filepath.Base(name))
		if err := e.makeOwn(own); err != nil {
			return fmt.Errorf("make scratch space: %w", err)
		}
		at, err := e.volume.Readlink(name)
		if err == nil && at == own {
			continue
		}
		// A directory in its place is of a time before.
		if err := e.volume.Symlink(name, e.on.newFile(unix.S_IFLNK|0o777, own)); err != nil {
			return fmt.Errorf("point to scratch space: %w", err)
		}
	}
	return nil
}

// makeOwn makes a directory of Postgres's own, below ones that anybody may pass.
func (e *engine) makeOwn(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if o := e.on.o.RunAs; o != nil {
		return os.Chown(dir, int(o.UID), int(o.GID))
	}
	return nil
}
