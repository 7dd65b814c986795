// Package wire holds the JSON of the HTTP API, field by field as published
// (and, under /api/2.0/tarn/, as Tarn adds). It knows names and spellings and
// nothing of what they mean; internal/api and client read and write it.
//
// A pointer field is one whose absence differs from its zero value. Timestamps
// and durations are text here ("2026-01-02T15:04:05Z", "3600s"); they become
// values at the door, which can then name the field that is wrong.
package wire

import (
	"strconv"
	"strings"
	"time"

	"github.com/tarndb/tarn"
)

// Time prints t as RFC 3339 in UTC with at most microseconds; "" when zero.
func Time(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Truncate(time.Microsecond).Format(time.RFC3339Nano)
}

// ParseTime reads an RFC 3339 timestamp; field names it in the error.
func ParseTime(field, s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}, tarn.Invalid("%s %q: want an RFC 3339 timestamp like 2026-01-02T15:04:05Z", field, s)
	}
	return t.UTC(), nil
}

// Duration prints d in seconds, e.g. "3600s" or "0.5s".
func Duration(d time.Duration) string {
	return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "s"
}

// ParseDuration reads a duration in seconds; field names it in the error.
func ParseDuration(field, s string) (time.Duration, error) {
	num, ok := strings.CutSuffix(s, "s")
	if !ok || num == "" || strings.Trim(num, "0123456789.") != "" {
		return 0, tarn.Invalid("%s %q: want a number of seconds like 3600s", field, s)
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, tarn.Invalid("%s %q: want a number of seconds like 3600s", field, s)
	}
	return d, nil
}

// Empty is the answer of calls that return nothing, and the response of a
// delete.
type Empty struct{}

// Error is the body of every answer that is not 2xx, and the error of an
// operation.
type Error struct {
	ErrorCode string   `json:"error_code"`
	Message   string   `json:"message"`
	Details   []Detail `json:"details,omitempty"`
}

// Detail is one google.rpc error detail; Type says which of the fields are set.
type Detail struct {
	Type string `json:"@type"`

	Reason   string            `json:"reason,omitempty"` // ErrorInfo
	Domain   string            `json:"domain,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`

	RequestID   string `json:"request_id,omitempty"` // RequestInfo
	ServingData string `json:"serving_data,omitempty"`

	FieldViolations []FieldViolation `json:"field_violations,omitempty"` // BadRequest
	Links           []Link           `json:"links,omitempty"`            // Help
}

// The types of details Tarn sends.
const (
	ErrorInfoType   = "type.googleapis.com/google.rpc.ErrorInfo"
	RequestInfoType = "type.googleapis.com/google.rpc.RequestInfo"
	BadRequestType  = "type.googleapis.com/google.rpc.BadRequest"
	HelpType        = "type.googleapis.com/google.rpc.Help"
)

// FieldViolation names a field of the request that cannot stay as it is.
type FieldViolation struct {
	Field       string `json:"field"`
	Description string `json:"description"`
}

// Link of a Help detail; Tarn puts its hint in Description.
type Link struct {
	Description string `json:"description"`
	URL         string `json:"url"`
}

// RequestIDHeader carries the id under which the server logs a request.
const RequestIDHeader = "X-Request-Id"

// CustomTag is a key and value a user attached to something.
type CustomTag struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}
