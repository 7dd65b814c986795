package tarn

import "time"

// CatalogTable is a table the catalog knows: where its bytes are, not what
// they say.
type CatalogTable struct {
	Name       TableName
	ID         string // stable; a dropped and recreated table has another
	Location   string // URL of the folder that holds _delta_log, e.g. file:///…
	Owner      string // "" = the admins
	Comment    string
	Managed    bool // lies in a folder of its catalog
	Properties map[string]string
	CreatedBy  string
	UpdatedBy  string
	CreateTime time.Time
	UpdateTime time.Time
}

// CatalogEntry is a catalog that holds Delta tables.
type CatalogEntry struct {
	ObjectEntry
	Root string // URL under which its tables get their folders
}

// SchemaEntry is a schema of a CatalogEntry.
type SchemaEntry struct {
	ObjectEntry
	Catalog string
}

// ObjectEntry is what catalogs and schemas have alike.
type ObjectEntry struct {
	Name       string
	ID         string // stable
	Owner      string // "" = the admins
	Comment    string
	Properties map[string]string
	CreateTime time.Time
	CreatedBy  string
	UpdateTime time.Time
	UpdatedBy  string
}

// ObjectChange is what is asked to change of a catalog object; a nil field
// stays as it is.
type ObjectChange struct {
	Owner      *string
	Comment    *string
	Properties map[string]string
}
