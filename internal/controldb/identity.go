package controldb

import (
	"context"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
)

// InsertSecret keeps the hash of a service principal's secret.
func InsertSecret(ctx context.Context, c Conn, principal string, s tarn.ClientSecret, hash [32]byte) (tarn.ClientSecret, error) {
	out, err := scanSecret(c.querier().QueryRow(ctx, insertSecret, s.ID, number(principal), hash[:], stamp(s.ExpireTime)))
	return out, fault(err, "secret of principal %s", principal)
}

const insertSecret = `INSERT INTO client_secrets (id, principal, hash, expires) VALUES ($1, $2, $3, $4) RETURNING id, created, expires`

func scanSecret(r pgx.Row) (s tarn.ClientSecret, err error) {
	err = r.Scan(&s.ID, (*stamp)(&s.CreateTime), (*stamp)(&s.ExpireTime))
	return s, err
}

// Secrets gives a service principal's secrets, oldest first.
func Secrets(ctx context.Context, c Conn, principal string) ([]tarn.ClientSecret, error) {
	v, err := list(ctx, c, scanSecret, secretsOf, number(principal))
	return v, fault(err, "secrets of principal %s", principal)
}

const secretsOf = `SELECT id, created, expires FROM client_secrets WHERE principal = $1 ORDER BY created, id`

// DeleteSecret ends a secret.
func DeleteSecret(ctx context.Context, c Conn, principal, id string) error {
	return fault(exec(ctx, c, deleteSecret, number(principal), id), "secret %s", id)
}

const deleteSecret = `DELETE FROM client_secrets WHERE principal = $1 AND id = $2`

// PrincipalOfSecret reads whose secret has that hash, unless it has expired.
func PrincipalOfSecret(ctx context.Context, c Conn, hash [32]byte) (tarn.Principal, error) {
	p, err := scanPrincipal(c.querier().QueryRow(ctx, principalOfSecret, hash[:]))
	return p, fault(err, "secret")
}

const principalOfSecret = `
SELECT ` + principalColumns + ` FROM principals
WHERE id = (SELECT principal FROM client_secrets WHERE hash = $1 AND (expires IS NULL OR expires > now()))`

// InsertPolicy keeps a federation policy.
func InsertPolicy(ctx context.Context, c Conn, p tarn.FederationPolicy) (tarn.FederationPolicy, error) {
	out, err := scanPolicy(c.querier().QueryRow(ctx, insertPolicy, p.ID, idOrNull(p.Principal), p.Description, p.Issuer, some(p.Audiences), p.Subject, p.SubjectClaim, p.JWKSURI, p.JWKSJSON))
	return out, fault(err, "federation policy %q", p.ID)
}

const insertPolicy = `
INSERT INTO federation_policies (id, principal, description, issuer, audiences, subject, subject_claim, jwks_uri, jwks_json)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING ` + policyColumns

const policyColumns = `id, principal, description, issuer, audiences, subject, subject_claim, jwks_uri, jwks_json, created, updated`

func idOrNull(id string) *int64 {
	if id == "" {
		return nil
	}
	n := number(id)
	return &n
}

func scanPolicy(r pgx.Row) (p tarn.FederationPolicy, err error) {
	var of *int64
	err = r.Scan(&p.ID, &of, &p.Description, &p.Issuer, &p.Audiences, &p.Subject, &p.SubjectClaim, &p.JWKSURI, &p.JWKSJSON,
		(*stamp)(&p.CreateTime), (*stamp)(&p.UpdateTime))
	if of != nil {
		p.Principal = strconv.FormatInt(*of, 10)
	}
	return p, err
}

// Policies gives the federation policies of a service principal, or with ""
// those of nobody in particular, by id.
func Policies(ctx context.Context, c Conn, principal string) ([]tarn.FederationPolicy, error) {
	v, err := list(ctx, c, scanPolicy, policiesOf, idOrNull(principal))
	return v, fault(err, "federation policies")
}

const policiesOf = `SELECT ` + policyColumns + ` FROM federation_policies WHERE principal IS NOT DISTINCT FROM $1 ORDER BY id`

// UpdatePolicy records what may change of a policy.
func UpdatePolicy(ctx context.Context, c Conn, p tarn.FederationPolicy) error {
	return fault(exec(ctx, c, updatePolicy, p.ID, idOrNull(p.Principal), p.Description, p.Issuer, some(p.Audiences), p.Subject, p.SubjectClaim, p.JWKSURI, p.JWKSJSON),
		"federation policy %q", p.ID)
}

const updatePolicy = `
UPDATE federation_policies SET description = $3, issuer = $4, audiences = $5, subject = $6, subject_claim = $7, jwks_uri = $8, jwks_json = $9, updated = now()
WHERE id = $1 AND principal IS NOT DISTINCT FROM $2`

// DeletePolicy ends a policy.
func DeletePolicy(ctx context.Context, c Conn, principal, id string) error {
	return fault(exec(ctx, c, deletePolicy, id, idOrNull(principal)), "federation policy %q", id)
}

const deletePolicy = `DELETE FROM federation_policies WHERE id = $1 AND principal IS NOT DISTINCT FROM $2`

// Revoke has an access token's id, or a family's, refused until the last token
// it can mean is over.
func Revoke(ctx context.Context, c Conn, id string, until time.Time) error {
	_, err := c.querier().Exec(ctx, revoke, id, until)
	return fault(err, "revocation")
}

const revoke = `INSERT INTO revoked (id, expires) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET expires = greatest(revoked.expires, EXCLUDED.expires)`

// Revoked says whether any of the ids was revoked.
func Revoked(ctx context.Context, c Conn, ids ...string) (yes bool, err error) {
	err = c.querier().QueryRow(ctx, revokedAny, ids).Scan(&yes)
	return yes, fault(err, "revocation")
}

const revokedAny = `SELECT EXISTS (SELECT FROM revoked WHERE id = ANY ($1))`

// SweepIdentity removes what has expired of sign-ins, codes, refresh tokens
// and revocations.
func SweepIdentity(ctx context.Context, c Conn) error {
	for _, sql := range [...]string{sweepAuthorizations, sweepDevices, sweepRefresh, sweepRevoked} {
		if _, err := c.querier().Exec(ctx, sql); err != nil {
			return fault(err, "expired sign-ins")
		}
	}
	return nil
}

const (
	sweepAuthorizations = `DELETE FROM authorizations WHERE expires < now() - interval '1 hour'`
	sweepDevices        = `DELETE FROM devices WHERE expires < now() - interval '1 hour'`
	sweepRefresh        = `DELETE FROM refresh_tokens WHERE expires < now()`
	sweepRevoked        = `DELETE FROM revoked WHERE expires < now()`
)
