package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/blob/open"
)

// storage is what is asked of the object store that outlives a data directory.
// Credentials are those of AWS's standard chain: a command line is shown to
// everybody.
type storage struct {
	Place    string // URL; "" = none
	Endpoint string
	Region   string
	Cache    byteSize      // of copied pages that stay here; 0 = all
	Lease    time.Duration // how long a holder must be silent to be gone; 0 = what the storage began with
	TakeOver bool
}

// A lease is the storage's own, chosen when it begins: who waits for silence must
// wait at least as long as who is silent counts itself alive.
const (
	usualLease    = 30 * time.Second
	shortestLease = 3 * time.Second
	longestLease  = 10 * time.Minute
)

// lease is the one in force.
func (s *storage) lease() time.Duration { return cmp.Or(s.Lease, usualLease) }

const takeOverFlag = "take-over"

func (s *storage) flags(f *pflag.FlagSet) {
	f.StringVar(&s.Place, "storage", "", "object store to copy everything to: s3://bucket/prefix, file:///dir or a directory (default $TARN_STORAGE or what the data directory began with; none: everything is on this computer only)")
	f.StringVar(&s.Endpoint, "storage-endpoint", "", "URL of a server that speaks S3 (default $TARN_STORAGE_ENDPOINT or AWS's); keys come from AWS_ACCESS_KEY_ID, AWS_PROFILE and so on")
	f.StringVar(&s.Region, "storage-region", "", "region of the bucket (default $TARN_STORAGE_REGION or AWS_REGION)")
	f.DurationVar(&s.Lease, "storage-lease", 0, "how long a data directory must be silent before another may take over, and how long (two thirds of it) writes go on while the storage is not reached; chosen once, when the storage begins (default $TARN_STORAGE_LEASE or 30s)")
	f.Var(&s.Cache, "storage-cache", "about how much copied data to keep on this computer too, like 50GiB (default $TARN_STORAGE_CACHE or 0: all of it)")
}

// complete fills in what environment and data directory say.
func (s *storage) complete(data string) error {
	if v := os.Getenv("TARN_STORAGE_CACHE"); s.Cache == 0 && v != "" {
		if err := s.Cache.Set(v); err != nil {
			return tarn.Invalid("TARN_STORAGE_CACHE: %w", err)
		}
	}
	if v := os.Getenv("TARN_STORAGE_LEASE"); s.Lease == 0 && v != "" {
		d, err := time.ParseDuration(v)
		if err != nil {
			return tarn.Invalid("TARN_STORAGE_LEASE: %w", err)
		}
		s.Lease = d
	}
	if s.Lease != 0 && (s.Lease < shortestLease || s.Lease > longestLease) {
		return tarn.Invalid("a storage's lease of %s: want %s to %s", s.Lease, shortestLease, longestLease)
	}
	m, err := readMembership(data)
	if err != nil {
		return err
	}
	if !begun(data) && first(s.Place, os.Getenv("TARN_STORAGE")) != "" {
		m = membership{} // of a start that came to nothing
	}
	s.Place = first(s.Place, os.Getenv("TARN_STORAGE"), m.Storage)
	if s.Place == "" {
		if s.Endpoint != "" || s.Region != "" || s.Lease != 0 || s.TakeOver {
			return tarn.Invalid("the flags about a storage need one").WithHint("name it with --storage s3://bucket/prefix")
		}
		return nil
	}
	at, err := open.Parse(s.Place)
	if err != nil {
		return err
	}
	s.Place = at.String()
	if m.Storage != "" && m.Storage != s.Place {
		return tarn.Conflict("%s belongs to storage %s, not %s", data, m.Storage, s.Place).
			WithHint("leave --storage out to go on, or name an empty data directory with --data to bring back what is in the other")
	}
	if at.Bucket != "" {
		s.Endpoint = first(s.Endpoint, os.Getenv("TARN_STORAGE_ENDPOINT"), m.Endpoint)
		s.Region = first(s.Region, os.Getenv("TARN_STORAGE_REGION"), m.Region)
	}
	return nil
}

func (s *storage) args() []string {
	var a []string
	for _, f := range [...]struct{ flag, v string }{{"--storage", s.Place}, {"--storage-endpoint", s.Endpoint}, {"--storage-region", s.Region}} {
		if f.v != "" {
			a = append(a, f.flag, f.v)
		}
	}
	if s.Place != "" && s.Lease != 0 {
		a = append(a, "--storage-lease", s.Lease.String())
	}
	if s.Place != "" && s.Cache != 0 {
		a = append(a, "--storage-cache", s.Cache.String())
	}
	return a
}

func (s *storage) takeOverArgs() []string {
	if s.TakeOver {
		return []string{"--" + takeOverFlag}
	}
	return nil
}

func (s *storage) open(ctx context.Context) (blob.Store, error) {
	return open.Store(ctx, s.Place, open.Options{Endpoint: s.Endpoint, Region: s.Region})
}

// again says what to type when the storage is reached, after what is to be done before.
func (s *storage) again(data, before string) string {
	next := "then: tarn up --data " + data
	if !begun(data) {
		next += " " + strings.Join(s.args(), " ")
	}
	if s.Endpoint != "" {
		next += "; if the storage has another address now, add --storage-endpoint URL"
	}
	return strings.TrimPrefix(before+"; "+next, "; ")
}

// probes is how often a storage is tried whose answers are lost.
const probes = 5

// probe tries what everything in the store stands on: that of two who write the
// same object only one can win. A lost answer says nothing about that: it is
// tried again, with another object.
func probe(ctx context.Context, b blob.Store) error {
	var err error
	for range probes {
		if err = probeOnce(ctx, b); !errors.Is(err, blob.ErrAmbiguous) {
			break
		}
	}
	if err != nil {
		hint := tarn.HintOf(err)
		if hint == "" {
			hint = "Tarn needs a storage with conditional writes (If-Match and If-None-Match), and the right to read, list, write and delete"
		}
		return tarn.Unavailable("try storage %s: %w", b.URL(), err).WithHint(hint)
	}
	return nil
}

func probeOnce(ctx context.Context, b blob.Store) error {
	key := "probe/" + strings.ToLower(rand.Text())
	try := func() error {
		if err := b.PutIfAbsent(ctx, key, []byte("1")); err != nil {
			return fmt.Errorf("write an object: %w", err)
		}
		if err := b.PutIfAbsent(ctx, key, []byte("2")); !errors.Is(err, blob.ErrExists) {
			return fmt.Errorf("it replaced an object that was to be made only if there is none (%w)", orNone(err))
		}
		o, err := b.Head(ctx, key)
		if err != nil {
			return fmt.Errorf("look at an object: %w", err)
		}
		next, err := b.PutIfMatch(ctx, key, o.ETag, []byte("3"))
		if err != nil {
			return fmt.Errorf("replace an object: %w", err)
		}
		if _, err := b.PutIfMatch(ctx, key, o.ETag, []byte("4")); !errors.Is(err, blob.ErrMismatch) || next == o.ETag {
			return fmt.Errorf("it replaced an object that had changed (%w)", orNone(err))
		}
		return nil
	}
	err := try()
	if e := b.Delete(ctx, key); err == nil && e != nil {
		err = fmt.Errorf("delete an object: %w", e)
	}
	return err
}

var errNone = errors.New("and no error")

func orNone(err error) error {
	if err == nil {
		return errNone
	}
	return err
}
