package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/postgres"
	"github.com/tarndb/tarn/internal/volumefs"
)

// process is one line of the process record: a pid is only ever signalled when
// its start time still matches, so that a reused pid is never hit.
type process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since boot, field 22 of /proc/<pid>/stat
}

// processes is `<data>/processes.json`: who runs on this data directory.
type processes struct {
	Up      process `json:"up"`
	Control process `json:"control"`
	Node    process `json:"node"`
	API     string  `json:"api"` // address of the API and console
}

func processesFile(data string) string { return filepath.Join(data, "processes.json") }

func readProcesses(data string) (processes, error) {
	var p processes
	b, err := os.ReadFile(processesFile(data))
	if err != nil {
		return p, err
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return p, fmt.Errorf("read %s: %w", processesFile(data), err)
	}
	return p, nil
}

func (p processes) write(data string) error {
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	tmp := processesFile(data) + ".tmp"
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, processesFile(data))
}

// processes lists what runs here beside the computes, for `tarn status`.
func (c *serverConfig) processes() []wire.Process {
	rec, err := readProcesses(c.Data)
	if err != nil {
		return nil // started by hand, without a supervisor
	}
	var list []wire.Process
	for role, p := range map[string]process{"up": rec.Up, "control": rec.Control, "node": rec.Node} {
		if p.alive() {
			list = append(list, wire.Process{Role: role, PID: p.PID})
		}
	}
	if r, err := postgres.ReadRecord(c.controlPIDFile()); err == nil && r.Alive() {
		list = append(list, wire.Process{Role: "control-postgres", PID: r.PID})
	}
	slices.SortFunc(list, func(a, b wire.Process) int { return strings.Compare(a.Role, b.Role) })
	return list
}

// identify reads the start time of a live process; a zero Start means it is gone.
// A process whose first thread has ended lives on while others have not.
func identify(pid int) process {
	p, _ := look(pid)
	return p
}

// look is identify; doomed tells that the process was killed and has not ended:
// one of its threads waits in the kernel.
func look(pid int) (p process, doomed bool) {
	gone := process{PID: pid}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return gone, false
	}
	// The command's name stands in parentheses and may hold anything.
	_, rest, ok := strings.Cut(string(b[strings.LastIndexByte(string(b), ')')+1:]), " ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 || fields[0] == "Z" && fields[17] == "1" { // the only thread
		return gone, false
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return gone, false
	}
	return process{PID: pid, Start: start}, fields[0] == "Z" || killPending(pid)
}

// killPending tells whether SIGKILL was sent to a process and is not done.
func killPending(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		name, set, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name != "SigPnd" && name != "ShdPnd" {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(set), 16, 64)
		if err == nil && n&(1<<(syscall.SIGKILL-1)) != 0 {
			return true
		}
	}
	return false
}

// relief is what helps a process to end that was killed and waits in the kernel.
type relief func(process)

// noRelief is for processes that nothing of the kind happens to.
func noRelief(process) {}

// nodeRelief aborts the mounts of a killed node. What one of its own threads had
// asked of them nobody answers any more, and they would end only with that
// thread.
func nodeRelief(data string) relief {
	return func(p process) {
		if now, doomed := look(p.PID); doomed && now == p {
			// Tried again; and it may end without.
			_ = volumefs.Abort(filepath.Join(data, "mnt"))
		}
	}
}

func (p process) alive() bool { return p.Start != 0 && identify(p.PID).Start == p.Start }

func (p process) signal(s syscall.Signal) {
	if p.alive() {
		// The process may end in between: nothing is left to signal then.
		_ = syscall.Kill(p.PID, s)
	}
}

// command is what a child of the supervisor is started with.
func (c *serverConfig) command(role string) []string {
	return append([]string{"serve", role}, c.args()...)
}

// runs tells whether p is alive and was executed with these arguments; the order
// of flags does not matter, nor what a node handed over to itself.
func (p process) runs(args []string) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(p.PID) + "/cmdline")
	if err != nil || !p.alive() {
		return false
	}
	have := strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")[1:]
	if i := slices.Index(have, "--"+handedFlag); i >= 0 && i+2 == len(have) {
		have = have[:i]
	}
	args = slices.Clone(args)
	slices.Sort(have)
	slices.Sort(args)
	return slices.Equal(have, args)
}

// watch returns true once p is gone, and false when ctx ends before.
func (p process) watch(ctx context.Context, help relief) bool {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for p.alive() {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
			help(p)
		}
	}
	return true
}

// awaitEnd returns nil once p is gone.
func (p process) awaitEnd(ctx context.Context, help relief) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for p.alive() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
			help(p)
		}
	}
	return nil
}

// How long a process may take to end by itself. A node's computes write
// their last checkpoints; a supervisor waits for control, then for the node.
const (
	controlGrace = 30 * time.Second
	nodeGrace    = 2 * time.Minute
	maxDrain     = 2 * time.Minute // that sessions of the gateway may have on top
	upGrace      = controlGrace + maxDrain + nodeGrace + 10*time.Second
)

// end asks p to end, and kills it when it has not after grace. killed tells
// that it left work to sweep. It asks every second: a node that executes its
// program anew does not hear it just then.
func (p process) end(ctx context.Context, grace time.Duration, help relief) (killed bool, err error) {
	patient, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	for patient.Err() == nil {
		p.signal(syscall.SIGTERM)
		second, cancel := context.WithTimeout(patient, time.Second)
		err := p.awaitEnd(second, help)
		cancel()
		if err == nil {
			return false, nil
		}
	}
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	p.signal(syscall.SIGKILL)
	last, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := p.awaitEnd(last, help); err != nil {
		return true, fmt.Errorf("process %d outlives SIGKILL: %w", p.PID, err)
	}
	return true, nil
}

// stopProcesses ends what the record names, doors first, so that no request
// arrives at a node that is closing. tell hears what takes long.
func stopProcesses(ctx context.Context, data string, rec processes, tell func(string)) error {
	var errs []error
	for _, one := range [...]struct {
		p     process
		name  string
		grace time.Duration
		help  relief
	}{{rec.Up, "tarn up", upGrace, noRelief}, {rec.Control, "control", controlGrace + maxDrain, noRelief}, {rec.Node, "node", nodeGrace, nodeRelief(data)}} {
		what := fmt.Sprintf("waiting for %s (process %d) to end", one.name, one.p.PID)
		err := telling(tell, what, nil, func() error {
			killed, err := one.p.end(ctx, one.grace, one.help)
			if killed {
				tell(fmt.Sprintf("%s (process %d) did not end within %s and was killed", one.name, one.p.PID, one.grace))
			}
			return err
		})
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// telling runs work and says what it is when it takes more than two seconds,
// and again every ten. why may add what it waits for; nil or "" = nothing.
func telling(tell func(string), what string, why func() string, work func() error) error {
	done, told := make(chan struct{}), make(chan struct{})
	began := time.Now()
	go func() {
		defer close(told)
		next := time.NewTimer(patience)
		defer next.Stop()
		for {
			select {
			case <-done:
				return
			case <-next.C:
				line := fmt.Sprintf("%s (%s) …", what, time.Since(began).Round(time.Second))
				if why != nil {
					if reason := why(); reason != "" {
						line += " " + reason
					}
				}
				tell(line)
				next.Reset(10 * time.Second)
			}
		}
	}()
	err := work()
	close(done)
	<-told
	return err
}
