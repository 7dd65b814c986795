package api

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/tarndb/tarn/internal/catalog"
)

// strangers bounds how many refusals of callers nobody knows are recorded, so
// that they cannot fill the disk.
type strangers struct {
	mu    sync.Mutex
	since time.Time
	seen  int
}

const strangersAMinute = 60

func (s *strangers) fits(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.since) > time.Minute {
		s.since, s.seen = now, 0
	}
	s.seen++
	return s.seen <= strangersAMinute
}

// record keeps what a request did, unless it only read what it may: before the
// answer is sent, and also when the client has gone. Bodies, tokens and most of
// the query are not kept. An event that cannot be kept is logged: what was done
// is done.
func (d *door) record(rt route, q *query, id string, err error) {
	if d.audit == nil || rt.pattern == "/" {
		return
	}
	e := catalog.Event{
		Time: time.Now(), ID: uuid.NewString(), RequestID: id, Principal: q.who.Name, SourceIP: addressOf(q.r), Agent: cut(q.r.UserAgent()),
		Object: cut(q.r.URL.Path), Detail: cut(q.detail), Status: http.StatusOK,
	}
	e.Service, e.Action, _ = strings.Cut(rt.about.id, ".")
	if err != nil {
		f := failureOf(err)
		e.Status, e.Error = int32(f.status), cut(f.code+": "+f.msg)
	}
	refused := e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden
	if q.r.Method == http.MethodGet && !refused || e.Principal == "" && !d.strangers.fits(e.Time) {
		return
	}
	var ids []string
	for k, v := range q.r.URL.Query() {
		if strings.HasSuffix(k, "_id") && len(v) == 1 {
			ids = append(ids, k+"="+v[0])
		}
	}
	if e.Detail == "" {
		e.Detail = cut(strings.Join(ids, " "))
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(q.r.Context()), 10*time.Second)
	defer cancel()
	if err := d.audit.Record(ctx, e); err != nil {
		d.log.ErrorContext(ctx, "event not audited", "path", e.Object, "err", err)
	}
}

// cut bounds a text that somebody else chose.
func cut(s string) string {
	const most = 2048
	if len(s) > most {
		s = s[:most]
	}
	return strings.ToValidUTF8(s, "?")
}

func addressOf(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
