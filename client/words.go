package client

import "github.com/tarndb/tarn/internal/api/wire"

// The JSON of the API, by the names Go programs use.
type (
	Status        = wire.Status
	User          = wire.User
	Operation     = wire.Operation
	Project       = wire.Project
	ProjectSpec   = wire.ProjectSpec
	Branch        = wire.Branch
	BranchSpec    = wire.BranchSpec
	Window        = wire.Window
	RestoreSpec   = wire.RestoreBranch
	Snapshot      = wire.Snapshot
	SnapshotSpec  = wire.SnapshotSpec
	Endpoint      = wire.Endpoint
	EndpointSpec  = wire.EndpointSpec
	Compute       = wire.Compute
	Connection    = wire.Connection
	Credential    = wire.Credential
	Token         = wire.TokenInfo
	CreatedToken  = wire.CreateTokenResponse
	SyncedTable   = wire.SyncedTable
	SyncedSpec    = wire.SyncedTableSpec
	NewPipeline   = wire.NewPipelineSpec
	Feed          = wire.CdfConfig
	FeedTable     = wire.CdfStatus
	FeedSettings  = wire.FeedSettings
	FeedVerdict   = wire.FeedVerdict
	CatalogTable  = wire.TableInfo
	TableRows     = wire.TableRows
	TableCount    = wire.TableCount
	TableHistory  = wire.TableHistory
	DeltaColumn   = wire.Column
	DeltaCommit   = wire.TableCommit
	EndpointPlace = wire.Address
	StoreStats    = wire.StoreStats
	StoreTimeline = wire.StoreTimeline
	StoreCheck    = wire.StoreCheck
	StoreFinding  = wire.StoreFinding
)

const (
	pg   = "/api/2.0/postgres/"
	db   = "/api/2.0/database/"
	mine = "/api/2.0/tarn/"
	uc   = "/api/2.1/unity-catalog/"
)
