package wal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// leaseFile says under which lease of its timeline this computer wrote the log:
// what another one wrote since is not in it. A log without the file is of the
// first, 1.
const leaseFile = "LEASE"

// Lease says under which lease a log was written here.
type Lease struct{ dir string }

// Lease is that of the log.
func (l *Log) Lease() Lease { return Lease{l.dir} }

// Read gives its epoch.
func (l Lease) Read() (uint64, error) {
	path := filepath.Join(l.dir, leaseFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 1, nil
	}
	if err != nil {
		return 0, err
	}
	epoch, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", path, err)
	}
	return epoch, nil
}

// Write records that the log goes on under another. A crash leaves the file of
// before, or the new one.
func (l Lease) Write(epoch uint64) error {
	path := filepath.Join(l.dir, leaseFile)
	if err := writeDurably(path+".new", strconv.AppendUint(nil, epoch, 10)); err != nil {
		return fmt.Errorf("record lease %d: %w", epoch, err)
	}
	if err := errors.Join(os.Rename(path+".new", path), syncDir(l.dir)); err != nil {
		return fmt.Errorf("record lease %d: %w", epoch, err)
	}
	return nil
}

func writeDurably(path string, b []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	return errors.Join(err, f.Sync(), f.Close())
}
