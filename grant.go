package tarn

import (
	"slices"
	"strings"
)

// Privilege is what a grant gives on a catalog object, as published.
type Privilege string

// The privileges. One that is given on an object holds for everything in it.
// PrivilegeAll is every privilege that fits the object but PrivilegeManage.
const (
	PrivilegeUseCatalog    Privilege = "USE_CATALOG"
	PrivilegeUseSchema     Privilege = "USE_SCHEMA"
	PrivilegeSelect        Privilege = "SELECT"
	PrivilegeModify        Privilege = "MODIFY"
	PrivilegeCreateTable   Privilege = "CREATE_TABLE"
	PrivilegeCreateSchema  Privilege = "CREATE_SCHEMA"
	PrivilegeCreateCatalog Privilege = "CREATE_CATALOG"
	PrivilegeManage        Privilege = "MANAGE"
	PrivilegeAll           Privilege = "ALL_PRIVILEGES"
)

// Privileges are all of them, in the order they are shown.
func Privileges() []Privilege {
	return []Privilege{
		PrivilegeUseCatalog, PrivilegeUseSchema, PrivilegeSelect, PrivilegeModify, PrivilegeCreateTable,
		PrivilegeCreateSchema, PrivilegeCreateCatalog, PrivilegeManage, PrivilegeAll,
	}
}

// ParsePrivilege reads a privilege in any case, with spaces or underscores.
func ParsePrivilege(s string) (Privilege, error) {
	p := Privilege(strings.ToUpper(strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == '_' }), "_")))
	if p == "ALL" {
		p = PrivilegeAll
	}
	if !slices.Contains(Privileges(), p) {
		var known []string
		for _, k := range Privileges() {
			known = append(known, k.Words())
		}
		return "", Invalid("privilege %q: want one of %s", s, strings.Join(known, ", "))
	}
	return p, nil
}

// Words writes the privilege as in SQL, "USE CATALOG".
func (p Privilege) Words() string { return strings.ReplaceAll(string(p), "_", " ") }

// On says whether the privilege may be granted on an object of a type: on what
// it is about and on whatever holds such things.
func (p Privilege) On(t SecurableType) bool {
	switch p {
	case PrivilegeCreateCatalog:
		return t == SecurableMetastore
	case PrivilegeUseCatalog, PrivilegeCreateSchema:
		return t == SecurableCatalog
	case PrivilegeUseSchema, PrivilegeCreateTable:
		return t == SecurableCatalog || t == SecurableSchema
	}
	return t != SecurableMetastore
}

// SecurableType is the published type of an object that grants are about.
type SecurableType string

// The types. The metastore holds all catalogs.
const (
	SecurableMetastore SecurableType = "METASTORE"
	SecurableCatalog   SecurableType = "CATALOG"
	SecurableSchema    SecurableType = "SCHEMA"
	SecurableTable     SecurableType = "TABLE"
)

// Securable names an object that grants are about: its zero value is the
// metastore, and each further part is one level down.
type Securable struct{ Catalog, Schema, Table string }

// CatalogSecurable names a catalog.
func CatalogSecurable(catalog string) Securable { return Securable{Catalog: catalog} }

// SchemaSecurable names a schema.
func SchemaSecurable(catalog, schema string) Securable {
	return Securable{Catalog: catalog, Schema: schema}
}

// Securable names the table as an object of grants.
func (n TableName) Securable() Securable { return Securable(n) }

// ParseSecurable reads the name of an object of a type; the metastore's may be
// anything.
func ParseSecurable(t SecurableType, name string) (Securable, error) {
	want := map[SecurableType]int{SecurableMetastore: 0, SecurableCatalog: 1, SecurableSchema: 2, SecurableTable: 3}
	n, ok := want[t]
	if !ok {
		return Securable{}, Invalid("securable type %q: want METASTORE, CATALOG, SCHEMA or TABLE", t)
	}
	if n == 0 {
		return Securable{}, nil
	}
	parts, err := splitDotted(name)
	if err != nil || len(parts) != n || slices.Contains(parts, "") {
		return Securable{}, Invalid("%s name %q: want %s", strings.ToLower(string(t)), name, [...]string{"", "catalog", "catalog.schema", "catalog.schema.table"}[n])
	}
	parts = append(parts, "", "")
	return Securable{parts[0], parts[1], parts[2]}, nil
}

// Type says what the securable is.
func (s Securable) Type() SecurableType {
	switch {
	case s.Table != "":
		return SecurableTable
	case s.Schema != "":
		return SecurableSchema
	case s.Catalog != "":
		return SecurableCatalog
	}
	return SecurableMetastore
}

// Parent is what holds it; the metastore's is itself.
func (s Securable) Parent() Securable {
	switch {
	case s.Table != "":
		s.Table = ""
	case s.Schema != "":
		s.Schema = ""
	default:
		s.Catalog = ""
	}
	return s
}

// FullName is the published dotted name; of the metastore "metastore".
func (s Securable) FullName() string {
	switch s.Type() {
	case SecurableTable:
		return s.Catalog + "." + s.Schema + "." + s.Table
	case SecurableSchema:
		return s.Catalog + "." + s.Schema
	case SecurableCatalog:
		return s.Catalog
	}
	return "metastore"
}

// String reads "table lake.gold.users".
func (s Securable) String() string {
	if s.Type() == SecurableMetastore {
		return "the metastore"
	}
	return strings.ToLower(string(s.Type())) + " " + s.FullName()
}

// Grant is privileges that one principal was given on one object.
type Grant struct {
	On         Securable
	Principal  string // its name
	Privileges []Privilege
}
