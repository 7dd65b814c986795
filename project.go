package tarn

import (
	"net/netip"
	"time"
)

// DefaultBranch, DefaultEndpoint and DefaultDatabase are what every new
// project begins with, as published.
const (
	DefaultBranch   = "production"
	DefaultEndpoint = "primary"
	DefaultDatabase = "databricks_postgres"
)

// ProjectSpec is what is asked of a project.
type ProjectSpec struct {
	Name        ProjectName
	DisplayName string        // default: the project's id
	PGVersion   int           // Postgres major, 15 to 18; 0 = the newest found
	History     time.Duration // how far back a branch can be had again; 0 = DefaultHistory, negative = not at all
	CustomTags  map[string]string
	// Default limits of the project's new endpoints; zero values = defaults
	// of EndpointSpec.
	Endpoint EndpointSpec
	// Native password logins; on by default in Tarn, where an application may
	// have no token.
	DisableNativeLogin bool
	// Allowed are the networks from which clients may connect to the gateway;
	// none = all.
	Allowed []netip.Prefix
	// ProtectDefault has the project begin with its default branch protected;
	// from then on the branch itself says whether it is.
	ProtectDefault bool
}

// Project is a project as observed.
type Project struct {
	ProjectSpec
	UID        string // stable, never reused
	Owner      string // user name of the principal who created it
	Instance   InstanceSpec
	CreateTime time.Time
	UpdateTime time.Time
	DeleteTime time.Time // zero = it is not deleted
	PurgeTime  time.Time // when a deleted one can no longer be brought back
}

// InstanceSpec keeps what only the Provisioned API says of a project, so that
// it can be returned as it was asked.
type InstanceSpec struct {
	Capacity    string // CU_1, CU_2, CU_4 or CU_8; "" when not made through that API
	NodeCount   int
	Readable    bool
	Stopped     bool
	UsagePolicy string
}
