package api

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
)

func TestRateOfAPrincipal(t *testing.T) {
	l := &rates{perSecond: 2}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	sent := func(name string) int {
		n := 0
		for l.take(name, now) == nil {
			n++
		}
		return n
	}
	if n := sent("a"); n != 2*burstSeconds {
		t.Errorf("%d at once, want %d", n, 2*burstSeconds)
	}
	if n := sent("b"); n != 2*burstSeconds {
		t.Errorf("another principal: %d", n)
	}
	f := failureOf(l.take("a", now))
	if f.status != 429 || f.code != "REQUEST_LIMIT_EXCEEDED" || f.after != time.Second {
		t.Errorf("refused with %+v", f)
	}
	now = now.Add(3 * time.Second)
	if n := sent("a"); n != 6 {
		t.Errorf("%d after three seconds, want 6", n)
	}
	now = now.Add(time.Hour)
	if n := sent("a"); n != 2*burstSeconds {
		t.Errorf("%d after an hour", n)
	}
	now = now.Add(time.Hour)
	if l.dropFull(2*burstSeconds, now); len(l.buckets) != 0 {
		t.Errorf("%d full buckets are kept", len(l.buckets))
	}
	if (&rates{}).take("a", now) != nil {
		t.Error("0 is no bound")
	}
}

// The published Python SDK waits as long as it is told to, and tries again.
func TestSDKRetriesWhatWasTooMuch(t *testing.T) {
	python, err := filepath.Abs("../../build/venv/bin/python")
	if err != nil {
		t.Fatal(err)
	}
	var refused atomic.Int64
	d := &door{
		authenticate: func(context.Context, string) (tarn.Principal, error) { return tarn.Principal{Name: "me"}, nil },
		log:          slog.New(slog.DiscardHandler),
		rates:        &rates{perSecond: 0.1}, // one at once
	}
	me := d.handler(route{access: signedIn, answer: func(context.Context, *query) (any, error) {
		return wire.Empty{}, nil
	}})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/databricks-config", func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) })
	mux.HandleFunc("GET /api/2.0/preview/scim/v2/Me", func(w http.ResponseWriter, r *http.Request) {
		seen := httptest.NewRecorder()
		me.ServeHTTP(seen, r)
		if seen.Code == http.StatusTooManyRequests {
			refused.Add(1)
			if seen.Header().Get("Retry-After") != "10" && refused.Load() == 1 {
				t.Errorf("Retry-After %q, want 10", seen.Header().Get("Retry-After"))
			}
			d.rates.mu.Lock()
			d.rates.buckets = nil // as if the time had gone by
			d.rates.mu.Unlock()
			seen.Header().Set("Retry-After", "1")
		}
		for k, v := range seen.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(seen.Code)
		_, _ = w.Write(seen.Body.Bytes())
	})
	s := httptest.NewServer(mux)
	defer s.Close()
	must(t, d.rates.take("me", time.Now().Add(time.Hour))) // whatever the time, the next one is too much
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, python, "-c", `
from databricks.sdk import WorkspaceClient
import sys
WorkspaceClient(host=sys.argv[1], token="x", auth_type="pat").current_user.me()
`, s.URL)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if refused.Load() != 1 {
		t.Errorf("%d requests were too much, want 1", refused.Load())
	}
}
