package controldb

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
)

// Holding is something a principal or one of its groups has on an object: a
// privilege, Ownership, or on a registered database's catalog and on a synced
// table a level of the project.
type Holding struct {
	On   tarn.Securable
	What string
}

// Ownership is what the owner of an object has on it.
const Ownership = "OWN"

// Holdings gives what a principal and all its groups have on an object, on what
// holds it and on what it holds.
func Holdings(ctx context.Context, c Conn, principal string, on tarn.Securable) ([]Holding, error) {
	v, err := list(ctx, c, scanHolding, holdings, number(principal), on.Catalog, on.Schema, on.Table)
	return v, fault(err, "grants of principal %s", principal)
}

func scanHolding(r pgx.Row) (h Holding, err error) {
	err = r.Scan(&h.On.Catalog, &h.On.Schema, &h.On.Table, &h.What)
	return h, err
}

const holdings = allGroups + `, me AS (SELECT id, name FROM principals WHERE id = $1 OR id IN (SELECT id FROM g)),
held (catalog, schema, name, what) AS (
	SELECT catalog, schema, grants.name, privilege FROM grants JOIN me ON grants.principal = me.id
	UNION ALL SELECT c.name, '', '', 'OWN' FROM catalogs c JOIN me ON c.owner = me.name
	UNION ALL SELECT s.catalog, s.name, '', 'OWN' FROM schemas s JOIN me ON s.owner = me.name
	UNION ALL SELECT t.catalog, t.schema, t.name, 'OWN' FROM tables t JOIN me ON t.owner = me.name WHERE t.dropped IS NULL
	UNION ALL SELECT r.name, '', '', 'CAN_MANAGE' FROM registered_catalogs r JOIN projects p ON p.name = r.project JOIN me ON p.owner = me.name
	UNION ALL SELECT r.name, '', '', p.level FROM registered_catalogs r JOIN permissions p ON p.project = r.project JOIN me ON p.principal = me.id
	UNION ALL SELECT s.catalog, s.schema, s.name, 'CAN_MANAGE' FROM synced_tables s JOIN projects p ON p.name = s.project JOIN me ON p.owner = me.name
	UNION ALL SELECT s.catalog, s.schema, s.name, p.level FROM synced_tables s JOIN permissions p ON p.project = s.project JOIN me ON p.principal = me.id
)
SELECT DISTINCT catalog, schema, name, what FROM held
WHERE ($2 = '' OR catalog IN ('', $2)) AND ($3 = '' OR schema IN ('', $3)) AND ($4 = '' OR name IN ('', $4))`

// SecurableOwner gives who owns an object; "" = the admins. KindNotFound when
// it is nowhere recorded.
func SecurableOwner(ctx context.Context, c Conn, on tarn.Securable) (string, error) {
	var owner word
	err := c.querier().QueryRow(ctx, securableOwner, on.Catalog, on.Schema, on.Table).Scan(&owner)
	return string(owner), fault(err, "%s", on)
}

const securableOwner = `
SELECT owner FROM catalogs WHERE name = $1 AND $2 = '' AND $3 = ''
UNION ALL SELECT owner FROM schemas WHERE catalog = $1 AND name = $2 AND $3 = ''
UNION ALL SELECT owner FROM tables WHERE catalog = $1 AND schema = $2 AND name = $3 AND dropped IS NULL
UNION ALL SELECT p.owner FROM registered_catalogs r JOIN projects p ON p.name = r.project WHERE r.name = $1 AND $2 = ''
UNION ALL SELECT p.owner FROM synced_tables s JOIN projects p ON p.name = s.project WHERE s.catalog = $1 AND s.schema = $2 AND s.name = $3`

// FeedOfTable gives the UID of the feed that writes a table; KindNotFound.
func FeedOfTable(ctx context.Context, c Conn, n tarn.TableName) (string, error) {
	var uid string
	err := c.querier().QueryRow(ctx, feedOfTable, n.Catalog, n.Schema, n.Table).Scan(&uid)
	return uid, fault(err, "feed of table %s", n)
}

const feedOfTable = `SELECT feed FROM feed_tables WHERE target_catalog = $1 AND target_schema = $2 AND target_table = $3 LIMIT 1`

// Granted is one row of the grants on an object.
type Granted struct {
	Principal string
	Privilege tarn.Privilege
	Grantor   string
}

// GrantsOn gives what was granted on an object itself, by principal.
func GrantsOn(ctx context.Context, c Conn, on tarn.Securable) ([]Granted, error) {
	v, err := list(ctx, c, scanGranted, grantsOn, on.Catalog, on.Schema, on.Table)
	return v, fault(err, "grants on %s", on)
}

func scanGranted(r pgx.Row) (g Granted, err error) {
	err = r.Scan(&g.Principal, &g.Privilege, &g.Grantor)
	return g, err
}

const grantsOn = `SELECT p.name, g.privilege, g.grantor FROM grants g JOIN principals p ON p.id = g.principal
WHERE g.catalog = $1 AND g.schema = $2 AND g.name = $3 ORDER BY p.name, g.privilege`

// InsertGrant records a grant unless it is there.
func InsertGrant(ctx context.Context, c Conn, on tarn.Securable, principal string, p tarn.Privilege, grantor string) error {
	_, err := c.querier().Exec(ctx, insertGrant, on.Catalog, on.Schema, on.Table, number(principal), p, grantor)
	return fault(err, "grant on %s", on)
}

const insertGrant = `INSERT INTO grants (catalog, schema, name, principal, privilege, grantor) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING`

// DeleteGrant forgets a grant, if it is there.
func DeleteGrant(ctx context.Context, c Conn, on tarn.Securable, principal string, p tarn.Privilege) error {
	_, err := c.querier().Exec(ctx, deleteGrant, on.Catalog, on.Schema, on.Table, number(principal), p)
	return fault(err, "grant on %s", on)
}

const deleteGrant = `DELETE FROM grants WHERE catalog = $1 AND schema = $2 AND name = $3 AND principal = $4 AND privilege = $5`
