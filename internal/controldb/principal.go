package controldb

import (
	"context"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
)

// InsertPrincipal records a principal and returns it with its id.
func InsertPrincipal(ctx context.Context, c Conn, p tarn.Principal) (tarn.Principal, error) {
	out, err := scanPrincipal(c.querier().QueryRow(ctx, insertPrincipal, p.Name, p.Type, p.Admin, p.DisplayName, p.ExternalID, p.Disabled, some(p.Entitlements)))
	return out, fault(err, "principal %q", p.Name)
}

const insertPrincipal = `
INSERT INTO principals (name, type, admin, display_name, external_id, disabled, entitlements)
VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING ` + principalColumns

const principalColumns = `id, name, type, admin, display_name, external_id, disabled, entitlements`

// some is a list for an array column, where nil must be {} and not NULL.
func some(v []string) []string {
	if v == nil {
		return []string{}
	}
	return v
}

// few turns {} back into nil, so that a row is read as it was written.
func few(v []string) []string {
	if len(v) == 0 {
		return nil
	}
	return v
}

func scanPrincipal(r pgx.Row) (p tarn.Principal, err error) {
	var id int64
	err = r.Scan(&id, &p.Name, &p.Type, &p.Admin, &p.DisplayName, &p.ExternalID, &p.Disabled, &p.Entitlements)
	p.ID, p.Entitlements = strconv.FormatInt(id, 10), few(p.Entitlements)
	return p, err
}

// number reads a principal's id; one that is no number is nobody's.
func number(id string) int64 {
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// GetPrincipal reads a principal by its name.
func GetPrincipal(ctx context.Context, c Conn, name string) (tarn.Principal, error) {
	p, err := scanPrincipal(c.querier().QueryRow(ctx, getPrincipal, name))
	return p, fault(err, "principal %q", name)
}

const getPrincipal = `SELECT ` + principalColumns + ` FROM principals WHERE name = $1`

// PrincipalByID reads a principal by its id.
func PrincipalByID(ctx context.Context, c Conn, id string) (tarn.Principal, error) {
	p, err := scanPrincipal(c.querier().QueryRow(ctx, principalByID, number(id)))
	return p, fault(err, "principal with id %q", id)
}

const principalByID = `SELECT ` + principalColumns + ` FROM principals WHERE id = $1`

// LockPrincipal reads a principal and keeps others from changing it until the
// transaction ends.
func LockPrincipal(ctx context.Context, tx *Tx, id string) (tarn.Principal, error) {
	p, err := scanPrincipal(tx.tx.QueryRow(ctx, principalByID+` FOR UPDATE`, number(id)))
	return p, fault(err, "principal with id %q", id)
}

// Identify reads who asks: the principal of that name with all its groups,
// admin also by one of them.
func Identify(ctx context.Context, c Conn, name string) (tarn.Principal, error) {
	p, err := GetPrincipal(ctx, c, name)
	if err != nil {
		return tarn.Principal{}, err
	}
	return withGroups(ctx, c, p)
}

func withGroups(ctx context.Context, c Conn, p tarn.Principal) (tarn.Principal, error) {
	var byGroup bool
	err := c.querier().QueryRow(ctx, groupsOf, number(p.ID)).Scan(&p.Groups, &byGroup)
	p.Admin = p.Admin || byGroup
	return p, fault(err, "groups of %q", p.Name)
}

// allGroups is every group that principal $1 is in; UNION ends where groups
// contain each other.
const allGroups = `
WITH RECURSIVE g (id) AS (
	SELECT group_id FROM members WHERE member_id = $1
	UNION SELECT p.id FROM principals p, principals who
		WHERE p.name = 'users' AND p.type = 'GROUP' AND who.id = $1 AND who.type <> 'GROUP'
	UNION SELECT m.group_id FROM members m JOIN g ON m.member_id = g.id
)`

const groupsOf = allGroups + `
SELECT coalesce(array_agg(p.name ORDER BY p.name), '{}'), coalesce(bool_or(p.admin), false) FROM g JOIN principals p USING (id)`

// ListPrincipals gives all principals, by name.
func ListPrincipals(ctx context.Context, c Conn) ([]tarn.Principal, error) {
	v, err := list(ctx, c, scanPrincipal, listPrincipals)
	return v, fault(err, "principals")
}

const listPrincipals = `SELECT ` + principalColumns + ` FROM principals ORDER BY name`

// UpdatePrincipal records what may change of a principal; its type may not.
func UpdatePrincipal(ctx context.Context, c Conn, p tarn.Principal) error {
	return fault(exec(ctx, c, updatePrincipal, number(p.ID), p.Name, p.Admin, p.DisplayName, p.ExternalID, p.Disabled, some(p.Entitlements)),
		"principal %q", p.Name)
}

const updatePrincipal = `
UPDATE principals SET name = $2, admin = $3, display_name = $4, external_id = $5, disabled = $6, entitlements = $7, updated = now()
WHERE id = $1`

// DeletePrincipal removes a principal with its tokens, secrets, memberships
// and permissions.
func DeletePrincipal(ctx context.Context, c Conn, id string) error {
	return fault(exec(ctx, c, deletePrincipal, number(id)), "principal with id %q", id)
}

const deletePrincipal = `DELETE FROM principals WHERE id = $1`

// OwnedBy gives the names of the projects that a principal owns.
func OwnedBy(ctx context.Context, c Conn, name string) ([]string, error) {
	v, err := list(ctx, c, scanText, ownedBy, name)
	return v, fault(err, "projects of %q", name)
}

const ownedBy = `SELECT name FROM projects WHERE owner = $1 ORDER BY name`

// Password reads a principal's password hash; "" = it has none.
func Password(ctx context.Context, c Conn, id string) (string, error) {
	var h word
	err := c.querier().QueryRow(ctx, password, number(id)).Scan(&h)
	return string(h), fault(err, "principal with id %q", id)
}

const password = `SELECT password FROM principals WHERE id = $1`

// SetPassword keeps a password's hash; "" takes the password away.
func SetPassword(ctx context.Context, c Conn, id, hash string) error {
	return fault(exec(ctx, c, setPassword, number(id), word(hash)), "principal with id %q", id)
}

const setPassword = `UPDATE principals SET password = $2, updated = now() WHERE id = $1`
