package wire

// PostgresDatabase is a database of a branch.
type PostgresDatabase struct {
	Name       string                  `json:"name,omitempty"`
	DatabaseID string                  `json:"database_id,omitempty"`
	Parent     string                  `json:"parent,omitempty"`
	Spec       *PostgresDatabaseSpec   `json:"spec,omitempty"`
	Status     *PostgresDatabaseStatus `json:"status,omitempty"`
}

// PostgresDatabaseSpec is what is asked of a database.
type PostgresDatabaseSpec struct {
	PostgresDatabase string `json:"postgres_database,omitempty"`
	Role             string `json:"role,omitempty"` // owner: …/roles/{r}
}

// PostgresDatabaseStatus is a database as observed.
type PostgresDatabaseStatus struct {
	DatabaseID       string `json:"database_id,omitempty"`
	PostgresDatabase string `json:"postgres_database,omitempty"`
	Role             string `json:"role,omitempty"`
}

// ListPostgresDatabases is one page of databases.
type ListPostgresDatabases struct {
	Databases     []PostgresDatabase `json:"databases"`
	NextPageToken string             `json:"next_page_token,omitempty"`
}

// PostgresCatalog is a registered database in the postgres service.
type PostgresCatalog struct {
	Name       string                 `json:"name,omitempty"` // catalogs/{catalog_id}
	CatalogID  string                 `json:"catalog_id,omitempty"`
	UID        string                 `json:"uid,omitempty"`
	CreateTime string                 `json:"create_time,omitempty"`
	UpdateTime string                 `json:"update_time,omitempty"`
	Spec       *PostgresCatalogSpec   `json:"spec,omitempty"`
	Status     *PostgresCatalogStatus `json:"status,omitempty"`
}

// PostgresCatalogSpec is what is asked of a registered database.
type PostgresCatalogSpec struct {
	Branch                  string `json:"branch,omitempty"`
	CreateDatabaseIfMissing *bool  `json:"create_database_if_missing,omitempty"`
	PostgresDatabase        string `json:"postgres_database,omitempty"`
}

// PostgresCatalogStatus is a registered database as observed.
type PostgresCatalogStatus struct {
	Branch           string `json:"branch,omitempty"`
	PostgresDatabase string `json:"postgres_database,omitempty"`
	Project          string `json:"project,omitempty"`
}

// DatabaseCatalog is a registered database in the database service.
type DatabaseCatalog struct {
	Name                      string `json:"name,omitempty"`
	DatabaseInstanceName      string `json:"database_instance_name,omitempty"`
	DatabaseName              string `json:"database_name,omitempty"`
	CreateDatabaseIfNotExists *bool  `json:"create_database_if_not_exists,omitempty"`
	UID                       string `json:"uid,omitempty"`
}

// ListDatabaseCatalogs is one page of registered databases.
type ListDatabaseCatalogs struct {
	DatabaseCatalogs []DatabaseCatalog `json:"database_catalogs"`
	NextPageToken    string            `json:"next_page_token,omitempty"`
}
