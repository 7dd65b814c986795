package controldb

import (
	"context"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
)

// InsertPrincipal records a principal and returns it with its id.
func InsertPrincipal(ctx context.Context, c Conn, p tarn.Principal) (tarn.Principal, error) {
	out, err := scanPrincipal(c.querier().QueryRow(ctx, insertPrincipal, p.Name, p.Type, p.Admin))
	return out, fault(err, "principal %q", p.Name)
}

const insertPrincipal = `INSERT INTO principals (name, type, admin) VALUES ($1, $2, $3) RETURNING ` + principalColumns

const principalColumns = `id, name, type, admin`

func scanPrincipal(r pgx.Row) (p tarn.Principal, err error) {
	var id int64
	err = r.Scan(&id, &p.Name, &p.Type, &p.Admin)
	p.ID = strconv.FormatInt(id, 10)
	return p, err
}

// GetPrincipal reads a principal by its name.
func GetPrincipal(ctx context.Context, c Conn, name string) (tarn.Principal, error) {
	p, err := scanPrincipal(c.querier().QueryRow(ctx, getPrincipal, name))
	return p, fault(err, "principal %q", name)
}

const getPrincipal = `SELECT ` + principalColumns + ` FROM principals WHERE name = $1`

// ListPrincipals gives all principals, by name.
func ListPrincipals(ctx context.Context, c Conn) ([]tarn.Principal, error) {
	v, err := list(ctx, c, scanPrincipal, listPrincipals)
	return v, fault(err, "principals")
}

const listPrincipals = `SELECT ` + principalColumns + ` FROM principals ORDER BY name`
