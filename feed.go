package tarn

import (
	"path"
	"slices"
	"time"
)

// FeedState is the published state of one table of a feed.
//
//	SNAPSHOTTING ──▶ STREAMING ──▶ TERMINATED
//	      └──▶ SKIPPED
type FeedState string

// The states of a feed's table.
const (
	FeedSnapshotting FeedState = "CDF_STATE_SNAPSHOTTING"
	FeedStreaming    FeedState = "CDF_STATE_STREAMING"
	FeedSkipped      FeedState = "CDF_STATE_SKIPPED"
	FeedTerminated   FeedState = "CDF_STATE_TERMINATED"
)

// FeedSpec asks for one Postgres schema to be followed into one catalog schema.
type FeedSpec struct {
	ID             string     // [a-z][a-z0-9_]{0,62}; "" = the Postgres schema's name
	Branch         BranchName // what is followed
	Database       string     // "" = DefaultDatabase
	PostgresSchema string
	Catalog        string // Delta tables are Catalog.Schema.lb_<table>_history
	Schema         string
	FeedSettings
}

// FeedSettings is what may be changed about a feed while it runs.
type FeedSettings struct {
	Include []string      // tables to follow, patterns of path.Match; none = every table, present and future
	Exclude []string      // tables not to follow, patterns, stronger than Include
	Flush   time.Duration // a change is in Delta about this long after its commit, 1 s to 60 s; 0 = the server's default
	MaxWAL  int64         // bytes of WAL the slot may hold back before it is given up for a new copy; 0 = DefaultFeedWAL
	Paused  bool
	// Derived says which tables are kept beside the history.
	Derived FeedDerived
}

// FeedDerived is a set of tables that a feed keeps beside each history.
type FeedDerived string

// The derived tables.
const (
	DerivedNone      FeedDerived = ""
	DerivedCurrent   FeedDerived = "current"           // lb_<table>: the rows as they are now
	DerivedIntervals FeedDerived = "intervals"         // lb_<table>_scd2: every row with __START_AT and __END_AT
	DerivedBoth      FeedDerived = "current,intervals" // both
)

// Current says whether lb_<table> is kept.
func (d FeedDerived) Current() bool { return d == DerivedCurrent || d == DerivedBoth }

// Intervals says whether lb_<table>_scd2 is kept.
func (d FeedDerived) Intervals() bool { return d == DerivedIntervals || d == DerivedBoth }

// Bounds of a feed's settings.
const (
	MinFeedFlush   = time.Second
	MaxFeedFlush   = time.Minute
	DefaultFeedWAL = 16 << 30
	MinFeedWAL     = 64 << 20
)

// Check refuses settings that mean nothing. KindInvalid.
func (s FeedSettings) Check() error {
	for _, p := range slices.Concat(s.Include, s.Exclude) {
		if _, err := path.Match(p, ""); err != nil || p == "" {
			return Invalid("table pattern %q: want a name in which * stands for any characters and ? for one", p)
		}
	}
	switch {
	case s.Flush != 0 && (s.Flush < MinFeedFlush || s.Flush > MaxFeedFlush):
		return Invalid("flush interval %s: want %s to %s", s.Flush, MinFeedFlush, MaxFeedFlush)
	case s.MaxWAL != 0 && s.MaxWAL < MinFeedWAL:
		return Invalid("limit of %d bytes of WAL: want at least %d", s.MaxWAL, int64(MinFeedWAL))
	}
	switch s.Derived {
	case DerivedNone, DerivedCurrent, DerivedIntervals, DerivedBoth:
		return nil
	}
	return Invalid("derived tables %q: want current, intervals or current,intervals", s.Derived)
}

// Follows says whether a Postgres table is one of the feed's.
func (s FeedSettings) Follows(table string) bool {
	in := len(s.Include) == 0
	for _, p := range s.Include {
		ok, _ := path.Match(p, table) // Check has parsed it
		in = in || ok
	}
	for _, p := range s.Exclude {
		if ok, _ := path.Match(p, table); ok {
			return false
		}
	}
	return in
}

// Feed is a feed as observed.
type Feed struct {
	FeedSpec
	UID        string
	PipelineID string
	Message    string // why it is not moving; empty when it is well
	WALHeld    int64  // bytes of WAL its slot held back when last looked at
	CreateTime time.Time
	Tables     []FeedTable
}

// FeedTable is the status of one table of a feed.
type FeedTable struct {
	PostgresTable string
	Target        TableName
	State         FeedState
	CommittedLSN  LSN // every transaction that ended at or before it is in the Delta table
	LastSync      time.Time
	Detail        string
	// What it has done since the feed was made, and where a running copy is.
	Rows        int64 // history rows written
	DeadLetters int64 // values that Delta cannot hold, kept in lb_dead_letters
	Copied      int64 // rows of the last or running copy
	CopyRows    int64 // estimate of the rows of the running copy; 0 = none runs
}

// FeedVerdict is what comparing a table with its history says.
type FeedVerdict struct {
	Table        string
	Point        LSN // both were compared as they were here
	Equal        bool
	PostgresRows int64
	HistoryRows  int64 // that the history adds up to
}
