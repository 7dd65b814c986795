package s3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/blob/blobtest"
	"github.com/tarndb/tarn/internal/blob/s3"
	"github.com/tarndb/tarn/internal/blob/s3/s3test"
)

// wire stands between a store and the server and spoils some requests.
type wire struct {
	*httptest.Server
	forward *httputil.ReverseProxy

	mu    sync.Mutex // guards spoil
	spoil func(*http.Request) string
}

// What a wire does to a request.
const (
	pass      = ""
	unsent    = "the connection breaks before the server sees the request"
	lost      = "the server does it and its answer is lost"
	gateway   = "the server does it and a gateway answers 502"
	overload  = "503 before the server sees it"
	hang      = "no answer comes"
	half      = "the body breaks off in the middle"
	skewed    = "403 RequestTimeTooSkewed"
	conflict  = "409 ConditionalRequestConflict"
	forbidden = "403 without a body"
)

func newWire(t *testing.T, server *s3test.Server) *wire {
	t.Helper()
	target, err := url.Parse(server.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{spoil: func(*http.Request) string { return pass }}
	w.forward = &httputil.ReverseProxy{
		// The host stays as it was signed.
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = target.Scheme, target.Host
			r.Out.Host = r.In.Host
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	w.Server = httptest.NewServer(w)
	t.Cleanup(w.CloseClientConnections)
	t.Cleanup(w.Close)
	return w
}

func (w *wire) set(spoil func(*http.Request) string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.spoil = spoil
}

// first spoils the first n requests of a method.
func first(n int, method, how string) func(*http.Request) string {
	return func(r *http.Request) string {
		if r.Method == method && n > 0 {
			n--
			return how
		}
		return pass
	}
}

func (w *wire) ServeHTTP(out http.ResponseWriter, in *http.Request) {
	w.mu.Lock()
	how := w.spoil(in)
	w.mu.Unlock()
	answer := func(status int, code string) {
		out.WriteHeader(status)
		if code != "" {
			fmt.Fprintf(out, "<Error><Code>%s</Code><Message>by the wire</Message></Error>", code)
		}
	}
	switch how {
	case pass:
		w.forward.ServeHTTP(out, in)
	case unsent:
		panic(http.ErrAbortHandler)
	case hang:
		io.Copy(io.Discard, in.Body)
		<-in.Context().Done()
	case overload:
		answer(http.StatusServiceUnavailable, "SlowDown")
	case skewed:
		answer(http.StatusForbidden, "RequestTimeTooSkewed")
	case conflict:
		answer(http.StatusConflict, "ConditionalRequestConflict")
	case forbidden:
		answer(http.StatusForbidden, "")
	case lost, gateway, half:
		r := httptest.NewRecorder()
		w.forward.ServeHTTP(r, in)
		switch how {
		case gateway:
			answer(http.StatusBadGateway, "")
		case lost:
			panic(http.ErrAbortHandler)
		case half:
			for k, v := range r.Header() {
				out.Header()[k] = v
			}
			out.WriteHeader(r.Code)
			out.Write(r.Body.Bytes()[:r.Body.Len()/2])
			panic(http.ErrAbortHandler)
		}
	}
}

// wired gives a store through a wire and the same store beside it.
func wired(t *testing.T, server *s3test.Server, change func(*s3.Options)) (w *wire, through, beside *s3.Store) {
	t.Helper()
	w = newWire(t, server)
	o := server.Options(fmt.Sprintf("wired/%s", strings.ReplaceAll(t.Name(), "/", "-")))
	o.Tries = 3
	beside = server.Open(t, o)
	o.Endpoint = w.URL
	if change != nil {
		change(&o)
	}
	return w, server.Open(t, o), beside
}

func read(t *testing.T, s blob.Store, key string) string {
	t.Helper()
	r, err := s.Get(t.Context(), key, 0, -1)
	if err != nil {
		return err.Error()
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func TestConditionalWritesInDoubt(t *testing.T) {
	server := s3test.Start(t)
	for _, c := range []struct {
		name  string
		spoil func(beside *s3.Store) func(*http.Request) string
		want  error // nil: written
	}{
		{"answer lost", func(*s3.Store) func(*http.Request) string { return first(1, "PUT", lost) }, nil},
		{"502 after", func(*s3.Store) func(*http.Request) string { return first(1, "PUT", gateway) }, nil},
		{"never sent", func(*s3.Store) func(*http.Request) string { return first(1, "PUT", unsent) }, nil},
		{"overload", func(*s3.Store) func(*http.Request) string { return first(2, "PUT", overload) }, nil},
		{"conflict of the moment", func(*s3.Store) func(*http.Request) string { return first(2, "PUT", conflict) }, nil},
		{"every answer lost", func(*s3.Store) func(*http.Request) string { return first(9, "PUT", lost) }, nil},
		{"nothing sent", func(*s3.Store) func(*http.Request) string { return first(9, "PUT", unsent) }, blob.ErrAmbiguous},
		{"nothing can be read back", func(*s3.Store) func(*http.Request) string {
			return func(r *http.Request) string { return map[string]string{"PUT": lost, "HEAD": unsent}[r.Method] }
		}, blob.ErrAmbiguous},
		{"lost and replaced", func(beside *s3.Store) func(*http.Request) string {
			n := 0
			return func(r *http.Request) string {
				if r.Method != "PUT" {
					return pass
				}
				if n++; n == 1 {
					return lost
				}
				if err := beside.Put(context.Background(), "k", strings.NewReader("another's")); err != nil {
					t.Error(err)
				}
				return pass
			}
		}, blob.ErrAmbiguous},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, s, beside := wired(t, server, nil)
			w.set(c.spoil(beside))
			err := s.PutIfAbsent(t.Context(), "k", []byte("one"))
			check(t, "put if absent", err, c.want)
			w.set(first(0, "", ""))
			if c.want == nil {
				if got := read(t, beside, "k"); got != "one" {
					t.Errorf("k holds %q", got)
				}
			}
			// The next one starts from what is there, without doubt.
			if err := beside.Put(t.Context(), "k", strings.NewReader("zero")); err != nil {
				t.Fatal(err)
			}
			err = s.PutIfAbsent(t.Context(), "k", []byte("three"))
			if !errors.Is(err, blob.ErrExists) || errors.Is(err, blob.ErrAmbiguous) {
				t.Errorf("without doubt: %v", err)
			}
			o, err := beside.Head(t.Context(), "k")
			if err != nil {
				t.Fatal(err)
			}
			w.set(c.spoil(beside))
			tag, err := s.PutIfMatch(t.Context(), "k", o.ETag, []byte("two"))
			check(t, "put if match", err, c.want)
			w.set(first(0, "", ""))
			if c.want == nil {
				if got := read(t, beside, "k"); got != "two" {
					t.Errorf("k holds %q", got)
				}
				if tag, err = s.PutIfMatch(t.Context(), "k", tag, []byte("three")); err != nil || tag == "" {
					t.Errorf("the ETag of a write that was in doubt: %v", err)
				}
			}
			if _, err = s.PutIfMatch(t.Context(), "k", `"0000"`, []byte("four")); !errors.Is(err, blob.ErrMismatch) || errors.Is(err, blob.ErrAmbiguous) {
				t.Errorf("without doubt: %v", err)
			}
		})
	}
}

func check(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
	if want != nil && (errors.Is(err, blob.ErrExists) || errors.Is(err, blob.ErrMismatch) || errors.Is(err, blob.ErrNotExist)) {
		t.Errorf("%s: a doubt that is a refusal, too: %v", what, err)
	}
}

// A caller who leaves while the answer is awaited is told that it is unknown.
func TestEndedInDoubt(t *testing.T) {
	w, s, _ := wired(t, s3test.Start(t), nil)
	cause := errors.New("went home")
	for name, do := range map[string]func(context.Context) error{
		"put if absent": func(ctx context.Context) error { return s.PutIfAbsent(ctx, "k", []byte("x")) },
		"put":           func(ctx context.Context) error { return s.Put(ctx, "k", strings.NewReader("x")) },
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		w.set(func(r *http.Request) string { cancel(cause); return hang })
		if err := do(ctx); !errors.Is(err, blob.ErrAmbiguous) || !errors.Is(err, cause) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLargePutFaults(t *testing.T) {
	server := s3test.Start(t)
	const size = 23 << 20
	query := func(r *http.Request, method, key string) bool { return r.Method == method && r.URL.Query().Has(key) }
	for _, c := range []struct {
		name  string
		spoil func(*http.Request) string
		good  bool
	}{
		{"a part is sent twice", func() func(*http.Request) string {
			n := 0
			return func(r *http.Request) string {
				if n++; query(r, "PUT", "partNumber") && n == 3 {
					return lost
				}
				return pass
			}
		}(), true},
		{"the answer to the completion is lost", func(r *http.Request) string {
			if query(r, "POST", "uploadId") {
				return lost
			}
			return pass
		}, true},
		{"one part cannot be sent", func(r *http.Request) string {
			if query(r, "PUT", "partNumber") && r.URL.Query().Get("partNumber") == "2" {
				return unsent
			}
			return pass
		}, false},
		{"the last part cannot be sent", func(r *http.Request) string {
			if query(r, "PUT", "partNumber") && r.URL.Query().Get("partNumber") == "3" {
				return overload
			}
			return pass
		}, false},
		{"it cannot be completed", func(r *http.Request) string {
			if query(r, "POST", "uploadId") {
				return unsent
			}
			return pass
		}, false},
		{"it cannot be begun", func(r *http.Request) string {
			if query(r, "POST", "uploads") {
				return overload
			}
			return pass
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, s, beside := wired(t, server, nil)
			w.set(c.spoil)
			err := s.Put(t.Context(), "k", &blobtest.Pattern{End: size})
			if (err == nil) != c.good {
				t.Errorf("put: %v", err)
			}
			o, err := beside.Head(t.Context(), "k")
			if c.good && (err != nil || o.Size != size) || !c.good && !errors.Is(err, blob.ErrNotExist) {
				t.Errorf("head: %+v, %v", o, err)
			}
			if n, err := beside.AbortUploads(t.Context(), time.Now().Add(time.Hour)); n != 0 || err != nil {
				t.Errorf("%d uploads are left, %v", n, err)
			}
		})
	}
}

// What a crash leaves is found and freed, and what is younger is not.
func TestAbortUploads(t *testing.T) {
	w, s, beside := wired(t, s3test.Start(t), nil)
	w.set(func(r *http.Request) string { // neither completed nor aborted
		if r.URL.Query().Has("uploadId") && r.Method != "PUT" {
			return unsent
		}
		return pass
	})
	if err := s.Put(t.Context(), "d/k", &blobtest.Pattern{End: 9 << 20}); !errors.Is(err, blob.ErrAmbiguous) {
		t.Fatalf("put: %v", err)
	}
	for _, c := range []struct {
		before time.Time
		want   int
	}{{time.Now().Add(-time.Hour), 0}, {time.Now().Add(time.Hour), 1}, {time.Now().Add(time.Hour), 0}} {
		if n, err := beside.AbortUploads(t.Context(), c.before); n != c.want || err != nil {
			t.Errorf("%d uploads, %v, want %d", n, err, c.want)
		}
	}
}

func TestBrokenBodies(t *testing.T) {
	w, s, beside := wired(t, s3test.Start(t), nil)
	const size = 3<<20 + 17
	if err := beside.Put(t.Context(), "k", &blobtest.Pattern{End: size}); err != nil {
		t.Fatal(err)
	}
	want := make([]byte, size)
	blobtest.Fill(want, 0)
	for _, c := range []struct {
		times  int
		off, n int64
	}{{1, 0, -1}, {2, 0, -1}, {8, 0, -1}, {2, 100, 1 << 20}, {3, size - 5000, 9999}} {
		w.set(first(c.times, "GET", half)) // each brings half of the rest
		r, err := s.Get(t.Context(), "k", c.off, c.n)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		r.Close()
		end := int64(size)
		if c.n >= 0 {
			end = min(size, c.off+c.n)
		}
		if err != nil || !bytes.Equal(got, want[c.off:end]) {
			t.Errorf("%+v: read %d bytes, %v", c, len(got), err)
		}
	}
	// It broke, and then the object is another.
	n := 0
	w.set(func(r *http.Request) string {
		if n++; n == 1 {
			return half
		}
		if err := beside.Put(context.Background(), "k", &blobtest.Pattern{At: 1, End: size}); err != nil {
			t.Error(err)
		}
		return pass
	})
	r, err := s.Get(t.Context(), "k", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); !errors.Is(err, blob.ErrMismatch) || !bytes.Equal(got, want[:len(got)]) {
		t.Errorf("read %d bytes of an object that changed: %v", len(got), err)
	}
	// It breaks and nothing more comes.
	n = 0
	w.set(func(r *http.Request) string {
		if n++; n == 1 {
			return half
		}
		return unsent
	})
	r, err = s.Get(t.Context(), "k", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); tarn.KindOf(err) != tarn.KindUnavailable || len(got) == 0 {
		t.Errorf("read %d bytes: %v", len(got), err)
	}
}

// A server that takes a request and stays silent is given up.
func TestStall(t *testing.T) {
	w, s, _ := wired(t, s3test.Start(t), func(o *s3.Options) { o.Stall, o.Tries = 200*time.Millisecond, 2 })
	w.set(func(*http.Request) string { return hang })
	if _, err := s.Head(t.Context(), "k"); tarn.KindOf(err) != tarn.KindUnavailable {
		t.Errorf("head: %v", err)
	}
	if err := s.PutIfAbsent(t.Context(), "k", []byte("x")); !errors.Is(err, blob.ErrAmbiguous) {
		t.Errorf("put if absent: %v", err)
	}
	if err := s.Delete(t.Context(), "k", "l"); tarn.KindOf(err) != tarn.KindUnavailable {
		t.Errorf("delete: %v", err)
	}
}
