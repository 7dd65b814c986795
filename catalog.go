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
