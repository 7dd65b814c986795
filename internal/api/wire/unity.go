package wire

// CatalogInfo is Unity Catalog's view of a catalog, in and out. Times here and
// below are milliseconds since 1970.
type CatalogInfo struct {
	Name          string            `json:"name"`
	FullName      string            `json:"full_name,omitempty"`
	ID            string            `json:"id,omitempty"`
	CatalogType   string            `json:"catalog_type,omitempty"`
	Owner         string            `json:"owner,omitempty"`
	Comment       string            `json:"comment,omitempty"`
	Properties    map[string]string `json:"properties,omitempty"`
	StorageRoot   string            `json:"storage_root,omitempty"`
	MetastoreID   string            `json:"metastore_id,omitempty"`
	SecurableType string            `json:"securable_type,omitempty"`
	IsolationMode string            `json:"isolation_mode,omitempty"`
	CreatedAt     int64             `json:"created_at,omitempty"`
	CreatedBy     string            `json:"created_by,omitempty"`
	UpdatedAt     int64             `json:"updated_at,omitempty"`
	UpdatedBy     string            `json:"updated_by,omitempty"`
}

// ListCatalogs lists catalogs.
type ListCatalogs struct {
	Catalogs      []CatalogInfo `json:"catalogs"`
	NextPageToken string        `json:"next_page_token,omitempty"`
}

// SchemaInfo is Unity Catalog's view of a schema, in and out.
type SchemaInfo struct {
	Name        string            `json:"name"`
	CatalogName string            `json:"catalog_name"`
	FullName    string            `json:"full_name,omitempty"`
	SchemaID    string            `json:"schema_id,omitempty"`
	Owner       string            `json:"owner,omitempty"`
	Comment     string            `json:"comment,omitempty"`
	Properties  map[string]string `json:"properties,omitempty"`
	StorageRoot string            `json:"storage_root,omitempty"`
	CreatedAt   int64             `json:"created_at,omitempty"`
	CreatedBy   string            `json:"created_by,omitempty"`
	UpdatedAt   int64             `json:"updated_at,omitempty"`
	UpdatedBy   string            `json:"updated_by,omitempty"`
}

// ListSchemas lists the schemas of a catalog.
type ListSchemas struct {
	Schemas       []SchemaInfo `json:"schemas"`
	NextPageToken string       `json:"next_page_token,omitempty"`
}

// ChangeObject changes a catalog, a schema or a table's entry; what is absent
// stays.
type ChangeObject struct {
	NewName    string            `json:"new_name,omitempty"`
	Owner      *string           `json:"owner,omitempty"`
	Comment    *string           `json:"comment,omitempty"`
	Properties map[string]string `json:"properties,omitempty"`
}

// TableInfo is Unity Catalog's view of a table, in and out. Columns come out
// only when one table is asked for.
type TableInfo struct {
	Name             string            `json:"name"`
	CatalogName      string            `json:"catalog_name"`
	SchemaName       string            `json:"schema_name"`
	FullName         string            `json:"full_name"`
	TableID          string            `json:"table_id,omitempty"`
	TableType        string            `json:"table_type"`
	DataSourceFormat string            `json:"data_source_format"`
	StorageLocation  string            `json:"storage_location,omitempty"`
	Owner            string            `json:"owner,omitempty"`
	Comment          string            `json:"comment,omitempty"`
	Properties       map[string]string `json:"properties,omitempty"`
	CreatedAt        int64             `json:"created_at,omitempty"`
	CreatedBy        string            `json:"created_by,omitempty"`
	UpdatedAt        int64             `json:"updated_at,omitempty"`
	UpdatedBy        string            `json:"updated_by,omitempty"`
	Columns          []ColumnInfo      `json:"columns,omitempty"`
}

// MetastoreSummary says which metastore this is; there is one.
type MetastoreSummary struct {
	MetastoreID string `json:"metastore_id"`
	Name        string `json:"name"`
}

// GrantChanges grants and revokes on one object.
type GrantChanges struct {
	Changes []GrantChange `json:"changes"`
}

// GrantChange is what one principal is given and what is taken from it.
type GrantChange struct {
	Principal string   `json:"principal"`
	Add       []string `json:"add,omitempty"`
	Remove    []string `json:"remove,omitempty"`
}

// Grants are what was granted on one object itself.
type Grants struct {
	PrivilegeAssignments []PrivilegeAssignment `json:"privilege_assignments"`
}

// PrivilegeAssignment is what one principal was granted.
type PrivilegeAssignment struct {
	Principal  string   `json:"principal"`
	Privileges []string `json:"privileges"`
}

// EffectiveGrants are what was granted on an object and on what holds it.
type EffectiveGrants struct {
	PrivilegeAssignments []EffectiveAssignment `json:"privilege_assignments"`
}

// EffectiveAssignment is what one principal has on an object.
type EffectiveAssignment struct {
	Principal  string               `json:"principal"`
	Privileges []EffectivePrivilege `json:"privileges"`
}

// EffectivePrivilege is a privilege, and what it was granted on when that is
// not the object itself.
type EffectivePrivilege struct {
	Privilege         string `json:"privilege"`
	InheritedFromType string `json:"inherited_from_type,omitempty"`
	InheritedFromName string `json:"inherited_from_name,omitempty"`
}
