package tarn

import "time"

// EndpointType says whether an endpoint writes; one READ_WRITE per branch.
type EndpointType string

// The published endpoint types.
const (
	ReadWrite EndpointType = "ENDPOINT_TYPE_READ_WRITE"
	ReadOnly  EndpointType = "ENDPOINT_TYPE_READ_ONLY"
)

// EndpointState is the published state of an endpoint, observed from its
// compute: INIT while it starts, ACTIVE with a running Postgres, IDLE without,
// DEGRADED when it cannot be kept running.
type EndpointState string

// The states of an endpoint.
const (
	EndpointInit     EndpointState = "INIT"
	EndpointActive   EndpointState = "ACTIVE"
	EndpointIdle     EndpointState = "IDLE"
	EndpointDegraded EndpointState = "DEGRADED"
)

// DefaultFreezeAfter is how long an endpoint's compute runs without a client
// statement before it is frozen, when nothing else was asked.
const DefaultFreezeAfter = time.Minute

// DefaultSuspendAfter is how long an endpoint stays up without a client
// statement when nothing else was asked.
const DefaultSuspendAfter = 5 * time.Minute

// EndpointSpec is what is asked of an endpoint.
type EndpointSpec struct {
	Name         EndpointName
	Type         EndpointType  // "" = ReadWrite
	MinCU        float64       // 1 CU = 2 GB of memory; 0 = 0.5
	MaxCU        float64       // 0 = 2
	SuspendAfter time.Duration // 0 = DefaultSuspendAfter; negative = never
	FreezeAfter  time.Duration // 0 = DefaultFreezeAfter; negative = never, as where it is never suspended
	Disabled     bool          // suspended, and no connection wakes it
	Settings     map[string]string
}

// Endpoint is an endpoint as recorded; its state comes from its compute.
type Endpoint struct {
	EndpointSpec
	UID        string // "ep-..."; stands in host names and routes connections
	Host       string // address clients connect to, on port Port
	Port       int
	Domain     string // of DNS names that lead to the gateway; "" = none
	State      EndpointState
	LastActive time.Time
	CreateTime time.Time
	UpdateTime time.Time
}

// ComputeSpec is all a node needs to know to run an endpoint's compute.
type ComputeSpec struct {
	Endpoint     string        `json:"endpoint"` // the endpoint's UID: identity of the compute
	Branch       BranchName    `json:"branch"`   // for logs and application_name
	Timeline     TimelineID    `json:"timeline"`
	PGVersion    int           `json:"pg_version"`
	MinCU        float64       `json:"min_cu"`
	MaxCU        float64       `json:"max_cu"`
	SuspendAfter time.Duration `json:"suspend_after"` // 0 or negative = never
	FreezeAfter  time.Duration `json:"freeze_after"`  // 0 or negative = never
	// ReadOnly makes it a replica of the branch's compute, which is Primary's:
	// Timeline is then the branch's, and the node forks it.
	ReadOnly bool   `json:"read_only,omitempty"`
	Primary  string `json:"primary,omitempty"` // UID of the branch's READ_WRITE endpoint
	// Settings are extra Postgres settings, already validated.
	Settings map[string]string `json:"settings,omitempty"`
}

// ComputeState is where a compute stands.
//
//	stopped ──▶ starting ──▶ active ──▶ stopping ──▶ stopped
//	               │          ▲ │ │
//	               └─▶ failed ┼◀┘ │
//	                        frozen◀┘
//
// A frozen compute uses no CPU; its sessions are open, and it goes on within
// milliseconds.
type ComputeState string

// The states of a compute.
const (
	ComputeStopped  ComputeState = "stopped"
	ComputeStarting ComputeState = "starting"
	ComputeActive   ComputeState = "active"
	ComputeFrozen   ComputeState = "frozen"
	ComputeStopping ComputeState = "stopping"
	ComputeFailed   ComputeState = "failed"
)

// ComputeStatus is what a node observes of one compute.
type ComputeStatus struct {
	Endpoint   string       `json:"endpoint"`
	Branch     BranchName   `json:"branch"`
	Timeline   TimelineID   `json:"timeline"`
	State      ComputeState `json:"state"`
	PID        int          `json:"pid,omitempty"`        // of the postmaster
	SocketDir  string       `json:"socket_dir,omitempty"` // its unix socket's directory, mode 0700
	Port       int          `json:"port,omitempty"`       // names the socket: .s.PGSQL.<port>
	PGVersion  int          `json:"pg_version,omitempty"`
	Mount      string       `json:"mount,omitempty"` // data directory
	StartTime  time.Time    `json:"start_time,omitzero"`
	LastActive time.Time    `json:"last_active,omitzero"` // last client statement seen
	Message    string       `json:"message,omitempty"`    // why it failed or was suspended, or what went wrong last

	// Start is what the start of the running compute consisted of; nil when it
	// was not timed.
	Start []Step `json:"start,omitempty"`

	CU          float64 `json:"cu,omitempty"`           // its size now; 0 = it does not run
	FixedBy     string  `json:"fixed_by,omitempty"`     // why its size cannot change here, whatever its limits; "" = it can
	MemoryBytes int64   `json:"memory_bytes,omitempty"` // in use, page cache included; 0 = not known

	ReadOnly bool          `json:"read_only,omitempty"` // it is a replica
	LSN      LSN           `json:"lsn,omitempty"`       // of its WAL on disk; of a replica: replayed
	LagBytes int64         `json:"lag_bytes,omitempty"` // of a replica: of WAL
	Lag      time.Duration `json:"lag,omitempty"`       // of a replica: the age of the last commit it has, while it misses some
}

// Superuser is the role by which Tarn itself works inside a compute. Clients
// can never log in as it.
const Superuser = "tarn_admin"

// TimelineSpec asks a node for a new timeline.
type TimelineSpec struct {
	ID        TimelineID `json:"id"`
	PGVersion int        `json:"pg_version"`       // of the template to fork when Source is empty
	Source    TimelineID `json:"source,omitempty"` // timeline to fork
	// At most one of Time and LSN; neither = the source's head now.
	Time time.Time `json:"time,omitzero"`
	LSN  LSN       `json:"lsn,omitempty"`
	// History is how far back it can itself be forked; 0 = DefaultHistory,
	// negative = not at all.
	History time.Duration `json:"history,omitempty"`
}

// TimelineStatus is what a node knows of a timeline.
type TimelineStatus struct {
	ID       TimelineID `json:"id"`
	Parent   Point      `json:"parent,omitzero"` // zero for a template
	ForkLSN  LSN        `json:"fork_lsn,omitempty"`
	ForkTime time.Time  `json:"fork_time,omitzero"`
	Head     Seq        `json:"head"`
	Bytes    int64      `json:"bytes"` // own bytes on disk, without the parent's
	Marks    []Mark     `json:"marks,omitempty"`
	Copy     *CopyState `json:"copy,omitempty"` // nil without an object store
}

// CopyState is how far the object store has a timeline, and how far it gave
// one back when the data directory had been lost.
type CopyState struct {
	LagBytes int64         `json:"lag_bytes"`          // of WAL that is not there yet
	LagAge   time.Duration `json:"lag_age"`            // how long ago all there was had arrived
	Waiting  bool          `json:"waiting,omitempty"`  // no compute runs, and the end of its WAL is not there yet
	Away     bool          `json:"away,omitempty"`     // it is there only: it comes back when it is wanted
	Problem  string        `json:"problem,omitempty"`  // why it could not be brought back
	BackLSN  LSN           `json:"back_lsn,omitempty"` // it came back up to here; 0 = it never was away
	BackTime time.Time     `json:"back_time,omitzero"` // when the last of that was copied
}
