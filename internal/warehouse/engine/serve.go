package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/warehouse/duck"
)

// Serve is the engine's process. It answers until stdin ends, which is held by
// whoever started it and so ends with that process, however that ends.
func Serve(ctx context.Context, o Options, stdin io.Reader) error {
	library, err := duck.Load(o.Library)
	if err != nil {
		return err
	}
	// Go's part only passes batches on; the memory is DuckDB's.
	debug.SetGCPercent(50)
	spill := filepath.Join(o.Dir, "spill")
	if err := errors.Join(os.RemoveAll(spill), os.MkdirAll(spill, 0o700)); err != nil {
		return err
	}
	if o.Threads <= 0 {
		o.Threads = runtime.GOMAXPROCS(0)
	}
	s := &server{library: library, spill: spill, threads: o.Threads, running: map[string]*duck.Database{}, spare: make(chan *duck.Database, 1)}
	if s.parser, err = s.open(); err != nil {
		return err
	}
	defer s.close()
	socket := filepath.Join(o.Dir, socketName)
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+pathRun, s.run)
	mux.HandleFunc("POST "+pathParse, s.parse)
	mux.HandleFunc("GET "+pathProgress, s.progress)
	srv := &http.Server{Handler: mux, BaseContext: func(net.Listener) context.Context { return ctx }}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, stdin)
		close(ended)
	}()
	s.refill()
	select {
	case err := <-done:
		return err
	case <-ended:
	case <-ctx.Done():
	}
	cancel()
	_ = srv.Close()
	<-done
	s.wait.Wait()
	return nil
}

type server struct {
	library *duck.Library
	spill   string
	threads int
	spare   chan *duck.Database // opened before it is needed: opening takes tens of milliseconds
	wait    sync.WaitGroup

	parsing sync.Mutex // one statement at a time is parsed
	parser  *duck.Database

	mu      sync.Mutex // guards running
	running map[string]*duck.Database
}

// open makes a database that nothing from outside reaches. What a statement may
// open is added to it by lock.
func (s *server) open() (*duck.Database, error) {
	return s.library.Open(map[string]string{
		"threads": strconv.Itoa(s.threads), "temp_directory": s.spill, "autoinstall_known_extensions": "false", "autoload_known_extensions": "false",
		"allow_community_extensions": "false", "allow_unsigned_extensions": "false", "allow_persistent_secrets": "false",
		"preserve_insertion_order": "true",
	})
}

func (s *server) close() {
	s.wait.Wait()
	s.parser.Close()
	select {
	case db := <-s.spare:
		db.Close()
	default:
	}
}

// refill opens the next spare.
func (s *server) refill() {
	s.wait.Go(func() {
		db, err := s.open()
		if err != nil {
			return // the statement that misses it tells
		}
		select {
		case s.spare <- db:
		default:
			db.Close()
		}
	})
}

func (s *server) take() (*duck.Database, error) {
	select {
	case db := <-s.spare:
		return db, nil
	default:
		return s.open()
	}
}

func (s *server) run(w http.ResponseWriter, r *http.Request) {
	var st Statement
	if err := json.NewDecoder(r.Body).Decode(&st); err != nil {
		refuse(w, tarn.Invalid("read the statement: %w", err))
		return
	}
	db, err := s.take()
	if err != nil {
		refuse(w, err)
		return
	}
	s.wait.Add(1)
	defer s.wait.Done()
	defer s.refill()
	defer db.Close()
	s.mu.Lock()
	s.running[st.ID] = db
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.running, st.ID)
		s.mu.Unlock()
	}()
	ctx := r.Context()
	if err := prepare(ctx, db, st); err != nil {
		refuse(w, err)
		return
	}
	params := make([]duck.Param, 0, len(st.Params))
	for _, p := range st.Params {
		params = append(params, duck.Param{Name: p.Name, Text: p.Text})
	}
	rows, err := db.Query(ctx, st.SQL, params)
	if err != nil {
		refuse(w, err)
		return
	}
	defer rows.Close()
	w.Header().Set("Trailer", errorTrailer+", "+kindHeader)
	w.WriteHeader(http.StatusOK)
	if err := send(w, rows, st.MaxBatch); err != nil {
		k, text := encode(err)
		w.Header().Set(kindHeader, k)
		w.Header().Set(errorTrailer, text)
	}
}

// prepare makes what the statement sees, and shuts the rest away.
func prepare(ctx context.Context, db *duck.Database, st Statement) error {
	var b strings.Builder
	if st.Memory > 0 {
		fmt.Fprintf(&b, "SET memory_limit = '%dB';\n", st.Memory)
	}
	if st.Threads > 0 {
		fmt.Fprintf(&b, "SET threads = %d;\n", st.Threads)
	}
	b.WriteString("SET TimeZone = 'UTC'; SET enable_progress_bar = true; SET enable_progress_bar_print = false; SET progress_bar_time = 0;\n")
	b.WriteString("SET allowed_paths = [")
	for i, p := range st.Paths {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(Literal(p))
	}
	b.WriteString("];\nSET enable_external_access = false;\nSET lock_configuration = true;\n")
	if err := db.Exec(ctx, b.String()); err != nil {
		return fmt.Errorf("shut the database: %w", err)
	}
	for _, sql := range st.Prepare {
		if err := db.Exec(ctx, sql); err != nil {
			return fmt.Errorf("prepare the statement: %w", err)
		}
	}
	return nil
}

// Literal writes a text as SQL does.
func Literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// send writes rows as an Arrow stream. DuckDB gives 2048 rows at a time; a batch
// of the stream has more.
func send(w io.Writer, rows *duck.Rows, most int64) error {
	if most <= 0 {
		most = 16384
	}
	out := ipc.NewWriter(w, ipc.WithSchema(rows.Schema()), ipc.WithAllocator(memory.DefaultAllocator))
	var held []arrow.RecordBatch
	n := int64(0)
	flush := func() error {
		defer func() {
			for _, r := range held {
				r.Release()
			}
			held, n = nil, 0
		}()
		if len(held) == 0 {
			return nil
		}
		rec, err := joined(rows.Schema(), held)
		if err != nil {
			return err
		}
		defer rec.Release()
		if err := out.Write(rec); err != nil {
			return err
		}
		if f, ok := w.(http.Flusher); ok {
			f.Flush()
		}
		return nil
	}
	for {
		rec, err := rows.Next()
		if errors.Is(err, io.EOF) {
			return errors.Join(flush(), out.Close())
		}
		if err != nil {
			return errors.Join(err, flush())
		}
		if held, n = append(held, rec), n+rec.NumRows(); n >= most {
			if err := flush(); err != nil {
				return err
			}
		}
	}
}

func joined(schema *arrow.Schema, recs []arrow.RecordBatch) (arrow.RecordBatch, error) {
	if len(recs) == 1 {
		recs[0].Retain()
		return recs[0], nil
	}
	columns := make([]arrow.Array, 0, schema.NumFields())
	defer func() {
		for _, c := range columns {
			c.Release()
		}
	}()
	n := int64(0)
	for _, r := range recs {
		n += r.NumRows()
	}
	for i := range schema.NumFields() {
		parts := make([]arrow.Array, len(recs))
		for j, r := range recs {
			parts[j] = r.Column(i)
		}
		c, err := array.Concatenate(parts, memory.DefaultAllocator)
		if err != nil {
			return nil, err
		}
		columns = append(columns, c)
	}
	return array.NewRecordBatch(schema, columns, n), nil
}

func (s *server) parse(w http.ResponseWriter, r *http.Request) {
	var arg parseArg
	if err := json.NewDecoder(r.Body).Decode(&arg); err != nil {
		refuse(w, tarn.Invalid("read the statement: %w", err))
		return
	}
	s.parsing.Lock()
	defer s.parsing.Unlock()
	rows, err := s.parser.Query(r.Context(), "SELECT json_serialize_sql($sql::VARCHAR)", []duck.Param{{Name: "sql", Text: &arg.SQL}})
	if err != nil {
		refuse(w, err)
		return
	}
	defer rows.Close()
	rec, err := rows.Next()
	if err != nil {
		refuse(w, err)
		return
	}
	defer rec.Release()
	text, ok := rec.Column(0).(*array.String)
	if !ok {
		refuse(w, fmt.Errorf("parse: DuckDB gave %s", rec.Column(0).DataType()))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, text.Value(0))
}

func (s *server) progress(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	db := s.running[r.URL.Query().Get("id")]
	s.mu.Unlock()
	p := -1.0
	if db != nil {
		p = db.Progress()
	}
	_, _ = fmt.Fprintf(w, "%.1f", p)
}

func refuse(w http.ResponseWriter, err error) {
	k, text := encode(err)
	w.Header().Set(kindHeader, k)
	w.Header().Set(errorTrailer, text)
	w.WriteHeader(http.StatusUnprocessableEntity)
}

// encode makes a header of an error, which may have lines.
func encode(err error) (kind, text string) {
	kind = tarn.KindOf(err).String()
	var d *duck.Error
	if errors.As(err, &d) {
		kind = duckKind
	}
	return kind, url.PathEscape(err.Error())
}

// duckKind marks what DuckDB itself says of a statement.
const duckKind = "duckdb"
