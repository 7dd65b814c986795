package gateway

import (
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestTakeRoute(t *testing.T) {
	for _, c := range []struct{ in, left, endpoint, project string }{
		{"", "", "", ""},
		{"endpoint=ep-a", "", "ep-a", ""},
		{"endpoint%3Dep-a", "", "ep-a", ""},
		{"project=shop", "", "", "shop"},
		{"-c endpoint=ep-a", "", "ep-a", ""},
		{"-cendpoint=ep-a", "", "ep-a", ""},
		{"--endpoint=ep-a", "", "ep-a", ""},
		{` -c  geqo=off\`, ` -c  geqo=off\`, "", ""},
		{" -c  geqo=off\tendpoint=ep-a -c work_mem=4MB ", "-c geqo=off -c work_mem=4MB", "ep-a", ""},
		{`-c search_path=a\ b,\\c endpoint=ep-a`, `-c search_path=a\ b,\\c`, "ep-a", ""},
		{"-c endpoint=ep-a project=p", "", "ep-a", "p"},
		{"-c", "-c", "", ""},
		{"-c -c", "-c -c", "", ""},
		{"-e endpoints=1 --geqo=off", "-e endpoints=1 --geqo=off", "", ""},
		{"-endpoint=x", "-endpoint=x", "", ""},
		{"-c x.endpoint=1%3D2", "-c x.endpoint=1%3D2", "", ""},
	} {
		left, r, err := takeRoute(c.in)
		if err != nil || left != c.left || r.endpoint != c.endpoint || r.project != c.project {
			t.Errorf("%q: %q %+v %v, want %+v", c.in, left, r, err, c)
		}
	}
}

// FuzzTakeRoute: what is left says to Postgres what the words said that were
// not ours, and names no endpoint any more.
func FuzzTakeRoute(f *testing.F) {
	f.Add(`-c a=b\ c --endpoint=x`)
	f.Fuzz(func(t *testing.T, in string) {
		left, _, err := takeRoute(in)
		if err != nil {
			return
		}
		again, r, err := takeRoute(left)
		if err != nil || again != left || r != (routeOptions{}) {
			t.Errorf("%q left %q, which left %q %+v %v", in, left, again, r, err)
		}
	})
}

func FuzzParseStartup(f *testing.F) {
	f.Add(uint32(3<<16), []byte("user\x00ada\x00options\x00-c a=b\x00\x00"))
	f.Fuzz(func(t *testing.T, code uint32, body []byte) {
		s, err := parseStartup(packet{code, body})
		if err != nil {
			var f *fatal
			if !errors.As(err, &f) {
				t.Errorf("an error without SQLSTATE: %v", err)
			}
			return
		}
		// What is sent on must be read by Postgres as exactly these names.
		m := startupMessage(s)
		again, err := parseStartup(packet{versionMajor << 16, m[8:]})
		if err != nil || again.user != s.user || fmt.Sprint(again.params) != fmt.Sprint(s.params) {
			t.Errorf("%q became %q: %v", body, m, err)
		}
	})
}

const binding = "hash of the certificate"

// reader is the client's side of SCRAM, as a test wants it to be.
type reader struct {
	mechanism, gs2, password, bound string
	nonce                           func(string) string // of the final message
	proof                           func([]byte) []byte
}

func (r reader) talk(v verifier) (ok bool, err error) {
	x := scram{v: v, binding: []byte(binding)}
	bare := "n=,r=abc"
	first, err := x.begin(r.mechanism, r.gs2+bare)
	if err != nil {
		return false, err
	}
	nonce := strings.TrimPrefix(strings.Split(first, ",")[0], "r=")
	if r.nonce != nil {
		nonce = r.nonce(nonce)
	}
	without := "c=" + base64.StdEncoding.EncodeToString([]byte(r.gs2+r.bound)) + ",r=" + nonce
	salted, _ := pbkdf2.Key(sha256.New, r.password, v.salt, v.iterations, 32)
	key := keyed(salted, []byte("Client Key"))
	stored := sha256.Sum256(key)
	sig := keyed(stored[:], []byte(bare+","+first+","+without))
	for i := range key {
		key[i] ^= sig[i]
	}
	if r.proof != nil {
		key = r.proof(key)
	}
	final, ok, err := x.finish(without + ",p=" + base64.StdEncoding.EncodeToString(key))
	if ok {
		want := "v=" + base64.StdEncoding.EncodeToString(keyed(v.serverKey, []byte(bare+","+first+","+without)))
		if final != want {
			return false, fmt.Errorf("server-final %q, want %q", final, want)
		}
	}
	return ok, err
}

func keep(password string) verifier {
	v := verifier{iterations: 64, salt: []byte("0123456789abcdef")}
	salted, _ := pbkdf2.Key(sha256.New, password, v.salt, v.iterations, 32)
	stored := sha256.Sum256(keyed(salted, []byte("Client Key")))
	v.storedKey, v.serverKey = stored[:], keyed(salted, []byte("Server Key"))
	return v
}

func TestSCRAM(t *testing.T) {
	v := keep("right")
	plain, plus := mechanismPlain, mechanismPlus
	cb := "p=tls-server-end-point,,"
	for name, c := range map[string]struct {
		reader
		ok   bool
		code string
	}{
		"right":              {reader{mechanism: plain, gs2: "n,,", password: "right"}, true, ""},
		"right, bound":       {reader{mechanism: plus, gs2: cb, password: "right", bound: binding}, true, ""},
		"wrong":              {reader{mechanism: plain, gs2: "n,,", password: "wrong"}, false, ""},
		"wrong, bound":       {reader{mechanism: plus, gs2: cb, password: "wrong", bound: binding}, false, ""},
		"other certificate":  {reader{mechanism: plus, gs2: cb, password: "right", bound: "of a man in the middle"}, false, "28000"},
		"no binding data":    {reader{mechanism: plus, gs2: cb, password: "right"}, false, "28000"},
		"downgraded":         {reader{mechanism: plain, gs2: "y,,", password: "right"}, false, "28000"},
		"plus without":       {reader{mechanism: plus, gs2: "n,,", password: "right"}, false, "08P01"},
		"plain with":         {reader{mechanism: plain, gs2: cb, password: "right"}, false, "08P01"},
		"unique":             {reader{mechanism: plus, gs2: "p=tls-unique,,", password: "right"}, false, "08P01"},
		"mechanism":          {reader{mechanism: "PLAIN", gs2: "n,,", password: "right"}, false, "08P01"},
		"authorization":      {reader{mechanism: plain, gs2: "n,a=root,", password: "right"}, false, "0A000"},
		"extension":          {reader{mechanism: plain, gs2: "n,,m=x,", password: "right"}, false, "0A000"},
		"no header":          {reader{mechanism: plain, gs2: "", password: "right"}, false, "08P01"},
		"longer nonce":       {reader{mechanism: plain, gs2: "n,,", password: "right", nonce: func(s string) string { return s + "x" }}, false, "08P01"},
		"own nonce only":     {reader{mechanism: plain, gs2: "n,,", password: "right", nonce: func(s string) string { return "abc" }}, false, "08P01"},
		"empty proof":        {reader{mechanism: plain, gs2: "n,,", password: "right", proof: func([]byte) []byte { return nil }}, false, "08P01"},
		"longer proof":       {reader{mechanism: plain, gs2: "n,,", password: "right", proof: func(p []byte) []byte { return append(p, 0) }}, false, "08P01"},
		"proof of nothing":   {reader{mechanism: plain, gs2: "n,,", password: "right", proof: func([]byte) []byte { return make([]byte, 32) }}, false, ""},
		"header said anew":   {reader{mechanism: plain, gs2: "n,,", password: "right", bound: "y,,"}, false, "08P01"},
		"name with equals":   {reader{mechanism: plain, gs2: "n,,", password: "=right"}, false, ""},
		"password like base": {reader{mechanism: plain, gs2: "n,,", password: ""}, false, ""},
	} {
		ok, err := c.talk(v)
		var f *fatal
		code := ""
		if errors.As(err, &f) {
			code = f.code
		}
		if ok != c.ok || code != c.code || err != nil && f == nil {
			t.Errorf("%s: %v, %v", name, ok, err)
		}
	}
}

func TestFakeVerifier(t *testing.T) {
	a := fakeVerifier([]byte("key"), "ep-a", "ada")
	if fmt.Sprint(a) != fmt.Sprint(fakeVerifier([]byte("key"), "ep-a", "ada")) {
		t.Error("the salt of an unknown role changes")
	}
	for _, b := range []verifier{
		fakeVerifier([]byte("key"), "ep-a", "bob"), fakeVerifier([]byte("key"), "ep-b", "ada"), fakeVerifier([]byte("other"), "ep-a", "ada"),
	} {
		if string(a.salt) == string(b.salt) {
			t.Error("two roles have one salt")
		}
	}
	if len(a.salt) != 16 || a.iterations != 4096 || a.accepts("") || a.accepts("ada") {
		t.Errorf("%+v", a)
	}
}

func TestParseVerifier(t *testing.T) {
	v := keep("right")
	b64 := base64.StdEncoding.EncodeToString
	good := fmt.Sprintf("SCRAM-SHA-256$64:%s$%s:%s", b64(v.salt), b64(v.storedKey), b64(v.serverKey))
	got, ok := parseVerifier(good)
	if !ok || !got.accepts("right") || got.accepts("wrong") {
		t.Errorf("%q: %+v %v", good, got, ok)
	}
	for _, s := range []string{
		"", "md5abc", "SCRAM-SHA-256", "SCRAM-SHA-256$", good[:len(good)-4], strings.Replace(good, "$64:", "$0:", 1),
		strings.Replace(good, "$64:", "$-1:", 1), strings.Replace(good, "$64:", "$:", 1), strings.Replace(good, ":", "", 1), "x" + good,
	} {
		if _, ok := parseVerifier(s); ok {
			t.Errorf("%q is taken for a verifier", s)
		}
	}
	// A role chooses its own verifier; it must not choose our work.
	v.iterations = 1 << 30
	if v.accepts("right") {
		t.Error("a billion iterations were computed")
	}
}

func FuzzSCRAM(f *testing.F) {
	v := keep("right")
	f.Add(mechanismPlus, "p=tls-server-end-point,,n=,r=abc", "c=biws,r=abc,p=AAAA")
	f.Fuzz(func(t *testing.T, mechanism, first, final string) {
		x := scram{v: v, binding: []byte(binding)}
		if _, err := x.begin(mechanism, first); err != nil {
			return
		}
		if _, ok, _ := x.finish(final); ok {
			t.Errorf("let in with %q", final)
		}
	})
}
