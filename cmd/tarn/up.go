package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tarndb/tarn"
)

// upCommand is `tarn up`: control and node, supervised.
func upCommand() *cobra.Command {
	var c serverConfig
	var detach bool
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start Tarn: the control plane, the gateway and this computer's node",
		Long: `Start Tarn and keep it running. Without configuration, data goes to ./tarn-data (or $TARN_DATA),
the API listens on 127.0.0.1:8181 and every endpoint gets a loopback address of its own on port 5432.
The first start makes a workspace owner, a token (written to your profile) and a certificate authority.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.complete(); err != nil {
				return err
			}
			if detach {
				return upDetached(cmd.Context(), c, cmd.ErrOrStderr())
			}
			return up(cmd.Context(), c, cmd.ErrOrStderr())
		},
	}
	c.flags(cmd.Flags())
	cmd.Flags().BoolVar(&c.storage.TakeOver, takeOverFlag, false, "take the storage from a computer that is lost, when it has been silent for half a minute")
	cmd.Flags().BoolVar(&detach, "detach", false, "return when Tarn answers and leave it running")
	return cmd
}

func up(ctx context.Context, c serverConfig, progress io.Writer) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	tell := func(line string) { fmt.Fprintln(progress, line) }
	if note := c.newDirectories(ctx); note != "" {
		tell(note)
	}
	s := &supervisor{c: c, tell: tell, log: log}
	waiting, giveUp := context.WithCancel(ctx)
	var greeting sync.WaitGroup
	greeting.Go(func() {
		if awaitReady(waiting, c.Data, identify(os.Getpid()), func(string) {}) == nil {
			tell(fmt.Sprintf("Tarn runs at %s; Ctrl-C suspends every compute and stops", apiURL(c.API, c)))
		}
	})
	err := s.run(ctx)
	giveUp()
	greeting.Wait()
	if errors.Is(err, errHeld) {
		return alreadyRuns(c)
	}
	if err != nil {
		return fmt.Errorf("start Tarn on %s: %w", c.Data, err)
	}
	return nil
}

func alreadyRuns(c serverConfig) error {
	where := ""
	if rec, err := readProcesses(c.Data); err == nil {
		where = ": " + apiURL(rec.API, c)
	}
	return tarn.Conflict("Tarn runs on %s already%s", c.Data, where).WithHint("tarn status shows it, tarn down --data " + c.Data + " stops it")
}

// upDetached starts `tarn up` in a session of its own and waits until it
// answers. An already running Tarn is a success: the command is idempotent.
func upDetached(ctx context.Context, c serverConfig, progress io.Writer) error {
	tell := func(line string) { fmt.Fprintln(progress, line) }
	rec, err := readProcesses(c.Data)
	if err == nil && rec.Up.alive() {
		if err := awaitReady(ctx, c.Data, rec.Up, tell); err != nil {
			return tarn.Unavailable("Tarn runs on %s, but does not answer at %s: %w", c.Data, rec.API, err).
				WithHint("see " + c.logPath() + "; tarn down --data " + c.Data + " stops it")
		}
		tell("Tarn is already running: " + apiURL(rec.API, c))
		return nil
	}
	if err != nil { // nothing of ours can have it
		for _, note := range []string{c.sharedAddressTaken(ctx), c.newDirectories(ctx)} {
			if note != "" {
				tell(note)
			}
		}
	}
	log, err := openLog(c.logPath())
	if err != nil {
		return err
	}
	defer log.Close()
	begin, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(exe, append([]string{"up"}, append(c.args(), c.storage.takeOverArgs()...)...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start tarn up: %w", err)
	}
	started := time.Now()
	child := identify(cmd.Process.Pid)
	wait, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	reaped := make(chan error, 1)
	go func() {
		// Reaped here, so that an early end is seen as an end and not as a
		// zombie.
		reaped <- cmd.Wait()
		cancel(errEnded)
	}()
	tell("starting Tarn (log: " + c.logPath() + ")")
	err = awaitReady(wait, c.Data, child, tell)
	switch {
	case err == nil:
		tell(fmt.Sprintf("Tarn runs at %s after %s", apiURL(c.API, c), time.Since(started).Round(time.Millisecond)))
		return nil
	case errors.Is(err, errEnded):
		return lastWords(c, begin, <-reaped)
	case ctx.Err() != nil:
		return err
	}
	return tarn.Unavailable("start Tarn on %s: %w; it goes on starting", c.Data, err).
		WithHint("see " + c.logPath() + "; tarn down --data " + c.Data + " stops it")
}

func openLog(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
}

// errEnded means that a `tarn up` ended before it answered.
var errEnded = errors.New("the process has ended")

// lastWords is the error of a `tarn up` that ended: what it and its children
// said last on standard error, which is the log from begin on.
func lastWords(c serverConfig, begin int64, end error) error {
	var said []string
	hint := "see " + c.logPath()
	for _, line := range strings.Split(tailFrom(c.logPath(), begin), "\n") {
		if text, ok := strings.CutPrefix(line, "tarn: "); ok && !slices.Contains(said, text) {
			said = append(said, text)
		}
		if text, ok := strings.CutPrefix(line, "hint: "); ok {
			hint = text + "; log: " + c.logPath()
		}
	}
	switch n := len(said); {
	case n == 0:
		said = []string{"start Tarn on " + c.Data + ": it ended without a word"}
	case n > 1 && strings.HasSuffix(said[n-1], doesNotStart):
		// That one only says that the others stand above.
		said = said[:n-1]
		said[0] = "start Tarn on " + c.Data + ": " + said[0]
	}
	failure := tarn.Unavailable
	var exit *exec.ExitError
	if errors.As(end, &exit) && exit.ExitCode() == exitUsage {
		failure = tarn.Invalid
	}
	return failure("%s", strings.Join(said, "\n      ")).WithHint(hint)
}

func apiURL(addr string, c serverConfig) string {
	if c.TLSCert != "" {
		return "https://" + addr
	}
	return "http://" + addr
}

// awaitReady waits until the supervisor up has taken the data directory and
// its API answers. An earlier one's control may still answer before.
func awaitReady(ctx context.Context, data string, up process, tell func(string)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 3*time.Minute, errors.New("no answer within 3 minutes"))
	defer cancel()
	return telling(tell, "waiting for Tarn to answer", nil, func() error {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			if !up.alive() {
				return errEnded
			}
			// Without a record, or with an earlier one, it has not begun.
			if rec, err := readProcesses(data); err == nil && rec.Up == up && ready(ctx, rec.API) {
				return nil
			}
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-tick.C:
			}
		}
	})
}

func ready(ctx context.Context, addr string) bool {
	// Whoever has the port may be another program, and mute.
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for _, scheme := range []string{"http", "https"} {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+addr+readyPath, nil)
		if err != nil {
			return false
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			continue
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	}
	return false
}

// tailFrom returns what was logged after offset.
func tailFrom(path string, offset int64) string {
	b, err := os.ReadFile(path)
	if err != nil || int64(len(b)) < offset {
		return ""
	}
	return string(b[offset:])
}
