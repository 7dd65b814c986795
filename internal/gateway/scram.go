package gateway

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/text/secure/precis"
)

// The SASL mechanisms the gateway offers, best first.
const (
	mechanismPlus  = "SCRAM-SHA-256-PLUS"
	mechanismPlain = "SCRAM-SHA-256"
)

const (
	maxSASL           = 1024      // Postgres's own limit of a SASL message
	defaultIterations = 4096      // Postgres's default of scram_iterations
	maxIterations     = 1_000_000 // of verifiers we compute ourselves; a role chooses its own
)

// verifier is what Postgres keeps of a password:
//
//	SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>
type verifier struct {
	iterations int
	salt       []byte
	storedKey  []byte
	serverKey  []byte
}

func parseVerifier(s string) (verifier, bool) {
	rest, ok := strings.CutPrefix(s, mechanismPlain+"$")
	if !ok {
		return verifier{}, false
	}
	params, keys, ok1 := strings.Cut(rest, "$")
	count, salt, ok2 := strings.Cut(params, ":")
	stored, server, ok3 := strings.Cut(keys, ":")
	if !ok1 || !ok2 || !ok3 {
		return verifier{}, false
	}
	n, err0 := strconv.Atoi(count)
	v := verifier{iterations: n}
	var err1, err2, err3 error
	v.salt, err1 = base64.StdEncoding.DecodeString(salt)
	v.storedKey, err2 = base64.StdEncoding.DecodeString(stored)
	v.serverKey, err3 = base64.StdEncoding.DecodeString(server)
	ok = err0 == nil && err1 == nil && err2 == nil && err3 == nil && n > 0 &&
		len(v.storedKey) == sha256.Size && len(v.serverKey) == sha256.Size
	return v, ok
}

// fakeVerifier is what an unknown role seems to have: the same salt at every
// attempt, and keys that no password has.
func fakeVerifier(secret []byte, endpoint, role string) verifier {
	salt := keyed(secret, []byte(endpoint+"\x00"+role))
	return verifier{
		iterations: defaultIterations,
		salt:       salt[:16],
		storedKey:  keyed(secret, salt, []byte("stored")),
		serverKey:  keyed(secret, salt, []byte("server")),
	}
}

// accepts checks a password sent in clear.
func (v verifier) accepts(password string) bool {
	if v.iterations > maxIterations {
		return false
	}
	// Postgres prepares a password that it can and takes others as they are.
	prepared, err := precis.OpaqueString.String(password)
	if err != nil {
		prepared = password
	}
	salted, err := pbkdf2.Key(sha256.New, prepared, v.salt, v.iterations, sha256.Size)
	if err != nil {
		return false
	}
	stored := sha256.Sum256(keyed(salted, []byte("Client Key")))
	return subtle.ConstantTimeCompare(stored[:], v.storedKey) == 1
}

func keyed(key []byte, msgs ...[]byte) []byte {
	mac := hmac.New(sha256.New, key)
	for _, m := range msgs {
		mac.Write(m)
	}
	return mac.Sum(nil)
}

// scram is the server's side of one exchange (RFC 5802, RFC 7677, and for the
// channel binding RFC 5929 tls-server-end-point).
//
//	client-first ─▶ server-first ─▶ client-final ─▶ server-final | refusal
type scram struct {
	v       verifier
	binding []byte // hash of our certificate

	plus  bool
	gs2   string // the client's header, which it repeats in its final message
	bare  string // client-first without that header
	first string // server-first
	nonce string
}

// begin reads client-first and answers server-first.
func (x *scram) begin(mechanism, msg string) (string, error) {
	switch mechanism {
	case mechanismPlus:
		x.plus = true
	case mechanismPlain:
	default:
		return "", violation("client selected an invalid SASL authentication mechanism")
	}
	flag, rest, ok1 := strings.Cut(msg, ",")
	authzid, bare, ok2 := strings.Cut(rest, ",")
	if !ok1 || !ok2 {
		return "", errSCRAM
	}
	switch {
	case flag == "n" && !x.plus:
	case flag == "y" && !x.plus:
		// It could bind but saw no offer to: somebody between us took it away.
		return "", &fatal{code: codeAuthSpec, msg: "SCRAM channel binding negotiation error: the client supports SCRAM channel binding but thinks the server does not, however, this server does support channel binding"}
	case flag == "p=tls-server-end-point" && x.plus:
	case strings.HasPrefix(flag, "p=") && x.plus:
		return "", violation("unsupported SCRAM channel-binding type")
	default:
		return "", errSCRAM
	}
	if authzid != "" {
		return "", &fatal{code: codeUnsupported, msg: "client uses authorization identity, but it is not supported"}
	}
	x.gs2, x.bare = flag+","+authzid+",", bare
	if strings.HasPrefix(bare, "m=") {
		return "", &fatal{code: codeUnsupported, msg: "client requires an unsupported SCRAM extension"}
	}
	// The user name is ignored, as in Postgres: the startup packet said it.
	name, rest, ok := strings.Cut(bare, ",")
	if !ok || !strings.HasPrefix(name, "n=") {
		return "", errSCRAM
	}
	attr, _, _ := strings.Cut(rest, ",")
	theirs, ok := strings.CutPrefix(attr, "r=")
	if !ok || theirs == "" || !printable(theirs) {
		return "", errSCRAM
	}
	var ours [18]byte
	rand.Read(ours[:]) // never fails: crypto/rand ends the program instead
	x.nonce = theirs + base64.StdEncoding.EncodeToString(ours[:])
	x.first = fmt.Sprintf("r=%s,s=%s,i=%d", x.nonce, base64.StdEncoding.EncodeToString(x.v.salt), x.v.iterations)
	return x.first, nil
}

// finish reads client-final. ok says whether the password was right; only then
// is there a server-final, which proves to the client that we knew it too.
func (x *scram) finish(msg string) (final string, ok bool, err error) {
	without, proof64, found := cutLast(msg, ",p=")
	if !found {
		return "", false, errSCRAM
	}
	bound, rest, _ := strings.Cut(without, ",")
	nonce, _, _ := strings.Cut(rest, ",")
	input := x.gs2
	if x.plus {
		input += string(x.binding)
	}
	want := "c=" + base64.StdEncoding.EncodeToString([]byte(input))
	if subtle.ConstantTimeCompare([]byte(bound), []byte(want)) != 1 {
		if x.plus && strings.HasPrefix(bound, "c=") {
			return "", false, &fatal{code: codeAuthSpec, msg: "SCRAM channel binding check failed"}
		}
		return "", false, errSCRAM
	}
	if subtle.ConstantTimeCompare([]byte(nonce), []byte("r="+x.nonce)) != 1 {
		return "", false, violation("invalid SCRAM response: nonce does not match")
	}
	proof, err := base64.StdEncoding.DecodeString(proof64)
	if err != nil || len(proof) != sha256.Size {
		return "", false, errSCRAM
	}
	said := []byte(x.bare + "," + x.first + "," + without)
	key := keyed(x.v.storedKey, said) // ClientSignature …
	subtle.XORBytes(key, key, proof)  // … xor ClientProof = ClientKey
	stored := sha256.Sum256(key)
	ok = subtle.ConstantTimeCompare(stored[:], x.v.storedKey) == 1
	return "v=" + base64.StdEncoding.EncodeToString(keyed(x.v.serverKey, said)), ok, nil
}

var errSCRAM = violation("malformed SCRAM message")

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

func printable(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < 0x21 || s[i] > 0x7e {
			return false
		}
	}
	return true
}
