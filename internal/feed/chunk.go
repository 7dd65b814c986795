package feed

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/tarndb/tarn/internal/delta"
	"github.com/tarndb/tarn/internal/pgoutput"
)

const (
	// copyReaders read one table at once.
	copyReaders = 2
	// chunkBlocks of 8 KiB are one chunk: 128 MiB of a table's own file.
	chunkBlocks = 16 << 10
	// chunkBytes of values at most are one commit, however large the chunk's
	// TOASTed values are.
	chunkBytes = 256 << 20
	// chunkTries is how often a commit is tried: the snapshot is worth it.
	chunkTries = 4
	// ordinalBlock is how many ordinals a reader takes at a time.
	ordinalBlock = 4096
)

// copying is one table being copied by several readers of one snapshot.
type copying struct {
	*session
	t       *table
	pos     position // of the first row
	ex      exported
	ordinal atomic.Uint64
	rows    atomic.Int64
}

// chunk is a range of blocks of one table or partition.
type chunk struct {
	relation string // as SQL
	from, to uint32 // blocks; to 0 = to the end
	whole    bool   // no ranges: it has no blocks of its own
}

func (c chunk) where() string {
	switch {
	case c.whole || c.from == 0 && c.to == 0:
		return ""
	case c.to == 0:
		return fmt.Sprintf(" WHERE ctid >= '(%d,0)'", c.from)
	}
	return fmt.Sprintf(" WHERE ctid >= '(%d,0)' AND ctid < '(%d,0)'", c.from, c.to)
}

// Inheritance children are tables of their own in the publication; partitions
// are not. A table made after the snapshot has no row in pg_class as read here.
const leavesSQL = `SELECT c.oid::pg_catalog.regclass::text, c.relkind::text, pg_relation_size(c.oid) / 8192, greatest(c.reltuples, 0)::bigint
FROM pg_class c WHERE c.relkind IN ('r', 'f') AND (c.oid = $1 OR c.oid IN (SELECT relid FROM pg_partition_tree($1)))`

// plan cuts the table into chunks and says about how many rows it has.
func (c *copying) plan(ctx context.Context, conn *pgx.Conn) (chunks []chunk, estimate int64, err error) {
	rows, err := conn.Query(ctx, leavesSQL, c.t.oid)
	if err != nil {
		return nil, 0, fmt.Errorf("list what to copy: %w", err)
	}
	size := c.k.chunkBlocks
	var name, kind string
	var blocks, tuples int64
	_, err = pgx.ForEachRow(rows, []any{&name, &kind, &blocks, &tuples}, func() error {
		estimate += tuples
		if kind == "f" {
			chunks = append(chunks, chunk{relation: name, whole: true})
			return nil
		}
		for from := int64(0); ; from += size {
			ch := chunk{relation: name, from: uint32(from), to: uint32(from + size)}
			if from+size >= blocks {
				ch.to = 0
				chunks = append(chunks, ch)
				return nil
			}
			chunks = append(chunks, ch)
		}
	})
	if err != nil {
		return nil, 0, fmt.Errorf("list what to copy: %w", err)
	}
	return chunks, estimate, nil
}

// run copies every chunk; conn is in the snapshot and holds the lock.
func (c *copying) run(ctx context.Context, conn *pgx.Conn) error {
	chunks, estimate, err := c.plan(ctx, conn)
	if err != nil {
		return err
	}
	c.ordinal.Store(uint64(c.pos.ordinal))
	c.t.status.copied, c.t.status.estimate = 0, max(estimate, 1)
	if c.t.rows > 0 || c.t.widens {
		// The truncate row and new columns come before any row of the copy.
		if err := c.t.commitAs(ctx, c.appID("begin"), 1, byNumber, "WRITE"); err != nil {
			return err
		}
	}
	todo := make(chan chunk, len(chunks))
	for _, ch := range chunks {
		todo <- ch
	}
	close(todo)
	readers := []*reader{}
	defer func() {
		for _, r := range readers {
			r.close()
		}
	}()
	for i := range min(copyReaders, len(chunks)) {
		r, err := c.newReader(ctx, i, conn)
		if isCode(err, codeLockTimeout) {
			break // somebody waits to change the table: those there are will do
		}
		if err != nil {
			return err
		}
		readers = append(readers, r)
	}
	if err := c.record(ctx); err != nil {
		return err
	}
	if err := c.watch(ctx, readers, todo); err != nil {
		return err
	}
	for _, r := range readers {
		c.t.add(r.t)
	}
	c.t.status.copied = c.rows.Load()
	return nil
}

// watch runs the readers and records how far they are.
func (c *copying) watch(ctx context.Context, readers []*reader, todo <-chan chunk) error {
	g, gctx := errgroup.WithContext(ctx)
	for _, r := range readers {
		g.Go(func() error { return r.work(gctx, todo) })
	}
	done := make(chan error, 1)
	go func() { done <- g.Wait() }()
	tick := time.NewTicker(2 * c.k.poll)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-tick.C:
			c.t.status.copied = c.rows.Load()
			if err := c.record(ctx); err != nil && ctx.Err() == nil {
				c.log.Warn("record the copy's progress", "err", err)
			}
		}
	}
}

// appID is the app transaction of one part of this copy. A new attempt has
// another snapshot and so other ones.
func (c *copying) appID(part string) string {
	return fmt.Sprintf("%s/copy/%x/%s", c.t.appID(), uint64(c.ex.Point), part)
}

// reader copies chunks over one connection into commits of its own.
type reader struct {
	*copying
	number int
	conn   *pgx.Conn
	own    bool   // the connection is the reader's
	t      *table // a twin of the table with rows of its own
	done   int64  // commits
	spent  int    // bytes of values in the open commit
	left   uint32 // ordinals in hand
	pos    position
}

func (c *copying) newReader(ctx context.Context, n int, conn *pgx.Conn) (*reader, error) {
	r := &reader{copying: c, number: n, conn: conn, pos: c.pos}
	if n > 0 {
		own, err := c.dial(ctx, func(cc *pgx.ConnConfig) { configure(cc, "tarn feed "+c.row.ID+" copy") })
		if err != nil {
			return nil, fmt.Errorf("connect: %w", err)
		}
		if err := enterSnapshot(ctx, own, c.ex.Snapshot); err != nil {
			closeConn(own)
			return nil, err
		}
		// A command that waits for the first reader's lock, a TRUNCATE, would
		// make this one wait for it, and Postgres would not see the circle.
		if _, err := own.Exec(ctx, "LOCK TABLE "+pgx.Identifier{c.src.schema, c.t.name}.Sanitize()+" IN ACCESS SHARE MODE NOWAIT"); err != nil {
			closeConn(own)
			return nil, err
		}
		r.conn, r.own = own, true
	}
	r.t = c.t.twin()
	err := r.t.layout()
	if err == nil {
		err = r.t.adopt(ctx, c.types, c.t.rel)
	}
	if err != nil {
		r.close()
	}
	return r, err
}

func (r *reader) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	r.t.close(ctx)
	if r.own {
		closeConn(r.conn)
	}
}

func (r *reader) work(ctx context.Context, todo <-chan chunk) error {
	for ch := range todo {
		if err := r.chunk(ctx, ch); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) chunk(ctx context.Context, ch chunk) error {
	err := ch.read(ctx, r.conn, r.t.rel, func(tuple pgoutput.Tuple) error {
		r.place()
		return r.row(ctx, tuple)
	})
	if err != nil {
		return err
	}
	return r.commit(ctx)
}

// read calls f with every row of the chunk, whose values are good until it returns.
func (c chunk) read(ctx context.Context, conn *pgx.Conn, rel *pgoutput.Relation, f func(pgoutput.Tuple) error) error {
	names := make([]string, len(rel.Columns))
	for i, col := range rel.Columns {
		names[i] = pgx.Identifier{col.Name}.Sanitize()
	}
	rr := conn.PgConn().ExecParams(ctx, "SELECT "+strings.Join(names, ", ")+" FROM ONLY "+c.relation+c.where(), nil, nil, nil, nil)
	tuple := make(pgoutput.Tuple, len(names))
	for rr.NextRow() {
		for i, v := range rr.Values() {
			tuple[i] = pgoutput.Column{Kind: pgoutput.ColumnText, Value: v}
			if v == nil {
				tuple[i].Kind = pgoutput.ColumnNull
			}
		}
		if err := f(tuple); err != nil {
			rr.Close()
			return err
		}
	}
	if _, err := rr.Close(); err != nil {
		return fmt.Errorf("read the table: %w", err)
	}
	return nil
}

// place gives the next row its ordinal. Beyond the last one they repeat: the
// order of a copy's rows means nothing.
func (r *reader) place() {
	if r.left == 0 {
		first := r.ordinal.Add(ordinalBlock) - ordinalBlock
		if first+ordinalBlock > math.MaxUint32 {
			r.pos.ordinal, r.left = math.MaxUint32, 0
			return
		}
		r.pos.ordinal, r.left = uint32(first), ordinalBlock
	} else {
		r.pos.ordinal++
	}
	r.left--
}

func (r *reader) row(ctx context.Context, tuple pgoutput.Tuple) error {
	if err := r.t.write(row{kind: changeInsert, values: tuple}, r.pos); err != nil {
		return err
	}
	if r.t.bytes <= writeAheadBytes {
		return nil
	}
	r.spent += r.t.bytes
	if err := r.t.writeAhead(ctx); err != nil {
		return err
	}
	if r.spent > chunkBytes {
		return r.commit(ctx)
	}
	return nil
}

// commit makes what the reader has one Delta commit.
func (r *reader) commit(ctx context.Context) error {
	if r.t.rows == 0 {
		return nil
	}
	n := int64(r.t.rows)
	for try := 1; ; try++ {
		err := r.t.commitAs(ctx, r.appID(fmt.Sprint(r.number)), r.done+1, byNumber, "WRITE")
		if err == nil {
			break
		}
		if try == chunkTries || ctx.Err() != nil || delta.IsRefusal(err) || r.t.tx == nil {
			return err
		}
		r.log.Warn("commit a chunk", "path", r.t.name, "err", err, "count", try)
		pause(ctx, r.k.backoff(try))
	}
	r.done++
	r.spent = 0
	r.rows.Add(n)
	return nil
}

// twin is a table without rows that writes to the same Delta table.
func (t *table) twin() *table {
	return &table{oid: t.oid, name: t.name, target: t.target, delta: t.delta, app: t.app, gen: t.gen, bury: t.bury, shape: shape{schema: t.schema}}
}

// add takes over what a twin has counted.
func (t *table) add(o *table) {
	t.status.lost += o.status.lost
	t.status.total += o.status.total
	t.status.buried += o.status.buried
	if o.status.example != "" {
		t.status.example = o.status.example
	}
	t.used = t.used || o.used
}

// commitAs makes the rows in hand one commit with an app transaction.
func (t *table) commitAs(ctx context.Context, app string, version int64, by versionKind, operation string) error {
	if err := t.writeAhead(ctx); err != nil {
		return err
	}
	if len(t.dead) > 0 {
		if err := t.bury(ctx, t.name, t.dead, app, version, by); err != nil {
			return err
		}
		t.status.buried += int64(len(t.dead))
		t.dead, t.wholeDead = nil, 0
	}
	t.tx.SetAppTxn(app, version)
	_, err := t.tx.Commit(ctx, delta.CommitOptions{Operation: operation})
	// An applied transaction is our own commit whose answer was lost.
	if err != nil && !errors.Is(err, delta.ErrAppliedTxn) {
		return fmt.Errorf("commit to %s: %w", t.target, err)
	}
	t.tx = nil
	t.used = t.used || t.rows > 0
	t.status.total += int64(t.rows)
	t.rows, t.whole, t.bytes = 0, 0, 0
	return nil
}
