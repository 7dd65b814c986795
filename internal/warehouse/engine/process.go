package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/ipc"

	"github.com/tarndb/tarn"
)

const socketName = "engine.sock"

// Error is what DuckDB says of a statement.
type Error struct{ Text string }

func (e *Error) Error() string { return e.Text }

// Process runs an engine when it is needed. It is safe for concurrent use.
//
//	stopped ──statement──▶ running ──Stop, a crash──▶ stopped
type Process struct {
	options Options
	command func(Options) *exec.Cmd
	log     *slog.Logger
	http    *http.Client

	mu      sync.Mutex // held while the process starts; guards running
	running *run
}

// run is one life of the process.
type run struct {
	cmd   *exec.Cmd
	stdin io.Closer
	tail  *tail
	ended chan struct{} // closed when it has ended; why is then final
	why   string
}

// NewProcess builds the other side of an engine; command gives the program that
// calls Serve with its standard input.
func NewProcess(o Options, command func(Options) *exec.Cmd, log *slog.Logger) *Process {
	p := &Process{options: o, command: command, log: log}
	var d net.Dialer
	p.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.DialContext(ctx, "unix", filepath.Join(o.Dir, socketName))
		},
		MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute, DisableCompression: true,
	}}
	return p
}

// startTime is how long a process may take until it answers.
const startTime = time.Minute

// Start makes sure that the process runs.
func (p *Process) Start(ctx context.Context) error {
	_, err := p.start(ctx)
	return err
}

func (p *Process) start(ctx context.Context) (*run, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := p.running; r != nil {
		select {
		case <-r.ended:
		default:
			return r, nil
		}
	}
	if err := os.MkdirAll(p.options.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("start DuckDB: %w", err)
	}
	if err := os.Remove(filepath.Join(p.options.Dir, socketName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("start DuckDB: %w", err)
	}
	r := &run{cmd: p.command(p.options), tail: &tail{}, ended: make(chan struct{})}
	r.cmd.Stderr, r.cmd.Stdout = r.tail, r.tail
	stdin, err := r.cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start DuckDB: %w", err)
	}
	r.stdin = stdin
	if err := r.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start DuckDB: %w", err)
	}
	go func() { // joined by stop, and by whoever reads ended
		err := r.cmd.Wait()
		r.why = strings.TrimSpace(r.tail.String())
		if r.why == "" && err != nil {
			r.why = err.Error()
		} else if err != nil {
			r.why = err.Error() + ": " + r.why
		}
		close(r.ended)
	}()
	p.running = r
	if err := p.awaitSocket(ctx, r); err != nil {
		r.stop()
		return nil, err
	}
	p.log.InfoContext(ctx, "warehouse process started", "path", p.options.Dir)
	return r, nil
}

// awaitSocket waits until the process answers.
func (p *Process) awaitSocket(ctx context.Context, r *run) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	var d net.Dialer
	for {
		c, err := d.DialContext(ctx, "unix", filepath.Join(p.options.Dir, socketName))
		if err == nil {
			return c.Close()
		}
		select {
		case <-r.ended:
			return tarn.Unavailable("DuckDB does not start: %s", r.why)
		case <-ctx.Done():
			return tarn.Unavailable("DuckDB does not start: %w", context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// stop ends a life: by the end of its input, and when that is of no use by force.
func (r *run) stop() {
	_ = r.stdin.Close()
	timer := time.NewTimer(5 * time.Second)
	defer timer.Stop()
	select {
	case <-r.ended:
		return
	case <-timer.C:
	}
	_ = r.cmd.Process.Kill()
	<-r.ended
}

// Stop ends the process and what runs on it; a later statement starts another.
func (p *Process) Stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running != nil {
		p.running.stop()
		p.running = nil
		p.http.CloseIdleConnections()
	}
}

// Running tells whether the process runs.
func (p *Process) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running == nil {
		return false
	}
	select {
	case <-p.running.ended:
		return false
	default:
		return true
	}
}

// Rows is a result on its way. One goroutine uses it.
type Rows struct {
	res    *http.Response
	reader *ipc.Reader
	run    *run
	ctx    context.Context
	over   bool
}

// Run runs a statement. Close the rows; ctx ends the statement until then.
func (p *Process) Run(ctx context.Context, st Statement) (*Rows, error) {
	r, err := p.start(ctx)
	if err != nil {
		return nil, err
	}
	res, err := p.post(ctx, r, pathRun, st)
	if err != nil {
		return nil, err
	}
	rows := &Rows{res: res, run: r, ctx: ctx}
	if rows.reader, err = ipc.NewReader(res.Body); err != nil {
		err = rows.failure(err)
		rows.Close()
		return nil, err
	}
	return rows, nil
}

// Parse gives DuckDB's own tree of a SELECT statement, as JSON; that of another
// statement, or of a wrong one, says so in it.
func (p *Process) Parse(ctx context.Context, sql string) ([]byte, error) {
	r, err := p.start(ctx)
	if err != nil {
		return nil, err
	}
	res, err := p.post(ctx, r, pathParse, parseArg{sql})
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	return io.ReadAll(res.Body)
}

// Progress tells how much of a statement is done, in percent; -1 = unknown.
func (p *Process) Progress(ctx context.Context, id string) float64 {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://engine"+pathProgress+"?id="+url.QueryEscape(id), nil)
	if err != nil || !p.Running() {
		return -1
	}
	res, err := p.http.Do(req)
	if err != nil {
		return -1
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return -1
	}
	v, err := strconv.ParseFloat(string(b), 64)
	if err != nil {
		return -1
	}
	return v
}

func (p *Process) post(ctx context.Context, r *run, path string, v any) (*http.Response, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://engine"+path, bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	res, err := p.http.Do(req)
	if err != nil {
		return nil, r.gone(ctx, err)
	}
	if res.StatusCode != http.StatusOK {
		defer res.Body.Close()
		return nil, decode(res.Header)
	}
	return res, nil
}

// gone is the error of a connection that broke.
func (r *run) gone(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	// A broken connection is noticed before the end of the process is.
	timer := time.NewTimer(5 * time.Second)
	defer timer.Stop()
	select {
	case <-r.ended:
		why := r.why
		if why == "" {
			why = "it was stopped"
		}
		return tarn.Unavailable("the warehouse's process ended while the statement ran (%s)", why).
			WithHint("run the statement again: the process starts again with it; when it keeps ending, the statement needs more memory than there is")
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return tarn.Unavailable("the warehouse's process does not answer: %w", err)
	}
}

func decode(h http.Header) error {
	text, err := url.PathUnescape(h.Get(errorTrailer))
	if err != nil {
		text = h.Get(errorTrailer)
	}
	switch h.Get(kindHeader) {
	case duckKind:
		return &Error{text}
	case tarn.KindInvalid.String():
		return tarn.Invalid("%s", text)
	case tarn.KindUnavailable.String():
		return tarn.Unavailable("%s", text)
	}
	return errors.New(text)
}

// Schema gives the columns.
func (r *Rows) Schema() *arrow.Schema { return r.reader.Schema() }

// Next gives the next batch, valid until the next call unless retained; io.EOF
// after the last.
func (r *Rows) Next() (arrow.RecordBatch, error) {
	if r.reader.Next() {
		return r.reader.RecordBatch(), nil
	}
	r.over = true
	return nil, r.failure(r.reader.Err())
}

// failure reads how the statement ended; io.EOF when well.
func (r *Rows) failure(err error) error {
	if _, drain := io.Copy(io.Discard, r.res.Body); drain != nil {
		return r.run.gone(r.ctx, drain)
	}
	if r.res.Trailer.Get(errorTrailer) != "" {
		return decode(r.res.Trailer)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return r.run.gone(r.ctx, err)
	}
	return io.EOF
}

// Close ends the statement, when it has not ended.
func (r *Rows) Close() {
	if r.reader != nil {
		r.reader.Release()
	}
	_ = r.res.Body.Close()
}

// tail keeps the end of what the process says.
type tail struct {
	mu sync.Mutex
	b  []byte
}

const tailBytes = 2048

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.b = append(t.b, p...); len(t.b) > tailBytes {
		t.b = append([]byte(nil), t.b[len(t.b)-tailBytes:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}
