package delta

import (
	"fmt"
	"strings"
)

// readSet is what a transaction read of its base: a commit of another writer
// that changes it cannot be passed by.
type readSet struct {
	all   bool         // every row
	where []*condition // rows that satisfy one of them
}

func (r *readSet) empty() bool { return !r.all && len(r.where) == 0 }

// holds tells whether a row of the file may have been read.
func (r *readSet) holds(s *Snapshot, a *addAction) bool {
	if r.all {
		return true
	}
	for _, c := range r.where {
		if s.mayHold(a, c) {
			return true
		}
	}
	return false
}

// blind tells whether the commit depends on nothing but the rules of the table.
func (x *Tx) blind() bool {
	return x.base.version < 0 || len(x.gone) == 0 && len(x.back) == 0 && x.reads.empty() && x.metadata == nil && x.protocol == nil
}

// isolation is the table's level. Under WriteSerializable rows that others only
// appended are taken to come after ours.
func (m *metadataAction) isolation() string {
	if strings.EqualFold(propertyOf(m.Configuration, "delta.isolationLevel"), "WriteSerializable") {
		return "WriteSerializable"
	}
	return "Serializable"
}

// conflict tells whether a commit of another writer stands in our way, by the
// rules of the protocol:
//
//	theirs                                  ours
//	changes protocol or metadata            everything
//	is of our application                   its txn
//	adds rows that satisfy what we read     reads (Serializable; others than
//	                                        blind appends: also WriteSerializable)
//	removes rows of a file that we read     reads
//	removes a file, rewritten or not        removes the same file
//	changes a domain                        –  (we write none)
func (x *Tx) conflict(version int64, theirs []action) error {
	clash := func(format string, args ...any) error {
		return &ConflictError{Reason: fmt.Sprintf("version %d %s", version, fmt.Sprintf(format, args...))}
	}
	blindAppend := false
	for _, a := range theirs {
		if a.CommitInfo != nil && a.CommitInfo.IsBlindAppend != nil {
			blindAppend = *a.CommitInfo.IsBlindAppend
		}
	}
	ignoreAdds := blindAppend && x.base.state.metadata.isolation() == "WriteSerializable"
	for _, a := range theirs {
		switch {
		case a.Protocol != nil:
			return clash("changes the protocol")
		case a.Metadata != nil:
			return clash("changes the metadata")
		case a.Txn != nil && x.txn != nil && a.Txn.AppID == x.txn.AppID:
			if a.Txn.Version >= x.txn.Version {
				return fmt.Errorf("%s is at %d since version %d, commit of %d: %w", a.Txn.AppID, a.Txn.Version, version, x.txn.Version, ErrAppliedTxn)
			}
			return clash("is of the same application")
		case a.Add != nil && a.Add.DataChange && !ignoreAdds && x.reads.holds(x.base, a.Add):
			return clash("adds rows that this transaction would have read")
		case a.Remove != nil:
			k := a.Remove.key()
			if x.gone[k] != nil {
				return clash("removes %s, which this transaction removes, too", a.Remove.Path)
			}
			if f := x.base.state.files[k]; f != nil && a.Remove.DataChange && x.reads.holds(x.base, f) {
				return clash("removes rows that this transaction read")
			}
		}
	}
	return nil
}
