// Command fuse measures single file operations on a mounted volume of the page
// store against the same on the file system the store lives on: microseconds
// each takes its caller, and processor time of caller and server together. It
// does so for each way that requests reach the server: the device, and rings
// where the kernel offers them.
//
//	go run ./bench/fuse [-json] [-case REGEX] [-seconds N] [-rounds N]
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn/bench/report"
	"github.com/tarndb/tarn/internal/layer"
	"github.com/tarndb/tarn/internal/pagestore"
	"github.com/tarndb/tarn/internal/volumefs"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	run := run
	if len(os.Args) > 1 && os.Args[1] == clientMark {
		run = runClient
	}
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench fuse:", err)
		os.Exit(1)
	}
}

// operations are measured by so many callers at the same time.
var operations = []struct {
	name    string
	callers int
}{
	{"pwrite", 1}, {"pwrite", 2}, {"lseek-after-pwrite", 1}, {"read-miss", 1}, {"cold-scan", 1}, {"pwrite-fsync", 1},
}

func run(ctx context.Context) (err error) {
	o, err := report.ParseFlags()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(benchDir(), "tarn-bench-fuse-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	native := filepath.Join(dir, "native")
	if err := os.Mkdir(native, 0o755); err != nil {
		return err
	}
	store, err := pagestore.Open(ctx, filepath.Join(dir, "store"), pagestore.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	var cases []report.Case
	for i, way := range []struct {
		name  string
		rings volumefs.Rings
	}{{"device", volumefs.RingsNever}, {"rings", volumefs.RingsOffered}} {
		m, closed, err := mount(ctx, store, fmt.Sprintf("%032x", i+1), filepath.Join(dir, way.name), way.rings)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, closed()) }()
		if way.rings != volumefs.RingsNever && !m.OnRings() {
			fmt.Fprintln(os.Stderr, "rings are not measured: echo Y > /sys/module/fuse/parameters/enable_uring")
			continue
		}
		for _, op := range operations {
			measure := func(dir string, cpu bool) func(context.Context) (float64, error) {
				return func(ctx context.Context) (float64, error) {
					return call(ctx, dir, op.name, op.callers, o.Seconds, cpu)
				}
			}
			name := fmt.Sprintf("%s-%s-%d", way.name, op.name, op.callers)
			cases = append(cases,
				report.Case{Name: name, Unit: "µs", PeerName: "file system", Direction: report.LessIsBetter,
					Ours: measure(m.Dir(), false), Peer: measure(native, false)},
				report.Case{Name: name + "-cpu", Unit: "cpu µs", PeerName: "file system", Direction: report.LessIsBetter,
					Ours: measure(m.Dir(), true), Peer: measure(native, true)})
		}
	}
	return report.Run(ctx, "fuse", o, cases)
}

func benchDir() string {
	if d := os.Getenv("TARN_BENCH_DIR"); d != "" {
		return d
	}
	return "/var/tmp"
}

func mount(ctx context.Context, store *pagestore.Store, id, dir string, r volumefs.Rings) (*volumefs.Directory, func() error, error) {
	timeline := timelineID(id)
	if err := store.Create(ctx, timeline, layer.NewFile{Mode: unix.S_IFDIR | 0o755}); err != nil {
		return nil, nil, err
	}
	v, err := store.OpenVolume(ctx, timeline)
	if err != nil {
		return nil, nil, err
	}
	m, err := volumefs.Mount(ctx, dir, v, volumefs.Options{Rings: r})
	if err != nil {
		return nil, nil, errors.Join(err, v.Close())
	}
	return m, func() error { return errors.Join(m.Unmount(context.WithoutCancel(ctx)), v.Close()) }, nil
}

// call lets so many client processes do an operation for a while and gives what
// one operation took: of the time that passed, or of processors' time.
func call(ctx context.Context, dir, op string, callers, seconds int, cpu bool) (took float64, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	clients := make([]*client, callers)
	for i := range clients {
		c, err := startClient(ctx, self, clientMark, filepath.Join(dir, fmt.Sprint("f", i)), op, strconv.Itoa(seconds))
		if err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, c.end()) }()
		clients[i] = c
	}
	for _, c := range clients { // until their files are filled
		if _, err := c.hear(); err != nil {
			return 0, err
		}
	}
	before, err := processorTime()
	if err != nil {
		return 0, err
	}
	for _, c := range clients {
		if _, err := fmt.Fprintln(c.in, "go"); err != nil {
			return 0, err
		}
	}
	var count, wall, used float64
	for _, c := range clients {
		var n, w, u float64
		line, err := c.hear()
		if err != nil {
			return 0, err
		}
		if _, err := fmt.Sscan(line, &n, &w, &u); err != nil {
			return 0, fmt.Errorf("a client said %q: %w", line, err)
		}
		count, wall, used = count+n, wall+w, used+u
	}
	after, err := processorTime()
	if err != nil {
		return 0, err
	}
	if cpu {
		return (used + after - before) / count, nil
	}
	return wall / count, nil
}

// client is a process that does operations.
type client struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startClient(ctx context.Context, program string, args ...string) (*client, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &client{cmd: cmd, in: in, out: bufio.NewReader(out)}, cmd.Start()
}

func (c *client) hear() (string, error) { return c.out.ReadString('\n') }

func (c *client) end() error { return errors.Join(c.in.Close(), c.cmd.Wait()) }

// processorTime is what this process has used, in microseconds.
func processorTime() (float64, error) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	return float64(u.Utime.Sec+u.Stime.Sec)*1e6 + float64(u.Utime.Usec+u.Stime.Usec), nil
}
