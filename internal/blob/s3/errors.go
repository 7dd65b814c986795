package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
)

// answer is what a server said instead of doing as asked.
type answer struct {
	status  int
	code    string // S3's name of the error; of a HEAD only what the status says
	text    string
	request string // the server's name of the request, for its operator
	err     error
}

func (a *answer) Error() string {
	s := fmt.Sprintf("%s (HTTP %d", a.code, a.status)
	if a.text != "" {
		s = fmt.Sprintf("%s: %s (HTTP %d", a.code, a.text, a.status)
	}
	if a.request != "" {
		s += ", request " + a.request
	}
	return s + ")"
}

func (a *answer) Unwrap() error { return a.err }

// answered gives the server's answer in err's chain; nil when none came.
func answered(err error) *answer {
	var keys *keysError
	var response *smithyhttp.ResponseError
	if errors.As(err, &keys) || !errors.As(err, &response) || response.HTTPStatusCode() == 0 {
		return nil
	}
	a := &answer{status: response.HTTPStatusCode(), err: err}
	var api smithy.APIError
	if errors.As(err, &api) {
		a.code, a.text = api.ErrorCode(), api.ErrorMessage()
	}
	if a.code == "" || a.code == "UnknownError" {
		a.code = http.StatusText(a.status)
	}
	var id *awshttp.ResponseError
	if errors.As(err, &id) {
		a.request = id.ServiceRequestID()
	}
	return a
}

// ended says that ctx is over before what is begun.
func ended(ctx context.Context, what, key string) error {
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("%s %s: %w", what, key, err)
	}
	return nil
}

// explain turns an error of the client into one that says what we were doing
// and, where a person can mend it, how.
func (s *Store) explain(ctx context.Context, doing string, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("%s: %w", doing, cause)
	}
	a := answered(err)
	if a == nil {
		return s.unanswered(doing, err)
	}
	switch {
	case a.code == "NoSuchKey", a.code == "NotFound", a.status == http.StatusNotFound && a.code == http.StatusText(http.StatusNotFound):
		return fmt.Errorf("%s: %w", doing, blob.ErrNotExist)
	case a.status >= 500 && a.status != http.StatusNotImplemented || a.status == http.StatusTooManyRequests:
		return tarn.Unavailable("%s: %w", doing, a)
	}
	return &tarn.Error{Kind: tarn.KindInternal, Msg: doing, Hint: s.hint(a), Err: a}
}

func (s *Store) hint(a *answer) string {
	switch a.code {
	case "NoSuchBucket":
		return fmt.Sprintf("make the bucket %s, or correct its name; asked was %s", s.o.Bucket, s.where())
	case "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "XAdminUserNotFound":
		return s.where() + " does not know these credentials: see AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_PROFILE"
	case "AuthorizationHeaderMalformed":
		return "see the region, which is " + s.client.Options().Region + " here (AWS_REGION), and the credentials"
	case "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired":
		return "the credentials have expired: log in again, or give Tarn ones that renew themselves"
	case "RequestTimeTooSkewed":
		return "the clocks of this computer and of the server differ by more than 15 minutes: set them right"
	case "AccessDenied", "AllAccessDisabled", "AccountProblem":
		return fmt.Sprintf("these credentials need s3:ListBucket on %s and s3:GetObject, s3:PutObject, s3:DeleteObject, s3:AbortMultipartUpload on %s*", s.o.Bucket, s.o.Bucket+"/"+s.root)
	case "PermanentRedirect", "TemporaryRedirect", "IllegalLocationConstraintException":
		return "the bucket is in another region than " + s.client.Options().Region + ": set AWS_REGION"
	case "NotImplemented":
		return "this server lacks something Tarn needs: conditional writes (If-Match, If-None-Match) and multipart uploads"
	}
	switch a.status {
	case http.StatusForbidden:
		return "see the credentials (AWS_ACCESS_KEY_ID, AWS_PROFILE), what they may do in " + s.o.Bucket + ", and this computer's clock"
	case http.StatusMovedPermanently, http.StatusTemporaryRedirect:
		return "the bucket is in another region than " + s.client.Options().Region + ": set AWS_REGION"
	}
	return ""
}

// unanswered explains an error without an answer of the server.
func (s *Store) unanswered(doing string, err error) error {
	var keys *keysError
	if errors.As(err, &keys) {
		return &tarn.Error{Kind: tarn.KindInternal, Msg: doing, Hint: noCredentials, Err: keys}
	}
	var send *smithyhttp.RequestSendError
	if errors.As(err, &send) {
		return tarn.Unavailable("%s: reach %s: %w", doing, s.where(), send.Unwrap()).
			WithHint("see whether " + s.where() + " is the right endpoint, runs, and can be reached from here")
	}
	var op *smithy.OperationError
	if errors.As(err, &op) {
		err = op.Unwrap() // leaves out the SDK's words for what we were doing
	}
	return fmt.Errorf("%s: %w", doing, err)
}

const noCredentials = "no credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"

// where names the server in messages.
func (s *Store) where() string {
	o := s.client.Options()
	if o.BaseEndpoint != nil {
		return *o.BaseEndpoint
	}
	return "Amazon S3 in " + o.Region
}

// keys marks what goes wrong while credentials are looked for: they may come
// from other servers, whose answers are not the bucket's.
type keys struct{ under aws.CredentialsProvider }

type keysError struct{ err error }

func (e *keysError) Error() string { return "find credentials: " + e.err.Error() }
func (e *keysError) Unwrap() error { return e.err }

// Retrieve gives the credentials.
func (k keys) Retrieve(ctx context.Context) (aws.Credentials, error) {
	c, err := k.under.Retrieve(ctx)
	if err != nil {
		return c, &keysError{err}
	}
	return c, nil
}
