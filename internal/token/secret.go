package token

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"

	"github.com/tarndb/tarn"
)

// NewSecret makes a secret of 256 random bits that begins with prefix, and the
// hash to keep in its stead.
func NewSecret(prefix string) (tarn.Secret, [32]byte) {
	var b [32]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	s := prefix + base64.RawURLEncoding.EncodeToString(b[:])
	return tarn.Secret(s), HashSecret(s)
}

// HashSecret is the SHA-256 of a secret that NewSecret made. It is looked up by
// this hash, so no comparison tells by its time how much of a guess was right.
func HashSecret(s string) [32]byte { return sha256.Sum256([]byte(s)) }

// The cost of a password's hash: RFC 9106's second choice, in a third of its
// memory so that a hundred logins at once do not fill a small machine.
const (
	argonTime    = 3
	argonMemory  = 19 << 10 // KiB
	argonThreads = 1
	argonKey     = 32
	argonSalt    = 16

	minPassword = 8
	maxPassword = 1024 // bytes hashed for somebody who has not proved anything
)

// HashPassword hashes a password that a person chose, in PHC form.
func HashPassword(password string) (string, error) {
	if n := len(password); n < minPassword || n > maxPassword {
		return "", tarn.Invalid("the password has %d bytes, want %d to %d", n, minPassword, maxPassword)
	}
	var salt [argonSalt]byte
	rand.Read(salt[:]) // never fails
	key := argon2.IDKey([]byte(password), salt[:], argonTime, argonMemory, argonThreads, argonKey)
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonThreads,
		base64.RawStdEncoding.EncodeToString(salt[:]), base64.RawStdEncoding.EncodeToString(key)), nil
}

// SamePassword checks a password against what HashPassword made. With hash ""
// it works as long and says no, so that a name without a password cannot be
// told from one with another.
func SamePassword(hash, password string) bool {
	if len(password) > maxPassword {
		return false
	}
	salt, key, err := parsePassword(hash)
	if err != nil {
		salt, key = make([]byte, argonSalt), make([]byte, argonKey)
	}
	got := argon2.IDKey([]byte(password), salt, argonTime, argonMemory, argonThreads, argonKey)
	return subtle.ConstantTimeCompare(got, key) == 1 && err == nil
}

func parsePassword(hash string) (salt, key []byte, err error) {
	parts := strings.Split(hash, "$")
	want := fmt.Sprintf("m=%d,t=%d,p=%d", argonMemory, argonTime, argonThreads)
	if len(parts) != 6 || parts[1] != "argon2id" || parts[3] != want {
		return nil, nil, errors.New("not a hash of ours")
	}
	salt, err1 := base64.RawStdEncoding.DecodeString(parts[4])
	key, err2 := base64.RawStdEncoding.DecodeString(parts[5])
	if err := errors.Join(err1, err2); err != nil || len(key) != argonKey {
		return nil, nil, errors.New("not a hash of ours")
	}
	return salt, key, nil
}
