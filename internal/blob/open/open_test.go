package open_test

import (
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob/open"
	"github.com/tarndb/tarn/internal/blob/s3/s3test"
)

func TestParse(t *testing.T) {
	here, err := filepath.Abs("rel/x")
	if err != nil {
		t.Fatal(err)
	}
	for place, want := range map[string]open.Location{
		"/srv/tarn":                  {Dir: "/srv/tarn"},
		"/srv/a:b":                   {Dir: "/srv/a:b"},
		"rel/x":                      {Dir: here},
		"./rel/x/":                   {Dir: here},
		"file:///srv/a%20b/":         {Dir: "/srv/a b"},
		"file://localhost/srv":       {Dir: "/srv"},
		"s3://bucket":                {Bucket: "bucket"},
		"s3://bucket/":               {Bucket: "bucket"},
		"s3://bucket/a/b/":           {Bucket: "bucket", Prefix: "a/b"},
		"s3://my.bucket-1/a%20b/%41": {Bucket: "my.bucket-1", Prefix: "a b/A"},
	} {
		got, err := open.Parse(place)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", place, got, err)
			continue
		}
		if again, err := open.Parse(got.String()); err != nil || again != want {
			t.Errorf("%s as %s: %+v, %v", place, got, again, err)
		}
	}
	for _, place := range []string{"", "s3:", "s3://", "s3:///x", "s3:bucket", "s3://b/a//b", "s3://b/../c", "s3://b/x?y=1", "gs://b",
		"http://host/b", "file://srv/x", "file:srv", "file:///x#y", "s3://k:geheim@b/x"} {
		_, err := open.Parse(place)
		if tarn.KindOf(err) != tarn.KindInvalid || tarn.HintOf(err) == "" {
			t.Errorf("%s: %v", place, err)
		} else if strings.Contains(err.Error(), "geheim") {
			t.Errorf("a secret is shown: %v", err)
		}
	}
}

func TestStore(t *testing.T) {
	server := s3test.Start(t)
	// The standard chain finds keys and endpoint.
	for _, kv := range server.Env() {
		name, value, _ := strings.Cut(kv, "=")
		t.Setenv(name, value)
	}
	d := t.TempDir()
	for place, url := range map[string]string{
		d + "/made":                       "file://" + d + "/made",
		"file://" + d + "/b":              "file://" + d + "/b",
		"s3://" + s3test.Bucket + "/a/b/": "s3://" + s3test.Bucket + "/a/b",
		"s3://" + s3test.Bucket:           "s3://" + s3test.Bucket,
	} {
		s, err := open.Store(t.Context(), place, open.Options{})
		if err != nil {
			t.Errorf("%s: %v (%s)", place, err, tarn.HintOf(err))
			continue
		}
		if c, ok := s.(io.Closer); ok {
			defer c.Close()
		}
		if s.URL() != url {
			t.Errorf("%s: URL %s, want %s", place, s.URL(), url)
		}
		if err := s.PutIfAbsent(t.Context(), "k/"+strings.ReplaceAll(place, "/", "-"), []byte("x")); err != nil {
			t.Errorf("%s: %v", place, err)
		}
	}
	if _, err := open.Store(t.Context(), "s3://no-such-bucket/x", open.Options{}); err == nil {
		t.Error("a bucket that is not there opens")
	}
	if _, err := open.Store(t.Context(), d, open.Options{Endpoint: server.Endpoint}); tarn.KindOf(err) != tarn.KindInvalid {
		t.Errorf("a directory with an endpoint: %v", err)
	}
}
