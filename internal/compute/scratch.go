package compute

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// scratchDirs are directories of a data directory whose files mean nothing to
// any other start of Postgres: what a sort or a hash join spills. Postgres makes
// base/pgsql_tmp when it first needs it, follows a link in its place, and
// removes the files in it but never itself.
var scratchDirs = [...]string{"base/pgsql_tmp"}

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
