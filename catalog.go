package tarn

import "time"

// CatalogTable is a table the catalog knows: where its bytes are, not what
// they say.
type CatalogTable struct {
	Name       TableName
	ID         string // stable; a dropped and recreated table has another
	Location   string // URL of the folder that holds _delta_log, e.g. file:///…
	Owner      string
	Comment    string
	CreateTime time.Time
	UpdateTime time.Time
}
