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
	"allowColumnDefaults", "inCommitTimestamp", "typeWidening", "typeWidening-preview", "clustering",
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
	for property, feature := range propertyFeatures {
		if s.truth(property) {
			return refuse(feature)
		}
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
	"delta.enablerowtracking":     "rowTracking",
	"delta.enableicebergcompatv1": "icebergCompatV1",
	"delta.enableicebergcompatv2": "icebergCompatV2",
	"delta.enableicebergcompatv3": "icebergCompatV3",
}

const featurePrefix = "delta.feature."

// checkProperties refuses properties that ask for a feature we do not write.
func checkProperties(properties map[string]string) error {
	for name, value := range properties {
		low := strings.ToLower(name)
		if f, ok := propertyFeatures[low]; ok && strings.EqualFold(value, "true") {
			return &UnsupportedError{Feature: f, Writing: true}
		}
		if strings.HasPrefix(low, "delta.constraints.") {
			return &UnsupportedError{Feature: "checkConstraints", Writing: true}
		}
		if strings.HasPrefix(low, featurePrefix) {
			if f := name[len(featurePrefix):]; !slices.Contains(writable, f) {
				return &UnsupportedError{Feature: f, Writing: true}
			}
		}
	}
	_, err := mappingOf(properties)
	return err
}

// needs lists the features that a schema and properties use.
func needs(schema *dataType, properties map[string]string) (reader, writer []string) {
	on := func(property string) bool { return strings.EqualFold(propertyOf(properties, property), "true") }
	both := func(f string) { reader, writer = append(reader, f), append(writer, f) }
	if schema.uses("timestamp_ntz") {
		both("timestampNtz")
	}
	if on("delta.enableChangeDataFeed") {
		writer = append(writer, "changeDataFeed")
	}
	if on("delta.enableDeletionVectors") {
		both("deletionVectors")
	}
	if m, err := mappingOf(properties); err == nil && m != mapNone {
		both("columnMapping")
	}
	if on("delta.enableInCommitTimestamps") {
		writer = append(writer, "inCommitTimestamp")
	}
	if on("delta.enableTypeWidening") {
		both("typeWidening")
	}
	if strings.EqualFold(propertyOf(properties, "delta.checkpointPolicy"), "v2") {
		both("v2Checkpoint")
	}
	for name := range properties {
		if strings.HasPrefix(strings.ToLower(name), featurePrefix) {
			f := name[len(featurePrefix):]
			if slices.Contains(readable, f) {
				reader = append(reader, f)
			}
			writer = append(writer, f)
		}
	}
	return reader, writer
}

// features lists those of a protocol by name, implied ones too.
func (p *protocolAction) features() (reader, writer []string) {
	if p.MinReader >= readerFeatures {
		reader = slices.Clone(p.ReaderFeatures)
	} else if p.MinReader == 2 {
		reader = []string{"columnMapping"}
	}
	if p.MinWriter >= writerFeatures {
		return reader, slices.Clone(p.WriterFeatures)
	}
	for _, l := range legacyFeatures {
		if l.version <= p.MinWriter {
			writer = append(writer, l.features...)
		}
	}
	return reader, writer
}

// protocolFor is the lowest protocol whose features the table uses, so that
// old readers can read it, and no lower than what it has already.
func protocolFor(schema *dataType, properties map[string]string, have *protocolAction) *protocolAction {
	reader, writer := needs(schema, properties)
	floor := have
	if floor == nil {
		floor = &protocolAction{MinReader: 1, MinWriter: 2}
	}
	haveReader, haveWriter := floor.features()
	missing := func(need, have []string) (out []string) {
		for _, f := range need {
			if !slices.Contains(have, f) && !slices.Contains(out, f) {
				out = append(out, f)
			}
		}
		return out
	}
	newReader, newWriter := missing(reader, haveReader), missing(writer, haveWriter)
	if len(newReader) == 0 && len(newWriter) == 0 {
		return floor
	}
	if floor.MinWriter < writerFeatures {
		// Versions below the named features will do for two of them.
		p := &protocolAction{MinReader: floor.MinReader, MinWriter: floor.MinWriter}
		legacy := true
		for _, f := range newWriter {
			switch f {
			case "changeDataFeed":
				p.MinWriter = max(p.MinWriter, 4)
			case "columnMapping":
				p.MinReader, p.MinWriter = max(p.MinReader, 2), max(p.MinWriter, 5)
			default:
				legacy = false
			}
		}
		if legacy {
			return p
		}
		if have == nil {
			haveWriter = []string{"appendOnly", "invariants"}
		}
	}
	p := &protocolAction{MinReader: floor.MinReader, MinWriter: writerFeatures, WriterFeatures: append(haveWriter, newWriter...)}
	if len(haveReader)+len(newReader) > 0 {
		p.MinReader = readerFeatures
		p.ReaderFeatures = append(haveReader, newReader...)
	}
	slices.Sort(p.ReaderFeatures)
	slices.Sort(p.WriterFeatures)
	return p
}
