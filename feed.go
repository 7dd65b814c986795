package tarn

import "time"

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
}

// Feed is a feed as observed.
type Feed struct {
	FeedSpec
	UID        string
	Message    string // why it is not moving; empty when it is well
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
}
