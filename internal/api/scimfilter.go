package api

import (
	"slices"
	"strings"

	"github.com/tarndb/tarn/internal/api/wire"
)

// scimFilter is a filter of SCIM (RFC 7644, 3.4.2.2) in the part the published
// API has: comparisons with eq, ne, co, sw and pr, joined by and and or.
//
//	filter = term { "or" term }   term = test { "and" test }
//	test   = attribute "pr" | attribute ("eq" | "ne" | "co" | "sw") value
type scimFilter [][]scimTest

type scimTest struct{ attribute, op, value string }

// scimAttributes are what can be compared, in lower case.
var scimAttributes = []string{
	"id", "username", "displayname", "externalid", "applicationid", "active", "emails", "emails.value", "name.givenname", "name.familyname",
}

func parseScimFilter(s string) (scimFilter, error) {
	words, err := scimWords(s)
	if err != nil {
		return nil, err
	}
	if len(words) == 0 {
		return nil, nil
	}
	var f scimFilter
	var term []scimTest
	for {
		if len(words) < 2 {
			return nil, badFilter("ends in the middle of a comparison")
		}
		t := scimTest{attribute: strings.ToLower(words[0].text), op: strings.ToLower(words[1].text)}
		if !slices.Contains(scimAttributes, t.attribute) || words[0].quoted {
			return nil, badFilter("cannot compare %q; these can be: id, userName, displayName, externalId, applicationId, active, emails.value", words[0].text)
		}
		words = words[2:]
		switch t.op {
		case "pr":
		case "eq", "ne", "co", "sw":
			if len(words) == 0 {
				return nil, badFilter("lacks a value at its end")
			}
			t.value, words = words[0].text, words[1:]
		default:
			return nil, badFilter("has no operator %q; there are eq, ne, co, sw and pr", t.op)
		}
		term = append(term, t)
		if len(words) == 0 {
			return append(f, term), nil
		}
		switch join := strings.ToLower(words[0].text); join {
		case "and":
		case "or":
			f, term = append(f, term), nil
		default:
			return nil, badFilter("has %q where and or or must stand", words[0].text)
		}
		words = words[1:]
	}
}

type scimWord struct {
	text   string
	quoted bool
}

// scimWords splits at spaces outside of quotes.
func scimWords(s string) ([]scimWord, error) {
	if len(s) > 4096 {
		return nil, badFilter("is longer than 4096 bytes")
	}
	var out []scimWord
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimLeft(s, " \t") {
		if s[0] != '"' {
			w, rest, _ := strings.Cut(s, " ")
			out, s = append(out, scimWord{text: w}), rest
			continue
		}
		var b strings.Builder
		i := 1
		for ; i < len(s) && s[i] != '"'; i++ {
			if s[i] == '\\' && i+1 < len(s) {
				i++
			}
			b.WriteByte(s[i])
		}
		if i >= len(s) {
			return nil, badFilter("has a quote that does not end")
		}
		out, s = append(out, scimWord{b.String(), true}), s[i+1:]
	}
	return out, nil
}

func badFilter(format string, args ...any) *failure { return badField("filter", format, args...) }

// takes says whether a resource is meant. An empty filter takes all.
func (f scimFilter) takes(u wire.User) bool {
	if len(f) == 0 {
		return true
	}
	return slices.ContainsFunc(f, func(term []scimTest) bool {
		return !slices.ContainsFunc(term, func(t scimTest) bool { return !t.takes(u) })
	})
}

func (t scimTest) takes(u wire.User) bool {
	have := scimValues(u, t.attribute)
	if t.op == "pr" {
		return len(have) > 0
	}
	if t.op == "ne" {
		return !slices.ContainsFunc(have, func(v string) bool { return strings.EqualFold(v, t.value) })
	}
	return slices.ContainsFunc(have, func(v string) bool {
		v, want := strings.ToLower(v), strings.ToLower(t.value)
		switch t.op {
		case "eq":
			return v == want
		case "co":
			return strings.Contains(v, want)
		}
		return strings.HasPrefix(v, want)
	})
}

// scimValues are the values of an attribute.
func scimValues(u wire.User, attribute string) []string {
	var all []string
	switch attribute {
	case "id":
		all = []string{u.ID}
	case "username":
		all = []string{u.UserName}
	case "displayname":
		all = []string{u.DisplayName}
	case "externalid":
		all = []string{u.ExternalID}
	case "applicationid":
		all = []string{u.ApplicationID}
	case "active":
		if u.Active != nil && *u.Active {
			return []string{"true"}
		}
		return []string{"false"}
	case "emails", "emails.value":
		for _, e := range u.Emails {
			all = append(all, e.Value)
		}
	}
	return slices.DeleteFunc(all, func(s string) bool { return s == "" })
}
