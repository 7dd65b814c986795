package oauth

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/tarndb/tarn/internal/catalog"
)

// Audit keeps what was given and refused; *catalog.Audit is one.
type Audit interface {
	Record(ctx context.Context, e catalog.Event) error
	Refused(ctx context.Context, e catalog.Event) error // bounded, because everybody can be refused
}

// held is an answer that is not sent before its event is kept.
type held struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
	to     string // whom a token was given
}

func (h *held) WriteHeader(status int) {
	if h.status == 0 {
		h.status = status
	}
}

func (h *held) Write(b []byte) (int, error) {
	h.WriteHeader(http.StatusOK)
	return h.body.Write(b)
}

// audited keeps what the token endpoint gives and refuses, and what is revoked.
func audited(s *server, next http.Handler) http.Handler {
	actions := map[string]string{"/v1/token": "grantToken", "/v1/revoke": "revokeToken"}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		action := actions[r.URL.Path]
		if s.c.Audit == nil || action == "" {
			next.ServeHTTP(w, r)
			return
		}
		h := &held{ResponseWriter: w}
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		_ = r.ParseForm() // guard answers what is wrong with it
		next.ServeHTTP(h, r.WithContext(context.WithValue(r.Context(), heldKey{}, h)))
		h.WriteHeader(http.StatusOK)
		e := catalog.Event{Action: action, Principal: h.to, Status: int32(h.status)}
		if id := clientOf(r); e.Principal == "" && id != DatabricksClient && id != TarnClient {
			e.Principal = id
		}
		if action == "grantToken" {
			e.Detail = "grant_type=" + r.PostForm.Get("grant_type") + " client=" + clientOf(r)
		} else {
			e.Detail = "client=" + clientOf(r)
		}
		var refused struct {
			Error       string `json:"error"`
			Description string `json:"error_description"`
		}
		if h.status >= 400 {
			_ = json.Unmarshal(h.body.Bytes(), &refused) // an answer without them is told by its status
			e.Error = refused.Error + ": " + refused.Description
		}
		// A device that asks again, as it should, was not refused.
		if waits := refused.Error == "authorization_pending" || refused.Error == "slow_down" && h.status == http.StatusBadRequest; !waits {
			s.tell(r, e)
		}
		w.WriteHeader(h.status)
		_, _ = w.Write(h.body.Bytes()) // a failed write means the client is gone
	})
}

type heldKey struct{}

// gave notes whom a token is given.
func gave(ctx context.Context, to string) {
	if h, ok := ctx.Value(heldKey{}).(*held); ok {
		h.to = to
	}
}

// tell keeps an event; one that cannot be kept is logged.
func (s *server) tell(r *http.Request, e catalog.Event) {
	if s.c.Audit == nil {
		return
	}
	e.Time, e.ID, e.Service, e.Object = time.Now(), uuid.NewString(), "oauth", Prefix+r.URL.Path
	e.SourceIP, e.Agent = address(r), r.UserAgent()
	keep := s.c.Audit.Record
	if e.Status >= 400 {
		keep = s.c.Audit.Refused
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), 10*time.Second)
	defer cancel()
	if err := keep(ctx, e); err != nil {
		s.c.Log.ErrorContext(ctx, "event not audited", "path", e.Object, "err", err)
	}
}
