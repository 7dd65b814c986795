package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/blob/dir"
	"github.com/tarndb/tarn/internal/catalog"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/delta"
	"github.com/tarndb/tarn/internal/syncedtable"
)

// lake is a keeper of synced tables with a catalog.
type lake struct {
	b       *bench
	db      *controldb.DB
	catalog *catalog.Catalog
	keeper  *syncedtable.Keeper
	stop    context.CancelFunc
	done    chan struct{}
	branch  tarn.BranchName
	source  *delta.Table // of incremental; nil = not made
	rows    *rand.Rand
	made    int
}

// Connect and ComputeOf make the one Postgres a compute.
func (b *bench) Connect(ctx context.Context, _ tarn.BranchName, database string, cfg func(*pgx.ConnConfig)) (*pgx.Conn, error) {
	c, err := pgx.ParseConfig(b.url(database))
	if err != nil {
		return nil, err
	}
	if cfg != nil {
		cfg(c)
	}
	return pgx.ConnectConfig(ctx, c)
}

// ComputeOf tells that it is up.
func (b *bench) ComputeOf(context.Context, tarn.BranchName) (tarn.ComputeStatus, error) {
	return tarn.ComputeStatus{State: tarn.ComputeActive}, nil
}

func openStore(_ context.Context, location string) (blob.Store, error) {
	u, err := url.Parse(location)
	if err != nil {
		return nil, err
	}
	return dir.Open(u.Path)
}

func openLake(ctx context.Context, b *bench) (*lake, error) {
	l := &lake{b: b, branch: tarn.BranchName{Project: "bench", Branch: "production"}, rows: rand.New(rand.NewPCG(1, 2))}
	var err error
	if l.db, err = controldb.Open(ctx, b.url("control")); err != nil {
		return nil, err
	}
	l.catalog = catalog.New(l.db)
	root := filepath.Join(b.dir, "lake")
	if err := os.Mkdir(root, 0o755); err != nil {
		return nil, err
	}
	if err := l.catalog.EnsureDefault(ctx, "file://"+root); err != nil {
		return nil, err
	}
	if _, err := controldb.InsertProject(ctx, l.db, tarn.Project{ProjectSpec: tarn.ProjectSpec{Name: l.branch.Parent(), PGVersion: 15}, UID: uuid.NewString(), Owner: "nobody@localhost"}); err != nil {
		return nil, err
	}
	if _, err := controldb.InsertBranch(ctx, l.db, tarn.Branch{BranchSpec: tarn.BranchSpec{Name: l.branch}, UID: uuid.NewString(), Default: true,
		Timeline: tarn.TimelineID(strings.ReplaceAll(uuid.NewString(), "-", ""))}); err != nil {
		return nil, err
	}
	l.keeper = syncedtable.New(syncedtable.Config{DB: l.db, Catalog: l.catalog, Computes: b, OpenStore: openStore, Poll: 5 * time.Millisecond, Log: slog.New(slog.DiscardHandler)})
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	l.stop, l.done = stop, make(chan struct{})
	go func() {
		defer close(l.done)
		if err := l.keeper.Run(run); !errors.Is(err, context.Canceled) {
			fmt.Fprintln(os.Stderr, "keeper ended:", err)
		}
	}()
	return l, nil
}

func (l *lake) close() {
	if l.stop != nil {
		l.stop()
		<-l.done
	}
	l.db.Close()
}

// batch makes rows of the keys: id, two numbers, a text, the padding.
func (l *lake) batch(schema *arrow.Schema, keys []int64) arrow.RecordBatch {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-_"
	r := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer r.Release()
	text := make([]byte, padding)
	for _, k := range keys {
		for i := range text {
			text[i] = letters[l.rows.IntN(len(letters))]
		}
		r.Field(0).(*array.Int64Builder).Append(k)
		r.Field(1).(*array.Int64Builder).Append(l.rows.Int64())
		r.Field(2).(*array.Float64Builder).Append(l.rows.Float64())
		r.Field(3).(*array.StringBuilder).Append(string(text[:8]))
		r.Field(4).(*array.StringBuilder).Append(string(text))
	}
	return r.NewRecordBatch()
}

func (l *lake) table(ctx context.Context, name string) (*delta.Table, error) {
	entry, err := l.catalog.CreateTable(ctx, tarn.Principal{Name: "bench"}, tarn.TableName{Catalog: "lake", Schema: "bench", Table: name}, "", "")
	if err != nil {
		return nil, err
	}
	store, err := openStore(ctx, entry.Location)
	if err != nil {
		return nil, err
	}
	var fields []delta.Field
	for _, f := range [][2]string{{"id", "long"}, {"n", "long"}, {"x", "double"}, {"name", "string"}, {"pad", "string"}} {
		fields = append(fields, delta.Field{Name: f[0], Type: f[1], Nullable: true})
	}
	return delta.Create(ctx, store, "", delta.Metadata{Name: name, Schema: delta.Schema{Fields: fields}, Properties: map[string]string{"delta.enableChangeDataFeed": "true"}})
}

// append commits rows of these keys and gives them.
func (l *lake) append(ctx context.Context, t *delta.Table, keys []int64) ([]arrow.RecordBatch, error) {
	snap, err := t.Latest(ctx)
	if err != nil {
		return nil, err
	}
	schema, err := snap.Schema().Arrow()
	if err != nil {
		return nil, err
	}
	tx := t.Begin(snap)
	var all []arrow.RecordBatch
	for len(keys) > 0 {
		n := min(len(keys), 10_000)
		rec := l.batch(schema, keys[:n])
		keys = keys[n:]
		if err := tx.Append(ctx, rec); err != nil {
			return nil, err
		}
		all = append(all, rec)
	}
	_, err = tx.Commit(ctx, delta.CommitOptions{})
	return all, err
}

// settle waits until a synced table is online at the version.
func (l *lake) settle(ctx context.Context, n tarn.TableName, version int64) (tarn.SyncedTable, error) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		t, err := l.keeper.Get(ctx, n)
		switch {
		case err != nil:
			return t, err
		case t.State.Failed():
			return t, fmt.Errorf("synced table %s: %s", n, t.Message)
		case !t.State.Due() && t.Version == version:
			return t, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return t, context.Cause(ctx)
		}
	}
}
