package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/tarndb/tarn/internal/catalog"
)

// Audit keeps who was let in and who was not; *catalog.Audit is one.
type Audit interface {
	Record(ctx context.Context, e catalog.Event) error
	Refused(ctx context.Context, e catalog.Event) error // bounded, because everybody can be refused
}

// refusedStatus is what a refusal would be over HTTP. Clients that left, broke the
// protocol or met a failure of ours were not refused.
var refusedStatus = map[string]int32{codePassword: 401, codeAuthSpec: 403, codeRejected: 404}

// tell begins to record how a login ended, and returns what waits for that: a
// client is answered after it. An event that cannot be kept is logged.
func (l *login) tell(ctx context.Context, err error) (wait func()) {
	c := l.c
	var f *fatal
	refused := errors.As(err, &f)
	if c.s.c.Audit == nil || err != nil && (!refused || refusedStatus[f.code] == 0) {
		return func() {}
	}
	e := catalog.Event{
		Time: time.Now(), ID: uuid.NewString(), Service: "gateway", Action: "login", Principal: cmp.Or(l.subject, l.st.user),
		SourceIP: c.remote.Addr().String(), Agent: l.st.param("application_name"), Status: 200,
		Detail: fmt.Sprintf("role=%s database=%s", l.st.user, cmp.Or(l.st.param("database"), l.st.user)),
	}
	if l.route.Endpoint.UID != "" {
		e.Object = l.route.Endpoint.Name.String()
	}
	if l.route.Pooled {
		e.Detail += " pooled"
	}
	keep := c.s.c.Audit.Record
	if refused {
		e.Status, e.Error, keep = refusedStatus[f.code], f.code+": "+f.Error(), c.s.c.Audit.Refused
	} else {
		e.Detail += " method=" + map[proof]string{byPassword: "password", byToken: "token"}[l.how]
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		if err := keep(ctx, e); err != nil {
			c.s.log.ErrorContext(ctx, "event not audited", "path", e.Object, "err", err)
		}
	}()
	return func() { <-done }
}
