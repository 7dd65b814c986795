package syncedtable

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/delta"
)

const (
	copyBuffer    = 256 << 10 // bytes encoded before they go to Postgres
	lettersAtOnce = 500
	// A table this small is loaded over one connection, in the transaction that
	// makes it.
	smallTable = 64 << 20 // bytes of data files
	batchBytes = 4 << 20  // of a batch's rows, about, as they lie in the files
)

// filling loads a snapshot into a table that nobody else sees.
//
//	readers ──▶ batches ──▶ copiers, one a connection ──▶ Postgres
//
// Memory: a batch for each reader and each copier, and a buffer a copier.
type filling struct {
	w       *worker
	layout  layout
	snap    *delta.Snapshot
	path    string // of the table, quoted
	version int64
	letters letters
	side    *pgx.Conn // writes letters beside the load

	mu       sync.Mutex // not held across I/O, but for letters, which share side
	rows     int64
	rejected int64
	pending  []letter
}

// batchRowsOf bounds a batch in bytes: a table of large rows has few in each.
func batchRowsOf(s *delta.Snapshot) int {
	all := s.Splits(1)
	if len(all) == 0 || all[0].Rows == 0 {
		return 1024
	}
	per := all[0].Bytes/all[0].Rows + 1
	return int(max(16, min(8192, batchBytes/per)))
}

// run fills the table over the connections; the first one makes it. FREEZE, for
// which one connection has to make and fill it, makes the rows visible to
// transactions that began before and would else find the new table empty; where
// several fill it the swap waits for those transactions.
func (f *filling) run(ctx context.Context, conns []*pgx.Conn) error {
	if len(conns) == 1 {
		return pgx.BeginFunc(ctx, conns[0], func(tx pgx.Tx) error {
			if err := f.create(ctx, tx); err != nil {
				return err
			}
			return f.fill(ctx, conns, ", FREEZE")
		})
	}
	if err := f.create(ctx, conns[0]); err != nil {
		return err
	}
	return f.fill(ctx, conns, "")
}

func (f *filling) create(ctx context.Context, x executing) error {
	if _, err := x.Exec(ctx, "CREATE TABLE "+f.path+" ("+f.layout.definitions()+")"); err != nil {
		return fmt.Errorf("create the new table: %w", err)
	}
	return nil
}

func (f *filling) fill(ctx context.Context, conns []*pgx.Conn, option string) error {
	g, gctx := errgroup.WithContext(ctx)
	batches := make(chan arrow.RecordBatch, 1)
	defer func() {
		for rec := range batches {
			rec.Release()
		}
	}()
	g.Go(func() error {
		defer close(batches)
		readers, rctx := errgroup.WithContext(gctx)
		for _, part := range f.snap.Splits(len(conns)) {
			readers.Go(func() error { return f.read(rctx, part, batches) })
		}
		return readers.Wait()
	})
	for _, conn := range conns {
		g.Go(func() error { return f.copy(gctx, conn, batches, option) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return f.flushLetters(ctx)
}

func (f *filling) read(ctx context.Context, part delta.Split, to chan<- arrow.RecordBatch) error {
	for rec, err := range f.snap.Scan(ctx, delta.ScanOptions{Split: part, BatchRows: batchRowsOf(f.snap)}) {
		if err != nil {
			return refused(f.w.row.Source, err)
		}
		select {
		case to <- rec:
		case <-ctx.Done():
			rec.Release()
			return context.Cause(ctx)
		}
	}
	return nil
}

func (f *filling) copy(ctx context.Context, conn *pgx.Conn, batches <-chan arrow.RecordBatch, option string) error {
	r, pw := io.Pipe()
	done := make(chan struct{})
	cctx, cancel := context.WithCancel(ctx)
	go func() {
		defer close(done)
		pw.CloseWithError(f.encode(cctx, pw, batches)) // nil = end of the data
	}()
	_, err := conn.PgConn().CopyFrom(ctx, r, "COPY "+f.path+" ("+f.layout.list(f.layout.all(), "")+") FROM STDIN (FORMAT binary"+option+")")
	r.CloseWithError(io.ErrClosedPipe)
	cancel()
	<-done
	if err != nil {
		return fmt.Errorf("copy rows: %w", err)
	}
	return nil
}

func (f *filling) encode(ctx context.Context, w io.Writer, batches <-chan arrow.RecordBatch) error {
	buf := []byte(copyHeader)
	for {
		var rec arrow.RecordBatch
		var more bool
		select {
		case rec, more = <-batches:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if !more {
			_, err := w.Write(append(buf, copyTrailer...))
			return err
		}
		var err error
		buf, err = f.encodeBatch(ctx, w, buf, rec)
		rec.Release()
		if err != nil {
			return err
		}
	}
}

func (f *filling) encodeBatch(ctx context.Context, w io.Writer, buf []byte, rec arrow.RecordBatch) ([]byte, error) {
	rows := int64(0)
	var bad []letter
	for row := range int(rec.NumRows()) {
		at := len(buf)
		var reason error
		if buf, reason = f.layout.appendRow(buf, rec, row); reason != nil {
			buf = buf[:at]
			if f.w.row.OnReject == tarn.RejectStop {
				return buf, stopped(f.version, reason)
			}
			bad = append(bad, f.layout.letterOf(rec, row, f.version, reason))
			continue
		}
		rows++
		if len(buf) >= copyBuffer {
			if _, err := w.Write(buf); err != nil {
				return buf, err
			}
			buf = buf[:0]
		}
	}
	return buf, f.count(ctx, rows, bad)
}

// count takes in what became of a batch and reports progress.
func (f *filling) count(ctx context.Context, rows int64, bad []letter) error {
	f.mu.Lock()
	f.rows += rows
	f.rejected += int64(len(bad))
	f.pending = append(f.pending, bad...)
	total, full := f.rows, len(f.pending) >= lettersAtOnce
	f.mu.Unlock()
	f.w.progress(ctx, total)
	if full {
		return f.flushLetters(ctx)
	}
	return nil
}

func (f *filling) flushLetters(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.pending
	f.pending = nil
	return f.letters.add(ctx, f.side, all)
}

// stopped is the error of a row that cannot be stored where the policy is to
// stop, with the published error class.
func stopped(version int64, reason error) error {
	return tarn.Invalid("a row of version %d cannot be stored: %w (%s)", version, reason, errorClass(reason)).
		WithHint("mend the row, or let such rows become dead letters: tarn sync update NAME --on-reject continue")
}
