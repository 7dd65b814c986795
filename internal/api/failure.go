package api

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/delta"
)

// statusClientClosed is the published status of a request its client left.
const statusClientClosed = 499

// failure is a refusal in the published words. Rooms return kinds of error;
// only this door makes failures of them.
type failure struct {
	status   int
	code     string // error_code
	msg      string
	hint     string                // what to type or change next
	fields   []wire.FieldViolation // of the request, when some are to blame
	metadata map[string]string     // of the ErrorInfo detail
	after    time.Duration         // when to try again, in whole seconds; 0 = not said
}

func (f *failure) Error() string { return f.msg }

func unauthenticated(msg, hint string) *failure {
	return &failure{status: http.StatusUnauthorized, code: "UNAUTHENTICATED", msg: msg, hint: hint}
}

// badField refuses a value of one field of the request.
func badField(field, format string, args ...any) *failure {
	msg := field + ": " + fmt.Sprintf(format, args...)
	return &failure{
		status: http.StatusBadRequest, code: "INVALID_PARAMETER_VALUE",
		msg:    msg,
		fields: []wire.FieldViolation{{Field: field, Description: msg}},
	}
}

// badFields refuses a request for all that its body has wrong.
func badFields(vs []wire.FieldViolation) *failure {
	f := badField(vs[0].Field, "%s", vs[0].Description)
	for _, v := range vs[1:] {
		f.msg += "; " + v.Field + ": " + v.Description
	}
	f.fields = vs
	return f
}

// because gives a refusal a hint.
func (f *failure) because(hint string) *failure {
	f.hint = hint
	return f
}

// unbuilt refuses what the published API has and this Tarn does not do. It is
// an answer, never a silent half.
func unbuilt(format string, args ...any) *failure {
	return &failure{status: http.StatusNotImplemented, code: "NOT_IMPLEMENTED", msg: fmt.Sprintf(format, args...)}
}

// existing turns the conflict of a create into "already exists" when the thing
// is there; any other conflict keeps its own meaning.
func existing(err error, code string, present func() error) error {
	if tarn.KindOf(err) != tarn.KindConflict || present() != nil {
		return err
	}
	return &failure{status: http.StatusConflict, code: code, msg: err.Error(), hint: tarn.HintOf(err)}
}

// The two spellings of the code of a create whose name is taken.
const (
	alreadyExists         = "ALREADY_EXISTS"          // postgres
	resourceAlreadyExists = "RESOURCE_ALREADY_EXISTS" // database
)

// failureOf translates a kind of error into a status and a code.
func failureOf(err error) *failure {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	var u *delta.UnsupportedError
	switch {
	case errors.As(err, &u):
		return &failure{
			status: http.StatusNotImplemented, code: "NOT_IMPLEMENTED", msg: err.Error(),
			hint:     "the table needs " + u.Feature + ", which this Tarn does not know",
			metadata: map[string]string{"feature": u.Feature},
		}
	case delta.IsRefusal(err): // a damaged log; its text names the file and what was found
		return &failure{status: http.StatusNotImplemented, code: "NOT_IMPLEMENTED", msg: err.Error(), metadata: map[string]string{"damaged": "true"}}
	case errors.Is(err, delta.ErrNotTable), errors.Is(err, delta.ErrNoVersion):
		return &failure{status: http.StatusNotFound, code: "RESOURCE_DOES_NOT_EXIST", msg: err.Error()}
	}
	status, code := statusOf(tarn.KindOf(err))
	f = &failure{status: status, code: code, msg: err.Error(), hint: tarn.HintOf(err)}
	if status == http.StatusInternalServerError {
		// The text of an unclassified error may name files or statements that
		// are none of the client's business.
		f.msg, f.hint = "internal error", "the server's log tells the cause under this request's id"
	}
	return f
}

// statusOf maps a kind to its HTTP status and error_code. A conflict is a
// failed precondition (400) and not a 409: clients read a 409 as "exists
// already" (see existing) and Terraform gives up on it.
func statusOf(k tarn.Kind) (int, string) {
	switch k {
	case tarn.KindInvalid:
		return http.StatusBadRequest, "INVALID_PARAMETER_VALUE"
	case tarn.KindNotFound:
		return http.StatusNotFound, "RESOURCE_DOES_NOT_EXIST"
	case tarn.KindConflict:
		return http.StatusBadRequest, "INVALID_STATE"
	case tarn.KindDenied:
		return http.StatusForbidden, "PERMISSION_DENIED"
	case tarn.KindUnavailable:
		return http.StatusServiceUnavailable, "TEMPORARILY_UNAVAILABLE"
	}
	return http.StatusInternalServerError, "INTERNAL_ERROR"
}

// body writes the failure as published.
func (f *failure) body(requestID string) wire.Error {
	e := wire.Error{ErrorCode: f.code, Message: f.msg}
	if f.status != http.StatusServiceUnavailable && f.status != http.StatusTooManyRequests {
		e.Message = unretried(e.Message)
	}
	e.Details = append(e.Details, wire.Detail{
		Type: wire.ErrorInfoType, Reason: f.code, Domain: "tarn", Metadata: f.metadata,
	})
	if requestID != "" {
		e.Details = append(e.Details, wire.Detail{Type: wire.RequestInfoType, RequestID: requestID})
	}
	if len(f.fields) > 0 {
		e.Details = append(e.Details, wire.Detail{Type: wire.BadRequestType, FieldViolations: f.fields})
	}
	if f.hint != "" {
		e.Details = append(e.Details, wire.Detail{Type: wire.HelpType, Links: []wire.Link{{Description: f.hint}}})
	}
	return e
}

// unretried rewords what the SDKs take for a sign to try the same request
// again, whatever the status. A final error must not contain it.
func unretried(msg string) string {
	return strings.NewReplacer(
		"deadline exceeded", "time ran out",
		"Timed out after ", "Gave up after ",
		"ClusterNotReadyException", "cluster is not ready",
		"worker env ", "worker-env ",
		"worker environment", "worker-environment",
		"UnknownWorkerEnvironmentException", "unknown worker-environment",
	).Replace(msg)
}
