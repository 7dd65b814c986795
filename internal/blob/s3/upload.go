package s3

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"
)

const (
	maxParts  = 10000 // S3's own limit
	growEvery = 1000  // parts after which they become twice as long …
	maxGrowth = 8     // … up to this many times PartBytes
)

// upload writes key in parts, the first of which is read already.
//
//  1. begin an upload              (crash: an upload without parts)
//  2. send parts, Parallel at once (crash: parts, invisible, that cost money)
//  3. complete it                  (crash: invisible or whole)
//
// A failure aborts the upload, which frees its parts. What a crash leaves is
// freed by AbortUploads, or by a lifecycle rule of the bucket.
func (s *Store) upload(ctx context.Context, key string, first []byte, r io.Reader) (err error) {
	doing := "put " + key
	name := newWriteName()
	object := aws.String(s.root + key)
	begun, err := s.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{
		Bucket: &s.o.Bucket, Key: object, Metadata: name,
	})
	if err != nil {
		return s.explain(ctx, doing, err)
	}
	parts, err := s.sendParts(ctx, key, begun.UploadId, first, r)
	if err == nil {
		_, err = s.settle(ctx, doing, key, name,
			func(ctx context.Context, o ...func(*s3.Options)) (*string, error) {
				out, err := s.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
					Bucket: &s.o.Bucket, Key: object, UploadId: begun.UploadId,
					MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
				}, o...)
				if err != nil {
					return nil, err
				}
				return out.ETag, nil
			}, condition{}.refusal)
	}
	if err == nil {
		return nil
	}
	// Of an upload whose completion is in doubt too: abort is refused when it
	// was completed; when not, the object never appears.
	if aborted := s.abort(ctx, object, begun.UploadId); aborted != nil {
		return fmt.Errorf("%w; and %w", err, aborted)
	}
	return err
}

// abort frees an upload's parts, also when ctx is what ended it.
func (s *Store) abort(ctx context.Context, object, id *string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.o.Stall)
	defer cancel()
	_, err := s.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &s.o.Bucket, Key: object, UploadId: id})
	if a := answered(err); a != nil && a.status == http.StatusNotFound {
		return nil
	}
	if err != nil {
		return s.explain(ctx, "abort the upload of "+*object, err)
	}
	return nil
}

// sendParts reads r to its end and sends it, at most Parallel parts at a time.
func (s *Store) sendParts(ctx context.Context, key string, id *string, first []byte, r io.Reader) ([]types.CompletedPart, error) {
	g, sending := errgroup.WithContext(ctx)
	var (
		mu    sync.Mutex // guards parts; not held while sending
		parts []types.CompletedPart
	)
	free := make(chan []byte, s.o.Parallel) // buffers: nil is one not made yet
	for range s.o.Parallel - 1 {
		free <- nil
	}
	send := func(number int, b []byte) {
		g.Go(func() error {
			defer func() { free <- b[:0] }()
			out, err := s.client.UploadPart(sending, &s3.UploadPartInput{
				Bucket: &s.o.Bucket, Key: aws.String(s.root + key), UploadId: id, PartNumber: aws.Int32(int32(number)),
				Body: bytes.NewReader(b), ContentLength: aws.Int64(int64(len(b))),
			})
			if err != nil {
				return s.explain(sending, fmt.Sprintf("put %s: part %d", key, number), err)
			}
			mu.Lock()
			defer mu.Unlock()
			parts[number-1] = types.CompletedPart{ETag: out.ETag, PartNumber: aws.Int32(int32(number))}
			return nil
		})
	}
	err := func() error {
		for number, b, last := 1, first, false; ; number++ {
			if number > maxParts {
				return fmt.Errorf("put %s: %w", key, errPartsUsedUp)
			}
			mu.Lock()
			parts = append(parts, types.CompletedPart{})
			mu.Unlock()
			send(number, b)
			if last {
				return nil
			}
			select {
			case b = <-free:
			case <-sending.Done():
				return fmt.Errorf("put %s: %w", key, context.Cause(sending))
			}
			length := int(s.o.PartBytes) * min(maxGrowth, 1<<(number/growEvery))
			var err error
			b, err = readUpTo(sending, r, b, length)
			if err != nil && err != io.EOF {
				return fmt.Errorf("put %s: %w", key, err)
			}
			if len(b) == 0 {
				return nil
			}
			last = err == io.EOF
		}
	}()
	if err != nil {
		g.Go(func() error { return err }) // ends the parts in flight
	}
	if waited := g.Wait(); err == nil || waited != nil && context.Cause(ctx) == nil {
		err = waited
	}
	return parts, err
}

// AbortUploads frees what writes that a crash ended have left: uploads under
// the store's prefix that began before the given time, which must lie before
// the begin of every write still running. It returns how many there were.
func (s *Store) AbortUploads(ctx context.Context, before time.Time) (int, error) {
	in := &s3.ListMultipartUploadsInput{Bucket: &s.o.Bucket, Prefix: &s.root}
	for n := 0; ; {
		page, err := s.client.ListMultipartUploads(ctx, in)
		if err != nil {
			return n, s.explain(ctx, "list uploads", err)
		}
		for _, u := range page.Uploads {
			if u.Initiated == nil || !u.Initiated.Before(before) {
				continue
			}
			if err := s.abort(ctx, u.Key, u.UploadId); err != nil {
				return n, err
			}
			n++
		}
		if !aws.ToBool(page.IsTruncated) {
			return n, nil
		}
		in.KeyMarker, in.UploadIdMarker = page.NextKeyMarker, page.NextUploadIdMarker
	}
}
