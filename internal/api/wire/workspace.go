package wire

// HostConfig is /.well-known/databricks-config, the first thing every SDK asks.
type HostConfig struct {
	OIDCEndpoint string   `json:"oidc_endpoint"`
	AccountID    string   `json:"account_id"`
	WorkspaceID  string   `json:"workspace_id"` // decimal
	Cloud        string   `json:"cloud"`
	HostType     string   `json:"host_type"`
	Audiences    []string `json:"token_federation_default_oidc_audiences,omitempty"`
}

// CreateToken asks for a personal access token.
type CreateToken struct {
	Comment         string `json:"comment,omitempty"`
	LifetimeSeconds *int64 `json:"lifetime_seconds,omitempty"`
}

// CreateTokenResponse is the only place a token's secret is ever shown.
type CreateTokenResponse struct {
	TokenValue string     `json:"token_value"`
	TokenInfo  *TokenInfo `json:"token_info"`
}

// TokenInfo is a token without its secret; times are milliseconds since 1970.
type TokenInfo struct {
	TokenID      string `json:"token_id"`
	Comment      string `json:"comment"`
	CreationTime int64  `json:"creation_time"`
	ExpiryTime   int64  `json:"expiry_time"` // -1 = never
}

// ListTokens lists the caller's tokens.
type ListTokens struct {
	TokenInfos []TokenInfo `json:"token_infos"`
}

// RevokeToken names the token to delete.
type RevokeToken struct {
	TokenID string `json:"token_id"`
}

// ColumnInfo is one column of a TableInfo.
type ColumnInfo struct {
	Name     string `json:"name"`
	TypeName string `json:"type_name"` // LONG, STRING, …
	TypeText string `json:"type_text"` // bigint, string, …
	Position int    `json:"position"`
	Nullable bool   `json:"nullable"`
}

// ListTables is one page of a schema's tables.
type ListTables struct {
	Tables        []TableInfo `json:"tables"`
	NextPageToken string      `json:"next_page_token,omitempty"`
}

// TableExists answers whether a table is in the catalog.
type TableExists struct {
	TableExists bool `json:"table_exists"`
}
