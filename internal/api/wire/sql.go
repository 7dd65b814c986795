package wire

import "encoding/json"

// ExecuteStatement asks for a statement to be run.
type ExecuteStatement struct {
	Statement     string         `json:"statement"`
	WarehouseID   string         `json:"warehouse_id"`
	Catalog       string         `json:"catalog,omitempty"`
	Schema        string         `json:"schema,omitempty"`
	Parameters    []SQLParameter `json:"parameters,omitempty"`
	RowLimit      int64          `json:"row_limit,omitempty"`
	ByteLimit     int64          `json:"byte_limit,omitempty"`
	Disposition   string         `json:"disposition,omitempty"` // INLINE
	Format        string         `json:"format,omitempty"`      // JSON_ARRAY, ARROW_STREAM
	WaitTimeout   string         `json:"wait_timeout,omitempty"`
	OnWaitTimeout string         `json:"on_wait_timeout,omitempty"` // CONTINUE, CANCEL
}

// SQLParameter is the value of :name in a statement.
type SQLParameter struct {
	Name  string  `json:"name"`
	Type  string  `json:"type,omitempty"`
	Value *string `json:"value,omitempty"` // absent = NULL
}

// Statement is how far a statement is, and its first rows.
type Statement struct {
	StatementID string             `json:"statement_id"`
	Status      StatementStatus    `json:"status"`
	Manifest    *StatementManifest `json:"manifest,omitempty"`
	Result      *StatementResult   `json:"result,omitempty"`
}

// StatementStatus is where a statement is.
type StatementStatus struct {
	State    string          `json:"state"`
	Error    *StatementError `json:"error,omitempty"`
	Progress *float64        `json:"progress_percent,omitempty"` // Tarn's own: 0 to 100
}

// StatementError is why a statement failed.
type StatementError struct {
	ErrorCode string `json:"error_code"`
	Message   string `json:"message"`
	Hint      string `json:"hint,omitempty"` // Tarn's own: what to type or change next
}

// StatementManifest describes a result.
type StatementManifest struct {
	Format          string           `json:"format"`
	Schema          StatementSchema  `json:"schema"`
	TotalChunkCount int              `json:"total_chunk_count"`
	Chunks          []StatementChunk `json:"chunks,omitempty"`
	TotalRowCount   int64            `json:"total_row_count"`
	TotalByteCount  int64            `json:"total_byte_count"`
	Truncated       bool             `json:"truncated"`
}

// StatementSchema is the columns of a result.
type StatementSchema struct {
	ColumnCount int               `json:"column_count"`
	Columns     []StatementColumn `json:"columns"`
}

// StatementColumn is one column of a result.
type StatementColumn struct {
	Name      string `json:"name"`
	Position  int    `json:"position"`
	TypeText  string `json:"type_text"`
	TypeName  string `json:"type_name"`
	Precision *int   `json:"type_precision,omitempty"`
	Scale     *int   `json:"type_scale,omitempty"`
}

// StatementChunk is where a part of a result begins and how large it is.
type StatementChunk struct {
	ChunkIndex int   `json:"chunk_index"`
	RowOffset  int64 `json:"row_offset"`
	RowCount   int64 `json:"row_count"`
	ByteCount  int64 `json:"byte_count"`
}

// StatementResult is one part of a result: rows, or a whole Arrow stream.
type StatementResult struct {
	StatementChunk
	DataArray             json.RawMessage `json:"data_array,omitempty"` // an array of rows, arrays of texts and nulls
	Attachment            []byte          `json:"attachment,omitempty"` // base64
	NextChunkIndex        *int            `json:"next_chunk_index,omitempty"`
	NextChunkInternalLink string          `json:"next_chunk_internal_link,omitempty"`
}

// Warehouse is what runs statements.
type Warehouse struct {
	ID                      string           `json:"id"`
	Name                    string           `json:"name"`
	ClusterSize             string           `json:"cluster_size"`
	AutoStopMins            int              `json:"auto_stop_mins"`
	CreatorName             string           `json:"creator_name,omitempty"`
	EnableServerlessCompute bool             `json:"enable_serverless_compute"`
	MaxNumClusters          int              `json:"max_num_clusters"`
	MinNumClusters          int              `json:"min_num_clusters"`
	NumActiveSessions       int              `json:"num_active_sessions"`
	NumClusters             int              `json:"num_clusters"`
	State                   string           `json:"state"`
	WarehouseType           string           `json:"warehouse_type"`
	Health                  *WarehouseHealth `json:"health,omitempty"`
	MemoryBytes             int64            `json:"memory_bytes"` // Tarn's own
	Threads                 int              `json:"threads"`      // Tarn's own
}

// WarehouseHealth says whether a warehouse works.
type WarehouseHealth struct {
	Status  string `json:"status"`
	Message string `json:"message,omitempty"`
}

// ListWarehouses is a page of warehouses.
type ListWarehouses struct {
	Warehouses []Warehouse `json:"warehouses"`
}

// QueryHistory is a page of statements that were run.
type QueryHistory struct {
	Results       []QueryRecord `json:"res"`
	HasNextPage   bool          `json:"has_next_page"`
	NextPageToken string        `json:"next_page_token,omitempty"`
}

// QueryRecord is a statement that was run. Times are milliseconds since 1970.
type QueryRecord struct {
	QueryID          string `json:"query_id"`
	Status           string `json:"status"` // QUEUED, RUNNING, FINISHED, FAILED, CANCELED
	QueryText        string `json:"query_text"`
	QueryStartTimeMS int64  `json:"query_start_time_ms"`
	ExecutionEndMS   int64  `json:"execution_end_time_ms,omitempty"`
	QueryEndTimeMS   int64  `json:"query_end_time_ms,omitempty"`
	Duration         int64  `json:"duration"`
	UserName         string `json:"user_name"`
	ExecutedAsName   string `json:"executed_as_user_name"`
	WarehouseID      string `json:"warehouse_id"`
	EndpointID       string `json:"endpoint_id"`
	RowsProduced     int64  `json:"rows_produced"`
	ErrorMessage     string `json:"error_message,omitempty"`
	StatementType    string `json:"statement_type"`
	IsFinal          bool   `json:"is_final"`
}
