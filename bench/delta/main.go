// Command delta measures the Delta engine against the Python package deltalake
// (delta-rs) on the same rows in folders of one file system, alternating the two.
// The peer's time is taken inside its process, without the start of Python.
//
//	go run ./bench/delta [-json] [-case REGEX] [-rounds N]
package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/tarndb/tarn/bench/report"
	"github.com/tarndb/tarn/internal/blob/dir"
	"github.com/tarndb/tarn/internal/delta"
)

const (
	tableRows = 400_000
	chunkRows = 50_000
	smallFile = 10_000 // rows of a file before optimize
)

//go:embed peer.py
var peerScript string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench delta:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	o, err := report.ParseFlags()
	if err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "tarn-bench-delta-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	b := &bench{folder: folder}
	return report.Run(ctx, "delta", o, []report.Case{
		{Name: "append", Unit: "rows/s", PeerName: "deltalake", Ours: b.append, Peer: b.peer("append")},
		{Name: "scan", Unit: "rows/s", PeerName: "deltalake", Ours: b.scan, Peer: b.peer("scan")},
		{Name: "optimize", Unit: "rows/s", PeerName: "deltalake", Ours: b.optimize, Peer: b.peer("optimize")},
	})
}

// bench keeps its tables in one folder, each under a new name.
type bench struct {
	folder string
	next   int
}

func schema() delta.Schema {
	return delta.Schema{Fields: []delta.Field{
		{Name: "id", Type: "long"}, {Name: "n", Type: "integer"}, {Name: "price", Type: "double"},
		{Name: "at", Type: "timestamp"}, {Name: "kind", Type: "string"}, {Name: "note", Type: "string"},
	}}
}

// rows gives the rows from one id to another, as peer.py makes them.
func rows(from, to int) (arrow.RecordBatch, error) {
	s := schema()
	as, err := s.Arrow()
	if err != nil {
		return nil, err
	}
	b := array.NewRecordBuilder(memory.DefaultAllocator, as)
	defer b.Release()
	for i := from; i < to; i++ {
		b.Field(0).(*array.Int64Builder).Append(int64(i))
		b.Field(1).(*array.Int32Builder).Append(int32(i % 1000))
		b.Field(2).(*array.Float64Builder).Append(float64(i) * 1.25)
		b.Field(3).(*array.TimestampBuilder).Append(arrow.Timestamp(1_700_000_000_000_000 + int64(i)))
		b.Field(4).(*array.StringBuilder).Append("kind " + strconv.Itoa(i%50))
		b.Field(5).(*array.StringBuilder).Append("a note of some length about row " + strconv.Itoa(i*7919%tableRows))
	}
	return b.NewRecordBatch(), nil
}

func (b *bench) table(ctx context.Context) (*delta.Table, error) {
	b.next++
	s, err := dir.Open(b.folder)
	if err != nil {
		return nil, err
	}
	return delta.Create(ctx, s, fmt.Sprintf("ours%d", b.next), delta.Metadata{Schema: schema()})
}

// fill writes the table in commits of some rows and returns the time of the
// writing alone.
func (b *bench) fill(ctx context.Context, t *delta.Table, each int) (took time.Duration, err error) {
	for from := 0; from < tableRows; from += each {
		var parts []arrow.RecordBatch
		for at := from; at < from+each; at += chunkRows {
			rec, err := rows(at, min(at+chunkRows, from+each))
			if err != nil {
				return 0, err
			}
			parts = append(parts, rec)
		}
		began := time.Now()
		_, err := t.Commit(ctx, delta.CommitOptions{}, func(x *delta.Tx) error {
			for _, rec := range parts {
				if err := x.Append(ctx, rec); err != nil {
					return err
				}
			}
			return nil
		})
		took += time.Since(began)
		for _, rec := range parts {
			rec.Release()
		}
		if err != nil {
			return 0, err
		}
	}
	return took, nil
}

func perSecond(took time.Duration) float64 { return tableRows / took.Seconds() }

func (b *bench) append(ctx context.Context) (float64, error) {
	t, err := b.table(ctx)
	if err != nil {
		return 0, err
	}
	took, err := b.fill(ctx, t, tableRows)
	return perSecond(took), err
}

func (b *bench) scan(ctx context.Context) (float64, error) {
	t, err := b.table(ctx)
	if err != nil {
		return 0, err
	}
	if _, err := b.fill(ctx, t, tableRows); err != nil {
		return 0, err
	}
	began := time.Now()
	s, err := t.Latest(ctx)
	if err != nil {
		return 0, err
	}
	n := int64(0)
	for rec, err := range s.Scan(ctx, delta.ScanOptions{}) {
		if err != nil {
			return 0, err
		}
		n += rec.NumRows()
		rec.Release()
	}
	took := time.Since(began)
	if n != tableRows {
		return 0, fmt.Errorf("read %d rows", n)
	}
	return perSecond(took), nil
}

func (b *bench) optimize(ctx context.Context) (float64, error) {
	t, err := b.table(ctx)
	if err != nil {
		return 0, err
	}
	if _, err := b.fill(ctx, t, smallFile); err != nil {
		return 0, err
	}
	began := time.Now()
	n, err := t.Optimize(ctx, delta.OptimizeOptions{})
	took := time.Since(began)
	if err == nil && n.FilesRemoved != tableRows/smallFile {
		err = fmt.Errorf("joined %d files", n.FilesRemoved)
	}
	return perSecond(took), err
}

// peer runs a case of peer.py, which prints the seconds it took.
func (b *bench) peer(what string) func(context.Context) (float64, error) {
	return func(ctx context.Context) (float64, error) {
		python := filepath.Join("build", "venv", "bin", "python")
		if _, err := os.Stat(python); err != nil {
			return 0, report.Skipped(python + " is missing: run make setup-test in the project's folder")
		}
		b.next++
		c := exec.CommandContext(ctx, python, "-c", peerScript, what, filepath.Join(b.folder, fmt.Sprintf("peer%d", b.next)),
			strconv.Itoa(tableRows), strconv.Itoa(smallFile))
		c.Stderr = os.Stderr
		out, err := c.Output()
		if err != nil {
			return 0, fmt.Errorf("deltalake %s: %w", what, err)
		}
		seconds, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
		return tableRows / seconds, err
	}
}
