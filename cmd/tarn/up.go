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
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tarndb/tarn"
)

// exitConfig is the exit status of a process that can never run as configured
// (EX_CONFIG of sysexits.h): the supervisor does not start it again.
const exitConfig = 78

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
			return up(cmd.Context(), c)
		},
	}
	c.flags(cmd.Flags())
	cmd.Flags().BoolVar(&detach, "detach", false, "return when Tarn answers and leave it running")
	return cmd
}

func up(ctx context.Context, c serverConfig) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	s := &supervisor{data: c.Data, args: c.args(), api: c.API, log: log}
	err := s.run(ctx)
	if errors.Is(err, errHeld) {
		return tarn.Conflict("start Tarn on %s: %w", c.Data, err).WithHint("tarn status, or tarn down to stop it")
	}
	return err
}

// upDetached starts `tarn up` in a session of its own and waits until it
// answers. An already running Tarn is a success: the command is idempotent.
func upDetached(ctx context.Context, c serverConfig, progress io.Writer) error {
	if rec, err := readProcesses(c.Data); err == nil && rec.Up.alive() {
		if err := awaitReady(ctx, rec.API, rec.Up); err != nil {
			return err
		}
		fmt.Fprintf(progress, "Tarn is already running: %s\n", apiURL(rec.API, c))
		return nil
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	logPath := filepath.Join(c.Data, "log", "tarn.log")
	if err := os.MkdirAll(filepath.Dir(logPath), 0o755); err != nil {
		return err
	}
	logFile, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return err
	}
	defer logFile.Close()
	begin, err := logFile.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	cmd := exec.Command(exe, append([]string{"up"}, c.args()...)...)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start tarn up: %w", err)
	}
	started := time.Now()
	child := identify(cmd.Process.Pid)
	// Reaped here, so that an early end is seen as an end and not as a zombie.
	ended := make(chan struct{})
	go func() {
		// The exit status says less than the log, which is shown below.
		_ = cmd.Wait()
		close(ended)
	}()
	wait, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-ended:
			cancel()
		case <-wait.Done():
		}
	}()
	fmt.Fprintf(progress, "starting Tarn (log: %s)\n", logPath)
	if err := awaitReady(wait, c.API, child); err != nil {
		return tarn.Unavailable("start Tarn: it ended or does not answer: %w\n%s", err, tailFrom(logPath, begin)).WithHint("see " + logPath)
	}
	fmt.Fprintf(progress, "Tarn runs at %s after %s\n", apiURL(c.API, c), time.Since(started).Round(time.Millisecond))
	return nil
}

func apiURL(addr string, c serverConfig) string {
	if c.TLSCert != "" {
		return "https://" + addr
	}
	return "http://" + addr
}

// awaitReady asks the API until control and its node both answer.
func awaitReady(ctx context.Context, addr string, up process) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 3*time.Minute, errors.New("no answer within 3 minutes"))
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if !up.alive() {
			return errors.New("the process has ended")
		}
		if ready(ctx, addr) {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

func ready(ctx context.Context, addr string) bool {
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

// tailFrom returns what was logged after offset, its last lines at most.
func tailFrom(path string, offset int64) string {
	b, err := os.ReadFile(path)
	if err != nil || int64(len(b)) < offset {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(b[offset:])), "\n")
	if len(lines) > 15 {
		lines = lines[len(lines)-15:]
	}
	return strings.Join(lines, "\n")
}
