package tarn

import (
	"errors"
	"fmt"
)

// Kind classifies an error for whoever must answer a client. Only doors turn
// a kind into an HTTP status or an SQLSTATE.
type Kind uint8

// The six kinds. The zero value is KindInternal, so an unclassified error is
// never blamed on the caller.
const (
	KindInternal    Kind = iota // our fault, or a machine's
	KindInvalid                 // the request can never succeed as written
	KindNotFound                // the named thing does not exist
	KindConflict                // the thing's present state forbids it
	KindDenied                  // who asks may not
	KindUnavailable             // may succeed later without a change
)

var kindNames = [...]string{"internal", "invalid", "not found", "conflict", "denied", "unavailable"}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Error is an error with a kind and, where there is one, a hint that names the
// command or change that mends it.
type Error struct {
	Kind Kind
	Msg  string // what we were doing and what stood in the way
	Hint string // what to type or change next; may be empty
	Err  error  // cause; may be nil
}

func (e *Error) Error() string {
	switch {
	case e.Err == nil:
		return e.Msg
	case e.Msg == "":
		return e.Err.Error()
	}
	return e.Msg + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// WithHint returns a copy of e that carries hint.
func (e *Error) WithHint(hint string) *Error {
	c := *e
	c.Hint = hint
	return &c
}

// Invalid, NotFound, Conflict, Denied and Unavailable build an error of that
// kind; a %w operand becomes its cause's text and stays reachable by errors.Is.
func Invalid(format string, args ...any) *Error { return newError(KindInvalid, format, args) }

// NotFound builds an error of KindNotFound.
func NotFound(format string, args ...any) *Error { return newError(KindNotFound, format, args) }

// Conflict builds an error of KindConflict.
func Conflict(format string, args ...any) *Error { return newError(KindConflict, format, args) }

// Denied builds an error of KindDenied.
func Denied(format string, args ...any) *Error { return newError(KindDenied, format, args) }

// Unavailable builds an error of KindUnavailable.
func Unavailable(format string, args ...any) *Error { return newError(KindUnavailable, format, args) }

func newError(k Kind, format string, args []any) *Error {
	return &Error{Kind: k, Err: fmt.Errorf(format, args...)}
}

// KindOf returns the kind of the outermost *Error in err's chain, and
// KindInternal when there is none.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return KindInternal
}

// HintOf returns the first hint in err's chain, or "".
func HintOf(err error) string {
	for err != nil {
		var e *Error
		if !errors.As(err, &e) {
			return ""
		}
		if e.Hint != "" {
			return e.Hint
		}
		err = e.Err
	}
	return ""
}

// Secret is a string that must not reach a log: it prints as REDACTED through
// fmt, slog and JSON. Reveal gives the bytes to whoever must send them.
type Secret string

func (Secret) String() string { return "REDACTED" }

// GoString keeps %#v from printing the secret.
func (Secret) GoString() string { return "REDACTED" }

// MarshalText keeps encoders from printing the secret.
func (Secret) MarshalText() ([]byte, error) { return []byte("REDACTED"), nil }

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }
