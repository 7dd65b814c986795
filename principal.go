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
	Admin bool // workspace owner
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

// OAuthMarkerRole is the NOLOGIN role whose members log in with a token.
const OAuthMarkerRole = "tarn_oauth"

// SuperuserRole is the published group of roles that read and write all data.
const SuperuserRole = "databricks_superuser"
