package delta

import "maps"

// fileKey identifies a logical file: the same data file with another deletion
// vector is another one.
type fileKey struct{ path, dv string }

// state is what the actions up to a version add up to. A state that a snapshot
// holds is never changed again; clone before applying more.
type state struct {
	protocol *protocolAction
	metadata *metadataAction
	files    map[fileKey]*addAction
	tombs    map[fileKey]*removeAction
	txns     map[string]*txnAction
	domains  map[string]*domainAction

	// statsLost is set when a checkpoint gave a file's statistics as columns
	// only, so that a checkpoint of ours would lose them.
	statsLost bool
}

func newState() *state {
	return &state{
		files: map[fileKey]*addAction{}, tombs: map[fileKey]*removeAction{},
		txns: map[string]*txnAction{}, domains: map[string]*domainAction{},
	}
}

func (s *state) clone() *state {
	c := *s
	c.files, c.tombs, c.txns, c.domains = maps.Clone(s.files), maps.Clone(s.tombs), maps.Clone(s.txns), maps.Clone(s.domains)
	return &c
}

// apply adds one later action. Within one commit a remove and an add of the
// same path differ in their deletion vector, so their order does not matter.
func (s *state) apply(a action) {
	switch {
	case a.Add != nil:
		k := a.Add.key()
		delete(s.tombs, k)
		s.files[k] = a.Add
	case a.Remove != nil:
		k := a.Remove.key()
		delete(s.files, k)
		s.tombs[k] = a.Remove
	case a.Metadata != nil:
		s.metadata = a.Metadata
	case a.Protocol != nil:
		s.protocol = a.Protocol
	case a.Txn != nil:
		s.txns[a.Txn.AppID] = a.Txn
	case a.Domain != nil && a.Domain.Removed:
		delete(s.domains, a.Domain.Domain)
	case a.Domain != nil:
		s.domains[a.Domain.Domain] = a.Domain
	}
}
