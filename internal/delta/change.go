package delta

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/tarndb/tarn"
)

// Changes of a table's schema and properties. Each is one of a transaction's
// first calls: rows already written have the schema of before.

// schemaChange is what a transaction does to the metadata.
type schemaChange struct{ *Tx }

// clone copies the type as deep as it may be changed.
func (t *dataType) clone() *dataType {
	if t == nil {
		return nil
	}
	c := *t
	c.elem, c.key = t.elem.clone(), t.key.clone()
	c.fields = slices.Clone(t.fields)
	for i := range c.fields {
		c.fields[i].typ = c.fields[i].typ.clone()
		c.fields[i].metadata = maps.Clone(c.fields[i].metadata)
	}
	return &c
}

// beginChange gives a copy of the metadata to work on.
func (x schemaChange) beginChange() (*metadataAction, error) {
	if err := x.usable(); err != nil {
		return nil, err
	}
	if err := x.base.checkWritable(); err != nil {
		return nil, err
	}
	if len(x.keys) > 0 {
		return nil, tarn.Invalid("rows of the old schema are being written")
	}
	from := x.base.state.metadata
	if x.metadata != nil {
		from = x.metadata
	}
	m := *from
	m.Configuration = maps.Clone(from.Configuration)
	if m.Configuration == nil {
		m.Configuration = map[string]string{}
	}
	return &m, nil
}

// endChange takes the new metadata and schema, and the protocol they need.
func (x schemaChange) endChange(m *metadataAction, schema *dataType) error {
	mode, err := mappingOf(m.Configuration)
	if err != nil {
		return err
	}
	if err := schema.checkWritable(); err != nil {
		return err
	}
	schema = schema.clone()
	if mode != mapNone {
		if err := assignMapping(schema, m.Configuration, x.mapping == mapNone); err != nil {
			return err
		}
	}
	if err := schema.resolve(mode); err != nil {
		return err
	}
	have := x.base.state.protocol
	p := protocolFor(schema, m.Configuration, have)
	m.SchemaString = string(schema.json())
	x.schema, x.mapping, x.metadata = schema, mode, m
	if x.protocol = nil; !p.equal(have) {
		x.protocol = p
	}
	return nil
}

// change runs one change of the metadata.
func (x schemaChange) change(what string, do func(m *metadataAction, schema *dataType) (*dataType, error)) error {
	m, err := x.beginChange()
	if err == nil {
		schema := x.schema.clone()
		if schema, err = do(m, schema); err == nil && schema != nil {
			err = x.endChange(m, schema)
		}
	}
	if err != nil {
		return fmt.Errorf("%s of %s: %w", what, x.table.name(), err)
	}
	return nil
}

// SetSchema changes the columns to those of s, in which new ones, at the end,
// are nullable and older ones the same, or of a wider type when the table allows
// it (delta.enableTypeWidening). Call it before the Append that brings their
// values.
func (x *Tx) SetSchema(s Schema) error {
	return schemaChange{x}.change("change schema", func(m *metadataAction, have *dataType) (*dataType, error) {
		want, err := s.parse()
		if err != nil {
			return nil, err
		}
		before := have.text()
		out, err := evolve(have, want, "", strings.EqualFold(propertyOf(m.Configuration, "delta.enableTypeWidening"), "true"))
		if err != nil {
			return nil, err
		}
		if out.text() == before {
			return nil, nil
		}
		schemaChange{x}.setOperation("ADD COLUMNS")
		return out, nil
	})
}

// setOperation names the commit, unless rows come with it.
func (x schemaChange) setOperation(name string) {
	if x.operation == "" {
		x.schemaOnly = name
	}
}

// evolve gives have with what want adds: fields of structs and wider types.
func evolve(have, want *dataType, path string, widen bool) (*dataType, error) {
	if have.kind != want.kind || have.kind == kindPrimitive || have.kind == kindDecimal {
		if have.text() == want.text() {
			return have, nil
		}
		if have.kind != kindPrimitive && have.kind != kindDecimal || !widensTo(have, want) {
			return nil, tarn.Invalid("column %s is %s, which cannot become %s", path, have.text(), want.text())
		}
		if !widen {
			return nil, tarn.Invalid("column %s is %s; it can become %s when the table's property delta.enableTypeWidening is true", path, have.text(), want.text())
		}
		return want, nil
	}
	out := have.clone()
	var err error
	switch have.kind {
	case kindArray:
		out.elem, err = evolve(have.elem, want.elem, path+".element", widen)
		return out, err
	case kindMap:
		if out.key, err = evolve(have.key, want.key, path+".key", widen); err != nil {
			return nil, err
		}
		out.elem, err = evolve(have.elem, want.elem, path+".value", widen)
		return out, err
	}
	for i := range out.fields {
		f := &out.fields[i]
		name := strings.TrimPrefix(path+"."+f.name, ".")
		at := want.fieldIndex(f.name)
		if at < 0 {
			return nil, tarn.Invalid("column %s is not in the new schema: columns are dropped by name", name)
		}
		if path == "" && at != i {
			return nil, tarn.Invalid("column %s is in another place", name)
		}
		w := want.fields[at]
		if f.nullable != w.nullable && f.nullable {
			return nil, tarn.Invalid("column %s has nulls perhaps and cannot forbid them", name)
		}
		typ, err := evolve(f.typ, w.typ, name, widen)
		if err != nil {
			return nil, err
		}
		f.noteWidening(f.typ, typ, "")
		f.typ, f.nullable = typ, w.nullable
	}
	for _, w := range want.fields {
		if have.fieldIndex(w.name) >= 0 {
			continue
		}
		name := strings.TrimPrefix(path+"."+w.name, ".")
		if !w.nullable {
			return nil, tarn.Invalid("the new column %s must be nullable", name)
		}
		for _, f := range have.fields {
			if strings.EqualFold(f.name, w.name) {
				return nil, tarn.Invalid("the new column %s differs from %s in letter case only", name, f.name)
			}
		}
		out.fields = append(out.fields, w)
	}
	return out, nil
}

// noteWidening records a change of type where readers look for it: with the
// nearest field.
func (f *field) noteWidening(from, to *dataType, path string) {
	switch {
	case from.kind == kindStruct:
		return // its fields note their own
	case from.kind == kindArray && to.kind == kindArray:
		f.noteWidening(from.elem, to.elem, strings.TrimPrefix(path+".element", "."))
		return
	case from.kind == kindMap && to.kind == kindMap:
		f.noteWidening(from.key, to.key, strings.TrimPrefix(path+".key", "."))
		f.noteWidening(from.elem, to.elem, strings.TrimPrefix(path+".value", "."))
		return
	case from.text() == to.text():
		return
	}
	entry := map[string]any{"fromType": from.text(), "toType": to.text()}
	if path != "" {
		entry["fieldPath"] = path
	}
	if f.metadata == nil {
		f.metadata = map[string]any{}
	}
	list, _ := f.metadata["delta.typeChanges"].([]any)
	f.metadata["delta.typeChanges"] = append(slices.Clone(list), entry)
}

// RenameColumn gives a column, or a field of a struct named with dots, another
// name. The table must be mapped (delta.columnMapping.mode name or id).
func (x *Tx) RenameColumn(name, to string) error {
	return schemaChange{x}.change("rename column "+name, func(m *metadataAction, schema *dataType) (*dataType, error) {
		in, at, err := schemaChange{x}.mappedField(schema, name)
		if err != nil {
			return nil, err
		}
		for i, f := range in.fields {
			if i != at && strings.EqualFold(f.name, to) {
				return nil, tarn.Invalid("there is a column %s already", f.name)
			}
		}
		if to == "" || reservedColumn(to) {
			return nil, tarn.Invalid("the column name %q is reserved", to)
		}
		old := in.fields[at].name
		in.fields[at].name = to
		if in == schema {
			for i, p := range m.PartitionColumns {
				if p == old {
					m.PartitionColumns = slices.Clone(m.PartitionColumns)
					m.PartitionColumns[i] = to
				}
			}
		}
		schemaChange{x}.setOperation("RENAME COLUMN")
		return schema, nil
	})
}

// DropColumn takes a column, or a field of a struct, out of the schema; files
// keep its values. The table must be mapped.
func (x *Tx) DropColumn(name string) error {
	return schemaChange{x}.change("drop column "+name, func(m *metadataAction, schema *dataType) (*dataType, error) {
		in, at, err := schemaChange{x}.mappedField(schema, name)
		if err != nil {
			return nil, err
		}
		if in == schema && slices.Contains(m.PartitionColumns, in.fields[at].name) {
			return nil, tarn.Invalid("the table is partitioned by it")
		}
		if len(in.fields) == 1 || in == schema && len(in.fields) == len(m.PartitionColumns)+1 {
			return nil, tarn.Invalid("it is the last one")
		}
		in.fields = slices.Delete(in.fields, at, at+1)
		schemaChange{x}.setOperation("DROP COLUMNS")
		return schema, nil
	})
}

// mappedField finds a field of schema, and the struct it is in.
func (x schemaChange) mappedField(schema *dataType, name string) (in *dataType, at int, err error) {
	if x.mapping == mapNone {
		return nil, 0, tarn.Invalid("the table's files go by its column names; set its property delta.columnMapping.mode to name first")
	}
	path, _, err := schema.leaf(name)
	if err != nil {
		return nil, 0, err
	}
	in = schema
	for _, step := range path[:len(path)-1] {
		in = in.fields[step].typ
	}
	return in, path[len(path)-1], nil
}

// SetProperties sets properties of the table; an empty value unsets one. Column
// mapping can be switched on, not off or over.
func (x *Tx) SetProperties(properties map[string]string) error {
	return schemaChange{x}.change("set properties", func(m *metadataAction, schema *dataType) (*dataType, error) {
		if err := checkProperties(properties); err != nil {
			return nil, err
		}
		for name, value := range properties {
			for have := range m.Configuration {
				if strings.EqualFold(have, name) {
					delete(m.Configuration, have)
				}
			}
			if value != "" {
				m.Configuration[name] = value
			}
		}
		mode, err := mappingOf(m.Configuration)
		if err != nil {
			return nil, err
		}
		if mode != x.mapping && (x.mapping != mapNone || mode != mapName) {
			return nil, tarn.Invalid("delta.columnMapping.mode cannot change from %s to %s", x.mapping, mode)
		}
		on := func(c map[string]string) bool {
			return strings.EqualFold(propertyOf(c, "delta.enableInCommitTimestamps"), "true")
		}
		if on(m.Configuration) && !on(x.base.state.metadata.Configuration) {
			return nil, tarn.Invalid("delta.enableInCommitTimestamps is for new tables")
		}
		schemaChange{x}.setOperation("SET TBLPROPERTIES")
		return schema, nil
	})
}

const maxColumnID = "delta.columnMapping.maxColumnId"

// assignMapping gives every field without them an id and a physical name: its
// name when the mapping begins, which files there are already have and readers
// that mix the two up get right; later one that no dropped column can have had.
func assignMapping(schema *dataType, properties map[string]string, begins bool) error {
	next, _ := strconv.ParseInt(propertyOf(properties, maxColumnID), 10, 32)
	var walk func(t *dataType) error
	walk = func(t *dataType) error {
		if t == nil {
			return nil
		}
		for i := range t.fields {
			f := &t.fields[i]
			if f.metadata == nil {
				f.metadata = map[string]any{}
			}
			if id, ok := intOf(f.metadata[metaColumnID]); ok {
				next = max(next, id)
			} else {
				next++
				f.metadata[metaColumnID] = next
			}
			if _, ok := f.metadata[metaPhysicalName].(string); !ok {
				f.metadata[metaPhysicalName] = f.name
				if !begins {
					id, err := uuid.NewRandom()
					if err != nil {
						return fmt.Errorf("name a column: %w", err)
					}
					f.metadata[metaPhysicalName] = "col-" + id.String()
				}
			}
			if err := walk(f.typ); err != nil {
				return err
			}
		}
		if err := walk(t.elem); err != nil {
			return err
		}
		return walk(t.key)
	}
	if err := walk(schema); err != nil {
		return err
	}
	properties[maxColumnID] = strconv.FormatInt(next, 10)
	return nil
}
