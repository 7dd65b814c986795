package wire

// The schemas of SCIM 2.0 (RFC 7643, 7644) in what is sent and received.
const (
	ScimUserSchema    = "urn:ietf:params:scim:schemas:core:2.0:User"
	ScimServiceSchema = "urn:ietf:params:scim:schemas:core:2.0:ServicePrincipal"
	ScimGroupSchema   = "urn:ietf:params:scim:schemas:core:2.0:Group"
	ScimListSchema    = "urn:ietf:params:scim:api:messages:2.0:ListResponse"
	ScimErrorSchema   = "urn:ietf:params:scim:api:messages:2.0:Error"
)

// User is SCIM's view of a user, a service principal or a group: which fields
// are set says which.
type User struct {
	Schemas       []string    `json:"schemas,omitempty"`
	ID            string      `json:"id,omitempty"`
	UserName      string      `json:"userName,omitempty"`      // of a user
	ApplicationID string      `json:"applicationId,omitempty"` // of a service principal
	DisplayName   string      `json:"displayName,omitempty"`
	ExternalID    string      `json:"externalId,omitempty"`
	Active        *bool       `json:"active,omitempty"` // of users and service principals; absent = true
	Name          *ScimName   `json:"name,omitempty"`
	Password      string      `json:"password,omitempty"` // only ever received
	Emails        []ScimValue `json:"emails,omitempty"`
	Groups        []ScimValue `json:"groups,omitempty"`
	Members       []ScimValue `json:"members,omitempty"`
	Entitlements  []ScimValue `json:"entitlements,omitempty"`
	Roles         []ScimValue `json:"roles,omitempty"`
	Meta          *ScimMeta   `json:"meta,omitempty"`
}

// ScimName is a person's name in parts.
type ScimName struct {
	GivenName  string `json:"givenName,omitempty"`
	FamilyName string `json:"familyName,omitempty"`
}

// ScimValue is one value of a list.
type ScimValue struct {
	Value   string `json:"value,omitempty"`
	Display string `json:"display,omitempty"`
	Type    string `json:"type,omitempty"`
	Primary bool   `json:"primary,omitempty"`
	Ref     string `json:"$ref,omitempty"`
}

// ScimMeta says what kind of group a group is.
type ScimMeta struct {
	ResourceType string `json:"resourceType,omitempty"`
}

// ScimList is one page of a listing.
type ScimList[T any] struct {
	Schemas      []string `json:"schemas"`
	TotalResults int      `json:"totalResults"`
	StartIndex   int      `json:"startIndex"` // of the first, counted from 1
	ItemsPerPage int      `json:"itemsPerPage"`
	Resources    []T      `json:"Resources"`
}

// ScimPatch asks for changes.
type ScimPatch struct {
	Schemas    []string        `json:"schemas,omitempty"`
	Operations []ScimOperation `json:"Operations"`
}

// ScimOperation is one change: of the attribute at Path, or without one of
// those that Value gives.
type ScimOperation struct {
	Op    string `json:"op"` // add, replace or remove
	Path  string `json:"path,omitempty"`
	Value any    `json:"value,omitempty"`
}

// CreateSecret asks for a secret of a service principal.
type CreateSecret struct {
	Lifetime string `json:"lifetime,omitempty"` // "3600s"; "" = it never ends
}

// Secret is a service principal's secret; Secret is set only when it was just
// made.
type Secret struct {
	ID         string `json:"id"`
	Secret     string `json:"secret,omitempty"`
	Status     string `json:"status"`
	CreateTime string `json:"create_time"`
	UpdateTime string `json:"update_time"`
	ExpireTime string `json:"expire_time,omitempty"`
}

// ListSecrets lists secrets without their values.
type ListSecrets struct {
	Secrets []Secret `json:"secrets"`
}

// FederationPolicy says which tokens of another issuer are exchanged.
type FederationPolicy struct {
	Name        string      `json:"name,omitempty"`
	PolicyID    string      `json:"policy_id,omitempty"`
	UID         string      `json:"uid,omitempty"`
	Description string      `json:"description,omitempty"`
	ServiceID   int64       `json:"service_principal_id,omitempty"`
	OIDC        *OIDCPolicy `json:"oidc_policy,omitempty"`
	CreateTime  string      `json:"create_time,omitempty"`
	UpdateTime  string      `json:"update_time,omitempty"`
}

// OIDCPolicy is what such a token must say.
type OIDCPolicy struct {
	Issuer       string   `json:"issuer,omitempty"`
	Audiences    []string `json:"audiences,omitempty"`
	Subject      string   `json:"subject,omitempty"`
	SubjectClaim string   `json:"subject_claim,omitempty"`
	JWKSURI      string   `json:"jwks_uri,omitempty"`
	JWKSJSON     string   `json:"jwks_json,omitempty"`
}

// ListPolicies lists federation policies.
type ListPolicies struct {
	Policies      []FederationPolicy `json:"policies"`
	NextPageToken string             `json:"next_page_token,omitempty"`
}

// SetPassword gives a user a password for the sign-in page.
type SetPassword struct {
	UserName string `json:"user_name,omitempty"` // "" = who asks
	Password string `json:"password"`            // "" = none any longer
}

// ObjectPermissions is who may do what with an object.
type ObjectPermissions struct {
	ObjectID   string          `json:"object_id"`
	ObjectType string          `json:"object_type"`
	List       []AccessControl `json:"access_control_list"`
}

// AccessControl is one principal's levels: PermissionLevel in requests,
// AllPermissions in answers.
type AccessControl struct {
	UserName        string       `json:"user_name,omitempty"`
	GroupName       string       `json:"group_name,omitempty"`
	ServiceName     string       `json:"service_principal_name,omitempty"` // application id
	DisplayName     string       `json:"display_name,omitempty"`
	PermissionLevel string       `json:"permission_level,omitempty"`
	AllPermissions  []Permission `json:"all_permissions,omitempty"`
}

// Permission is a level, and where it comes from.
type Permission struct {
	PermissionLevel string   `json:"permission_level"`
	Inherited       bool     `json:"inherited"`
	InheritedFrom   []string `json:"inherited_from_object,omitempty"`
}

// SetPermissions gives levels.
type SetPermissions struct {
	List []AccessControl `json:"access_control_list"`
}

// PermissionLevels lists the levels there are.
type PermissionLevels struct {
	Levels []PermissionLevel `json:"permission_levels"`
}

// PermissionLevel tells what a level allows.
type PermissionLevel struct {
	PermissionLevel string `json:"permission_level"`
	Description     string `json:"description"`
}
