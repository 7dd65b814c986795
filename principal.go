package tarn

import "time"

// PrincipalType is the published identity type.
type PrincipalType string

// The identity types of databricks_create_role and the roles API.
const (
	PrincipalUser    PrincipalType = "USER"
	PrincipalService PrincipalType = "SERVICE_PRINCIPAL"
	PrincipalGroup   PrincipalType = "GROUP"
)

// Principal is who asks. Name is the e-mail of a user, the application id of a
// service principal or a group's name; it is also the name of the Postgres
// role the principal logs in as.
type Principal struct {
	ID    string // decimal, as SCIM shows it
	Name  string
	Type  PrincipalType
	Admin bool // of the workspace; of one who asks also by a group

	DisplayName  string
	ExternalID   string   // in the directory it came from
	Entitlements []string // kept for SCIM clients; they give no right here
	Disabled     bool     // may not sign in

	// Groups are the names of all groups it is in, directly or through
	// others, group users included. Only of one who asks.
	Groups []string
}

// The groups every workspace has: whoever is in AdminsGroup is an admin, and
// every user and service principal is in UsersGroup without being entered.
const (
	AdminsGroup = "admins"
	UsersGroup  = "users"
)

// Level is what a principal may do with a project.
type Level string

// The published levels. Each includes those before it.
const (
	CanCreate Level = "CAN_CREATE" // see it
	CanUse    Level = "CAN_USE"    // get credentials, wake it, make roles and databases
	CanManage Level = "CAN_MANAGE" // everything, its deletion and its permissions included
)

// Covers says whether l is at least want. The empty level covers nothing.
func (l Level) Covers(want Level) bool { return l.rank() > 0 && l.rank() >= want.rank() }

func (l Level) rank() int {
	switch l {
	case CanCreate:
		return 1
	case CanUse:
		return 2
	case CanManage:
		return 3
	}
	return 0
}

// Permission is one principal's level on a project.
type Permission struct {
	Principal Principal
	Level     Level
}

// ClientSecret is a service principal's secret without its value, which is
// stored hashed.
type ClientSecret struct {
	ID         string
	CreateTime time.Time
	ExpireTime time.Time // zero = never
}

// FederationPolicy says which tokens of another issuer are exchanged for ours.
type FederationPolicy struct {
	ID           string
	Principal    string // id of the service principal it stands for; "" = whoever the token names
	Description  string
	Issuer       string
	Audiences    []string
	Subject      string // the token's subject must be this; only with Principal
	SubjectClaim string // "" = sub
	JWKSURI      string // "" = as the issuer's discovery document says
	JWKSJSON     string // keys given directly
	CreateTime   time.Time
	UpdateTime   time.Time
}

// Workspace is the one workspace a Tarn serves.
type Workspace struct {
	ID    int64  // printed as the published decimal workspace id
	Owner string // user name of the first admin
}

// Token is a personal access token without its secret, which is stored hashed.
type Token struct {
	ID         string
	Comment    string
	Owner      string
	CreateTime time.Time
	ExpireTime time.Time // zero = never
}

// RoleAuth is how a Postgres role proves itself at the gateway.
type RoleAuth string

// The published authentication methods of a role.
const (
	RoleOAuth   RoleAuth = "LAKEBASE_OAUTH_V1"
	RoleSCRAM   RoleAuth = "PG_PASSWORD_SCRAM_SHA_256"
	RoleNoLogin RoleAuth = "NO_LOGIN"
)

// RoleSpec is what is asked of a Postgres role.
type RoleSpec struct {
	ID         string // in resource names; "" = made from Name
	Name       string // in Postgres
	Identity   PrincipalType
	Auth       RoleAuth // "" = OAuth for an identity, a password otherwise
	Superuser  bool     // in SuperuserRole
	CreateDB   bool
	CreateRole bool
	BypassRLS  bool
}

// Plain says whether the role has nothing but its name.
func (s RoleSpec) Plain() bool { return !s.Superuser && !s.CreateDB && !s.CreateRole && !s.BypassRLS }

// Role is a Postgres role of a branch as it is found there.
type Role struct {
	RoleSpec
	OID uint32 // never given again in the same branch
}

// OAuthMarkerRole is the NOLOGIN role whose members log in with a token.
const OAuthMarkerRole = "tarn_oauth"

// SuperuserRole is the published group of roles that read and write all data.
const SuperuserRole = "databricks_superuser"
