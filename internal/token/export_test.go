package token

import "crypto/ecdsa"

// ParseForTest hands out the private key, as a thief would have it.
func ParseForTest(k Key) (*ecdsa.PrivateKey, error) {
	p, err := parseKey(k)
	return p.private, err
}
