package s3_test

import (
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/blob/s3"
	"github.com/tarndb/tarn/internal/blob/s3/s3test"
)

func TestHints(t *testing.T) {
	server := s3test.Start(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := "http://" + l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	w := newWire(t, server)
	always := func(how string) func(*http.Request) string { return func(*http.Request) string { return how } }
	for _, c := range []struct {
		name   string
		spoil  string
		change func(*s3.Options)
		kind   tarn.Kind
		text   string // in the error
		hint   string // in the hint
	}{
		{"no such bucket", pass, func(o *s3.Options) { o.Bucket = "no-such-bucket" }, tarn.KindInternal, "NoSuchBucket", "make the bucket no-such-bucket"},
		{"wrong access key", pass, func(o *s3.Options) { o.AccessKey = "nobody" }, tarn.KindInternal, "HTTP 404", "AWS_ACCESS_KEY_ID"},
		{"wrong secret", pass, func(o *s3.Options) { o.SecretKey = "wrong" }, tarn.KindInternal, "SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY"},
		{"wrong region", pass, func(o *s3.Options) { o.Region = "eu-central-1" }, tarn.KindInternal, "region", "eu-central-1"},
		{"endpoint unreachable", pass, func(o *s3.Options) { o.Endpoint = closed }, tarn.KindUnavailable, "connection refused", closed},
		{"clock skew", skewed, nil, tarn.KindInternal, "RequestTimeTooSkewed", "clocks"},
		{"forbidden", forbidden, nil, tarn.KindInternal, "Forbidden", "AWS_PROFILE"},
		{"overload", overload, nil, tarn.KindUnavailable, "SlowDown", ""},
		{"not an endpoint", pass, func(o *s3.Options) { o.Endpoint = "127.0.0.1:9000" }, tarn.KindInvalid, "endpoint", "https://host:port"},
		{"not a bucket", pass, func(o *s3.Options) { o.Bucket = "a/b" }, tarn.KindInvalid, "bucket", "s3://bucket/prefix"},
		{"bad prefix", pass, func(o *s3.Options) { o.Prefix = "a/../b" }, tarn.KindInvalid, "prefix", "s3://bucket/prefix"},
		{"half a key", pass, func(o *s3.Options) { o.SecretKey = "" }, tarn.KindInvalid, "go together", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.set(always(c.spoil))
			o := server.Options("hints")
			o.Endpoint, o.Tries = w.URL, 2
			if c.change != nil {
				c.change(&o)
			}
			_, err := s3.Open(t.Context(), o)
			if err == nil {
				t.Fatal("it opens")
			}
			if tarn.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.text) || !strings.Contains(tarn.HintOf(err), c.hint) {
				t.Errorf("%s error %q, hint %q", tarn.KindOf(err), err, tarn.HintOf(err))
			}
			if errors.Is(err, blob.ErrNotExist) || strings.Contains(err.Error(), "tarn-secret") {
				t.Errorf("error %q", err)
			}
		})
	}
}

// Without any credentials the error says which to set, and is not the bucket's.
func TestNoCredentials(t *testing.T) {
	server := s3test.Start(t)
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", t.TempDir()+"/none")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", t.TempDir()+"/none")
	o := server.Options("")
	o.AccessKey, o.SecretKey = "", ""
	_, err := s3.Open(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "find credentials") || !strings.Contains(tarn.HintOf(err), "AWS_ACCESS_KEY_ID") {
		t.Errorf("error %v, hint %q", err, tarn.HintOf(err))
	}
	s, err := s3.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.PutIfAbsent(t.Context(), "k", nil); err == nil || errors.Is(err, blob.ErrAmbiguous) {
		t.Errorf("a write that was never sent: %v", err)
	}
}

// A server may answer a HEAD with 404 for reasons that are not the object's.
func TestHeadIsNotFooled(t *testing.T) {
	server := s3test.Start(t)
	for name, change := range map[string]func(*s3.Options){
		"bucket": func(o *s3.Options) { o.Bucket = "no-such-bucket" },
		"key":    func(o *s3.Options) { o.AccessKey = "nobody" },
	} {
		o := server.Options("")
		change(&o)
		s, err := s3.New(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if _, err := s.Head(t.Context(), "k"); err == nil || errors.Is(err, blob.ErrNotExist) || tarn.HintOf(err) == "" {
			t.Errorf("%s: head: %v (%s)", name, err, tarn.HintOf(err))
		}
		if _, err := s.Get(t.Context(), "k", 0, 0); err == nil || errors.Is(err, blob.ErrNotExist) {
			t.Errorf("%s: get: %v", name, err)
		}
		if _, err := s.PutIfMatch(t.Context(), "k", `"00"`, nil); err == nil || errors.Is(err, blob.ErrNotExist) {
			t.Errorf("%s: put if match: %v", name, err)
		}
		if err := s.Delete(t.Context(), "k"); err == nil {
			t.Errorf("%s: deleted", name)
		}
		if err := s.Delete(t.Context(), "k", "l"); err == nil {
			t.Errorf("%s: deleted two", name)
		}
	}
}
