package delta

import (
	"slices"
	"strconv"
	"strings"
)

// The highest protocol versions there are. Versions 3 (reader) and 7 (writer)
// name their features one by one; lower ones imply a fixed set.
const (
	readerFeatures = 3
	writerFeatures = 7
)

// readable are the reader features whose tables we open. Features that concern
// writers alone are not reader features.
var readable = []string{
	"columnMapping", "deletionVectors", "timestampNtz", "typeWidening", "typeWidening-preview",
	"v2Checkpoint", "vacuumProtocolCheck",
	"variantType", "variantType-preview", "variantShredding", "variantShredding-preview", "geospatial",
}

// writable are the writer features we commit under. Several are harmless while
// the table does not use them; checkWritable looks.
var writable = []string{
	"appendOnly", "invariants", "checkConstraints", "changeDataFeed", "generatedColumns", "identityColumns",
	"timestampNtz", "v2Checkpoint", "domainMetadata", "vacuumProtocolCheck", "deletionVectors", "columnMapping",
	"allowColumnDefaults",
}

// legacyFeatures are implied by writer versions 2 to 6.
var legacyFeatures = []struct {
	version  int
	features []string
}{
	{2, []string{"appendOnly", "invariants"}},
	{3, []string{"checkConstraints"}},
	{4, []string{"changeDataFeed", "generatedColumns"}},
	{5, []string{"columnMapping"}},
	{6, []string{"identityColumns"}},
}

// checkReadable refuses a protocol that may change what the log or the files
// mean in a way we do not know.
func (p *protocolAction) checkReadable() error {
	if p.MinReader > readerFeatures {
		return &UnsupportedError{Feature: "reader version " + strconv.Itoa(p.MinReader)}
	}
	// Names of features are looked at even below version 3: some writers name
	// them there, and a table that needs one is better refused than misread.
	for _, f := range p.ReaderFeatures {
		if !slices.Contains(readable, f) {
			return &UnsupportedError{Feature: f}
		}
	}
	return nil
}

// checkWritable refuses to commit to a table whose rules we cannot keep.
func (s *Snapshot) checkWritable() error {
	p := s.state.protocol
	refuse := func(feature string) error { return &UnsupportedError{Feature: feature, Writing: true} }
	if p.MinWriter > writerFeatures {
		return refuse("writer version " + strconv.Itoa(p.MinWriter))
	}
	if p.MinWriter == writerFeatures {
		for _, f := range p.WriterFeatures {
			if !slices.Contains(writable, f) {
				return refuse(f)
			}
		}
	}
	for name := range s.state.metadata.Configuration {
		if strings.HasPrefix(strings.ToLower(name), "delta.constraints.") {
			return refuse("checkConstraints")
		}
	}
	if s.mapping != mapNone {
		return refuse("columnMapping")
	}
	if s.truth("delta.enableInCommitTimestamps") {
		return refuse("inCommitTimestamp")
	}
	return s.schema.checkWritable()
}

// checkWritable refuses columns whose values the writer has to check or make.
func (t *dataType) checkWritable() error {
	for _, sub := range []*dataType{t.elem, t.key} {
		if sub != nil {
			if err := sub.checkWritable(); err != nil {
				return err
			}
		}
	}
	for _, f := range t.fields {
		for name := range f.metadata {
			switch {
			case name == "delta.invariants":
				return &UnsupportedError{Feature: "invariants", Writing: true}
			case name == "delta.generationExpression":
				return &UnsupportedError{Feature: "generatedColumns", Writing: true}
			case strings.HasPrefix(name, "delta.identity."):
				return &UnsupportedError{Feature: "identityColumns", Writing: true}
			case name == "CURRENT_DEFAULT":
				// A default fills columns left out; ours are null then, which
				// another value would contradict.
				return &UnsupportedError{Feature: "allowColumnDefaults", Writing: true}
			}
		}
		if err := f.typ.checkWritable(); err != nil {
			return err
		}
	}
	if t.kind == kindPrimitive {
		if _, ok := primitives[t.name]; !ok || t.name == "void" {
			return &UnsupportedError{Feature: "type " + t.name, Writing: true}
		}
	}
	return nil
}

// propertyFeatures are the properties that switch on what we do not write.
var propertyFeatures = map[string]string{
	"delta.enabledeletionvectors":    "deletionVectors",
	"delta.enablerowtracking":        "rowTracking",
	"delta.enableincommittimestamps": "inCommitTimestamp",
	"delta.enabletypewidening":       "typeWidening",
	"delta.enableicebergcompatv1":    "icebergCompatV1",
	"delta.enableicebergcompatv2":    "icebergCompatV2",
}

// checkProperties refuses properties of a new table that ask for a feature we
// do not write.
func checkProperties(properties map[string]string) error {
	for name, value := range properties {
		low := strings.ToLower(name)
		if f, ok := propertyFeatures[low]; ok && strings.EqualFold(value, "true") {
			return &UnsupportedError{Feature: f, Writing: true}
		}
		switch {
		case low == "delta.columnmapping.mode" && !strings.EqualFold(value, "none"):
			return &UnsupportedError{Feature: "columnMapping", Writing: true}
		case low == "delta.checkpointpolicy" && !strings.EqualFold(value, "classic"):
			return &UnsupportedError{Feature: "v2Checkpoint", Writing: true}
		case strings.HasPrefix(low, "delta.constraints."):
			return &UnsupportedError{Feature: "checkConstraints", Writing: true}
		case strings.HasPrefix(low, "delta.feature."):
			return &UnsupportedError{Feature: name[len("delta.feature."):], Writing: true}
		}
	}
	return nil
}

// protocolFor is the lowest protocol whose features the table uses, so that
// old readers can read it, and no lower than what it has already.
func protocolFor(schema *dataType, properties map[string]string, have *protocolAction) *protocolAction {
	cdf := strings.EqualFold(properties["delta.enableChangeDataFeed"], "true")
	need := protocolAction{MinReader: 1, MinWriter: 2}
	if cdf {
		need.MinWriter = 4
	}
	ntz := schema.uses("timestamp_ntz")
	if have == nil && !ntz {
		return &need
	}
	if have != nil {
		if have.MinWriter >= writerFeatures && (!ntz || slices.Contains(have.WriterFeatures, "timestampNtz")) {
			return have
		}
		if !ntz {
			need.MinReader, need.MinWriter = max(need.MinReader, have.MinReader), max(need.MinWriter, have.MinWriter)
			return &need
		}
	}
	p := &protocolAction{MinReader: readerFeatures, MinWriter: writerFeatures, ReaderFeatures: []string{"timestampNtz"}, WriterFeatures: []string{"timestampNtz"}}
	switch {
	case have == nil:
		p.WriterFeatures = append(p.WriterFeatures, "appendOnly", "invariants")
		if cdf {
			p.WriterFeatures = append(p.WriterFeatures, "changeDataFeed")
		}
	case have.MinWriter >= writerFeatures:
		p.ReaderFeatures = append(p.ReaderFeatures, have.ReaderFeatures...)
		p.WriterFeatures = append(p.WriterFeatures, have.WriterFeatures...)
	default: // an upgrade names what the old version implied
		for _, l := range legacyFeatures {
			if l.version <= have.MinWriter {
				p.WriterFeatures = append(p.WriterFeatures, l.features...)
			}
		}
		if have.MinReader >= 2 {
			p.ReaderFeatures = append(p.ReaderFeatures, "columnMapping")
		}
	}
	slices.Sort(p.ReaderFeatures)
	slices.Sort(p.WriterFeatures)
	return p
}
