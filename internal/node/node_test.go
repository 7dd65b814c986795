package node

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tarndb/tarn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// host is a Host that remembers what it was asked and answers from its fields.
type host struct {
	spec    tarn.TimelineSpec
	compute tarn.ComputeSpec
	err     error
	history time.Duration
	dropped tarn.TimelineID
	calls   atomic.Int64
	block   chan struct{} // Wake waits for it when not nil
	entered chan struct{}
}

func (h *host) CreateTimeline(_ context.Context, s tarn.TimelineSpec) (tarn.TimelineStatus, error) {
	h.calls.Add(1)
	h.spec = s
	return tarn.TimelineStatus{ID: s.ID, Parent: tarn.Point{Timeline: s.Source, Seq: 7}, ForkLSN: s.LSN, ForkTime: s.Time}, h.err
}
func (h *host) DeleteTimeline(context.Context, tarn.TimelineID) error { return h.err }
func (h *host) Timeline(_ context.Context, id tarn.TimelineID) (tarn.TimelineStatus, error) {
	return tarn.TimelineStatus{ID: id, Marks: []tarn.Mark{{Seq: 1, LSN: 2, Time: time.Unix(3, 4).UTC()}}}, h.err
}
func (h *host) Timelines(context.Context) ([]tarn.TimelineStatus, error) {
	return []tarn.TimelineStatus{{ID: "a"}, {ID: "b"}}, h.err
}
func (h *host) Window(_ context.Context, id tarn.TimelineID) (tarn.Window, error) {
	return tarn.Window{From: tarn.Mark{LSN: 5, Time: time.Unix(5, 6).UTC()}, To: tarn.Mark{LSN: 7}, History: time.Hour, Whole: id == "whole"}, h.err
}
func (h *host) SetHistory(_ context.Context, _ tarn.TimelineID, d time.Duration) error {
	h.history = d
	return h.err
}
func (h *host) DropSlots(_ context.Context, id tarn.TimelineID) error {
	h.dropped = id
	return h.err
}
func (h *host) Wake(ctx context.Context, s tarn.ComputeSpec) (tarn.ComputeStatus, error) {
	h.calls.Add(1)
	h.compute = s
	if h.block != nil {
		h.entered <- struct{}{}
		select {
		case <-h.block:
		case <-ctx.Done():
			return tarn.ComputeStatus{}, context.Cause(ctx)
		}
	}
	return tarn.ComputeStatus{Endpoint: s.Endpoint, State: tarn.ComputeActive, PID: 12}, h.err
}
func (h *host) Suspend(context.Context, string) error { return h.err }
func (h *host) Computes(context.Context) ([]tarn.ComputeStatus, error) {
	return []tarn.ComputeStatus{{Endpoint: "e"}}, h.err
}
func (h *host) StoreStats(context.Context) (tarn.StoreStats, error) {
	return tarn.StoreStats{Timelines: []tarn.StoreTimeline{{ID: "a", LogBytes: 7, History: time.Hour}}}, h.err
}
func (h *host) CheckStore(_ context.Context, s tarn.StoreCheckSpec) (tarn.StoreCheck, error) {
	return tarn.StoreCheck{ID: s.ID, Done: true, Pages: 3, Findings: []tarn.StoreFinding{{File: "f", Offset: 9}}}, h.err
}
func (h *host) Restart(context.Context, string) (string, error) { return "this", h.err }
func (h *host) Versions(context.Context) ([]int, error)         { return []int{18, 15}, h.err }

func socketIn(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tarn-node-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "run", "node.sock")
}

// serve runs a server until the returned function is called or the test ends.
func serve(t *testing.T, socket string, h Host) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, socket, h, slog.New(slog.DiscardHandler)) }()
	var stopped atomic.Bool
	stop = func() {
		if stopped.Swap(true) {
			return
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func client(t *testing.T, socket string) *Client {
	t.Helper()
	c := Dial(socket)
	t.Cleanup(c.Close)
	return c
}

func TestValuesTravel(t *testing.T) {
	socket, h := socketIn(t), &host{}
	serve(t, socket, h)
	c, ctx := client(t, socket), t.Context()

	ts := tarn.TimelineSpec{ID: "0123", PGVersion: 18, Source: "4567", Time: time.Unix(5, 123456789).UTC(), LSN: 0x16_B374D848}
	st, err := c.CreateTimeline(ctx, ts)
	if err != nil || !reflect.DeepEqual(h.spec, ts) || st.ForkLSN != ts.LSN || !st.ForkTime.Equal(ts.Time) || st.Parent.Seq != 7 {
		t.Errorf("CreateTimeline: asked %+v, got %+v, %v", h.spec, st, err)
	}
	cs := tarn.ComputeSpec{Endpoint: "ep-1", Branch: tarn.BranchName{Project: "p", Branch: "b"}, Timeline: "0123", PGVersion: 18,
		MinCU: 0.5, MaxCU: 2, SuspendAfter: time.Minute, Settings: map[string]string{"work_mem": "8MB"}}
	w, err := c.Wake(ctx, cs)
	if err != nil || !reflect.DeepEqual(h.compute, cs) || w.State != tarn.ComputeActive || w.PID != 12 {
		t.Errorf("Wake: asked %+v, got %+v, %v", h.compute, w, err)
	}
	if tl, err := c.Timeline(ctx, "x"); err != nil || tl.ID != "x" || len(tl.Marks) != 1 || tl.Marks[0].Time != time.Unix(3, 4).UTC() {
		t.Errorf("Timeline: %+v, %v", tl, err)
	}
	if w, err := c.Window(ctx, "whole"); err != nil || !w.Whole || w.From.LSN != 5 || w.From.Time != time.Unix(5, 6).UTC() || w.To.LSN != 7 || w.History != time.Hour {
		t.Errorf("Window: %+v, %v", w, err)
	}
	if err := c.SetHistory(ctx, "x", tarn.NoHistory); err != nil || h.history != tarn.NoHistory {
		t.Errorf("SetHistory: %s, %v", h.history, err)
	}
	if err := c.DropSlots(ctx, "x"); err != nil || h.dropped != "x" {
		t.Errorf("DropSlots: %s, %v", h.dropped, err)
	}
	if st, err := c.StoreStats(ctx); err != nil || len(st.Timelines) != 1 || st.Timelines[0].LogBytes != 7 || st.Timelines[0].History != time.Hour {
		t.Errorf("StoreStats: %+v, %v", st, err)
	}
	if st, err := c.CheckStore(ctx, tarn.StoreCheckSpec{ID: "x"}); err != nil || st.ID != "x" || !st.Done || st.Pages != 3 || len(st.Findings) != 1 || st.Findings[0].Offset != 9 {
		t.Errorf("CheckStore: %+v, %v", st, err)
	}
	if all, err := c.Timelines(ctx); err != nil || len(all) != 2 {
		t.Errorf("Timelines: %+v, %v", all, err)
	}
	if all, err := c.Computes(ctx); err != nil || len(all) != 1 || all[0].Endpoint != "e" {
		t.Errorf("Computes: %+v, %v", all, err)
	}
	if v, err := c.Versions(ctx); err != nil || !reflect.DeepEqual(v, []int{18, 15}) {
		t.Errorf("Versions: %v, %v", v, err)
	}
	if err := errors.Join(c.Suspend(ctx, "e"), c.DeleteTimeline(ctx, "x")); err != nil {
		t.Error(err)
	}
	for path, want := range map[string]os.FileMode{socket: 0o600, filepath.Dir(socket): 0o700} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != want {
			t.Errorf("mode of %s: %v, %v", path, st.Mode(), err)
		}
	}
}

func TestErrorsKeepKindAndHint(t *testing.T) {
	socket, h := socketIn(t), &host{}
	serve(t, socket, h)
	c := client(t, socket)
	for _, want := range []*tarn.Error{tarn.Invalid("a"), tarn.NotFound("b"), tarn.Conflict("c").WithHint("type d"), tarn.Denied("e"), tarn.Unavailable("f")} {
		h.err = want
		_, err := c.CreateTimeline(t.Context(), tarn.TimelineSpec{})
		if tarn.KindOf(err) != want.Kind || tarn.HintOf(err) != want.Hint || err.Error() != want.Error() {
			t.Errorf("sent %v (%s, %q), got %v (%s, %q)", want, want.Kind, want.Hint, err, tarn.KindOf(err), tarn.HintOf(err))
		}
	}
	h.err = errors.New("plain")
	if err := c.Suspend(t.Context(), "e"); tarn.KindOf(err) != tarn.KindInternal || err.Error() != "plain" {
		t.Errorf("a plain error became %v (%s)", err, tarn.KindOf(err))
	}
}

// A call made before the node is there waits for it, and one that the node's
// end cut is made again to the next one.
func TestClientOutlivesRestarts(t *testing.T) {
	socket := socketIn(t)
	c := client(t, socket)
	type result struct {
		status tarn.ComputeStatus
		err    error
	}
	got := make(chan result, 1)
	go func() {
		s, err := c.Wake(t.Context(), tarn.ComputeSpec{Endpoint: "ep-1"})
		got <- result{s, err}
	}()

	// The first node dies in the middle of the call, without an answer.
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		t.Fatal(err)
	}
	dying, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := dying.Accept()
	if err != nil {
		t.Fatal(err)
	}
	var b [64]byte
	if _, err := conn.Read(b[:]); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	dying.Close()

	h := &host{block: make(chan struct{}), entered: make(chan struct{}, 1)}
	serve(t, socket, h)
	<-h.entered
	close(h.block)
	if r := <-got; r.err != nil || r.status.Endpoint != "ep-1" {
		t.Errorf("after two restarts: %+v, %v", r.status, r.err)
	}
	if h.calls.Load() != 1 {
		t.Errorf("%d calls, want 1", h.calls.Load())
	}
}

func TestClientGivesUpWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := client(t, socketIn(t)).Versions(ctx)
	if tarn.KindOf(err) != tarn.KindUnavailable || tarn.HintOf(err) == "" || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a node: %v (%s, hint %q)", err, tarn.KindOf(err), tarn.HintOf(err))
	}
}

// A caller who goes away does not hold the server back.
func TestStopWaitsForCalls(t *testing.T) {
	socket := socketIn(t)
	h := &host{block: make(chan struct{}), entered: make(chan struct{}, 1)}
	stop := serve(t, socket, h)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	c := client(t, socket)
	go func() {
		_, err := c.Wake(ctx, tarn.ComputeSpec{})
		done <- err
	}()
	<-h.entered
	cancel()
	if err := <-done; tarn.KindOf(err) != tarn.KindUnavailable {
		t.Errorf("cancelled call: %v", err)
	}
	stop()
}
