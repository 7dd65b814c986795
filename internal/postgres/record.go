package postgres

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
)

// Record names a running postmaster beyond doubt, across the death of the
// process that started it: a number is used again, a number with its start
// time since this boot is not.
type Record struct {
	PID     int    `json:"pid"`
	Start   uint64 `json:"start"` // clock ticks since boot, from /proc/<pid>/stat
	Boot    string `json:"boot"`  // the kernel's boot id
	DataDir string `json:"data_dir"`
}

// ReadRecord reads the record that Start wrote to Config.PIDFile; KindNotFound
// without one.
func ReadRecord(pidFile string) (Record, error) {
	b, err := os.ReadFile(pidFile)
	if errors.Is(err, fs.ErrNotExist) {
		return Record{}, tarn.NotFound("read %s: %w", pidFile, err)
	}
	if err != nil {
		return Record{}, err
	}
	var r Record
	if err := json.Unmarshal(b, &r); err != nil {
		return Record{}, fmt.Errorf("read %s: %w", pidFile, err)
	}
	return r, nil
}

// Alive tells whether the recorded postmaster runs.
func (r Record) Alive() bool {
	p, ok := r.process()
	return ok && p.alive()
}

func (r Record) process() (process, bool) {
	boot, err := bootID()
	if err != nil || boot != r.Boot || r.PID <= 0 {
		return process{}, false
	}
	return process{pid: r.PID, start: r.Start}, true
}

// KillOrphans kills what an earlier process of ours left running on dataDir:
// the postmaster recorded in pidFile ("" = none was kept) with its children,
// and every other Postgres process that works in dataDir. It returns when all
// are gone and the record is removed; nothing running is success. dataDir may
// be a dead mount, and must not be unmounted before.
func KillOrphans(dataDir, pidFile string) error {
	real, err := resolve(dataDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var postmaster process
	if pidFile != "" {
		switch r, err := ReadRecord(pidFile); {
		case tarn.KindOf(err) == tarn.KindNotFound:
		case err != nil:
			return fmt.Errorf("kill the Postgres left on %s: %w", dataDir, err)
		default:
			if p, ok := r.process(); ok && p.alive() {
				postmaster = p
			}
		}
	}
	if err := killAll(postmaster, real); err != nil {
		return fmt.Errorf("kill the Postgres left on %s: %w", dataDir, err)
	}
	return removeRecord(pidFile)
}

// resolve is the path that /proc shows for a process working in dir. Nothing is
// asked of dir itself unless it is a symbolic link: it may be a dead mount, or one
// that this process serves.
func resolve(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	_, err = os.Readlink(abs)
	if err == nil {
		return filepath.EvalSymlinks(abs)
	}
	if !errors.Is(err, unix.EINVAL) { // EINVAL: it is there and no link
		return abs, err
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		return abs, err
	}
	return filepath.Join(parent, filepath.Base(abs)), nil
}

// writeRecord replaces pidFile whole.
//
//  1. Write and sync a new file beside it.   crash: the old record stands
//  2. Rename it over the old one.            crash: one of both stands
//  3. Sync the directory.
func writeRecord(pidFile string, r Record) (err error) {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(pidFile))
	if err != nil {
		return err
	}
	defer dir.Close()
	f, err := os.CreateTemp(filepath.Dir(pidFile), ".pid-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(append(b, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err = os.Rename(f.Name(), pidFile); err != nil {
		return err
	}
	return dir.Sync()
}

func removeRecord(pidFile string) error {
	if pidFile == "" {
		return nil
	}
	if err := os.Remove(pidFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}
