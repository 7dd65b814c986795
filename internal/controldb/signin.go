package controldb

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
)

// SignIn is a sign-in in a browser that is under way, as its row keeps it:
// secrets as their hashes.
type SignIn struct {
	ID, Cookie  [32]byte
	Client      string
	RedirectURI string
	Scopes      []string
	State       string
	Challenge   string // S256 of the code's verifier
	Principal   string // id; "" = nobody yet
	Family      string // of the tokens its code was exchanged for; "" = not yet
	Expires     time.Time
}

// InsertSignIn records a request to authorize.
func InsertSignIn(ctx context.Context, c Conn, s SignIn) error {
	_, err := c.querier().Exec(ctx, insertSignIn, s.ID[:], s.Cookie[:], s.Client, s.RedirectURI, some(s.Scopes), s.State, s.Challenge, s.Expires)
	return fault(err, "sign-in")
}

const insertSignIn = `
INSERT INTO authorizations (id, cookie, client, redirect_uri, scopes, state, challenge, expires) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`

const signInColumns = `id, cookie, client, redirect_uri, scopes, state, challenge, coalesce(principal::text, ''), coalesce(family, ''), expires`

func scanSignIn(r pgx.Row) (s SignIn, err error) {
	var id, cookie []byte
	err = r.Scan(&id, &cookie, &s.Client, &s.RedirectURI, &s.Scopes, &s.State, &s.Challenge, &s.Principal, &s.Family, (*stamp)(&s.Expires))
	copy(s.ID[:], id)
	copy(s.Cookie[:], cookie)
	return s, err
}

// GetSignIn reads a sign-in that is open.
func GetSignIn(ctx context.Context, c Conn, id [32]byte) (SignIn, error) {
	s, err := scanSignIn(c.querier().QueryRow(ctx, getSignIn, id[:]))
	return s, fault(err, "sign-in")
}

const getSignIn = `SELECT ` + signInColumns + ` FROM authorizations WHERE id = $1 AND code IS NULL AND expires > now()`

// GrantSignIn ends a sign-in with a code for a principal; KindNotFound when it
// is over or was granted before.
func GrantSignIn(ctx context.Context, c Conn, id [32]byte, principal string, code [32]byte, expires time.Time) error {
	return fault(exec(ctx, c, grantSignIn, id[:], number(principal), code[:], expires), "sign-in")
}

const grantSignIn = `UPDATE authorizations SET principal = $2, code = $3, expires = $4 WHERE id = $1 AND code IS NULL AND expires > now()`

// DropSignIn forgets a sign-in.
func DropSignIn(ctx context.Context, c Conn, id [32]byte) error {
	return fault(exec(ctx, c, dropSignIn, id[:]), "sign-in")
}

const dropSignIn = `DELETE FROM authorizations WHERE id = $1 AND code IS NULL`

// LockCode reads the sign-in that ended with a code, used or not, and keeps
// others from it until the transaction ends.
func LockCode(ctx context.Context, tx *Tx, code [32]byte) (SignIn, error) {
	s, err := scanSignIn(tx.tx.QueryRow(ctx, lockCode, code[:]))
	return s, fault(err, "code")
}

const lockCode = `SELECT ` + signInColumns + ` FROM authorizations WHERE code = $1 AND expires > now() - interval '1 hour' FOR UPDATE`

// UseCode notes the family of the tokens a code was exchanged for.
func UseCode(ctx context.Context, tx *Tx, code [32]byte, family string) error {
	return fault(exec(ctx, tx, useCode, code[:], family), "code")
}

const useCode = `UPDATE authorizations SET family = $2 WHERE code = $1 AND family IS NULL`

// The states of a device.
const (
	DevicePending = "PENDING"
	DeviceGranted = "GRANTED"
	DeviceDenied  = "DENIED"
)

// Device is a program that waits for somebody to sign in elsewhere.
type Device struct {
	Code      [32]byte // hash
	UserCode  string
	Client    string
	Scopes    []string
	State     string
	Principal string    // id; "" = nobody yet
	Polled    time.Time // zero = never
	Expires   time.Time
}

// InsertDevice records a device; KindConflict when its user code is in use.
func InsertDevice(ctx context.Context, c Conn, d Device) error {
	_, err := c.querier().Exec(ctx, insertDevice, d.Code[:], d.UserCode, d.Client, some(d.Scopes), d.Expires)
	return fault(err, "device")
}

const insertDevice = `INSERT INTO devices (code, user_code, client, scopes, state, expires) VALUES ($1, $2, $3, $4, 'PENDING', $5)`

const deviceColumns = `code, user_code, client, scopes, state, coalesce(principal::text, ''), polled, expires`

func scanDevice(r pgx.Row) (d Device, err error) {
	var code []byte
	err = r.Scan(&code, &d.UserCode, &d.Client, &d.Scopes, &d.State, &d.Principal, (*stamp)(&d.Polled), (*stamp)(&d.Expires))
	copy(d.Code[:], code)
	return d, err
}

// DeviceOfUserCode reads the device that waits under a user code.
func DeviceOfUserCode(ctx context.Context, c Conn, userCode string) (Device, error) {
	d, err := scanDevice(c.querier().QueryRow(ctx, deviceOfUserCode, userCode))
	return d, fault(err, "device code")
}

const deviceOfUserCode = `SELECT ` + deviceColumns + ` FROM devices WHERE user_code = $1 AND state = 'PENDING' AND expires > now()`

// DecideDevice grants or denies a device that waits.
func DecideDevice(ctx context.Context, c Conn, userCode, state, principal string) error {
	return fault(exec(ctx, c, decideDevice, userCode, state, idOrNull(principal)), "device code")
}

const decideDevice = `UPDATE devices SET state = $2, principal = $3 WHERE user_code = $1 AND state = 'PENDING' AND expires > now()`

// LockDevice reads a device by its code and keeps others from it until the
// transaction ends.
func LockDevice(ctx context.Context, tx *Tx, code [32]byte) (Device, error) {
	d, err := scanDevice(tx.tx.QueryRow(ctx, lockDevice, code[:]))
	return d, fault(err, "device code")
}

const lockDevice = `SELECT ` + deviceColumns + ` FROM devices WHERE code = $1 FOR UPDATE`

// PollDevice notes that a device asked.
func PollDevice(ctx context.Context, tx *Tx, code [32]byte, at time.Time) error {
	return fault(exec(ctx, tx, pollDevice, code[:], at), "device code")
}

const pollDevice = `UPDATE devices SET polled = $2 WHERE code = $1`

// DropDevice forgets a device: its code is used.
func DropDevice(ctx context.Context, tx *Tx, code [32]byte) error {
	return fault(exec(ctx, tx, dropDevice, code[:]), "device code")
}

const dropDevice = `DELETE FROM devices WHERE code = $1`

// Refresh is a refresh token as its row keeps it.
type Refresh struct {
	Hash      [32]byte
	Family    string
	Principal string // id
	Client    string
	Scopes    []string
	Used      bool
	Expires   time.Time
}

// InsertRefresh keeps a refresh token.
func InsertRefresh(ctx context.Context, c Conn, r Refresh) error {
	_, err := c.querier().Exec(ctx, insertRefresh, r.Hash[:], r.Family, number(r.Principal), r.Client, some(r.Scopes), r.Expires)
	return fault(err, "refresh token")
}

const insertRefresh = `INSERT INTO refresh_tokens (hash, family, principal, client, scopes, expires) VALUES ($1, $2, $3, $4, $5, $6)`

// LockRefresh reads a refresh token, used or not, and keeps others from it
// until the transaction ends.
func LockRefresh(ctx context.Context, tx *Tx, hash [32]byte) (r Refresh, err error) {
	r.Hash = hash
	err = tx.tx.QueryRow(ctx, lockRefresh, hash[:]).Scan(&r.Family, &r.Principal, &r.Client, &r.Scopes, &r.Used, (*stamp)(&r.Expires))
	return r, fault(err, "refresh token")
}

const lockRefresh = `
SELECT family, principal::text, client, scopes, used IS NOT NULL, expires FROM refresh_tokens WHERE hash = $1 AND expires > now() FOR UPDATE`

// UseRefresh notes that a refresh token was used.
func UseRefresh(ctx context.Context, tx *Tx, hash [32]byte) error {
	return fault(exec(ctx, tx, useRefresh, hash[:]), "refresh token")
}

const useRefresh = `UPDATE refresh_tokens SET used = now() WHERE hash = $1 AND used IS NULL`

// EndFamily ends everything that came of one sign-in: its refresh tokens now,
// and its access tokens, the last of which is over at until.
func EndFamily(ctx context.Context, c Conn, family string, until time.Time) error {
	if family == "" {
		return nil
	}
	if _, err := c.querier().Exec(ctx, endFamily, family); err != nil {
		return fault(err, "refresh tokens")
	}
	return Revoke(ctx, c, family, until)
}

const endFamily = `DELETE FROM refresh_tokens WHERE family = $1`

// FamilyOf gives the family of a refresh token, used or not, of that client.
func FamilyOf(ctx context.Context, c Conn, hash [32]byte, client string) (family string, err error) {
	err = c.querier().QueryRow(ctx, familyOf, hash[:], client).Scan(&family)
	return family, fault(err, "refresh token")
}

const familyOf = `SELECT family FROM refresh_tokens WHERE hash = $1 AND client = $2`

// EndSignIns ends every refresh token of a principal.
func EndSignIns(ctx context.Context, c Conn, p tarn.Principal) error {
	_, err := c.querier().Exec(ctx, endSignIns, number(p.ID))
	return fault(err, "refresh tokens of %q", p.Name)
}

const endSignIns = `DELETE FROM refresh_tokens WHERE principal = $1`
