package tarn

import (
	"fmt"
	"strings"
)

// ParseID validates the id of a project, branch or endpoint: 1 to 63
// characters, first a lower-case letter, then letters, digits and hyphens
// (the published rule). what says whose id it is in the error.
func ParseID(what, s string) (string, error) {
	ok := len(s) >= 1 && len(s) <= 63 && s[0] >= 'a' && s[0] <= 'z'
	for i := 1; ok && i < len(s); i++ {
		c := s[i]
		ok = c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-'
	}
	if !ok {
		return "", Invalid("%s id %q: want 1 to 63 characters, first a lower-case letter, then lower-case letters, digits or hyphens", what, s)
	}
	return s, nil
}

// ProjectName is a project's id; it prints as the resource name "projects/p".
type ProjectName struct{ Project string }

func (n ProjectName) String() string { return "projects/" + n.Project }

// Branch names one of the project's branches.
func (n ProjectName) Branch(id string) BranchName { return BranchName{n.Project, id} }

// BranchName names a branch; it prints as "projects/p/branches/b".
type BranchName struct{ Project, Branch string }

func (n BranchName) String() string { return "projects/" + n.Project + "/branches/" + n.Branch }

// Parent is the project the branch belongs to.
func (n BranchName) Parent() ProjectName { return ProjectName{n.Project} }

// Endpoint names one of the branch's endpoints.
func (n BranchName) Endpoint(id string) EndpointName { return EndpointName{n.Project, n.Branch, id} }

// EndpointName names an endpoint; it prints as
// "projects/p/branches/b/endpoints/e".
type EndpointName struct{ Project, Branch, Endpoint string }

func (n EndpointName) String() string {
	return "projects/" + n.Project + "/branches/" + n.Branch + "/endpoints/" + n.Endpoint
}

// Parent is the branch the endpoint serves.
func (n EndpointName) Parent() BranchName { return BranchName{n.Project, n.Branch} }

// ParseProjectName reads "projects/p".
func ParseProjectName(s string) (ProjectName, error) {
	v, err := parseResource(s, "projects")
	if err != nil {
		return ProjectName{}, err
	}
	return ProjectName{v[0]}, nil
}

// ParseBranchName reads "projects/p/branches/b".
func ParseBranchName(s string) (BranchName, error) {
	v, err := parseResource(s, "projects", "branches")
	if err != nil {
		return BranchName{}, err
	}
	return BranchName{v[0], v[1]}, nil
}

// ParseEndpointName reads "projects/p/branches/b/endpoints/e".
func ParseEndpointName(s string) (EndpointName, error) {
	v, err := parseResource(s, "projects", "branches", "endpoints")
	if err != nil {
		return EndpointName{}, err
	}
	return EndpointName{v[0], v[1], v[2]}, nil
}

func parseResource(s string, collections ...string) ([]string, error) {
	parts := strings.Split(s, "/")
	want := strings.Join(collections, "/{id}/") + "/{id}"
	if len(parts) != 2*len(collections) {
		return nil, Invalid("resource name %q: want %s", s, want)
	}
	ids := make([]string, 0, len(collections))
	for i, c := range collections {
		if parts[2*i] != c {
			return nil, Invalid("resource name %q: want %s", s, want)
		}
		id, err := ParseID(strings.TrimSuffix(c, "s"), parts[2*i+1])
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// TableName is Unity Catalog's three-part name.
type TableName struct{ Catalog, Schema, Table string }

func (n TableName) String() string { return n.Catalog + "." + n.Schema + "." + n.Table }

// ParseTableName reads "catalog.schema.table"; a part may be quoted with
// backticks and then hold dots.
func ParseTableName(s string) (TableName, error) {
	parts, err := splitDotted(s)
	if err != nil || len(parts) != 3 {
		return TableName{}, Invalid("table name %q: want catalog.schema.table", s)
	}
	for _, p := range parts {
		// The parts become folders and Postgres identifiers.
		if p == "" || len(p) > 255 || p == "." || p == ".." || strings.ContainsAny(p, "/\\\x00") {
			return TableName{}, Invalid("table name %q: part %q is empty, too long or holds a character that is not allowed", s, p)
		}
	}
	return TableName{parts[0], parts[1], parts[2]}, nil
}

func splitDotted(s string) ([]string, error) {
	var parts []string
	for {
		if !strings.HasPrefix(s, "`") {
			head, rest, more := strings.Cut(s, ".")
			parts = append(parts, head)
			if !more {
				return parts, nil
			}
			s = rest
			continue
		}
		head, rest, ok := strings.Cut(s[1:], "`")
		if !ok {
			return nil, fmt.Errorf("missing closing backtick")
		}
		parts = append(parts, head)
		if rest == "" {
			return parts, nil
		}
		if rest[0] != '.' {
			return nil, fmt.Errorf("text after closing backtick")
		}
		s = rest[1:]
	}
}
