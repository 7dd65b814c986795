package syncedtable_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/blob/faulty"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
	"github.com/tarndb/tarn/internal/syncedtable"
)

// ear is a webhook.
type ear struct {
	mu    sync.Mutex
	heard []syncedtable.Alert
}

func (e *ear) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	var a syncedtable.Alert
	err := json.NewDecoder(r.Body).Decode(&a)
	e.mu.Lock()
	defer e.mu.Unlock()
	if err == nil {
		e.heard = append(e.heard, a)
	}
}

func (e *ear) hears(t *testing.T, event string) (found syncedtable.Alert) {
	t.Helper()
	eventually(t, "alert "+event, func() any { return e.heard }, func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		for _, a := range e.heard {
			if a.Event == event {
				found = a
				return true
			}
		}
		return false
	})
	return found
}

// Who was to be told is told of failures and dead letters, once.
func TestAlerts(t *testing.T) {
	l := newLab(t, pgtest.Newest(t))
	w := l.world(t)
	w.feed = "true"
	e := &ear{}
	server := httptest.NewServer(e)
	t.Cleanup(server.Close)
	out := filepath.Join(t.TempDir(), "told")
	w.kill()
	w.alerts.Command = []string{"/bin/sh", "-c", `cat >> "$0"; echo >> "$0"`, out}
	w.start()
	s := w.source("t", col("id", "long"), col("v", "string"))
	s.write(add, `{"id":1,"v":"a"}
		{"id":2,"v":"nul\u0000"}
		{"id":3,"v":"nul\u0000"}`)
	x := w.triggered("id")
	x.Alerts = tarn.Alerts{Webhook: server.URL, DeadLetters: 2}
	w.create(x)
	w.reaches("t", tarn.SyncOnline, 1)
	if a := e.hears(t, "dead_letters"); a.DeadLetters != 2 || a.SyncedTable != "lake.public.t" || a.Version != 1 || !strings.Contains(a.Message, "NUL") {
		t.Errorf("%+v", a)
	}
	s.write(add, `{"id":4,"v":"nul\u0000"}`) // one more: below the bound
	w.brought(s)
	check(t, w.catalog.DropTable(t.Context(), tarn.Principal{}, lake("t")))
	w.refresh(x.Name)
	w.reaches("t", tarn.SyncPipelineFailed, 0)
	if a := e.hears(t, "failed"); a.State != "SYNCED_TABLE_ONLINE_PIPELINE_FAILED" || a.UpdateID == "" || a.PipelineID == "" {
		t.Errorf("%+v", a)
	}
	eventually(t, "the command", func() any { return nil }, func() bool {
		b, _ := os.ReadFile(out) // not there yet
		return strings.Count(string(b), `"event":"dead_letters"`) == 1 && strings.Count(string(b), `"event":"failed"`) == 1
	})
	// The event comes after whoever was told.
	told := 0
	eventually(t, "two alerts among the events", func() any { return told }, func() bool {
		es, err := controldb.ListEvents(t.Context(), w.db, w.get("t").PipelineID, 0, 100)
		check(t, err)
		told = 0
		for _, e := range es {
			if e.Type == tarn.EventAlert {
				told++
			}
		}
		return told == 2
	})
}

// A continuous table that falls behind tells so once, and again when it falls
// behind again after it has caught up.
func TestLagAlert(t *testing.T) {
	l := newLab(t, pgtest.Newest(t))
	w := l.world(t)
	w.feed = "true"
	e := &ear{}
	server := httptest.NewServer(e)
	t.Cleanup(server.Close)
	s := w.source("t", col("id", "long"), col("v", "string"))
	s.write(add, `{"id":1,"v":"a"}`)
	x := w.spec("t", "id")
	x.Policy, x.Interval = tarn.SyncContinuous, time.Second
	x.Alerts = tarn.Alerts{Webhook: server.URL, Lag: 2 * time.Second}
	w.create(x)
	w.reaches("t", tarn.SyncContinuing, 1)
	other := w.connect(tarn.Superuser)
	for id := 2; id < 6; id += 2 {
		tx, err := other.Begin(t.Context()) // no change gets in meanwhile
		check(t, err)
		_, err = tx.Exec(t.Context(), `LOCK TABLE public.t IN ACCESS EXCLUSIVE MODE`)
		check(t, err)
		s.write(add, fmt.Sprintf(`{"id":%d,"v":"late"}`, id))
		told := 0
		eventually(t, fmt.Sprintf("alert of the lag of version %d", s.version()), func() any { return w.get("t") }, func() bool {
			e.mu.Lock()
			defer e.mu.Unlock()
			told = 0
			for _, a := range e.heard {
				if a.Event == "lag" && a.SyncedTable == "lake.public.t" && strings.HasPrefix(a.Message, fmt.Sprintf("version %d has been waiting for", s.version())) {
					told++
				}
			}
			return told > 0
		})
		if told != 1 {
			t.Errorf("told %d times", told)
		}
		check(t, tx.Rollback(t.Context()))
		w.reaches("t", tarn.SyncContinuing, s.version())
		s.write(add, fmt.Sprintf(`{"id":%d,"v":"in time"}`, id+1))
		w.reaches("t", tarn.SyncContinuing, s.version())
	}
	w.equal()
}

// A source behind a store that fails, breaks off and hangs up at any call is
// brought to the end all the same, and nothing wrong is ever there.
func TestFollowUnderStoreFaults(t *testing.T) {
	l := newLab(t, pgtest.Newest(t))
	w := l.world(t)
	w.feed, w.chunk = "true", 40
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var mu sync.Mutex
	bad := false
	w.open = func(ctx context.Context, location string) (blob.Store, error) {
		store, err := openDir(ctx, location)
		mu.Lock()
		defer mu.Unlock()
		if err != nil || !bad {
			return store, err
		}
		seed++
		return faulty.New(store, faulty.Seeded(seed, 0.02, faulty.Fail, faulty.Torn)), nil
	}
	w.kill()
	w.start()
	s := w.follow(`{"id":1,"v":"a"}`)
	mu.Lock()
	bad = true
	mu.Unlock()
	for v := range 6 {
		var rows []string
		for i := range 50 {
			rows = append(rows, fmt.Sprintf(`{"id":%d,"v":"v%d"}`, 40*v+i, v))
		}
		s.write(replace, strings.Join(rows, "\n"))
		if x := w.get("t"); !x.State.Due() {
			w.refresh(x.Name)
		}
	}
	eventually(t, "rest", func() any { return w.get("t") }, func() bool { return !w.get("t").State.Due() })
	mu.Lock()
	bad = false
	mu.Unlock()
	if x := w.get("t"); x.State.Failed() {
		t.Fatalf("a passing fault ended the update: %s", x.Message)
	}
	if w.get("t").Version != s.version() {
		w.brought(s)
	}
	w.reaches("t", tarn.SyncOnline, s.version())
	w.equal()
}
