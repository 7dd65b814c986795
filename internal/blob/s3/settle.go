package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/google/uuid"

	"github.com/tarndb/tarn/internal/blob"
)

// A write that makes an object visible is tried here and not by the SDK: its
// second try would see the object its first one made, whose answer was lost,
// and call that a lost race. So that our own can be told from another's, each
// write puts a name of its own, the same for all of its tries, beside the bytes.
//
//	             answer             no answer, 5xx
//	 ┌───────── sending ─────────────────┐
//	 │ 2xx        │ 4xx                  ▼
//	 │            ▼                 in doubt ──try again──▶ sending, with doubt
//	 │         refused                   │ tries used up          │ 2xx │ 4xx
//	 ▼            │ without doubt        ▼                        ▼     ▼
//	written       ▼                  read back ◀──────────────────│─────┘
//	 ▲          error                    │                        │
//	 │                                  ours? ── no ──▶ ErrAmbiguous
//	 └───────────────────────────────────┴── yes
//
// Reading back finds ours only while nobody has replaced it, and a try in
// doubt may yet arrive: that is why "no" is no refusal. A write refused before
// any doubt, or that never left this computer, surely did nothing.

// writeName is the key of the metadata that holds a write's name.
const writeName = "tarn-write"

func newWriteName() map[string]string { return map[string]string{writeName: uuid.NewString()} }

// settle runs send, which makes one request, until its outcome is known or
// tries are used up. refusal gives the error of the store for an answer that
// is one, else nil.
func (s *Store) settle(ctx context.Context, doing, key string, name map[string]string,
	send func(context.Context, ...func(*s3.Options)) (etag *string, err error),
	refusal func(*answer) error,
) (etag string, err error) {
	doubt := false
	for try := 1; ; try++ {
		tag, sent, err := s.once(ctx, send)
		if err == nil {
			return aws.ToString(tag), nil
		}
		a := answered(err)
		switch {
		case a != nil && a.status < 500 && !again(a), a != nil && a.status == http.StatusNotImplemented:
			refused := refusal(a)
			if refused == nil {
				refused = s.explain(ctx, doing, err)
			} else {
				refused = fmt.Errorf("%s: %w", doing, refused)
			}
			if !doubt {
				return "", refused
			}
			return s.readBack(ctx, doing, key, name, refused)
		case a == nil && !sent && !errors.As(err, new(*smithyhttp.RequestSendError)):
			// No credentials, or a request that cannot be built.
			try = s.o.Tries
		case sent && (a == nil || a.status >= 500):
			doubt = true
		}
		if ctx.Err() == nil && try < s.o.Tries {
			if pause(ctx, try) == nil {
				continue
			}
		}
		explained := s.explain(ctx, doing, err)
		switch {
		case !doubt:
			return "", explained
		case ctx.Err() != nil: // who ended it does not want to wait for an answer
			return "", fmt.Errorf("%w: %w", blob.ErrAmbiguous, explained)
		}
		return s.readBack(ctx, doing, key, name, explained)
	}
}

// again says whether a refusal is one of the moment.
func again(a *answer) bool {
	switch a.code {
	case "ConditionalRequestConflict", "OperationAborted", "RequestTimeout", "RequestTimeTooSkewed", "SlowDown":
		return true
	}
	return a.status == http.StatusTooManyRequests || a.status == http.StatusRequestTimeout
}

// once makes one request and says whether any of it may have left.
func (s *Store) once(ctx context.Context, send func(context.Context, ...func(*s3.Options)) (*string, error)) (etag *string, sent bool, err error) {
	var connected atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
	})
	etag, err = send(ctx, func(o *s3.Options) { o.Retryer = aws.NopRetryer{} })
	return etag, connected.Load(), err
}

// readBack settles a doubt: whether the object under key is that of the write.
func (s *Store) readBack(ctx context.Context, doing, key string, name map[string]string, why error) (string, error) {
	out, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.o.Bucket, Key: aws.String(s.root + key)})
	if err == nil && out.Metadata[writeName] == name[writeName] {
		return aws.ToString(out.ETag), nil
	}
	if err != nil {
		err = s.explain(ctx, doing+": read back", err)
		if errors.Is(err, blob.ErrNotExist) {
			err = errors.New("read back: it is not there yet")
		}
	} else {
		err = errors.New("read back: another's is there")
	}
	// The refusals are not in the chain: they would say that nothing happened.
	return "", fmt.Errorf("%s: %w: %w; before that: %v", doing, blob.ErrAmbiguous, err, why)
}
