package token

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"strings"

	"github.com/tarndb/tarn"
)

// patPrefix is what clients of the published API expect a personal access
// token to begin with.
const patPrefix = "dapi"

// NewPAT makes a personal access token of 128 random bits, "dapi" and 32
// hexadecimal digits, and the hash to keep in its stead.
func NewPAT() (tarn.Secret, [32]byte) {
	var b [16]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	s := patPrefix + hex.EncodeToString(b[:])
	return tarn.Secret(s), HashPAT(s)
}

// HashPAT is the SHA-256 of a personal access token. The token has 128 random
// bits, so a plain hash cannot be searched and a slow one would buy nothing.
func HashPAT(secret string) [32]byte { return sha256.Sum256([]byte(secret)) }

// SameHash compares two hashes in constant time.
func SameHash(a, b [32]byte) bool { return subtle.ConstantTimeCompare(a[:], b[:]) == 1 }

// LooksLikeJWT says whether s has the shape of a signed token: three base64url
// parts joined by dots, the first one beginning a JSON object. It proves
// nothing; it tells a token from a password a person chose.
func LooksLikeJWT(s string) bool {
	if !strings.HasPrefix(s, "eyJ") {
		return false
	}
	parts := 0
	for part := range strings.SplitSeq(s, ".") {
		parts++
		if parts > 3 || part == "" || strings.Trim(part, base64URL) != "" {
			return false
		}
	}
	return parts == 3
}

const base64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
