package tarn

import "time"

// LineageKind says by what rows came from one table into another.
type LineageKind string

// The kinds.
const (
	LineageSynced LineageKind = "SYNCED_TABLE"
	LineageFeed   LineageKind = "FEED"
	LineageCTAS   LineageKind = "CREATE_TABLE_AS"
	LineageInsert LineageKind = "INSERT"
	LineageUpdate LineageKind = "UPDATE"
	LineageMerge  LineageKind = "MERGE"
)

// LineageEdge says that rows of one table came from another. A Postgres table is
// named as the catalog of its database does, or, when that is not registered,
// with DatabaseCatalog in place of a catalog.
type LineageEdge struct {
	Source, Target TableName
	Kind           LineageKind
	Columns        []ColumnPair // none = not known
	Pipeline       string       // id; "" = a statement did it
	Run            string       // id of the newest update of the pipeline, or statement
	Principal      string       // who ran the newest; "" = the pipeline's
	First, Last    time.Time
}

// ColumnPair says that a column was computed from another.
type ColumnPair struct {
	Source string `json:"s"`
	Target string `json:"t"`
}

// SameColumns pairs columns that keep their names.
func SameColumns(names []string) []ColumnPair {
	out := make([]ColumnPair, len(names))
	for i, n := range names {
		out[i] = ColumnPair{n, n}
	}
	return out
}

// DatabaseCatalog stands for the catalog of a database that has none. No catalog
// can be called that.
func DatabaseCatalog(b BranchName, database string) string {
	return b.String() + "/databases/" + database
}
