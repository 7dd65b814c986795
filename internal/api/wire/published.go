package wire

// DataAPI is the HTTP interface to the rows of a database, as it was asked for.
type DataAPI struct {
	Name       string         `json:"name,omitempty"`
	Parent     string         `json:"parent,omitempty"`
	CreateTime string         `json:"create_time,omitempty"`
	UpdateTime string         `json:"update_time,omitempty"`
	Spec       *DataAPISpec   `json:"spec,omitempty"`
	Status     *DataAPIStatus `json:"status,omitempty"`
}

// DataAPISpec is what is asked of it.
type DataAPISpec struct {
	DBSchemas                *[]string `json:"db_schemas,omitempty"`
	DBMaxRows                *int      `json:"db_max_rows,omitempty"`
	DBExtraSearchPath        *[]string `json:"db_extra_search_path,omitempty"`
	DBAggregatesEnabled      *bool     `json:"db_aggregates_enabled,omitempty"`
	JWTRoleClaimKey          string    `json:"jwt_role_claim_key,omitempty"`
	JWTCacheMaxLifetime      string    `json:"jwt_cache_max_lifetime,omitempty" format:"duration"`
	OpenapiMode              string    `json:"openapi_mode,omitempty" enum:"OPEN_API_MODE_IGNORE_PRIVILEGES OPEN_API_MODE_DISABLED"`
	ServerCorsAllowedOrigins *[]string `json:"server_cors_allowed_origins,omitempty"`
	ServerTimingEnabled      *bool     `json:"server_timing_enabled,omitempty"`
}

// DataAPIStatus is what holds. URL is left out while nothing answers there.
type DataAPIStatus struct {
	AvailableSchemas []string `json:"available_schemas,omitempty"`
	URL              string   `json:"url,omitempty"`
	DataAPISpec
}

// DatabaseTable is a Postgres table with a name of the catalog, in the database
// service.
type DatabaseTable struct {
	Name                 string `json:"name"`
	DatabaseInstanceName string `json:"database_instance_name,omitempty"`
	LogicalDatabaseName  string `json:"logical_database_name,omitempty"`
}

// PostgresTable is the same in the postgres service.
type PostgresTable struct {
	Name            string `json:"name"`
	Database        string `json:"database"` // …/databases/{database}
	Branch          string `json:"branch,omitempty"`
	Project         string `json:"project,omitempty"`
	TableServingURL string `json:"table_serving_url,omitempty"`
}

// ComputeInstance is one compute of an endpoint.
type ComputeInstance struct {
	Name              string `json:"name"`
	ComputeInstanceID string `json:"compute_instance_id"`
	ComputeHost       string `json:"compute_host,omitempty"`
	CurrentState      string `json:"current_state,omitempty"`
	PendingState      string `json:"pending_state,omitempty"`
	Role              string `json:"role,omitempty"`
	StartTime         string `json:"start_time,omitempty"`
	SuspendTime       string `json:"suspend_time,omitempty"`
}

// ListComputeInstances are the computes of an endpoint.
type ListComputeInstances struct {
	ComputeInstances []ComputeInstance `json:"compute_instances"`
	NextPageToken    string            `json:"next_page_token,omitempty"`
}

// SnapshotSchedule says when snapshots of a branch are taken by themselves.
type SnapshotSchedule struct {
	Name     string            `json:"name,omitempty"`
	Schedule []ScheduleCadence `json:"schedule"`
}

// ScheduleCadence is one rhythm of it: daily, weekly or monthly.
type ScheduleCadence struct {
	Retention       string           `json:"retention"`
	DailySchedule   *DailySchedule   `json:"daily_schedule,omitempty"`
	WeeklySchedule  *WeeklySchedule  `json:"weekly_schedule,omitempty"`
	MonthlySchedule *MonthlySchedule `json:"monthly_schedule,omitempty"`
}

// DailySchedule is an hour of every day, UTC.
type DailySchedule struct {
	Hour int `json:"hour"`
}

// WeeklySchedule is an hour of one day of every week, UTC.
type WeeklySchedule struct {
	DayOfWeek string `json:"day_of_week"` // MONDAY to SUNDAY
	Hour      int    `json:"hour"`
}

// MonthlySchedule is an hour of one day of every month, UTC.
type MonthlySchedule struct {
	Day  int `json:"day"` // 1 to 31; in a shorter month its last
	Hour int `json:"hour"`
}

// FailoverInstance asks for another primary.
type FailoverInstance struct {
	FailoverTargetDatabaseInstanceName string `json:"failover_target_database_instance_name,omitempty"`
}
