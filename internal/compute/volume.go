package compute

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn/internal/layer"
	"github.com/tarndb/tarn/internal/pagestore"
	"github.com/tarndb/tarn/internal/postgres"
)

// readControl reads global/pg_control of a volume that is not mounted.
func readControl(v *pagestore.Volume) (postgres.Control, error) {
	dir, err := v.Lookup(layer.RootIno, "global")
	if err != nil {
		return postgres.Control{}, fmt.Errorf("find pg_control: %w", err)
	}
	file, err := v.Lookup(dir.Ino, "pg_control")
	if err != nil {
		return postgres.Control{}, fmt.Errorf("find pg_control: %w", err)
	}
	b := make([]byte, file.Size)
	n, err := v.ReadAt(file.Ino, b, 0)
	if err != nil {
		return postgres.Control{}, fmt.Errorf("read pg_control: %w", err)
	}
	return postgres.ParseControl(b[:n])
}

// A fork inherits these from its parent but must not use them: replication
// slots belong to the parent's consumers, who would get the child's changes or
// hold its WAL forever; what logical decoding left for them goes too.
var dropInFork = [...][]string{
	{"pg_replslot"},
	{"pg_logical", "snapshots"},
	{"pg_logical", "mappings"},
}

// detachFork makes a forked volume, not mounted, independent of its parent. Its
// first start writes the rest (engine.start).
func detachFork(v *pagestore.Volume) error {
	for _, path := range dropInFork {
		ino := layer.RootIno
		for _, name := range path {
			a, err := v.Lookup(ino, name)
			if err != nil {
				return fmt.Errorf("drop what belongs to the parent: %w", err)
			}
			ino = a.Ino
		}
		if err := emptyDir(v, ino); err != nil {
			return fmt.Errorf("drop what belongs to the parent: %w", err)
		}
	}
	return nil
}

// emptyDir removes everything in a directory.
func emptyDir(v *pagestore.Volume, dir layer.Ino) error {
	for {
		entries, err := v.ReadDir(dir, 0, 1000)
		if err != nil || len(entries) == 0 {
			return err
		}
		for _, e := range entries {
			if e.Mode&unix.S_IFMT != unix.S_IFDIR {
				if err := v.Unlink(dir, e.Name); err != nil {
					return err
				}
				continue
			}
			if err := emptyDir(v, e.Ino); err != nil {
				return err
			}
			if err := v.Rmdir(dir, e.Name); err != nil {
				return err
			}
		}
	}
}
