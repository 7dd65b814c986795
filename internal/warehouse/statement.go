package warehouse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/ipc"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/catalog"
	"github.com/tarndb/tarn/internal/warehouse/engine"
)

// arrowBatch is a batch of a result.
type arrowBatch = arrow.RecordBatch

// State is where a statement is, in the published words.
//
//	PENDING ─▶ RUNNING ─▶ SUCCEEDED ─▶ CLOSED
//	   └──────────┴─▶ FAILED, CANCELED
type State string

// The states.
const (
	Pending   State = "PENDING"
	Running   State = "RUNNING"
	Succeeded State = "SUCCEEDED"
	Failed    State = "FAILED"
	Canceled  State = "CANCELED"
	Closed    State = "CLOSED"
)

// Over tells whether a state is final.
func (s State) Over() bool { return s != Pending && s != Running }

// Request is what is asked of a warehouse.
type Request struct {
	SQL       string
	Catalog   string // of names without one; "" = lake
	Schema    string // "" = default
	Params    []Parameter
	RowLimit  int64  // 0 = none
	ByteLimit int64  // of the result; 0 = MostBytes
	Address   string // of who asks, and its program: for the audit
	Agent     string
}

// Parameter is the value of :name in a statement.
type Parameter struct {
	Name  string
	Type  string  // of SQL; "" = STRING
	Value *string // nil = NULL
}

// MostBytes bounds a result, in bytes of Arrow.
const MostBytes = 10 << 30

// MostText bounds a statement, in bytes, as published.
const MostText = 16 << 20

var typeName = regexp.MustCompile(`^[A-Za-z_ ]+(\(\s*\d+\s*(,\s*\d+\s*)?\))?$`)

var parameterName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func (q *Request) complete() error {
	if strings.TrimSpace(q.SQL) == "" {
		return tarn.Invalid("statement: is empty")
	}
	if len(q.SQL) > MostText {
		return tarn.Invalid("statement: has %d bytes, at most %d are taken", len(q.SQL), MostText)
	}
	for _, p := range q.Params {
		if !parameterName.MatchString(p.Name) {
			return tarn.Invalid("parameters: %q is not a name", p.Name)
		}
		if p.Type != "" && !typeName.MatchString(p.Type) {
			return tarn.Invalid("parameters: %q is not a type", p.Type)
		}
	}
	if q.Catalog == "" {
		q.Catalog = catalog.Default
	}
	if q.Schema == "" {
		q.Schema = "default"
	}
	if q.ByteLimit == 0 {
		q.ByteLimit = MostBytes
	}
	return nil
}

// duckType is the parameter's type in DuckDB's words.
func (p Parameter) duckType() string {
	switch t := strings.ToUpper(strings.TrimSpace(p.Type)); t {
	case "", "STRING":
		return "VARCHAR"
	case "INT":
		return "INTEGER"
	case "LONG":
		return "BIGINT"
	case "SHORT":
		return "SMALLINT"
	case "BYTE":
		return "TINYINT"
	case "BINARY":
		return "BLOB"
	case "TIMESTAMP":
		return "TIMESTAMPTZ"
	case "TIMESTAMP_NTZ":
		return "TIMESTAMP"
	default:
		return t
	}
}

// Statement is one statement and, when it has ended, its result.
type Statement struct {
	ID  string
	Who tarn.Principal
	Request
	w      *Warehouse
	dir    string
	cancel context.CancelCauseFunc
	done   chan struct{} // closed at the end

	mu        sync.Mutex // guards the rest
	state     State
	submitted time.Time
	begun     time.Time
	over      time.Time
	err       error
	result    Result
	kind      string // SELECT, INSERT, …
	format    string // of the answer
}

// Result is what there is of a statement's rows.
type Result struct {
	Schema    *arrow.Schema // nil = the statement has no result
	Chunks    []Chunk
	Rows      int64
	Bytes     int64
	Truncated bool // rows were left out by the limit on rows
	// TooMany: the limit on bytes was met.
	TooMany bool
}

// Chunk is a part of a result, a file with one Arrow stream.
type Chunk struct {
	First int64 // row
	Rows  int64
	Bytes int64
}

// Status is what can be told of a statement now.
type Status struct {
	State  State
	Err    error // of FAILED and CANCELED
	Result Result
	Kind   string
}

// Status tells of the statement.
func (s *Statement) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Status{s.state, s.err, s.result, s.kind}
}

func (s *Statement) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state, s.begun = Running, time.Now().UTC()
}

var errCanceled = errors.New("the statement was canceled")

func (s *Statement) finish(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = time.Now().UTC()
	switch {
	case err == nil:
		s.state = Succeeded
	case errors.Is(err, errCanceled):
		s.state, s.err = Canceled, errCanceled
	default:
		s.state, s.err = Failed, err
	}
	close(s.done)
}

func (s *Statement) ended() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over
}

// Wait waits until the statement has ended, at most so long.
func (s *Statement) Wait(ctx context.Context, most time.Duration) {
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-s.done:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// Cancel ends the statement; one that has ended stays as it is.
func (s *Statement) Cancel() { s.cancel(errCanceled) }

// Progress tells how much is done, in percent; -1 = unknown.
func (s *Statement) Progress(ctx context.Context) float64 { return s.w.process.Progress(ctx, s.ID) }

func (s *Statement) chunkPath(i int) string { return filepath.Join(s.dir, itoa(i)+".arrow") }

// OpenChunk opens a part of the result, an Arrow stream.
func (s *Statement) OpenChunk(i int) (*os.File, Chunk, error) {
	st := s.Status()
	if st.State != Succeeded {
		return nil, Chunk{}, tarn.Conflict("the statement is %s and has no result", st.State)
	}
	if i < 0 || i >= len(st.Result.Chunks) {
		return nil, Chunk{}, tarn.NotFound("there is no chunk %d: the result has %d", i, len(st.Result.Chunks))
	}
	f, err := os.Open(s.chunkPath(i))
	if errors.Is(err, os.ErrNotExist) {
		return nil, Chunk{}, tarn.NotFound("the result is no longer kept")
	}
	return f, st.Result.Chunks[i], err
}

// EachBatch reads a part of the result.
func (s *Statement) EachBatch(i int, do func(arrow.RecordBatch) error) error {
	f, _, err := s.OpenChunk(i)
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := ipc.NewReader(f)
	if err != nil {
		return err
	}
	defer r.Release()
	for r.Next() {
		if err := do(r.RecordBatch()); err != nil {
			return err
		}
	}
	if err := r.Err(); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// chunkBytes is when a chunk is full, in bytes of Arrow.
const chunkBytes = 4 << 20

// keeper writes a result into chunks.
type keeper struct {
	s      *Statement
	result Result
	file   *os.File
	out    *ipc.Writer
	chunk  Chunk
}

// add keeps a batch; io.EOF when the limit on rows is met.
func (k *keeper) add(rec arrow.RecordBatch) error {
	if rec.NumRows() == 0 {
		return nil
	}
	if limit := k.s.RowLimit; limit > 0 && k.result.Rows+rec.NumRows() > limit {
		if rec = rec.NewSlice(0, limit-k.result.Rows); true {
			defer rec.Release()
		}
		k.result.Truncated = true
	}
	size := batchBytes(rec)
	if k.result.Bytes+size > k.s.ByteLimit {
		k.result.TooMany, k.result.Truncated = true, true
		return io.EOF
	}
	if k.out == nil {
		f, err := os.OpenFile(k.s.chunkPath(len(k.result.Chunks)), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("keep the result: %w", err)
		}
		k.file, k.out, k.chunk = f, ipc.NewWriter(f, ipc.WithSchema(k.result.Schema)), Chunk{First: k.result.Rows}
	}
	if rec.NumRows() > 0 {
		if err := k.out.Write(rec); err != nil {
			return fmt.Errorf("keep the result: %w", err)
		}
	}
	k.chunk.Rows += rec.NumRows()
	k.chunk.Bytes += size
	k.result.Rows += rec.NumRows()
	k.result.Bytes += size
	if k.chunk.Bytes >= chunkBytes {
		if err := k.cut(); err != nil {
			return err
		}
	}
	if k.result.Truncated {
		return io.EOF
	}
	return nil
}

func (k *keeper) cut() error {
	if k.out == nil {
		return nil
	}
	err := errors.Join(k.out.Close(), k.file.Close())
	k.out = nil
	k.result.Chunks = append(k.result.Chunks, k.chunk)
	if errors.Is(err, syscall.ENOSPC) {
		return tarn.Unavailable("keep the result: %w", err)
	}
	return err
}

// keep stores rows as the statement's result.
func (s *Statement) keep(rows *engine.Rows) error {
	k := &keeper{s: s, result: Result{Schema: rows.Schema()}}
	err := drain(rows, k.add)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if err = errors.Join(err, k.cut()); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.result = k.result
	return nil
}

// keepBatch stores one batch as the result, and releases it.
func (s *Statement) keepBatch(rec arrow.RecordBatch) error {
	defer rec.Release()
	k := &keeper{s: s, result: Result{Schema: rec.Schema()}}
	if err := k.add(rec); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := k.cut(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.result = k.result
	return nil
}

// Record is what a journal keeps of a statement.
type Record struct {
	ID        string
	Principal string
	Text      string
	Kind      string
	State     State
	Error     string
	Submitted time.Time
	Begun     time.Time // zero = never
	Ended     time.Time
	Rows      int64
	Bytes     int64
}

// Record tells what a journal keeps.
func (s *Statement) Record() Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := Record{ID: s.ID, Principal: s.Who.Name, Text: s.SQL, Kind: s.kind, State: s.state, Submitted: s.submitted, Begun: s.begun, Ended: s.over, Rows: s.result.Rows, Bytes: s.result.Bytes}
	if s.err != nil {
		r.Error = s.err.Error()
	}
	return r
}

func (s *Statement) setKind(kind string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kind = kind
}

// systemMemory is what the computer has, in bytes.
func systemMemory() int64 {
	var i syscall.Sysinfo_t
	if syscall.Sysinfo(&i) != nil {
		return 4 << 30
	}
	return int64(i.Totalram) * int64(i.Unit)
}

// batchBytes is the memory of a batch; of a slice, what its rows take on average.
func batchBytes(rec arrow.RecordBatch) int64 {
	n := int64(0)
	for _, c := range rec.Columns() {
		n += dataBytes(c.Data())
	}
	return n
}

func dataBytes(d arrow.ArrayData) int64 {
	n, whole := int64(0), int64(d.Len()+d.Offset())
	for _, b := range d.Buffers() {
		if b != nil {
			n += int64(b.Len())
		}
	}
	for _, c := range d.Children() {
		n += dataBytes(c)
	}
	return n * int64(d.Len()) / max(whole, 1)
}

// Format is the form in which the result was asked for; SetFormat keeps it.
func (s *Statement) Format() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.format
}

// SetFormat keeps the form in which the result is asked for.
func (s *Statement) SetFormat(format string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.format = format
}
