package wire

// StartUpdate asks a pipeline for a run.
type StartUpdate struct {
	FullRefresh *bool  `json:"full_refresh,omitempty"`
	Cause       string `json:"cause,omitempty"`
	// A pipeline moves one table: a selection can only name it.
	RefreshSelection     []string `json:"refresh_selection,omitempty"`
	FullRefreshSelection []string `json:"full_refresh_selection,omitempty"`
	ValidateOnly         bool     `json:"validate_only,omitempty"`
}

// StartUpdateResponse names the run.
type StartUpdateResponse struct {
	UpdateID string `json:"update_id"`
}

// Pipeline is what moves one synced table or feed.
type Pipeline struct {
	PipelineID    string          `json:"pipeline_id"`
	Name          string          `json:"name"`
	State         string          `json:"state"` // IDLE, RUNNING or FAILED
	Health        string          `json:"health,omitempty"`
	Cause         string          `json:"cause,omitempty"`
	Creator       string          `json:"creator_user_name,omitempty"`
	RunAs         string          `json:"run_as_user_name,omitempty"`
	LastModified  int64           `json:"last_modified,omitempty"` // ms since 1970
	LatestUpdates []UpdateSummary `json:"latest_updates,omitempty"`
	Spec          *PipelineSpec   `json:"spec,omitempty"`
}

// PipelineSpec says what a pipeline moves.
type PipelineSpec struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Continuous bool   `json:"continuous"`
}

// UpdateSummary is an update in a pipeline's own answer.
type UpdateSummary struct {
	UpdateID     string `json:"update_id"`
	State        string `json:"state"`
	CreationTime string `json:"creation_time"`
}

// ListPipelines is one page of pipelines.
type ListPipelines struct {
	Statuses      []Pipeline `json:"statuses"`
	NextPageToken string     `json:"next_page_token,omitempty"`
}

// UpdateInfo is one run of a pipeline.
type UpdateInfo struct {
	PipelineID   string `json:"pipeline_id"`
	UpdateID     string `json:"update_id"`
	Cause        string `json:"cause"`
	State        string `json:"state"`
	FullRefresh  bool   `json:"full_refresh"`
	CreationTime int64  `json:"creation_time"` // ms since 1970
	// Tarn's own.
	Message string `json:"message,omitempty"`
	Rows    int64  `json:"rows,omitempty"`
}

// GetUpdate is the answer about one update.
type GetUpdate struct {
	Update UpdateInfo `json:"update"`
}

// ListUpdates is one page of updates.
type ListUpdates struct {
	Updates       []UpdateInfo `json:"updates"`
	NextPageToken string       `json:"next_page_token,omitempty"`
	PrevPageToken string       `json:"prev_page_token,omitempty"`
}

// PipelineEvent is something that happened in a pipeline.
type PipelineEvent struct {
	ID            string         `json:"id"`
	Timestamp     string         `json:"timestamp"`
	Level         string         `json:"level"`
	EventType     string         `json:"event_type"`
	Message       string         `json:"message"`
	MaturityLevel string         `json:"maturity_level"`
	Origin        EventOrigin    `json:"origin"`
	Sequence      EventSequence  `json:"sequence"`
	Error         *PipelineError `json:"error,omitempty"`
}

// EventOrigin says where an event comes from.
type EventOrigin struct {
	PipelineID   string `json:"pipeline_id"`
	PipelineName string `json:"pipeline_name"`
	UpdateID     string `json:"update_id,omitempty"`
}

// EventSequence orders events.
type EventSequence struct {
	ControlPlaneSeqNo int64 `json:"control_plane_seq_no"`
}

// PipelineError is what failed.
type PipelineError struct {
	Fatal      bool                `json:"fatal"`
	Exceptions []PipelineException `json:"exceptions"`
}

// PipelineException is one cause of an error.
type PipelineException struct {
	Message string `json:"message"`
}

// ListPipelineEvents is one page of events, newest first.
type ListPipelineEvents struct {
	Events        []PipelineEvent `json:"events"`
	NextPageToken string          `json:"next_page_token,omitempty"`
}
