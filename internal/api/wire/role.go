package wire

// Role is a Postgres role of a branch. Its spec is only received; what holds
// is in its status.
type Role struct {
	Name       string      `json:"name,omitempty"`
	RoleID     string      `json:"role_id,omitempty"`
	Parent     string      `json:"parent,omitempty"`
	CreateTime string      `json:"create_time,omitempty"`
	UpdateTime string      `json:"update_time,omitempty"`
	Spec       *RoleSpec   `json:"spec,omitempty"`
	Status     *RoleStatus `json:"status,omitempty"`
}

// RoleSpec is what is asked of a role.
type RoleSpec struct {
	PostgresRole    string          `json:"postgres_role,omitempty"`
	IdentityType    string          `json:"identity_type,omitempty" enum:"USER SERVICE_PRINCIPAL GROUP"` // absent = a plain Postgres role
	AuthMethod      string          `json:"auth_method,omitempty" enum:"LAKEBASE_OAUTH_V1 PG_PASSWORD_SCRAM_SHA_256 NO_LOGIN"`
	MembershipRoles []string        `json:"membership_roles,omitempty"`
	Attributes      *RoleAttributes `json:"attributes,omitempty"`
}

// RoleStatus is a role as it is.
type RoleStatus struct {
	PostgresRole    string          `json:"postgres_role"`
	RoleID          string          `json:"role_id"`
	IdentityType    string          `json:"identity_type,omitempty"`
	AuthMethod      string          `json:"auth_method"`
	MembershipRoles []string        `json:"membership_roles,omitempty"`
	Attributes      *RoleAttributes `json:"attributes"`
}

// RoleAttributes are those that can be asked for.
type RoleAttributes struct {
	CreateDB   bool `json:"createdb"`
	CreateRole bool `json:"createrole"`
	BypassRLS  bool `json:"bypassrls"`
}

// ListRoles is one page of a branch's roles.
type ListRoles struct {
	Roles         []Role `json:"roles"`
	NextPageToken string `json:"next_page_token,omitempty"`
}

// InstanceRole is a role in the Provisioned API's words.
type InstanceRole struct {
	Name                string          `json:"name"`
	InstanceName        string          `json:"instance_name,omitempty"`
	IdentityType        string          `json:"identity_type,omitempty" enum:"USER SERVICE_PRINCIPAL GROUP PG_ONLY"` // PG_ONLY = a plain Postgres role
	MembershipRole      string          `json:"membership_role,omitempty" enum:"DATABRICKS_SUPERUSER"`
	Attributes          *RoleAttributes `json:"attributes,omitempty"`
	EffectiveAttributes *RoleAttributes `json:"effective_attributes,omitempty"`
}

// ListInstanceRoles is one page of an instance's roles.
type ListInstanceRoles struct {
	Roles         []InstanceRole `json:"database_instance_roles"`
	NextPageToken string         `json:"next_page_token,omitempty"`
}

// MembershipSuperuser is the one membership role there is.
const MembershipSuperuser = "DATABRICKS_SUPERUSER"

// IdentityPGOnly is the Provisioned API's word for a plain Postgres role.
const IdentityPGOnly = "PG_ONLY"
