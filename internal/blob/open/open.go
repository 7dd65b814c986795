// Package open turns what a person writes for a place to store things, a path or
// a URL, into a blob store. It knows which backends there are; it knows nothing of
// what they do.
package open

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/blob/dir"
	"github.com/tarndb/tarn/internal/blob/s3"
)

// Location is a parsed place: a directory, or a bucket with a prefix.
type Location struct {
	Dir    string // absolute; "" for a bucket
	Bucket string
	Prefix string // within the bucket; "" for all of it
}

// String writes the location as a URL.
func (l Location) String() string {
	if l.Dir != "" {
		return (&url.URL{Scheme: "file", Path: l.Dir}).String()
	}
	u := url.URL{Scheme: "s3", Host: l.Bucket}
	if l.Prefix != "" {
		u.Path = "/" + l.Prefix
	}
	return u.String()
}

const forms = "write a directory as /srv/tarn or file:///srv/tarn, a bucket as s3://bucket/prefix"

// Parse reads a path, file:///path or s3://bucket/prefix. It looks at nothing
// but the text.
func Parse(place string) (Location, error) {
	l, err := parse(place)
	if err != nil {
		return Location{}, tarn.Invalid("storage %q: %w", redacted(place), err).WithHint(forms)
	}
	return l, nil
}

// redacted leaves out what may be a password.
func redacted(place string) string {
	if scheme, rest, ok := strings.Cut(place, "://"); ok {
		if _, host, found := strings.Cut(rest, "@"); found {
			return scheme + "://…@" + host
		}
	}
	return place
}

func parse(place string) (Location, error) {
	if place == "" {
		return Location{}, fmt.Errorf("it is empty")
	}
	scheme, _, isURL := strings.Cut(place, ":")
	if !isURL || strings.ContainsAny(scheme, "/.") {
		abs, err := filepath.Abs(place)
		return Location{Dir: abs}, err
	}
	u, err := url.Parse(place)
	if err != nil {
		return Location{}, fmt.Errorf("it is not a URL")
	}
	switch {
	case u.User != nil:
		return Location{}, fmt.Errorf("keys do not belong into a URL, which is shown and logged: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	case u.RawQuery != "" || u.Fragment != "" || u.Opaque != "":
		return Location{}, fmt.Errorf("only a host and a path are understood")
	}
	switch u.Scheme {
	case "file":
		if u.Host != "" && u.Host != "localhost" {
			return Location{}, fmt.Errorf("host %q in a file URL: a third slash is missing", u.Host)
		}
		if !filepath.IsAbs(u.Path) {
			return Location{}, fmt.Errorf("the path of a file URL begins with a slash")
		}
		return Location{Dir: filepath.Clean(u.Path)}, nil
	case "s3":
		l := Location{Bucket: u.Host, Prefix: strings.Trim(u.Path, "/")}
		if l.Bucket == "" {
			return Location{}, fmt.Errorf("no bucket is named")
		}
		if l.Prefix != "" {
			if err := blob.CheckKey(l.Prefix); err != nil {
				return Location{}, fmt.Errorf("prefix: %w", err)
			}
		}
		return l, nil
	}
	return Location{}, fmt.Errorf("no storage is called %s", u.Scheme)
}

// Options are about buckets only, and may all stay zero: see s3.Options.
type Options struct {
	Endpoint   string
	Region     string
	Addressing s3.Addressing
	AccessKey  string // "" = AWS's standard chain
	SecretKey  tarn.Secret
}

// Store opens the store at place. A directory is made when it is missing, a
// bucket must exist and is asked once. A store that holds connections is an
// io.Closer.
func Store(ctx context.Context, place string, o Options) (blob.Store, error) {
	l, err := Parse(place)
	if err != nil {
		return nil, err
	}
	if l.Dir != "" {
		if o.Endpoint != "" {
			return nil, tarn.Invalid("storage %s: a directory has no endpoint", place).
				WithHint("leave the endpoint out, or name a bucket: s3://bucket/prefix")
		}
		s, err := dir.Open(l.Dir)
		if err != nil {
			return nil, err
		}
		return s, nil
	}
	s, err := s3.Open(ctx, s3.Options{
		Bucket: l.Bucket, Prefix: l.Prefix, Endpoint: o.Endpoint, Region: o.Region,
		Addressing: o.Addressing, AccessKey: o.AccessKey, SecretKey: o.SecretKey,
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}
