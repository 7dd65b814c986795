package api

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/control"
)

// scimPath is an attribute, perhaps with one value of its list picked out:
// members[value eq "1003"].
var scimPath = regexp.MustCompile(`^([A-Za-z.]+)(?:\[value eq "([^"]*)"\])?$`)

// maxPatch is how many operations one request may have.
const maxPatch = 1000

// patched applies operations to a resource. Changes of members are given apart:
// two requests that each add one must not undo each other.
func patched(u wire.User, ops []wire.ScimOperation) (wire.User, control.Membership, error) {
	var m control.Membership
	if len(ops) == 0 || len(ops) > maxPatch {
		return u, m, badField("Operations", "has %d operations, want 1 to %d", len(ops), maxPatch)
	}
	doc, err := scimDocument(u)
	if err != nil {
		return u, m, err
	}
	for _, op := range ops {
		verb := strings.ToLower(op.Op)
		if verb != "add" && verb != "replace" && verb != "remove" {
			return u, m, badField("Operations.op", "got %q, want add, replace or remove", op.Op)
		}
		at := map[string]any{}
		if op.Path == "" {
			given, ok := op.Value.(map[string]any)
			if !ok || verb == "remove" {
				return u, m, badField("Operations.path", "is missing")
			}
			at = given
		} else {
			at[op.Path] = op.Value
		}
		for _, path := range slices.Sorted(maps.Keys(at)) {
			parts := scimPath.FindStringSubmatch(path)
			if parts == nil {
				return u, m, badField("Operations.path", "cannot change %q", path)
			}
			if strings.EqualFold(parts[1], "members") {
				err = patchMembers(&m, verb, parts[2], at[path])
			} else {
				err = patchDocument(doc, verb, parts[1], parts[2], at[path])
			}
			if err != nil {
				return u, m, err
			}
		}
	}
	b, err := json.Marshal(doc)
	if err != nil {
		return u, m, err
	}
	var out wire.User
	if err := json.Unmarshal(b, &out); err != nil {
		return u, m, badField("Operations.value", "does not fit its attribute: %s", err)
	}
	return out, m, nil
}

func scimDocument(u wire.User) (doc map[string]any, err error) {
	b, err := json.Marshal(u)
	if err != nil {
		return nil, err
	}
	return doc, json.Unmarshal(b, &doc)
}

func patchMembers(m *control.Membership, verb, picked string, value any) error {
	ids := valuesOf(value)
	if picked != "" {
		ids = []string{picked}
	}
	switch verb {
	case "add":
		m.Add = append(m.Add, ids...)
	case "replace":
		*m = control.Membership{Replace: true, Add: ids}
	case "remove":
		if len(ids) == 0 { // all of them
			*m = control.Membership{Replace: true}
			return nil
		}
		m.Remove = append(m.Remove, ids...)
		m.Add = slices.DeleteFunc(m.Add, func(id string) bool { return slices.Contains(ids, id) })
	}
	return nil
}

// valuesOf reads [{"value": "1"}], {"value": "1"}, ["1"] or "1".
func valuesOf(v any) []string {
	switch v := v.(type) {
	case string:
		return []string{v}
	case map[string]any:
		if s, ok := v["value"].(string); ok {
			return []string{s}
		}
		if list, ok := v["members"]; ok {
			return valuesOf(list)
		}
	case []any:
		var out []string
		for _, e := range v {
			out = append(out, valuesOf(e)...)
		}
		return out
	}
	return nil
}

// scimWritable are the attributes that can be patched, as they are spelled.
var scimWritable = []string{"userName", "applicationId", "displayName", "externalId", "active", "name", "password", "emails", "entitlements", "roles"}

func patchDocument(doc map[string]any, verb, path, picked string, value any) error {
	name, part, nested := strings.Cut(path, ".")
	i := slices.IndexFunc(scimWritable, func(w string) bool { return strings.EqualFold(w, name) })
	if i < 0 {
		return badField("Operations.path", "cannot change %q; these can be changed: members, %s", path, strings.Join(scimWritable, ", "))
	}
	name = scimWritable[i]
	if nested && name != "name" {
		return badField("Operations.path", "cannot change %q", path)
	}
	switch old := doc[name].(type) {
	case []any:
		drop := valuesOf(value)
		if picked != "" {
			drop = []string{picked}
		}
		switch {
		case verb == "add":
			doc[name] = append(old, asList(value)...)
			return nil
		case verb == "remove" && len(drop) > 0:
			doc[name] = slices.DeleteFunc(old, func(e any) bool {
				v := valuesOf(e)
				return len(v) == 1 && slices.Contains(drop, v[0])
			})
			return nil
		}
	case map[string]any:
		if nested && verb != "remove" {
			old[part] = value
			return nil
		}
	}
	switch {
	case verb == "remove":
		delete(doc, name)
	case nested:
		doc[name] = map[string]any{part: value}
	case name == "emails" || name == "entitlements" || name == "roles":
		doc[name] = asList(value)
	case name == "active":
		doc[name] = scimBool(value)
	default:
		doc[name] = value
	}
	return nil
}

// scimBool takes the text some identity providers send for a truth.
func scimBool(v any) any {
	if s, ok := v.(string); ok {
		switch strings.ToLower(s) {
		case "true":
			return true
		case "false":
			return false
		}
	}
	return v
}

func asList(v any) []any {
	if l, ok := v.([]any); ok {
		return l
	}
	return []any{v}
}
