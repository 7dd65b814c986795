package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"golang.org/x/sync/errgroup"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
)

const (
	deleteBatch    = 1000 // S3's own limit
	deleteParallel = 8    // where there are no batches
)

// Delete removes keys, a thousand per request. It may be repeated; what is
// missing is not an error.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		if err := blob.CheckKey(key); err != nil {
			return fmt.Errorf("delete: %w", err)
		}
	}
	if len(keys) > 0 {
		if err := ended(ctx, "delete", keys[0]); err != nil {
			return err
		}
	}
	for batch := range slices.Chunk(keys, deleteBatch) {
		if err := s.deleteBatch(ctx, batch); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) deleteBatch(ctx context.Context, keys []string) error {
	for try := 0; ; try++ {
		if len(keys) == 1 || s.oneByOne.Load() || slices.ContainsFunc(keys, notXML) {
			return s.deleteEach(ctx, keys)
		}
		left, err := s.deleteOnce(ctx, keys)
		if a := answered(err); a != nil && noBatches(a) {
			s.oneByOne.Store(true)
			continue
		}
		doing := fmt.Sprintf("delete %s and %d others", keys[0], len(keys)-1)
		if err != nil {
			return s.explain(ctx, doing, err)
		}
		if len(left) == 0 {
			return nil
		}
		if try+1 >= s.o.Tries {
			return tarn.Unavailable("%s: %s remains: %s: %s", doing, aws.ToString(left[0].Key), aws.ToString(left[0].Code), aws.ToString(left[0].Message))
		}
		keys = keys[:0:0]
		for _, e := range left {
			key, ok := strings.CutPrefix(aws.ToString(e.Key), s.root)
			if code := aws.ToString(e.Code); !ok || code != "InternalError" && code != "SlowDown" && code != "ServiceUnavailable" && code != "OperationAborted" {
				return s.explain(ctx, doing, &keyError{e})
			}
			keys = append(keys, key)
		}
		if err := pause(ctx, try+1); err != nil {
			return fmt.Errorf("%s: %w", doing, err)
		}
	}
}

// keyError is the refusal of one key of a batch.
type keyError struct{ of types.Error }

func (e *keyError) Error() string {
	return fmt.Sprintf("%s remains: %s: %s", aws.ToString(e.of.Key), aws.ToString(e.of.Code), aws.ToString(e.of.Message))
}

func (s *Store) deleteOnce(ctx context.Context, keys []string) (left []types.Error, err error) {
	in := &s3.DeleteObjectsInput{Bucket: &s.o.Bucket, Delete: &types.Delete{Quiet: aws.Bool(true)}}
	for _, key := range keys {
		in.Delete.Objects = append(in.Delete.Objects, types.ObjectIdentifier{Key: aws.String(s.root + key)})
	}
	// The SDK sends a checksum that older servers do not know; they insist on
	// this one.
	md5 := s3.WithAPIOptions(smithyhttp.AddContentChecksumMiddleware)
	out, err := s.client.DeleteObjects(ctx, in, md5)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(out.Errors, func(e types.Error) bool { return aws.ToString(e.Code) == "NoSuchKey" }), nil
}

// noBatches says whether a refusal means that the server does not know
// deletions in batches.
func noBatches(a *answer) bool {
	return a.status == http.StatusNotImplemented || a.status == http.StatusMethodNotAllowed ||
		a.status == http.StatusBadRequest && a.code != "RequestTimeout" && !strings.HasPrefix(a.code, "ExpiredToken")
}

// notXML says whether a key has characters that a batch cannot carry.
func notXML(key string) bool {
	return strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r == '\uFFFD' || r == '\uFFFE' || r == '\uFFFF' })
}

func (s *Store) deleteEach(ctx context.Context, keys []string) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(deleteParallel)
	for _, key := range keys {
		g.Go(func() error {
			_, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.o.Bucket, Key: aws.String(s.root + key)})
			if err != nil {
				if err = s.explain(ctx, "delete "+key, err); errors.Is(err, blob.ErrNotExist) {
					err = nil
				}
			}
			return err
		})
	}
	return g.Wait()
}
