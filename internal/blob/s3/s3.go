// Package s3 keeps a blob store in a bucket of S3 or of a server that speaks its
// protocol: each object is one S3 object under a prefix. It knows requests, their
// retries and what is certain after one failed; it knows nothing of what the
// objects hold, and of a bucket only what is under its prefix.
//
// It needs a server with strongly consistent reads and listings in byte order
// of the keys, and with conditional writes (If-None-Match: * and If-Match):
// Amazon S3 general purpose buckets, and compatible servers that have them.
//
// ETags are made from the bytes: a mutable object that returns to bytes it had
// before cannot be told from the one it was. Who swaps by PutIfMatch puts
// something in it that never comes back, such as a counter.
package s3

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
)

// Addressing says where a request names the bucket.
type Addressing int

// The ways to name a bucket.
const (
	ByEndpoint  Addressing = iota // PathStyle with an endpoint of one's own, else VirtualHost
	PathStyle                     // https://endpoint/bucket/key
	VirtualHost                   // https://bucket.endpoint/key
)

// Options say which bucket and how to reach it. All but Bucket may stay zero.
type Options struct {
	Bucket     string
	Prefix     string        // keys are below it: "" (the whole bucket) or a/b
	Endpoint   string        // URL of a compatible server; "" = AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, else Amazon's
	Region     string        // "" = that of the environment or profile; us-east-1 with an endpoint of one's own
	Addressing Addressing    // see ByEndpoint
	AccessKey  string        // "" = AWS's standard chain: environment, profile, SSO, web identity, instance role
	SecretKey  tarn.Secret   // goes with AccessKey
	Stall      time.Duration // a connection on which no byte moves for so long is given up; default 30 s
	Tries      int           // requests per call before it fails; default 6: about 3 s between the first and the last
	PartBytes  int64         // an object longer than this is sent in parts of this size; default 8 MiB, at least 5
	Parallel   int           // parts of one Put in flight, each holding PartBytes of memory; default 4
}

// Store is a bucket, or what is under a prefix of it. The zero value is not
// usable; see Open.
type Store struct {
	client *s3.Client
	http   *http.Client
	o      Options // with defaults filled in
	root   string  // "" or the prefix with a slash behind it
	// oneByOne is set when the server turned out not to know batches of
	// deletions.
	oneByOne atomic.Bool
}

var _ blob.Store = (*Store)(nil)

const (
	minPart     = 5 << 20 // S3's own limit, for all parts but the last
	dialTime    = 10 * time.Second
	maxBackoff  = 5 * time.Second
	idleConns   = 64
	defaultZone = "us-east-1" // what servers without regions call theirs
)

// Open gives the store and asks the bucket once, so that a wrong name, a wrong
// key or an endpoint out of reach is told now and with a hint.
func Open(ctx context.Context, o Options) (*Store, error) {
	s, err := New(ctx, o)
	if err != nil {
		return nil, err
	}
	// A listing, since a HEAD answers errors without saying which.
	_, err = s.client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{
		Bucket: &s.o.Bucket, Prefix: &s.root, MaxKeys: aws.Int32(1),
	})
	if err != nil {
		s.Close()
		return nil, s.explain(ctx, "open store "+s.URL(), err)
	}
	return s, nil
}

// New is Open without asking the bucket; it reads the environment and AWS's
// configuration files.
func New(ctx context.Context, o Options) (*Store, error) {
	o.Prefix = strings.Trim(o.Prefix, "/")
	if err := check(o); err != nil {
		return nil, err
	}
	o.Stall = cmp.Or(o.Stall, 30*time.Second)
	o.Tries = cmp.Or(o.Tries, 6)
	o.PartBytes = max(cmp.Or(o.PartBytes, 8<<20), minPart)
	o.Parallel = cmp.Or(o.Parallel, 4)
	s := &Store{o: o}
	if o.Prefix != "" {
		s.root = o.Prefix + "/"
	}
	load := []func(*config.LoadOptions) error{
		// The type that lets AWS_CA_BUNDLE be applied.
		config.WithHTTPClient(awshttp.NewBuildableClient()),
		// Newer checksum headers are unknown to many compatible servers. The
		// signature covers a digest of what is sent all the same.
		config.WithRequestChecksumCalculation(aws.RequestChecksumCalculationWhenRequired),
		config.WithResponseChecksumValidation(aws.ResponseChecksumValidationWhenRequired),
	}
	load = append(load, config.WithLogger(logging.Nop{})) // errors carry what matters
	if o.Region != "" {
		load = append(load, config.WithRegion(o.Region))
	}
	if o.AccessKey != "" {
		load = append(load, config.WithCredentialsProvider(
			credentials.NewStaticCredentialsProvider(o.AccessKey, o.SecretKey.Reveal(), "")))
	}
	cfg, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return nil, tarn.Invalid("open store %s: read AWS's configuration: %w", s.URL(), err).
			WithHint("see AWS_PROFILE, AWS_CONFIG_FILE and ~/.aws/config")
	}
	s.http = &http.Client{
		Transport: s.transport(cfg.HTTPClient),
		// A redirect would carry a signature made for another host.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	s.client = s3.NewFromConfig(cfg, func(c *s3.Options) {
		c.HTTPClient = s.http
		c.Credentials = keys{cfg.Credentials}
		if o.Endpoint != "" {
			c.BaseEndpoint = &o.Endpoint
		}
		own := c.BaseEndpoint != nil
		c.UsePathStyle = o.Addressing == PathStyle || o.Addressing == ByEndpoint && own
		if c.Region == "" && own {
			c.Region = defaultZone
		}
		c.Retryer = retry.NewStandard(func(r *retry.StandardOptions) {
			r.MaxAttempts = o.Tries
			r.Backoff = retry.BackoffDelayerFunc(func(try int, _ error) (time.Duration, error) { return backoff(try), nil })
			r.RateLimiter = ratelimit.None
		})
	})
	if s.client.Options().Region == "" {
		return nil, tarn.Invalid("open store %s: no region is known", s.URL()).
			WithHint("set AWS_REGION to the bucket's region, or the endpoint of a compatible server")
	}
	return s, nil
}

func check(o Options) error {
	invalid := func(format string, args ...any) error {
		return tarn.Invalid("open store s3://%s/%s: %w", o.Bucket, o.Prefix, tarn.Invalid(format, args...)).
			WithHint("a store is written s3://bucket/prefix, an endpoint https://host:port")
	}
	if o.Bucket == "" || strings.ContainsAny(o.Bucket, "/ ?#") {
		return invalid("%q cannot name a bucket", o.Bucket)
	}
	if o.Prefix != "" {
		if err := blob.CheckKey(o.Prefix); err != nil {
			return invalid("prefix: %w", err)
		}
	}
	if o.Endpoint != "" {
		u, err := url.Parse(o.Endpoint)
		if err != nil {
			return invalid("endpoint: %w", err)
		}
		if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.User != nil {
			return invalid("%q is not the URL of an endpoint", o.Endpoint)
		}
	}
	if (o.AccessKey == "") != (o.SecretKey == "") {
		return invalid("an access key and a secret key go together")
	}
	return nil
}

// transport makes the connections: like the SDK's, and watched for stalls.
func (s *Store) transport(of aws.HTTPClient) *http.Transport {
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: dialTime}
	if b, ok := of.(*awshttp.BuildableClient); ok {
		t = b.GetTransport()
	}
	dialer := &net.Dialer{Timeout: min(dialTime, s.o.Stall), KeepAlive: 30 * time.Second}
	t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dialer.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &watched{Conn: c, stall: s.o.Stall}, nil
	}
	t.MaxIdleConns = idleConns
	t.MaxIdleConnsPerHost = idleConns
	t.IdleConnTimeout = s.o.Stall / 2 // before the watch ends it
	return t
}

// watched is a connection that fails when nothing moves in either direction
// for stall: a long upload keeps the waiting for its answer alive.
type watched struct {
	net.Conn
	stall time.Duration
}

func (c *watched) Read(p []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// Write sends p in pieces, each with the whole of stall.
func (c *watched) Write(p []byte) (n int, err error) {
	const piece = 64 << 10
	for {
		if err := c.SetDeadline(time.Now().Add(c.stall)); err != nil {
			return n, err
		}
		m, err := c.Conn.Write(p[n:min(len(p), n+piece)])
		n += m
		if err != nil || n == len(p) {
			return n, err
		}
	}
}

// Close drops idle connections. Calls under way go on.
func (s *Store) Close() error {
	s.http.CloseIdleConnections()
	return nil
}

// URL is s3://bucket/prefix.
func (s *Store) URL() string {
	u := url.URL{Scheme: "s3", Host: s.o.Bucket}
	if s.o.Prefix != "" {
		u.Path = "/" + s.o.Prefix
	}
	return u.String()
}

// name gives the S3 key of key and refuses what no store takes.
func (s *Store) name(ctx context.Context, what, key string) (*string, error) {
	if err := blob.CheckKey(key); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if err := ended(ctx, what, key); err != nil {
		return nil, err
	}
	return aws.String(s.root + key), nil
}
