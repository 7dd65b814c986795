package s3

import (
	"context"
	"fmt"
	"iter"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
)

// List yields the objects under prefix in byte order of their keys, a page of a
// thousand per request. What no key of ours can name (a console's "folder/") is
// passed over.
func (s *Store) List(ctx context.Context, prefix, startAfter string) iter.Seq2[blob.Object, error] {
	return func(yield func(blob.Object, error) bool) {
		if err := blob.CheckPrefix(prefix); err != nil {
			yield(blob.Object{}, fmt.Errorf("list: %w", err))
			return
		}
		in := &s3.ListObjectsV2Input{
			Bucket: &s.o.Bucket, Prefix: aws.String(s.root + prefix),
			EncodingType: types.EncodingTypeUrl, // XML cannot hold every key
		}
		if startAfter != "" {
			in.StartAfter = aws.String(s.root + startAfter)
		}
		doing, last := "list "+prefix, startAfter
		for {
			if err := ended(ctx, "list", prefix); err != nil {
				yield(blob.Object{}, err)
				return
			}
			page, err := s.client.ListObjectsV2(ctx, in)
			if err != nil {
				yield(blob.Object{}, s.explain(ctx, doing, err))
				return
			}
			for _, c := range page.Contents {
				name := aws.ToString(c.Key)
				if page.EncodingType == types.EncodingTypeUrl {
					if name, err = url.QueryUnescape(name); err != nil {
						yield(blob.Object{}, fmt.Errorf("%s: key %q: %w", doing, aws.ToString(c.Key), err))
						return
					}
				}
				key, ok := strings.CutPrefix(name, s.root)
				if !ok || blob.CheckKey(key) != nil {
					continue
				}
				if key <= last {
					yield(blob.Object{}, &tarn.Error{Kind: tarn.KindInternal,
						Msg:  fmt.Sprintf("%s: %q came after %q", doing, key, last),
						Hint: "the server does not list in byte order of the keys; a directory bucket cannot be a store"})
					return
				}
				last = key
				if !yield(object(key, c.Size, c.LastModified, c.ETag), nil) {
					return
				}
			}
			if !aws.ToBool(page.IsTruncated) {
				return
			}
			if in.ContinuationToken = page.NextContinuationToken; aws.ToString(in.ContinuationToken) == "" {
				yield(blob.Object{}, fmt.Errorf("%s: the server says that there is more and not where", doing))
				return
			}
		}
	}
}
