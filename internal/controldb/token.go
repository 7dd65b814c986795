package controldb

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/token"
)

// InsertToken records a personal access token by the hash of its secret and
// returns it with its time. The owner must be a principal.
func InsertToken(ctx context.Context, c Conn, t tarn.Token, hash [32]byte) (tarn.Token, error) {
	out, err := scanToken(c.querier().QueryRow(ctx, insertToken, t.ID, hash[:], t.Comment, t.Owner, stamp(t.ExpireTime)))
	return out, fault(err, "token %s of %q", t.ID, t.Owner)
}

const insertToken = `INSERT INTO tokens (id, hash, comment, owner, expires) VALUES ($1, $2, $3, $4, $5) RETURNING ` + tokenColumns

const tokenColumns = `id, comment, owner, created, expires`

func scanToken(r pgx.Row) (t tarn.Token, err error) {
	err = r.Scan(&t.ID, &t.Comment, &t.Owner, (*stamp)(&t.CreateTime), (*stamp)(&t.ExpireTime))
	return t, err
}

// PrincipalOfToken reads who owns the token with that hash, unless it has
// expired.
func PrincipalOfToken(ctx context.Context, c Conn, hash [32]byte) (tarn.Principal, error) {
	p, err := scanPrincipal(c.querier().QueryRow(ctx, principalOfToken, hash[:]))
	return p, fault(err, "token")
}

const principalOfToken = `
SELECT ` + principalColumns + ` FROM principals
WHERE name = (SELECT owner FROM tokens WHERE hash = $1 AND (expires IS NULL OR expires > now()))`

// ListTokens gives the tokens of one principal, oldest first.
func ListTokens(ctx context.Context, c Conn, owner string) ([]tarn.Token, error) {
	v, err := list(ctx, c, scanToken, listTokens, owner)
	return v, fault(err, "tokens of %q", owner)
}

const listTokens = `SELECT ` + tokenColumns + ` FROM tokens WHERE owner = $1 ORDER BY created, id`

// DeleteToken revokes a token of that owner.
func DeleteToken(ctx context.Context, c Conn, owner, id string) error {
	return fault(exec(ctx, c, deleteToken, owner, id), "token %s of %q", id, owner)
}

const deleteToken = `DELETE FROM tokens WHERE owner = $1 AND id = $2`

// SigningKeys gives the keys that access tokens are signed with, newest first;
// with AddSigningKey it makes DB a token.KeyStore.
func (d *DB) SigningKeys(ctx context.Context) ([]token.Key, error) {
	v, err := list(ctx, d, scanKey, signingKeys)
	return v, fault(err, "signing keys")
}

const signingKeys = `SELECT id, created, pkcs8 FROM signing_keys ORDER BY created DESC, id`

func scanKey(r pgx.Row) (k token.Key, err error) {
	err = r.Scan(&k.ID, (*stamp)(&k.Created), &k.PKCS8)
	return k, err
}

// AddSigningKey keeps a key; adding it again changes nothing.
func (d *DB) AddSigningKey(ctx context.Context, k token.Key) error {
	_, err := d.pool.Exec(ctx, addSigningKey, k.ID, stamp(k.Created), k.PKCS8)
	return fault(err, "signing key %s", k.ID)
}

const addSigningKey = `INSERT INTO signing_keys (id, created, pkcs8) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING`
