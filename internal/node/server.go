package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
)

// Host is what the server serves: one computer's fleet. It is the seam between
// two processes, so it is as wide as the protocol and not three methods.
type Host interface {
	CreateTimeline(ctx context.Context, s tarn.TimelineSpec) (tarn.TimelineStatus, error)
	DeleteTimeline(ctx context.Context, id tarn.TimelineID) error
	Timeline(ctx context.Context, id tarn.TimelineID) (tarn.TimelineStatus, error)
	Timelines(ctx context.Context) ([]tarn.TimelineStatus, error)
	Window(ctx context.Context, id tarn.TimelineID) (tarn.Window, error)
	SetHistory(ctx context.Context, id tarn.TimelineID, d time.Duration) error
	DropSlots(ctx context.Context, id tarn.TimelineID) error
	Wake(ctx context.Context, s tarn.ComputeSpec) (tarn.ComputeStatus, error)
	Suspend(ctx context.Context, endpoint string) error
	Computes(ctx context.Context) ([]tarn.ComputeStatus, error)
	Versions(ctx context.Context) ([]int, error)
	StoreStats(ctx context.Context) (tarn.StoreStats, error)
	// CheckStore begins a check of that name, or tells how far it is.
	CheckStore(ctx context.Context, s tarn.StoreCheckSpec) (tarn.StoreCheck, error)
	// Restart lets another process take the host's place, under running
	// computes, unless from does not name this one any more; it returns the name
	// of this one. With from "" it does only that.
	Restart(ctx context.Context, from string) (name string, err error)
}

// drainTime is how long calls in progress may go on after the server's context
// has ended; the client repeats those that are cut.
const drainTime = 5 * time.Second

// maxBody bounds the JSON of one call, in bytes.
const maxBody = 1 << 20

// Serve answers calls on the unix socket until ctx ends. The socket has mode
// 0600 in a directory of mode 0700: whoever may connect may do everything.
func Serve(ctx context.Context, socket string, h Host, log *slog.Logger) error {
	l, err := listen(ctx, socket)
	if err != nil {
		return fmt.Errorf("serve node on %s: %w", socket, err)
	}
	s := &http.Server{
		Handler:           routes(h, log),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	var drain sync.WaitGroup
	drain.Add(1)
	stop := context.AfterFunc(ctx, func() {
		defer drain.Done()
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
		defer cancel()
		if err := s.Shutdown(limit); err != nil {
			// The cut calls see their contexts end.
			s.Close()
		}
	})
	err = s.Serve(l)
	if stop() {
		drain.Done()
		s.Close()
	}
	drain.Wait()
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve node on %s: %w", socket, err)
	}
	return nil
}

// listen replaces the socket of a dead server. Two live ones cannot meet: the
// page store below lets only one process in.
func listen(ctx context.Context, socket string) (net.Listener, error) {
	dir := filepath.Dir(socket)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var c net.ListenConfig
	l, err := c.Listen(ctx, "unix", socket)
	if errors.Is(err, unix.EINVAL) {
		return nil, tarn.Invalid("%w: a socket's path has at most 107 bytes, this one %d", err, len(socket)).WithHint("choose a shorter data directory")
	}
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func routes(h Host, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	handle(mux, log, methodCreateTimeline, h.CreateTimeline)
	handle(mux, log, methodWake, h.Wake)
	handle(mux, log, methodDeleteTimeline, func(ctx context.Context, a timelineArg) (none, error) {
		return none{}, h.DeleteTimeline(ctx, a.ID)
	})
	handle(mux, log, methodTimeline, func(ctx context.Context, a timelineArg) (tarn.TimelineStatus, error) {
		return h.Timeline(ctx, a.ID)
	})
	handle(mux, log, methodTimelines, func(ctx context.Context, _ none) ([]tarn.TimelineStatus, error) {
		return h.Timelines(ctx)
	})
	handle(mux, log, methodWindow, func(ctx context.Context, a timelineArg) (tarn.Window, error) {
		return h.Window(ctx, a.ID)
	})
	handle(mux, log, methodSetHistory, func(ctx context.Context, a historyArg) (none, error) {
		return none{}, h.SetHistory(ctx, a.ID, a.History)
	})
	handle(mux, log, methodDropSlots, func(ctx context.Context, a timelineArg) (none, error) {
		return none{}, h.DropSlots(ctx, a.ID)
	})
	handle(mux, log, methodSuspend, func(ctx context.Context, a endpointArg) (none, error) {
		return none{}, h.Suspend(ctx, a.Endpoint)
	})
	handle(mux, log, methodComputes, func(ctx context.Context, _ none) ([]tarn.ComputeStatus, error) {
		return h.Computes(ctx)
	})
	handle(mux, log, methodVersions, func(ctx context.Context, _ none) ([]int, error) {
		return h.Versions(ctx)
	})
	handle(mux, log, methodStoreStats, func(ctx context.Context, _ none) (tarn.StoreStats, error) {
		return h.StoreStats(ctx)
	})
	handle(mux, log, methodCheckStore, func(ctx context.Context, a tarn.StoreCheckSpec) (tarn.StoreCheck, error) {
		return h.CheckStore(ctx, a)
	})
	handle(mux, log, methodRestart, func(ctx context.Context, a restartArg) (restartResult, error) {
		name, err := h.Restart(ctx, a.From)
		return restartResult{name}, err
	})
	return mux
}

func handle[A, R any](mux *http.ServeMux, log *slog.Logger, method string, do func(context.Context, A) (R, error)) {
	mux.HandleFunc("POST "+pathPrefix+method, func(w http.ResponseWriter, r *http.Request) {
		var arg A
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
		if err := d.Decode(&arg); err != nil {
			answer(w, log, http.StatusInternalServerError, newFault(tarn.Invalid("read the argument of %s: %w", method, err)))
			return
		}
		result, err := do(r.Context(), arg)
		var stops interface{ Again() bool }
		switch {
		case errors.As(err, &stops) && stops.Again():
			answer(w, log, statusAgain, newFault(err))
		case err != nil:
			answer(w, log, http.StatusInternalServerError, newFault(err))
		default:
			answer(w, log, http.StatusOK, result)
		}
	})
}

func answer(w http.ResponseWriter, log *slog.Logger, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		log.Debug("node answer lost", "err", err) // the caller went away
	}
}
