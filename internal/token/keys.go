package token

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"slices"
	"time"

	"github.com/tarndb/tarn"
)

// Key is a signing key as it is kept.
type Key struct {
	ID      string // "kid" of the tokens it signs: hash of the public key
	Created time.Time
	PKCS8   []byte // P-256 private key; a secret
}

// KeyStore keeps signing keys. Any number of signers may share one.
type KeyStore interface {
	SigningKeys(ctx context.Context) ([]Key, error)
	AddSigningKey(ctx context.Context, k Key) error
}

// signingKey is a Key ready for use.
type signingKey struct {
	id      string
	created time.Time
	private *ecdsa.PrivateKey
}

func newKey(now time.Time) (Key, error) {
	p, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Key{}, fmt.Errorf("make signing key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(p)
	if err != nil {
		return Key{}, fmt.Errorf("make signing key: %w", err)
	}
	pub, err := x509.MarshalPKIXPublicKey(&p.PublicKey)
	if err != nil {
		return Key{}, fmt.Errorf("make signing key: %w", err)
	}
	h := sha256.Sum256(pub)
	return Key{ID: base64.RawURLEncoding.EncodeToString(h[:16]), Created: now.UTC(), PKCS8: der}, nil
}

func parseKey(k Key) (signingKey, error) {
	v, err := x509.ParsePKCS8PrivateKey(k.PKCS8)
	if err != nil {
		return signingKey{}, fmt.Errorf("read signing key %s: %w", k.ID, err)
	}
	p, ok := v.(*ecdsa.PrivateKey)
	if !ok || p.Curve != elliptic.P256() {
		return signingKey{}, fmt.Errorf("read signing key %s: not a P-256 key", k.ID)
	}
	return signingKey{id: k.ID, created: k.Created, private: p}, nil
}

// ring is the keys as last read from the store, newest first.
type ring struct {
	keys []signingKey
	read time.Time
}

func (r ring) find(id string) (signingKey, bool) {
	for _, k := range r.keys {
		if k.id == id {
			return k, true
		}
	}
	return signingKey{}, false
}

const (
	// ringAge is how long keys read from the store are used unasked, so that
	// a key deleted there stops working here.
	ringAge = time.Minute
	// reread bounds how often tokens that name unknown keys make us ask the
	// store.
	reread = time.Second
)

// current returns the ring, read from the store when it is older than age.
// One caller reads at a time; the others wait for it or for their context.
func (s *Signer) current(ctx context.Context, age time.Duration) (ring, error) {
	if r := s.cached(); fresh(r, age) {
		return r, nil
	}
	select {
	case s.reading <- struct{}{}:
		defer func() { <-s.reading }()
	case <-ctx.Done():
		return ring{}, context.Cause(ctx)
	}
	if r := s.cached(); fresh(r, age) {
		return r, nil
	}
	return s.read(ctx)
}

func fresh(r ring, age time.Duration) bool {
	return !r.read.IsZero() && time.Since(r.read) < age
}

// read reads the store. The caller holds the reading slot.
func (s *Signer) read(ctx context.Context) (ring, error) {
	stored, err := s.store.SigningKeys(ctx)
	if err != nil {
		return ring{}, tarn.Unavailable("read signing keys: %w", err)
	}
	r := ring{read: time.Now()}
	for _, k := range stored {
		p, err := parseKey(k)
		if err != nil {
			return ring{}, err
		}
		r.keys = append(r.keys, p)
	}
	slices.SortFunc(r.keys, func(a, b signingKey) int {
		if c := b.created.Compare(a.created); c != 0 {
			return c
		}
		if a.id < b.id {
			return -1
		}
		return 1
	})
	s.mu.Lock()
	s.ring = r
	s.mu.Unlock()
	return r, nil
}

func (s *Signer) cached() ring {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ring
}

// signing returns the newest key and adds one to the store when that key is
// due for rotation. Two signers that add one at the same moment both succeed;
// the store then holds one key more than needed.
func (s *Signer) signing(ctx context.Context) (signingKey, error) {
	now := time.Now()
	due := func(r ring) bool {
		return len(r.keys) == 0 || now.Sub(r.keys[0].created) >= s.rotation
	}
	r, err := s.current(ctx, ringAge)
	if err != nil {
		return signingKey{}, err
	}
	if !due(r) {
		return r.keys[0], nil
	}
	select {
	case s.reading <- struct{}{}:
		defer func() { <-s.reading }()
	case <-ctx.Done():
		return signingKey{}, context.Cause(ctx)
	}
	if r, err = s.read(ctx); err != nil { // somebody else may have rotated
		return signingKey{}, err
	}
	if !due(r) {
		return r.keys[0], nil
	}
	k, err := newKey(now)
	if err != nil {
		return signingKey{}, err
	}
	// The key is in the store before it signs anything: a token is never out
	// before another process could check it.
	if err := s.store.AddSigningKey(ctx, k); err != nil {
		return signingKey{}, tarn.Unavailable("keep new signing key: %w", err)
	}
	if _, err := s.read(ctx); err != nil {
		return signingKey{}, err
	}
	return parseKey(k)
}
