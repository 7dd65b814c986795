package tarn

import "time"

// DataAPISpec is what is asked of the HTTP interface to a database's rows.
type DataAPISpec struct {
	Schemas         []string      `json:"schemas"`            // never empty
	MaxRows         int           `json:"max_rows,omitempty"` // 0 = no limit
	ExtraSearchPath []string      `json:"extra_search_path,omitempty"`
	NoAggregates    bool          `json:"no_aggregates,omitempty"`
	RoleClaim       string        `json:"role_claim"` // path into the token, e.g. ".sub"
	TokenCache      time.Duration `json:"token_cache,omitempty"`
	NoOpenAPI       bool          `json:"no_openapi,omitempty"`
	Origins         []string      `json:"origins,omitempty"` // that browsers may ask from
	ServerTiming    bool          `json:"server_timing,omitempty"`
}

// DataAPI is a recorded Data API of a database.
type DataAPI struct {
	Branch     BranchName
	Database   string // its id
	UID        string
	Spec       DataAPISpec
	CreateTime time.Time
	UpdateTime time.Time
}

// DatabaseTable is a Postgres table that was given a name of the catalog.
type DatabaseTable struct {
	Name     TableName // schema and table are also Postgres's
	Branch   BranchName
	Database string // Postgres's name of it
}

// ChildInstance is an instance of the Provisioned API that was made from
// another one: a branch of its project.
type ChildInstance struct {
	Name       string
	Branch     BranchName
	Parent     string // instance it was asked of
	ParentUID  string
	BranchTime time.Time // as asked
	LSN        LSN       // as asked
	Creator    string
	CustomTags map[string]string
	Instance   InstanceSpec
}

// Cadence is one rhythm in which snapshots of a branch are taken. With Weekday
// or MonthDay it is weekly or monthly, else daily.
type Cadence struct {
	Hour      int           `json:"hour"`                // UTC
	Weekday   *time.Weekday `json:"weekday,omitempty"`   // weekly
	MonthDay  int           `json:"month_day,omitempty"` // monthly, 1 to 31; of a shorter month its last
	Retention time.Duration `json:"retention"`           // of a snapshot
}

// Next is the first time after t at which a snapshot is due.
func (c Cadence) Next(t time.Time) time.Time {
	t = t.UTC()
	for day := time.Date(t.Year(), t.Month(), t.Day(), c.Hour, 0, 0, 0, time.UTC); ; day = day.AddDate(0, 0, 1) {
		if day.After(t) && c.on(day) {
			return day
		}
	}
}

func (c Cadence) on(day time.Time) bool {
	switch {
	case c.Weekday != nil:
		return day.Weekday() == *c.Weekday
	case c.MonthDay != 0:
		last := time.Date(day.Year(), day.Month()+1, 0, 0, 0, 0, 0, time.UTC).Day()
		return day.Day() == min(c.MonthDay, last)
	}
	return true
}

// SnapshotSchedule says when snapshots of a branch are taken by themselves.
type SnapshotSchedule struct {
	Branch   BranchName
	Cadences []Cadence // never empty where it is recorded
	Next     time.Time // when the next is due
}

// Due gives the next time and the longest retention of the cadences that are
// due at t.
func (s SnapshotSchedule) Due(t time.Time) (next time.Time, retention time.Duration) {
	for _, c := range s.Cadences {
		if c.Next(t.Add(-time.Second)).Equal(t) {
			retention = max(retention, c.Retention)
		}
		if n := c.Next(t); next.IsZero() || n.Before(next) {
			next = n
		}
	}
	return next, retention
}
