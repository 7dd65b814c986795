package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api"
)

// talk serves answers by "METHOD path?query" and returns a client for it. Each
// use of a key takes its next answer.
func talk(t *testing.T, answers map[string][]string) *Client {
	t.Helper()
	used := map[string]int{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key := r.Method + " " + r.URL.RequestURI()
		if r.Header.Get("Authorization") != "Bearer dapi1" || used[key] >= len(answers[key]) {
			t.Errorf("unexpected request %s with Authorization %q", key, r.Header.Get("Authorization"))
			w.WriteHeader(http.StatusTeapot)
			return
		}
		answer := answers[key][used[key]]
		used[key]++
		if status, body, ok := strings.Cut(answer, " "); ok && len(status) == 3 {
			var code int
			fmt.Sscan(status, &code)
			w.WriteHeader(code)
			answer = body
		}
		fmt.Fprint(w, answer)
	}))
	t.Cleanup(srv.Close)
	c, err := New(Options{Host: srv.URL + "/", Token: "dapi1"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestProjectsReadsEveryPage(t *testing.T) {
	c := talk(t, map[string][]string{
		"GET /api/2.0/postgres/projects":               {`{"projects":[{"name":"projects/a"},{"name":"projects/b"}],"next_page_token":"n1"}`},
		"GET /api/2.0/postgres/projects?page_token=n1": {`{"projects":[{"name":"projects/c"}]}`},
	})
	ps, err := c.Projects(within(t))
	if err != nil || len(ps) != 3 || ps[2].Name != "projects/c" {
		t.Errorf("%v %v", ps, err)
	}
}

func TestWaitOperation(t *testing.T) {
	const path = "GET /api/2.0/postgres/projects/p/branches/b/operations/1"
	const name = "projects/p/branches/b/operations/1"
	c := talk(t, map[string][]string{path: {
		`{"name":"` + name + `","done":false}`,
		`503 {"error_code":"TEMPORARILY_UNAVAILABLE","message":"coming up"}`,
		`{"name":"` + name + `","done":true,"response":{"name":"projects/p/branches/b"}}`,
	}})
	var b Branch
	if err := c.WaitOperation(within(t), Operation{Name: name}, &b); err != nil || b.Name != "projects/p/branches/b" {
		t.Errorf("%v %v", b, err)
	}

	c = talk(t, map[string][]string{path: {`{"name":"` + name + `","done":true,"error":{"error_code":"RESOURCE_DOES_NOT_EXIST","message":"no source"}}`}})
	var e *Error
	if err := c.WaitOperation(within(t), Operation{Name: name}, nil); !errors.As(err, &e) || e.Message != "no source" || !e.NotFound() {
		t.Errorf("%v", err)
	}

	ctx, cancel := context.WithCancelCause(within(t))
	why := errors.New("enough")
	cancel(why)
	if err := c.WaitOperation(ctx, Operation{Name: name}, nil); !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
}

func TestDeletesSayWhatIsLeft(t *testing.T) {
	n := tarn.TableName{Catalog: "c", Schema: "s", Table: "t"}
	c := talk(t, map[string][]string{
		"DELETE /api/2.0/database/synced_tables/c.s.t":                                                               {`{}`},
		"DELETE /api/2.0/database/synced_tables/c.s.t?purge_data=true":                                               {`{}`},
		"DELETE /api/2.0/postgres/projects/p/branches/b/databases/databricks-postgres/cdf-configs/public?force=true": {`{"name":"x","done":true,"response":{}}`},
	})
	if err := c.SyncedTables().Delete(within(t), n, Keep); err != nil {
		t.Error(err)
	}
	if err := c.SyncedTables().Delete(within(t), n, Purge); err != nil {
		t.Error(err)
	}
	if err := c.Feeds(tarn.BranchName{Project: "p", Branch: "b"}, "").Delete(within(t), "public", Purge); err != nil {
		t.Error(err)
	}
}

// The errors of the real door, without rooms behind it.
func TestErrorsOfTheDoor(t *testing.T) {
	srv := httptest.NewServer(api.New(api.Config{}))
	defer srv.Close()
	c, err := New(Options{Host: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	var e *Error
	if _, err := c.Status(within(t)); !errors.As(err, &e) || e.Status != 401 || e.Code != "UNAUTHENTICATED" || e.Hint == "" || e.RequestID == "" {
		t.Errorf("%#v", err)
	}
	if err := c.get(within(t), "/api/2.0/nothing", nil, nil); !errors.As(err, &e) || !e.NotFound() {
		t.Errorf("%#v", err)
	}
	if tarn.KindOf(e) != tarn.KindNotFound {
		t.Errorf("kind %v of %#v", tarn.KindOf(e), e)
	}
	srv.Close()
	var u *UnreachableError
	if _, err := c.Status(within(t)); !errors.As(err, &u) {
		t.Errorf("%#v", err)
	}
}

func TestErrorsHaveKinds(t *testing.T) {
	for code, want := range map[string]tarn.Kind{
		"409 ALREADY_EXISTS": tarn.KindConflict, "400 INVALID_STATE": tarn.KindConflict, "400 INVALID_PARAMETER_VALUE": tarn.KindInvalid,
		"401 UNAUTHENTICATED": tarn.KindDenied, "503 TEMPORARILY_UNAVAILABLE": tarn.KindUnavailable, "500 INTERNAL_ERROR": tarn.KindInternal,
	} {
		status, word, _ := strings.Cut(code, " ")
		c := talk(t, map[string][]string{"GET /api/2.0/tarn/status": {status + ` {"error_code":"` + word + `","message":"no"}`}})
		if _, err := c.Status(within(t)); tarn.KindOf(err) != want || err.Error() != "no" {
			t.Errorf("%s: kind %v of %v, want %v", code, tarn.KindOf(err), err, want)
		}
	}
}

func TestForeignAnswersAreErrors(t *testing.T) {
	c := talk(t, map[string][]string{"GET /api/2.0/tarn/status": {"502 <html>bad gateway</html>", "hello"}})
	if _, err := c.Status(within(t)); err == nil || !strings.Contains(err.Error(), "502") {
		t.Errorf("%v", err)
	}
	if _, err := c.Status(within(t)); err == nil || !strings.Contains(err.Error(), "decode answer") {
		t.Errorf("%v", err)
	}
}

func TestHosts(t *testing.T) {
	for in, want := range map[string]string{"http://127.0.0.1:8181/": "http://127.0.0.1:8181", "tarn.example.com": "https://tarn.example.com"} {
		if c, err := New(Options{Host: in}); err != nil || c.Host() != want {
			t.Errorf("%s: %v %v", in, c, err)
		}
	}
	for _, bad := range []string{"", "ftp://x", "http://"} {
		if _, err := New(Options{Host: bad}); tarn.KindOf(err) != tarn.KindInvalid {
			t.Errorf("%q was taken: %v", bad, err)
		}
	}
}
