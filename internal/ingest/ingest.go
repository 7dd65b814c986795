package ingest

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/delta"
)

// roundColumn numbers the batches in the target: of the versions of a row, the
// one with the highest round is the newest. A batch has one version of a row.
const roundColumn = "_round"

// Mode is what the target holds.
type Mode int

// The modes.
const (
	AppendVersions Mode = iota // every version of a row that was read
	MergeRows                  // the newest version of each row, by its key
)

// Options say what is read and where it goes.
type Options struct {
	Mode     Mode
	Table    string   // as SQL names it, e.g. public.orders
	Column   string   // the checkpoint column
	Key      []string // columns that tell rows apart; nil = the primary key
	SourceID string   // names this reader in the checkpoint table; "" = table and column
	Limit    int      // most rows of a batch; 0 = 10000
	// LateEvery is how often late rows are looked for. A look reads the whole
	// table unless a trigger keeps its column _xid; 0 = whenever the end is reached.
	LateEvery time.Duration
	Reset     bool // begin at the beginning
}

// Places are where a reader connects and writes.
type Places struct {
	Connect func(ctx context.Context) (*pgx.Conn, error) // a new connection with credentials that are good
	// Target opens the table, or makes it with this schema.
	Target func(ctx context.Context, s delta.Schema) (*delta.Table, error)
	// Checkpoints opens or makes the checkpoint table, of CheckpointSchema.
	Checkpoints func(ctx context.Context) (*delta.Table, error)
	// Rejected opens or makes the table of values without a form in Delta, of
	// RejectedSchema.
	Rejected func(ctx context.Context) (*delta.Table, error)
}

// Ingest reads one source into one target.
type Ingest struct {
	options Options
	places  Places
	log     *slog.Logger

	conn   *pgx.Conn
	reader *reader
	store  checkpoints
	target *delta.Table
	row    *checkpoint // as it is in the store
	cursor Cursor      // what the target holds
	at     int64       // app transaction of the target's newest batch; 0 = none
}

// New builds an Ingest; its first Next connects. log may be nil.
func New(o Options, p Places, log *slog.Logger) *Ingest {
	if o.Limit <= 0 {
		o.Limit = 10_000
	}
	if o.SourceID == "" {
		o.SourceID = o.Table + "." + o.Column
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Ingest{options: o, places: p, log: log}
}

// Progress tells of one batch.
type Progress struct {
	Rows           int64
	Problems       int
	Version        int64  // of the target
	LastCheckpoint string // highest value read; "" = none
}

// Next reads one batch and makes it durable; Rows = 0 when there is nothing new.
//
//  1. rows and the cursor behind them are read       crash: nothing happened
//  2. the checkpoint gets the cursor as its next     crash: the target does not have its
//     app transaction, so the cursor before counts
//  3. rejected values are written                    crash: they are written again, in the same round
//  4. the target gets the rows with that app         crash: the target has it: the next counts
//     transaction, in one Delta commit
//
// The app transaction's version is the round with random low bits, and may only
// follow the one that step 1 began from: when two programs read one source, one
// of them fails in step 2 or 4.
func (i *Ingest) Next(ctx context.Context) (Progress, error) {
	p, err := i.next(ctx)
	var pg *pgconn.PgError
	if err != nil && i.conn != nil && (i.conn.IsClosed() || errors.As(err, &pg) && pg.Code[:2] == "57") {
		// The compute slept, moved or restarted. Nothing is committed by
		// reading, so it is read again.
		i.log.Info("connect again", "err", err)
		i.disconnect(ctx)
		p, err = i.next(ctx)
	}
	if err != nil {
		return Progress{}, fmt.Errorf("ingest %s: %w", i.options.Table, err)
	}
	return p, nil
}

func (i *Ingest) next(ctx context.Context) (Progress, error) {
	if err := i.open(ctx); err != nil {
		return Progress{}, err
	}
	b, err := i.reader.read(ctx, i.cursor, i.options.Limit)
	if err != nil {
		return Progress{}, err
	}
	defer b.Rows.Release()
	p := Progress{Rows: b.Rows.NumRows(), Problems: len(b.Problems)}
	p.LastCheckpoint, _ = b.Cursor.LastCheckpoint()
	if p.Rows == 0 {
		i.cursor = b.Cursor // remembers more; what is stored is right, too
		return p, nil
	}
	version, err := newVersion(b.Cursor.Round)
	if err != nil {
		return p, err
	}
	if err := i.announce(ctx, intent{Version: version, Before: i.at, Cursor: b.Cursor}); err != nil {
		return p, err
	}
	if err := i.reject(ctx, b); err != nil {
		return p, err
	}
	if p.Version, err = i.write(ctx, b, version); err != nil {
		i.cursor, i.row = Cursor{}, nil // look again what the target holds
		i.disconnect(ctx)
		return p, err
	}
	i.cursor, i.at = b.Cursor, version
	return p, nil
}

// Close ends the connection.
func (i *Ingest) Close(ctx context.Context) { i.disconnect(ctx) }

func (i *Ingest) disconnect(ctx context.Context) {
	if i.conn != nil {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		_ = i.conn.Close(end)
		cancel()
	}
	i.conn, i.reader = nil, nil
}

// open connects, and finds out where the reader is.
func (i *Ingest) open(ctx context.Context) error {
	if i.reader != nil && i.cursor.Segments != nil {
		return nil
	}
	if i.reader == nil {
		conn, err := i.places.Connect(ctx)
		if err != nil {
			return err
		}
		i.conn = conn
		if i.reader, err = newReader(ctx, conn, i.options); err != nil {
			i.disconnect(ctx)
			return err
		}
	}
	if i.cursor.Segments != nil {
		return nil
	}
	target, err := i.places.Target(ctx, i.targetSchema())
	if err != nil {
		return err
	}
	table, err := i.places.Checkpoints(ctx)
	if err != nil {
		return err
	}
	i.target, i.store = target, checkpoints{table}
	return i.locate(ctx)
}

func (i *Ingest) locate(ctx context.Context) error {
	s, err := i.target.Latest(ctx)
	if err != nil {
		return err
	}
	if i.at, _ = s.AppTxn(i.appID()); i.at < 0 {
		return tarn.Conflict("the target's app transaction %s is %d, which is not one of ours", i.appID(), i.at)
	}
	if i.row, err = i.store.get(ctx, i.options.SourceID); err != nil {
		return err
	}
	if i.options.Reset {
		i.options.Reset = false
		fresh := NewCursor()
		if i.row != nil {
			fresh.Round = max(i.row.Round, i.at>>versionBits)
		}
		return i.save(ctx, fresh, "")
	}
	i.cursor, i.at, err = i.row.cursor(i.at)
	if i.row == nil && i.at != 0 {
		return tarn.Conflict("the target holds batches of %s, and the checkpoint table does not know it", i.options.SourceID).
			WithHint("name the right checkpoint table with --checkpoints, or read the table again with --reset")
	}
	return err
}

// save makes at the cursor that counts.
func (i *Ingest) save(ctx context.Context, at Cursor, next string) error {
	state, err := json.Marshal(at)
	if err != nil {
		return err
	}
	now := checkpoint{
		SourceID: i.options.SourceID, TableName: i.options.Table, Column: i.options.Column, Round: at.Round,
		State: string(state), Next: next, Updated: time.Now().UTC(),
	}
	if last, ok := at.LastCheckpoint(); ok {
		now.LastCheckpoint = &last
	}
	if err := i.store.put(ctx, now, i.row); err != nil {
		return err
	}
	i.row, i.cursor = &now, at
	return nil
}

func (i *Ingest) announce(ctx context.Context, n intent) error {
	next, err := json.Marshal(n)
	if err != nil {
		return err
	}
	if err := i.save(ctx, i.cursor, string(next)); err != nil {
		return fmt.Errorf("announce batch %d: %w", n.Cursor.Round, err)
	}
	return nil
}

func (i *Ingest) appID() string { return "tarn-ingest/" + i.options.SourceID }

// versionBits is how many low bits of an app transaction's version are random.
const versionBits = 24

func newVersion(round int64) (int64, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return 0, fmt.Errorf("name the batch: %w", err)
	}
	return round<<versionBits | int64(binary.NativeEndian.Uint64(b[:])&(1<<versionBits-1)), nil
}

func (i *Ingest) targetSchema() delta.Schema {
	s := delta.Schema{Fields: append([]delta.Field(nil), i.reader.schema.Fields...)}
	s.Fields = append(s.Fields, delta.Field{Name: roundColumn, Type: "long", Nullable: true})
	return s
}

// write commits a batch to the target, whose newest batch is the one that this
// one follows.
func (i *Ingest) write(ctx context.Context, b *Batch, version int64) (int64, error) {
	if err := i.widen(ctx); err != nil {
		return 0, err
	}
	s, err := i.target.Latest(ctx)
	if err != nil {
		return 0, err
	}
	if have, _ := s.AppTxn(i.appID()); have != i.at {
		return 0, tarn.Conflict("another program writes %s to the target (its newest batch is %d, ours followed %d)", i.options.SourceID, have, i.at)
	}
	rows, err := fit(s, b)
	if err != nil {
		return 0, err
	}
	defer rows.Release()
	x := i.target.Begin(s)
	if i.options.Mode == MergeRows {
		_, err = x.Merge(ctx, delta.Merge{Keys: i.reader.source.keyNames(), Upserts: rows})
	} else {
		err = x.Append(ctx, rows)
	}
	if err == nil {
		x.SetAppTxn(i.appID(), version)
		var v int64
		if v, err = x.Commit(ctx, delta.CommitOptions{Operation: "STREAMING UPDATE"}); err == nil {
			return v, nil
		}
	}
	x.Abort(ctx)
	return 0, err
}

// widen adds the columns that the target lacks, in a commit of its own: a merge
// takes none beside its rows, and a column without values harms nobody.
func (i *Ingest) widen(ctx context.Context) error {
	s, err := i.target.Latest(ctx)
	if err != nil {
		return err
	}
	have := map[string]string{}
	schema := *s.Schema()
	for _, f := range schema.Fields {
		have[f.Name] = f.Type
	}
	for _, f := range i.targetSchema().Fields {
		switch typ, ok := have[f.Name]; {
		case !ok:
			schema.Fields = append(schema.Fields, f)
		case typ != f.Type:
			return tarn.Conflict("column %s of the target is %s, the source's is now %s", f.Name, typ, f.Type).
				WithHint("ingest into a new table")
		}
	}
	if len(schema.Fields) == len(have) {
		return nil
	}
	_, err = i.target.Commit(ctx, delta.CommitOptions{Operation: "ADD COLUMNS"}, func(x *delta.Tx) error { return x.SetSchema(schema) })
	return err
}

// fit gives a batch the columns of the target, in its order; those that the
// source no longer has are NULL.
func fit(s *delta.Snapshot, b *Batch) (arrow.RecordBatch, error) {
	round := array.NewInt64Builder(memory.DefaultAllocator)
	defer round.Release()
	for range b.Rows.NumRows() {
		round.Append(b.Cursor.Round)
	}
	last := round.NewArray()
	defer last.Release()
	as, err := s.Schema().Arrow()
	if err != nil {
		return nil, err
	}
	columns := make([]arrow.Array, as.NumFields())
	for k, f := range as.Fields() {
		switch at := b.Rows.Schema().FieldIndices(f.Name); {
		case f.Name == roundColumn:
			columns[k] = last
		case len(at) == 1:
			columns[k] = b.Rows.Column(at[0])
		default:
			columns[k] = array.MakeArrayOfNull(memory.DefaultAllocator, f.Type, int(b.Rows.NumRows()))
			defer columns[k].Release()
		}
	}
	return array.NewRecordBatch(as, columns, b.Rows.NumRows()), nil
}

// RejectedSchema is that of the table of values that have no form in Delta: they
// are NULL in the target, and here as Postgres prints them.
func RejectedSchema() delta.Schema {
	var s delta.Schema
	for _, n := range []string{"source_id", "key", "column", "value", "reason"} {
		s.Fields = append(s.Fields, delta.Field{Name: n, Type: "string", Nullable: true})
	}
	s.Fields = append(s.Fields, delta.Field{Name: roundColumn, Type: "long", Nullable: true})
	return s
}

// reject keeps a batch's problems. A batch that is read again after a crash has
// another app transaction and writes them again; its round tells them apart.
func (i *Ingest) reject(ctx context.Context, b *Batch) error {
	if len(b.Problems) == 0 {
		return nil
	}
	t, err := i.places.Rejected(ctx)
	if err != nil {
		return err
	}
	s, err := t.Latest(ctx)
	if err != nil {
		return err
	}
	schema := RejectedSchema()
	as, err := schema.Arrow()
	if err != nil {
		return err
	}
	build := array.NewRecordBuilder(memory.DefaultAllocator, as)
	defer build.Release()
	for _, p := range b.Problems {
		for k, v := range []string{i.options.SourceID, p.Key, p.Column, p.Value, "no value of the column's Delta type"} {
			build.Field(k).(*array.StringBuilder).Append(v)
		}
		build.Field(5).(*array.Int64Builder).Append(b.Cursor.Round)
	}
	rec := build.NewRecordBatch()
	defer rec.Release()
	x := t.Begin(s)
	if err = x.Append(ctx, rec); err == nil {
		if _, err = x.Commit(ctx, delta.CommitOptions{}); err == nil {
			return nil
		}
	}
	x.Abort(ctx)
	return fmt.Errorf("write rejected values: %w", err)
}
