package wire

// TableLineage is what is next to a table, by the published API's names.
type TableLineage struct {
	Upstreams   []LineageNode `json:"upstreams"`
	Downstreams []LineageNode `json:"downstreams"`
}

// LineageNode is one table next to another and what moved the rows.
type LineageNode struct {
	TableInfo     LineageTable      `json:"tableInfo"`
	PipelineInfos []LineagePipeline `json:"pipelineInfos,omitempty"`
	QueryInfos    []LineageQuery    `json:"queryInfos,omitempty"`
}

// LineageTable names a table. A Postgres table of a database without a catalog
// has the database's name for its catalog's.
type LineageTable struct {
	Name             string `json:"name"`
	CatalogName      string `json:"catalog_name"`
	SchemaName       string `json:"schema_name"`
	TableType        string `json:"table_type"`
	LineageTimestamp string `json:"lineage_timestamp"` // of the newest rows
}

// LineagePipeline is a synced table or feed at work.
type LineagePipeline struct {
	Kind             string `json:"kind"` // SYNCED_TABLE or FEED
	PipelineID       string `json:"pipeline_id"`
	UpdateID         string `json:"update_id"` // the newest
	FirstTime        string `json:"first_time"`
	LineageTimestamp string `json:"lineage_timestamp"`
}

// LineageQuery is statements of one kind.
type LineageQuery struct {
	Kind             string `json:"kind"`     // CREATE_TABLE_AS, INSERT, UPDATE or MERGE
	QueryID          string `json:"query_id"` // the newest
	UserName         string `json:"user_name"`
	FirstTime        string `json:"first_time"`
	LineageTimestamp string `json:"lineage_timestamp"`
}

// ColumnLineage is what is next to a column.
type ColumnLineage struct {
	UpstreamCols   []LineageColumn `json:"upstream_cols"`
	DownstreamCols []LineageColumn `json:"downstream_cols"`
}

// LineageColumn names a column.
type LineageColumn struct {
	Name             string `json:"name"`
	CatalogName      string `json:"catalog_name"`
	SchemaName       string `json:"schema_name"`
	TableName        string `json:"table_name"`
	TableType        string `json:"table_type"`
	LineageTimestamp string `json:"lineage_timestamp"`
}
