package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// instance is the Tarn under test.
type instance struct {
	program string
	data    string
	config  string // the user's configuration directory: holds the profile
	api     string
	gateway int
	pgBin   string
	bucket  *bucket // nil = none
}

func newInstance(program, dir, pgBin string) (*instance, error) {
	api, err := freePort()
	if err != nil {
		return nil, err
	}
	gateway, err := freePort()
	if err != nil {
		return nil, err
	}
	return &instance{program: program, data: filepath.Join(dir, "tarn"), config: filepath.Join(dir, "config"),
		api: "127.0.0.1:" + strconv.Itoa(api), gateway: gateway, pgBin: pgBin}, nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func (in *instance) up(ctx context.Context, more ...string) error {
	args := []string{"up", "--detach", "--data", in.data, "--listen", in.api, "--gateway-port", strconv.Itoa(in.gateway)}
	if in.pgBin != "" {
		args = append(args, "--pg-bin", in.pgBin)
	}
	if in.bucket != nil {
		args = append(args, in.bucket.flags()...)
	}
	_, err := in.tarn(ctx, append(args, more...)...)
	return err
}

// commandError is a command line that ended with an error.
type commandError struct {
	args   []string
	status int // exit status; -1 = it did not end by itself
	said   string
}

func (e *commandError) Error() string {
	return fmt.Sprintf("tarn %s: exit status %d: %s", strings.Join(e.args, " "), e.status, strings.TrimSpace(e.said))
}

// tarn runs a command line and returns its standard output.
func (in *instance) tarn(ctx context.Context, args ...string) (string, error) {
	// None of ours takes so long on any machine; a stuck one is a finding.
	limit, cancel := context.WithTimeout(ctx, 4*time.Minute)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(limit, in.program, args...)
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+in.config, "HOME="+in.config, "TARN_DATA="+in.data)
	if in.bucket != nil {
		cmd.Env = append(cmd.Env, in.bucket.env()...)
	}
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if limit.Err() != nil {
		return "", &commandError{args, -1, "it did not end within 4 minutes\n" + errs.String()}
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return "", &commandError{args, exit.ExitCode(), out.String() + errs.String()}
	}
	return out.String(), err
}

// knows says whether a command exists in this version of the program.
func (in *instance) knows(ctx context.Context, command ...string) bool {
	// The help of a missing command is its parent's.
	out, err := in.tarn(ctx, append(command, "--help")...)
	return err == nil && strings.Contains(out, "tarn "+strings.Join(command, " "))
}

// process is one of `tarn status`.
type process struct {
	Role      string `json:"role"`
	PID       int    `json:"pid"`
	Endpoint  string `json:"endpoint"`
	SocketDir string `json:"socket_dir"`
	Port      int    `json:"port"`
}

// processes lists those that serve; it waits for a control that starts again.
func (in *instance) processes(ctx context.Context) (all []process, err error) {
	err = await(ctx, "tarn status to answer", func() error {
		out, err := in.tarn(ctx, "status", "--json")
		if err != nil {
			return err
		}
		var s struct{ Processes []process }
		if err := json.Unmarshal([]byte(out), &s); err != nil {
			return err
		}
		all = s.Processes
		return nil
	})
	return all, err
}

// compute finds the Postgres of a branch, which runs.
func (in *instance) compute(ctx context.Context, branch string) (p process, err error) {
	out, err := in.tarn(ctx, "status", "--json")
	if err != nil {
		return p, err
	}
	var s struct {
		Computes  []struct{ Endpoint, Branch string }
		Processes []process
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		return p, err
	}
	for _, c := range s.Computes {
		if c.Branch != branch && !strings.HasSuffix(c.Branch, "/branches/"+branch) && !strings.HasSuffix(c.Branch, "/"+branch) {
			continue
		}
		for _, p := range s.Processes {
			if p.Role == "postgres" && p.Endpoint == c.Endpoint {
				return p, nil
			}
		}
	}
	return p, fmt.Errorf("no Postgres of branch %s runs", branch)
}

// kill sends SIGKILL.
func kill(p process) error {
	if p.PID <= 1 {
		return fmt.Errorf("no process of role %s is recorded", p.Role)
	}
	if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill %s %d: %w", p.Role, p.PID, err)
	}
	return nil
}

// recorded gives the process of a role other than postgres, which `tarn status`
// knows only while control answers.
func (in *instance) recorded(role string) (p process, err error) {
	b, err := os.ReadFile(filepath.Join(in.data, "processes.json"))
	if err != nil {
		return p, err
	}
	var rec map[string]json.RawMessage
	if err := json.Unmarshal(b, &rec); err != nil {
		return p, err
	}
	p.Role = role
	if len(rec[role]) == 0 {
		return p, nil
	}
	return p, json.Unmarshal(rec[role], &p)
}

// replaced waits until another process has the role of one that was killed.
func (in *instance) replaced(ctx context.Context, old process) error {
	return await(ctx, "a new "+old.Role, func() error {
		p, err := in.recorded(old.Role)
		if err == nil && (p.PID == old.PID || p.PID == 0) {
			err = fmt.Errorf("%d is still the recorded one", old.PID)
		}
		return err
	})
}

// clear ends Tarn, and by force what it leaves, which is an error.
func (in *instance) clear(ctx context.Context) error {
	var errs []error
	if _, err := in.tarn(ctx, "down", "--data", in.data); err != nil {
		errs = append(errs, err)
	}
	for pid, args := range in.left() {
		errs = append(errs, fmt.Errorf("a process is left: %d %s", pid, args), syscall.Kill(pid, syscall.SIGKILL))
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	errs = append(errs, err)
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], in.data+"/") {
			errs = append(errs, fmt.Errorf("a mount is left: %s", f[1]), syscall.Unmount(f[1], syscall.MNT_DETACH))
		}
	}
	return errors.Join(errs...)
}

// unmount takes away the mounts that killed processes leave.
func (in *instance) unmount() error {
	mounts, err := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], in.data+"/") {
			err = errors.Join(err, syscall.Unmount(f[1], syscall.MNT_DETACH))
		}
	}
	return err
}

// left lists processes whose command line names the data directory.
func (in *instance) left() map[int]string {
	found := map[int]string{}
	entries, _ := os.ReadDir("/proc") // always there on Linux
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if b, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline")); err == nil && bytes.Contains(b, []byte(in.data)) {
			found[pid] = strings.ReplaceAll(string(b), "\x00", " ")
		}
	}
	return found
}

// patience is how long anything may take that works at all.
const patience = 2 * time.Minute

// finding is what no second try would make good.
type finding string

func (f finding) Error() string { return string(f) }

// await tries f until it works or finds something.
func await(ctx context.Context, what string, f func() error) error {
	began := time.Now()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		if _, found := errors.AsType[finding](err); found {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if time.Since(began) > patience {
			return fmt.Errorf("wait for %s: not within %s: %w", what, patience, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
