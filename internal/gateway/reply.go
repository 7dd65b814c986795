package gateway

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/tarndb/tarn"
)

// SQLSTATEs the gateway answers with. A client that cannot be led to an
// endpoint gets 08004 (server rejected the connection): nothing about its
// login is wrong (28…), and no database was looked for (3D000).
const (
	codeRejected    = "08004" // no, an unknown, or two different endpoints named
	codeProtocol    = "08P01" // the client broke the protocol
	codeUnsupported = "0A000" // the client asked for what we do not speak
	codeAuthSpec    = "28000" // no TLS, role may not log in, method switched off
	codePassword    = "28P01" // wrong password or token
	codeTooMany     = "53300" // too many clients
	codeNotInState  = "55000" // the endpoint is disabled
	codeShutdown    = "57P01" // the compute or the gateway went away
	codeStarting    = "57P03" // the compute could not be woken in time
	codeInternal    = "XX000"
)

// ownCodes are all of them: a metric has them as its label.
var ownCodes = []string{codeRejected, codeProtocol, codeUnsupported, codeAuthSpec, codePassword, codeTooMany, codeNotInState, codeShutdown, codeStarting, codeInternal}

// fatal ends a connection with an ErrorResponse.
type fatal struct {
	code string
	msg  string
	hint string
	err  error  // what is behind it, for the log; never sent
	raw  []byte // Postgres's own ErrorResponse, sent as it is in place of the above
}

func (f *fatal) Error() string {
	if f.err != nil {
		return f.msg + ": " + f.err.Error()
	}
	return f.msg
}

func (f *fatal) Unwrap() error { return f.err }

func (f *fatal) response() *pgproto3.ErrorResponse {
	return &pgproto3.ErrorResponse{
		Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: f.code, Message: f.msg, Hint: f.hint,
	}
}

func violation(format string, args ...any) error {
	return &fatal{code: codeProtocol, msg: fmt.Sprintf(format, args...)}
}

// send writes messages in one go.
func send(w io.Writer, msgs ...pgproto3.BackendMessage) error {
	var buf []byte
	for _, m := range msgs {
		var err error
		if buf, err = m.Encode(buf); err != nil {
			return fmt.Errorf("encode message to client: %w", err)
		}
	}
	_, err := w.Write(buf)
	return err
}

// translate turns the failure of a lower room into what a client sees. doing
// names what we were about in its words, "wake endpoint ep-x".
func translate(doing string, err error) error {
	var f *fatal
	if errors.As(err, &f) {
		return f
	}
	switch tarn.KindOf(err) {
	case tarn.KindNotFound:
		return &fatal{code: codeRejected, msg: doing + ": it does not exist", hint: hintOr(err, listHint), err: err}
	case tarn.KindConflict:
		return &fatal{code: codeNotInState, msg: doing + ": " + err.Error(), hint: hintOr(err, listHint), err: err}
	}
	return &fatal{code: codeStarting, msg: doing + ": it is not available now", hint: hintOr(err, retryHint), err: err}
}

const (
	listHint  = "List endpoints with: tarn endpoint list"
	retryHint = "Try again in a moment; see the endpoint's state with: tarn endpoint list"
)

func hintOr(err error, otherwise string) string {
	if h := tarn.HintOf(err); h != "" {
		return h
	}
	return otherwise
}

// linger ends the writing side and reads what the peer still sends for a
// moment. Closing at once with unread bytes would reset the connection, and
// the peer would lose the error just sent.
func linger(c *net.TCPConn) {
	if c.CloseWrite() != nil {
		return
	}
	if c.SetReadDeadline(time.Now().Add(lingering)) != nil {
		return
	}
	io.Copy(io.Discard, io.LimitReader(c, 1<<20)) // whatever ends it, we close next
}

const lingering = time.Second
