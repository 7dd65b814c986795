package wire

import "encoding/json"

// Status is Tarn's own view of itself.
type Status struct {
	Version     string    `json:"version"`
	WorkspaceID string    `json:"workspace_id"`
	Owner       string    `json:"owner"`
	User        string    `json:"user"` // who asks
	API         string    `json:"api"`  // URL this server is reached at
	CAFile      string    `json:"ca_file,omitempty"`
	LakeURL     string    `json:"lake_url,omitempty"` // root of catalog lake
	Volumes     string    `json:"volumes,omitempty"`  // how branches are kept: fuse, directory (reflink), directory (copy)
	Projects    []string  `json:"projects"`
	Branches    []string  `json:"branches"` // projects/p/branches/b
	Endpoints   []Address `json:"endpoints"`
	Computes    []Compute `json:"computes"`
	Processes   []Process `json:"processes"`
	Storage     *Storage  `json:"storage,omitempty"` // absent: everything is on the server's computer only
}

// Storage is the object store that everything is copied to.
type Storage struct {
	URL         string       `json:"url"`
	Branches    []BranchCopy `json:"branches"`
	LakeOutside string       `json:"lake_outside,omitempty"`    // root of catalog lake, when that is not below URL: nobody copies it
	ControlSecs float64      `json:"control_seconds,omitempty"` // how long ago all of the control database had arrived; 0 = it is not copied
}

// BranchCopy is how far the object store has a branch's write-ahead log, and how
// far the branch came back from there when the data directory had been lost.
type BranchCopy struct {
	Branch   string  `json:"branch"` // projects/p/branches/b
	LagBytes int64   `json:"lag_bytes"`
	LagSecs  float64 `json:"lag_seconds"`         // how long ago all there was had arrived
	Waiting  bool    `json:"waiting,omitempty"`   // it is at rest, and its end has not arrived
	Away     bool    `json:"away,omitempty"`      // it is in the object store only, until it is wanted
	Problem  string  `json:"problem,omitempty"`   // why it could not be brought back
	BackLSN  string  `json:"back_lsn,omitempty"`  // it came back up to here
	BackTime string  `json:"back_time,omitempty"` // when the last of that had been copied
}

// Process is one process of this Tarn on the server's computer.
type Process struct {
	Role      string `json:"role"` // up, control, node, control-postgres, postgres
	PID       int    `json:"pid"`
	Endpoint  string `json:"endpoint,omitempty"`   // of a postgres: its endpoint's uid
	SocketDir string `json:"socket_dir,omitempty"` // of a postgres: where the server's own user may connect
	Port      int    `json:"port,omitempty"`
}

// Address is where an endpoint is reached.
type Address struct {
	Name  string `json:"name"` // projects/p/branches/b/endpoints/e
	Host  string `json:"host"`
	Port  int    `json:"port"`
	State string `json:"state"`
}

// Compute is one Postgres as the node sees it.
type Compute struct {
	Endpoint       string `json:"endpoint"` // the endpoint's uid
	Branch         string `json:"branch"`
	State          string `json:"state"`
	PID            int    `json:"pid,omitempty"`
	PGVersion      int    `json:"pg_version,omitempty"`
	StartTime      string `json:"start_time,omitempty"`
	LastActiveTime string `json:"last_active_time,omitempty"`
	Message        string `json:"message,omitempty"`
	StartSteps     []Step `json:"start_steps,omitempty"` // of the running compute

	CU          float64 `json:"cu,omitempty"`           // its size now
	FixedBy     string  `json:"fixed_by,omitempty"`     // why its size cannot change on this computer
	MemoryBytes int64   `json:"memory_bytes,omitempty"` // in use

	ReadOnly bool    `json:"read_only,omitempty"` // it is a replica
	LSN      string  `json:"lsn,omitempty"`
	LagBytes int64   `json:"lag_bytes,omitempty"`   // of WAL that a replica has not replayed
	LagSecs  float64 `json:"lag_seconds,omitempty"` // how old what it shows is
}

// Step is a part of a start.
type Step struct {
	Name   string  `json:"name"`
	TookMS float64 `json:"took_ms"`
}

// Connection is all a Postgres client needs but a password.
type Connection struct {
	Endpoint   string `json:"endpoint"`
	Host       string `json:"host"`
	PooledHost string `json:"pooled_host,omitempty"` // of the endpoint's pooler, on the same port
	Port       int    `json:"port"`
	Database   string `json:"dbname"`
	User       string `json:"user"`
	CAFile     string `json:"ca_file,omitempty"` // on the server's computer
}

// RestoreBranch asks for a branch to be put back to one of a time, an LSN and a
// snapshot.
type RestoreBranch struct {
	SourceBranchTime string `json:"source_branch_time,omitempty"`
	SourceBranchLSN  string `json:"source_branch_lsn,omitempty"`
	SourceSnapshot   string `json:"source_snapshot,omitempty"` // projects/p/snapshots/s
	KeepAs           string `json:"keep_as,omitempty"`         // id of the branch that goes on with what is replaced; "" = one is made up
}

// ResetBranch asks for a branch to be put to what its parent holds.
type ResetBranch struct {
	KeepAs string `json:"keep_as,omitempty"` // id of the branch that goes on with what is replaced; "" = it is removed
}

// Window is the past of a branch that can be had again.
type Window struct {
	Branch                   string `json:"branch"`
	FromTime                 string `json:"from_time"`
	FromLSN                  string `json:"from_lsn"`
	ToTime                   string `json:"to_time"` // now
	ToLSN                    string `json:"to_lsn"`
	HistoryRetentionDuration string `json:"history_retention_duration"`
	WholeLife                bool   `json:"whole_life"`               // from_time is when the branch began
	EarlierBranch            string `json:"earlier_branch,omitempty"` // has the past before the branch was restored
	OwnSizeBytes             int64  `json:"own_size_bytes"`           // on disk, without what is shared with others
}

// ListPostgresSyncedTables lists synced tables as the postgres API spells them,
// which has no list call of its own.
type ListPostgresSyncedTables struct {
	SyncedTables  []SyncedTable `json:"synced_tables"`
	NextPageToken string        `json:"next_page_token,omitempty"`
}

// Column is one column of TableRows; Type is a Delta type.
type Column struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

// TableRows are the first rows of a Delta table.
type TableRows struct {
	Table   string              `json:"table"`
	Version int64               `json:"version"`
	Columns []Column            `json:"columns"`
	Rows    [][]json.RawMessage `json:"rows"`
}

// TableCount is how many rows a Delta table has.
type TableCount struct {
	Table   string `json:"table"`
	Version int64  `json:"version"`
	Count   int64  `json:"count"`
}

// TableHistory lists commits, newest first.
type TableHistory struct {
	Table   string        `json:"table"`
	Commits []TableCommit `json:"commits"`
}

// TableCommit is one version of a Delta table.
type TableCommit struct {
	Version   int64             `json:"version"`
	Timestamp string            `json:"timestamp"`
	Operation string            `json:"operation"`
	Params    map[string]string `json:"operation_parameters,omitempty"`
	Metrics   map[string]string `json:"operation_metrics,omitempty"`
}

// GatewaySession is a client of the Postgres gateway.
type GatewaySession struct {
	Endpoint        string  `json:"endpoint"` // its UID
	EndpointName    string  `json:"endpoint_name"`
	PID             uint32  `json:"pid"` // what the client takes for its backend's
	Role            string  `json:"role"`
	Database        string  `json:"database"`
	ApplicationName string  `json:"application_name,omitempty"`
	ClientAddr      string  `json:"client_addr"`
	Pooled          bool    `json:"pooled"`
	Busy            bool    `json:"busy"`
	Parked          bool    `json:"parked,omitempty"` // its compute went away; the next statement wakes it
	Started         string  `json:"started"`
	WakeSecs        float64 `json:"wake_seconds,omitempty"` // that its login waited for the compute
	BytesIn         uint64  `json:"bytes_in"`
	BytesOut        uint64  `json:"bytes_out"`
	Statements      uint64  `json:"statements"`
}

// GatewaySessions is every open session, oldest first.
type GatewaySessions struct {
	Connections []GatewaySession `json:"connections"`
}
