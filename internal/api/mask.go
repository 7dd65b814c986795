package api

import (
	"slices"
	"strings"
)

// mask is an update_mask: which fields of the body an update means.
//
//	absent or "*"         every field the body gives
//	a parent ("spec")     every field under it the body gives
//	the field itself      the field; when the body omits it, its default again
//	a part of the field   the field, when the body gives it
//
// Virtual paths ("spec.expiration") are written beside the field they name.
type mask []string

func parseMask(s string) mask {
	var m mask
	for p := range strings.SplitSeq(s, ",") {
		if p = strings.TrimSpace(p); p != "" {
			m = append(m, p)
		}
	}
	return m
}

// check refuses paths that reach none of known: an update that says success
// and changes nothing would be a lie.
func (m mask) check(known ...string) error {
	for _, p := range m {
		reaches := func(k string) bool { return p == k || under(p, k) || under(k, p) }
		if p != "*" && !slices.ContainsFunc(known, reaches) {
			return badField("update_mask", "no field %q can be updated; these can: %s", p, strings.Join(known, ", "))
		}
	}
	return nil
}

// under says whether path a lies below path b.
func under(a, b string) bool { return strings.HasPrefix(a, b+".") }

// choose says what an update does to a field that goes by the given paths:
// nil leaves it alone. given is the body's value, nil when it has none.
func choose[T any](m mask, given *T, otherwise T, paths ...string) *T {
	if len(m) == 0 {
		return given
	}
	if given == nil {
		if slices.ContainsFunc(m, func(p string) bool { return slices.Contains(paths, p) }) {
			return &otherwise
		}
		return nil
	}
	for _, p := range m {
		if p == "*" || slices.ContainsFunc(paths, func(k string) bool { return p == k || under(p, k) || under(k, p) }) {
			return given
		}
	}
	return nil
}

// given is nil for the empty string, which JSON fields use for "absent".
func given(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
