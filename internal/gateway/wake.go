package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tarndb/tarn"
)

// useCompute wakes the endpoint and uses its compute. One that goes away under
// our hands, because it is just being suspended or restarted, is woken again
// until the budget is over; nothing of the client has reached it yet.
func (s *Server) useCompute(ctx context.Context, e tarn.Endpoint, use func(context.Context, tarn.ComputeStatus) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.c.Wake)
	defer cancel()
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		st, err := s.c.Router.Wake(ctx, e.Name)
		if err == nil {
			st.Endpoint = e.UID
			if err = use(ctx, st); err == nil {
				return nil
			}
			if !gone(err) && ctx.Err() == nil {
				return translate("connect to endpoint "+e.UID, err)
			}
		} else if ctx.Err() == nil {
			return translate("wake endpoint "+e.UID, err)
		}
		if wait(ctx, pause) != nil {
			return &fatal{code: codeStarting, hint: retryHint, err: err,
				msg: fmt.Sprintf("endpoint %s did not become available within %s", e.UID, s.c.Wake)}
		}
	}
}

// gone says whether an error only means that the compute is not there at this
// moment.
func gone(err error) bool {
	var p *pgconn.PgError
	if errors.As(err, &p) {
		return comingOrGoing(p.Code)
	}
	var a *awayError
	return errors.As(err, &a) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// comingOrGoing are Postgres's codes while it starts, stops or recovers.
func comingOrGoing(code string) bool {
	return code == "57P01" || code == "57P02" || code == "57P03"
}
