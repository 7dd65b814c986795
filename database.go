package tarn

import "time"

// DatabaseSpec is what is asked of a Postgres database of a branch.
type DatabaseSpec struct {
	Branch BranchName
	ID     string // of the resource; "" = made from the name
	Name   string // Postgres's
	Owner  string // Postgres role
}

// Database is a Postgres database as observed.
type Database struct {
	DatabaseSpec
	OwnerID string // what its owner is called in resource names
}

// ResourceName prints as the published "…/branches/{b}/databases/{id}".
func (d Database) ResourceName() string { return d.Branch.String() + "/databases/" + d.ID }

// RegisteredCatalog is a Postgres database that appears as a read-only catalog.
type RegisteredCatalog struct {
	Name     string
	UID      string
	Branch   BranchName
	Database string
	// When it was registered, and when its objects were last seen to change.
	CreateTime time.Time
	UpdateTime time.Time
	Objects    []CatalogObject // as last seen; a sleeping database is not woken to look
}

// CatalogObject is a table or view of a registered database.
type CatalogObject struct {
	Schema  string         `json:"schema"`
	Name    string         `json:"name"`
	View    bool           `json:"view,omitempty"`
	Comment string         `json:"comment,omitempty"`
	Columns []ObjectColumn `json:"columns"`
}

// ObjectColumn is a column of a CatalogObject.
type ObjectColumn struct {
	Name     string `json:"name"`
	Type     string `json:"type"`     // as a Delta table would have it
	Postgres string `json:"postgres"` // as format_type prints it
	Nullable bool   `json:"nullable"`
	Comment  string `json:"comment,omitempty"`
}
