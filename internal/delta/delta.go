// Package delta knows the Delta log protocol and its Parquet files: snapshots,
// scans, commits, checkpoints. It does not know catalogs or Postgres, nor where
// a blob store keeps its objects.
//
// A table is a folder: `_delta_log/` holds one JSON file per version, each a
// list of actions, and now and then a checkpoint, the sum of the actions so
// far. A snapshot is what the actions up to one version add up to: a schema and
// the set of active files. A commit is the creation of the next JSON file,
// which only one writer can win.
package delta

import (
	"errors"
	"fmt"
)

// UnsupportedError refuses a table by the name of the feature we lack.
type UnsupportedError struct {
	Feature string // protocol feature name, e.g. "variantType"
	Writing bool   // refused for writing only
}

func (e *UnsupportedError) Error() string {
	if e.Writing {
		return "delta feature " + e.Feature + " is not supported for writing"
	}
	return "delta feature " + e.Feature + " is not supported"
}

// ConflictError is a commit that lost to another writer and cannot be rebased.
type ConflictError struct{ Reason string }

func (e *ConflictError) Error() string { return "delta commit conflict: " + e.Reason }

// DamagedError is a log or a data file that breaks the protocol.
type DamagedError struct {
	Path   string // key in the store; a folder with its slash
	Reason string // what was expected and what was found
	Err    error  // cause; may be nil
}

func (e *DamagedError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("damaged %s: %s: %v", e.Path, e.Reason, e.Err)
	}
	return fmt.Sprintf("damaged %s: %s", e.Path, e.Reason)
}

func (e *DamagedError) Unwrap() error { return e.Err }

// ErrAppliedTxn means the app transaction of this commit is already in the table.
var ErrAppliedTxn = errors.New("app transaction already applied")

// ErrNotTable means the folder holds no Delta log.
var ErrNotTable = errors.New("not a Delta table")

// ErrNoVersion means the log does not reach the asked version: it is in the
// future, or cleaned up.
var ErrNoVersion = errors.New("no such version")

// IsRefusal tells whether err refuses the table itself – a feature we lack, a
// damaged log – and asking again will not help.
func IsRefusal(err error) bool {
	var u *UnsupportedError
	var d *DamagedError
	return errors.As(err, &u) || errors.As(err, &d)
}
