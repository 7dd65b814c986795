package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/tarndb/tarn/internal/blob"
)

// Put writes key, replacing what was there. What fits into one part is one
// request, more is a multipart upload: the object appears when all of it is
// there, or not at all. An error marked with blob.ErrAmbiguous leaves open
// whether it did; so does a write that the network delivers late, which is why
// a key that Put may replace at any time wants PutIfMatch instead.
func (s *Store) Put(ctx context.Context, key string, r io.Reader) error {
	if _, err := s.name(ctx, "put", key); err != nil {
		return err
	}
	first, err := readUpTo(ctx, r, nil, int(s.o.PartBytes))
	switch err {
	case nil:
		return s.upload(ctx, key, first, r)
	case io.EOF:
		_, err := s.putObject(ctx, "put", key, first, condition{})
		return err
	}
	return fmt.Errorf("put %s: %w", key, err)
}

// readUpTo reads n bytes of r into the memory of b, or new memory; io.EOF means
// that r ended before.
func readUpTo(ctx context.Context, r io.Reader, b []byte, n int) ([]byte, error) {
	const least = 64 << 10
	b = b[:0]
	for len(b) < n {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		if len(b) == cap(b) {
			grown := make([]byte, len(b), min(n, max(least, 2*cap(b))))
			copy(grown, b)
			b = grown
		}
		m, err := r.Read(b[len(b):min(cap(b), n)])
		b = b[:len(b)+m]
		if err != nil && (err != io.EOF || len(b) < n) {
			return b, err
		}
	}
	return b, nil
}

// condition is what must hold for a write; the zero value is nothing.
type condition struct {
	absent bool
	match  string
}

// PutIfAbsent writes key unless it exists.
func (s *Store) PutIfAbsent(ctx context.Context, key string, b []byte) error {
	_, err := s.putObject(ctx, "put if absent", key, b, condition{absent: true})
	return err
}

// PutIfMatch replaces key when its ETag is still etag.
func (s *Store) PutIfMatch(ctx context.Context, key, etag string, b []byte) (string, error) {
	if etag == "" { // which S3 would take for no condition at all
		return "", fmt.Errorf("put if match %s: empty ETag", key)
	}
	return s.putObject(ctx, "put if match", key, b, condition{match: etag})
}

func (s *Store) putObject(ctx context.Context, what, key string, b []byte, c condition) (etag string, err error) {
	object, err := s.name(ctx, what, key)
	if err != nil {
		return "", err
	}
	in := s3.PutObjectInput{
		Bucket: &s.o.Bucket, Key: object, ContentLength: aws.Int64(int64(len(b))), Metadata: newWriteName(),
	}
	if c.absent {
		in.IfNoneMatch = aws.String("*")
	}
	if c.match != "" {
		in.IfMatch = &c.match
	}
	return s.settle(ctx, what+" "+key, key, in.Metadata,
		func(ctx context.Context, o ...func(*s3.Options)) (*string, error) {
			in := in
			in.Body = bytes.NewReader(b)
			out, err := s.client.PutObject(ctx, &in, o...)
			if err != nil {
				return nil, err
			}
			return out.ETag, nil
		}, c.refusal)
}

// refusal gives the store's error for a server's answer to a conditional write.
func (c condition) refusal(a *answer) error {
	switch {
	case a.status == http.StatusPreconditionFailed && c.absent:
		return blob.ErrExists
	case a.status == http.StatusPreconditionFailed && c.match != "":
		return blob.ErrMismatch
	case a.code == "NoSuchKey" && c.match != "",
		a.code == "ObjectParentIsFile" && c.match != "": // of servers that keep objects in files
		return blob.ErrNotExist
	}
	return nil
}

var errPartsUsedUp = errors.New("the object is larger than 10,000 parts can hold: raise PartBytes")
