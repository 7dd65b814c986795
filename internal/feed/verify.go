package feed

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"slices"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/delta"
	"github.com/tarndb/tarn/internal/pgoutput"
	"github.com/tarndb/tarn/internal/pgvalue"
)

// Verify compares a table with what its history adds up to, row by row, as
// both are at one position of the WAL: inserted and new rows count once, deleted
// and old ones minus once, from the last truncate row on. Rows are compared by
// sums of two independent 64-bit hashes, so memory does not grow with them. It
// waits for the feed to come to the position. KindNotFound, KindConflict when
// the table is not being followed now, KindUnavailable when the compute sleeps.
func (k *Keeper) Verify(ctx context.Context, b tarn.BranchName, id, name string) (tarn.FeedVerdict, error) {
	v := tarn.FeedVerdict{Table: name}
	ctx, cancel := context.WithTimeout(ctx, verifyWait)
	defer cancel()
	row, err := k.Get(ctx, b, id)
	if err != nil {
		return v, err
	}
	i := slices.IndexFunc(row.Tables, func(t tarn.FeedTable) bool { return t.PostgresTable == name })
	switch {
	case i < 0:
		return v, tarn.NotFound("verify feed %s: it follows no table %q", id, name)
	case row.Tables[i].State != tarn.FeedStreaming || row.Paused:
		return v, tarn.Conflict("verify feed %s: table %s is not being followed now: %s", id, name, row.Tables[i].State)
	}
	st, err := k.computes.ComputeOf(ctx, b)
	if err == nil && st.State != tarn.ComputeActive {
		err = tarn.Unavailable("the compute of the branch is %s", st.State).WithHint("connect to it, then verify again")
	}
	if err == nil {
		f := k.newFollower(row, func(error) {})
		f.status, f.tables = st, map[string]tarn.FeedTable{}
		s := &verification{&session{follower: f, log: f.log, tables: map[uint32]*table{}, rels: map[uint32]*pgoutput.Relation{}}}
		err = s.verify(ctx, name, &v)
	}
	if err != nil {
		return v, fmt.Errorf("verify feed %s: table %s: %w", id, name, err)
	}
	return v, nil
}

// verification is a session that only reads, beside the one that follows.
type verification struct{ *session }

func (s *verification) verify(ctx context.Context, name string, v *tarn.FeedVerdict) error {
	plain, err := s.dial(ctx, func(c *pgx.ConnConfig) { configure(c, "tarn feed "+s.row.ID+" verify") })
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer closeConn(plain)
	s.types = pgvalue.NewTypes(plain)
	s.src = source{conn: plain, schema: s.row.PostgresSchema, publication: s.publication(), follows: s.row.Follows}
	began, err := s.currentEpoch(ctx)
	if err != nil {
		return err
	}
	r, err := s.replicate(ctx)
	if err != nil {
		return err
	}
	defer closeConn(r.conn)
	ex, err := r.createSlot(ctx, fmt.Sprintf("tarn_verify_%d", r.conn.PgConn().PID()), temporarySlot)
	if err != nil {
		return err
	}
	v.Point = ex.Point
	t, err := s.verifiable(ctx, name)
	if err != nil {
		return err
	}
	defer t.close(context.WithoutCancel(ctx))
	sums := newSums(t)
	if err := s.sumTable(ctx, t, ex, sums); err != nil {
		return err
	}
	v.PostgresRows, sums.count = sums.count, -sums.count
	sums.a, sums.b = -sums.a, -sums.b
	if err := s.awaitPosition(ctx, name, ex.Point); err != nil {
		return err
	}
	epoch, err := s.currentEpoch(ctx)
	if err != nil {
		return err
	}
	if epoch != began { // its rows are of after the point
		return tarn.Unavailable("the feed began anew meanwhile").WithHint("verify again")
	}
	before := sums.count
	if err := sums.history(ctx, t.delta, position{epoch: epoch, commitEnd: ex.Point, ordinal: 1<<32 - 1}.sortBy()); err != nil {
		return err
	}
	v.HistoryRows = sums.count - before
	v.Equal = sums.count == 0 && sums.a == 0 && sums.b == 0
	return nil
}

const identityOfSQL = `SELECT relreplident = 'f' FROM pg_class WHERE oid = $1`

// verifiable gives a table that only reads.
func (s *verification) verifiable(ctx context.Context, name string) (*table, error) {
	all, err := s.src.tables(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(l listed) bool { return l.name == name })
	if i < 0 {
		return nil, tarn.NotFound("it is not in the Postgres schema any more")
	}
	var full bool
	if err := s.src.conn.QueryRow(ctx, identityOfSQL, all[i].oid).Scan(&full); err != nil {
		return nil, fmt.Errorf("read the replica identity: %w", err)
	}
	if !full {
		return nil, tarn.Conflict("its replica identity is not FULL: old rows of its history have the key only, which says nothing of the rest")
	}
	rel, err := relation(ctx, s.src.conn, s.src.schema, all[i])
	if err != nil {
		return nil, err
	}
	t := &table{oid: rel.ID, name: name, target: targetName(s.row.FeedSpec, name)}
	if err := s.openDelta(ctx, t, rel, onlyExisting); err != nil {
		return nil, err
	}
	return t, t.adopt(ctx, s.types, rel)
}

// sumTable adds up the table's rows as a copy would write them.
func (s *verification) sumTable(ctx context.Context, t *table, ex exported, sums *sums) error {
	conn, err := s.dial(ctx, func(c *pgx.ConnConfig) { configure(c, "tarn feed "+s.row.ID+" verify") })
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer closeConn(conn)
	if err := enterSnapshot(ctx, conn, ex.Snapshot); err != nil {
		return err
	}
	c := &copying{session: s.session, t: t, ex: ex}
	chunks, _, err := c.plan(ctx, conn)
	if err != nil {
		return err
	}
	for _, ch := range chunks {
		err := ch.read(ctx, conn, t.rel, func(tuple pgoutput.Tuple) error {
			if err := t.write(row{kind: changeInsert, values: tuple}, c.pos); err != nil {
				return err
			}
			if t.bytes > writeAheadBytes/4 {
				sums.take(t)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	sums.take(t)
	return nil
}

// awaitPosition waits until the feed has committed everything up to lsn.
func (s *verification) awaitPosition(ctx context.Context, name string, lsn tarn.LSN) error {
	// Something behind it, so that the stream passes it.
	if err := s.src.mark(ctx, 0); err != nil {
		return err
	}
	for {
		tables, err := controldb.ListFeedTables(ctx, s.k.db, s.row.UID)
		if err != nil {
			return err
		}
		for _, t := range tables {
			if t.PostgresTable != name {
				continue
			}
			if t.State != tarn.FeedStreaming {
				return tarn.Conflict("it is not being followed any more: %s %s", t.State, t.Detail)
			}
			if t.CommittedLSN >= lsn {
				return nil
			}
		}
		pause(ctx, s.k.poll)
		if ctx.Err() != nil {
			return fmt.Errorf("wait for the feed to come to %s: %w", lsn, context.Cause(ctx))
		}
	}
}

func (s *verification) currentEpoch(ctx context.Context) (epoch uint32, err error) {
	slots, err := s.src.slots(ctx)
	if err != nil {
		return 0, err
	}
	if len(slots) == 0 {
		return 0, tarn.Conflict("the feed has no slot yet").WithHint("verify again when tarn feed get shows its tables as STREAMING")
	}
	return epochOf(slots[0].name, s.src.publication)
}

// sums add up rows in any order: equal multisets of rows have equal sums.
type sums struct {
	count  int64
	a, b   uint64
	seeds  [2]maphash.Seed
	fields [][]string // of each source column: its Delta columns, the newest first
	buf    []byte
}

func newSums(t *table) *sums {
	s := &sums{seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}}
	for _, c := range t.rel.Columns {
		s.fields = append(s.fields, fieldsOf(t.schema, c.Name))
	}
	return s
}

// columns finds the source's columns in a batch.
func (s *sums) columns(rec arrow.RecordBatch) [][]arrow.Array {
	var all [][]arrow.Array
	for _, names := range s.fields {
		var cols []arrow.Array
		for _, n := range names {
			for _, i := range rec.Schema().FieldIndices(n) {
				cols = append(cols, rec.Column(i))
			}
		}
		all = append(all, cols)
	}
	return all
}

// add counts a row by sign. A value is what the newest column that has one says.
func (s *sums) add(columns [][]arrow.Array, row int, sign int64) {
	s.buf = s.buf[:0]
	for _, cols := range columns {
		i := slices.IndexFunc(cols, func(a arrow.Array) bool { return a.IsValid(row) })
		if i < 0 {
			s.buf = append(s.buf, 0)
			continue
		}
		text := cols[i].ValueStr(row)
		s.buf = append(binary.AppendUvarint(s.buf, uint64(len(text))+1), text...)
	}
	s.count += sign
	s.a += uint64(sign) * maphash.Bytes(s.seeds[0], s.buf)
	s.b += uint64(sign) * maphash.Bytes(s.seeds[1], s.buf)
}

// take adds the rows that a table has in memory, and forgets them.
func (s *sums) take(t *table) {
	t.seal()
	for _, p := range t.parts {
		cols := s.columns(p)
		for i := range int(p.NumRows()) {
			s.add(cols, i, 1)
		}
		p.Release()
	}
	t.parts, t.rows, t.bytes, t.dead = nil, 0, 0, nil
}

// history adds up a history to a place in its order.
func (s *sums) history(ctx context.Context, d *delta.Table, end string) error {
	snap, err := d.Latest(ctx)
	if err != nil {
		return fmt.Errorf("read the history: %w", err)
	}
	begin := ""
	for rec, err := range snap.Scan(ctx, delta.ScanOptions{Columns: []string{changeTypeColumn, sortByColumn}}) {
		if err != nil {
			return fmt.Errorf("read the history: %w", err)
		}
		kinds, places := textColumn(rec, changeTypeColumn), textColumn(rec, sortByColumn)
		for i := range int(rec.NumRows()) {
			if p := places.Value(i); kinds.Value(i) == string(changeTruncate) && p <= end && p > begin {
				begin = p
			}
		}
		rec.Release()
	}
	for rec, err := range snap.Scan(ctx, delta.ScanOptions{}) {
		if err != nil {
			return fmt.Errorf("read the history: %w", err)
		}
		kinds, places, cols := textColumn(rec, changeTypeColumn), textColumn(rec, sortByColumn), s.columns(rec)
		for i := range int(rec.NumRows()) {
			if p := places.Value(i); p < begin || p > end {
				continue
			}
			switch changeKind(kinds.Value(i)) {
			case changeInsert, changePostimage:
				s.add(cols, i, 1)
			case changeDelete, changePreimage:
				s.add(cols, i, -1)
			}
		}
		rec.Release()
	}
	return nil
}

// textColumn finds a system column, which is a string in every history.
func textColumn(rec arrow.RecordBatch, name string) *array.String {
	return rec.Column(rec.Schema().FieldIndices(name)[0]).(*array.String)
}

// verifyWait is how long a verification may wait for the feed.
const verifyWait = 10 * time.Minute
