package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
)

// Get reads n bytes at off; see blob.Store. A body that breaks off is asked for
// again from where it broke, as long as the object is still the same.
func (s *Store) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	name, err := s.name(ctx, "get", key)
	if err != nil {
		return nil, err
	}
	if off < 0 {
		return nil, fmt.Errorf("get %s: negative offset %d", key, off)
	}
	if n == 0 { // no range is empty; a missing object is still an error
		_, err := s.Head(ctx, key)
		return io.NopCloser(strings.NewReader("")), err
	}
	doing := fmt.Sprintf("get %s at %d", key, off)
	out, err := s.ask(ctx, name, off, n, nil)
	if a := answered(err); a != nil && (a.code == "InvalidRange" || a.status == http.StatusRequestedRangeNotSatisfiable) {
		return io.NopCloser(strings.NewReader("")), nil // it is there, and ends before off
	}
	if err != nil {
		return nil, s.explain(ctx, doing, err)
	}
	if err := covers(out, off, n); err != nil {
		out.Body.Close()
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	if out.ContentLength == nil || *out.ContentLength < 0 {
		return out.Body, nil // a server that does not say where the end is
	}
	b := &body{under: out.Body, at: off, end: off + *out.ContentLength, tries: s.o.Tries}
	b.again = func(at int64) (io.ReadCloser, error) {
		out, err := s.ask(ctx, name, at, b.end-at, out.ETag)
		if a := answered(err); a != nil && a.status == http.StatusPreconditionFailed {
			return nil, fmt.Errorf("%s: %w while it was read", doing, blob.ErrMismatch)
		}
		if err != nil {
			return nil, s.explain(ctx, doing, err)
		}
		return out.Body, covers(out, at, b.end-at)
	}
	b.wait = func(try int) error { return pause(ctx, try) }
	b.explain = func(err error) error { return s.explain(ctx, doing, err) }
	return b, nil
}

func (s *Store) ask(ctx context.Context, name *string, off, n int64, etag *string) (*s3.GetObjectOutput, error) {
	in := &s3.GetObjectInput{Bucket: &s.o.Bucket, Key: name, IfMatch: etag}
	switch {
	case n > 0 && n <= math.MaxInt64-off:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-%d", off, off+n-1))
	case off > 0:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-", off))
	}
	return s.client.GetObject(ctx, in)
}

// covers refuses an answer that is not of the range asked for: a server or
// proxy without ranges sends the object from its beginning.
func covers(out *s3.GetObjectOutput, off, n int64) error {
	if r := aws.ToString(out.ContentRange); r != "" {
		if strings.HasPrefix(r, fmt.Sprintf("bytes %d-", off)) {
			return nil
		}
		return fmt.Errorf("the server answered with the range %q", r)
	}
	if off == 0 && (n < 0 || aws.ToInt64(out.ContentLength) <= n) {
		return nil
	}
	return errors.New("the server ignores ranges")
}

// body is the rest of an object, however often the connection breaks.
type body struct {
	under   io.ReadCloser
	broken  error // why under is of no more use
	at, end int64
	failed  int // in a row, without a byte between
	tries   int

	again   func(at int64) (io.ReadCloser, error)
	wait    func(try int) error
	explain func(error) error
}

func (b *body) Read(p []byte) (int, error) {
	for {
		if b.at >= b.end {
			return 0, io.EOF
		}
		if b.broken == nil {
			n, err := b.under.Read(p[:min(int64(len(p)), b.end-b.at)])
			b.at += int64(n)
			if n > 0 {
				b.failed = 0
			}
			if err == io.EOF && b.at < b.end {
				err = io.ErrUnexpectedEOF
			}
			if b.at < b.end {
				b.broken = err
			}
			if n > 0 || len(p) == 0 {
				return n, nil
			}
			continue
		}
		b.under.Close()
		b.failed++
		if b.failed >= b.tries {
			return 0, b.explain(b.broken)
		}
		if err := b.wait(b.failed); err != nil {
			return 0, b.explain(err)
		}
		under, err := b.again(b.at)
		if under != nil {
			b.under = under
		}
		if err != nil {
			b.failed = b.tries // it was tried as often as a request is
			b.broken = err
			return 0, err
		}
		b.broken = nil
	}
}

func (b *body) Close() error { return b.under.Close() }

// backoff is how long to wait after the try-th failed, counted from 1: longer
// each time, and not in step with others.
func backoff(try int) time.Duration {
	d := min(maxBackoff, 100*time.Millisecond<<min(max(try-1, 0), 10))
	return d/2 + rand.N(d/2)
}

func pause(ctx context.Context, try int) error {
	timer := time.NewTimer(backoff(try))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// Head describes one object. The answer to a HEAD has no body that would say
// whether it is the object that is missing, or the bucket or who asks: what seems
// missing is asked for once more in a way that does.
func (s *Store) Head(ctx context.Context, key string) (blob.Object, error) {
	name, err := s.name(ctx, "head", key)
	if err != nil {
		return blob.Object{}, err
	}
	for range s.o.Tries {
		o, err := s.head(ctx, key, name)
		if !errors.Is(err, blob.ErrNotExist) {
			return o, err
		}
		out, err := s.ask(ctx, name, 0, 1, nil)
		if a := answered(err); err != nil && (a == nil || a.status != http.StatusRequestedRangeNotSatisfiable) {
			return blob.Object{}, s.explain(ctx, "head "+key, err)
		}
		if err == nil { // it came to be just now
			out.Body.Close()
		}
	}
	return blob.Object{}, tarn.Unavailable("head %s: it comes and goes", key)
}

func (s *Store) head(ctx context.Context, key string, name *string) (blob.Object, error) {
	out, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.o.Bucket, Key: name})
	if err != nil {
		return blob.Object{}, s.explain(ctx, "head "+key, err)
	}
	return object(key, out.ContentLength, out.LastModified, out.ETag), nil
}

// object makes the same of a HEAD, whose times are of whole seconds, as of a
// listing.
func object(key string, size *int64, at *time.Time, etag *string) blob.Object {
	return blob.Object{
		Key: key, Size: aws.ToInt64(size), ModTime: aws.ToTime(at).UTC().Truncate(time.Second), ETag: aws.ToString(etag),
	}
}
