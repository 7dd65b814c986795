package syncedtable

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/delta"
)

// applier writes chunks into the partition, as the writer: what users hung on
// the table must not run as a superuser.
//
// Several connections apply one chunk like this. The chunk is split by the hash
// of the key, so no two of them touch one row. All but the first commit their
// part; the first holds its own open until they have, then moves the position
// and commits. A crash before that commit leaves the position where it was and
// some parts done: they are done again from the same position, and since a
// collapsed change says what its row is to be, and not how it differs, doing it
// twice is doing it once. The position therefore moves exactly once, and only
// over rows that are all there. Between those commits a reader can see part of
// a version; small chunks, and tables with unique indexes, have one connection
// and show all or nothing.
type applier struct {
	s     *session
	conns []*writerConn
	held  int // of the budget
	sql   applySQL
	one   bool // one connection: a unique index, or a timeseries key

	upserted, deleted int64
}

// writerConn is a connection with a stage.
type writerConn struct {
	*pgx.Conn
	used bool // the stage has rows in this transaction
}

// applySQL are the statements, made once a run.
type applySQL struct {
	stage, copy, clear, deleteGone, deleteAll, insert, older, show string
}

const (
	stageTable = `pg_temp."tarn stage"`
	// The unanalysed stage is thought to be large: left to itself the planner
	// reads the whole table to join it.
	pinPlanSQL = `SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off`
	// The last transaction of a run waits for its place on disk, and so do
	// those before it.
	lazySQL   = `SET LOCAL synchronous_commit = off`
	uniqueSQL = `SELECT EXISTS (SELECT FROM pg_index i WHERE i.indrelid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = $1)
AND i.indisunique AND NOT i.indisprimary)`
)

func (s *session) applier(ctx context.Context) (*applier, error) {
	a := &applier{s: s}
	if err := s.conn.QueryRow(ctx, uniqueSQL, s.old.oid).Scan(&a.one); err != nil {
		return nil, fmt.Errorf("look for unique indexes: %w", err)
	}
	unique := a.one
	a.one = a.one || s.layout.ts >= 0
	var oid uint32
	var schema, name string
	if err := s.conn.QueryRow(ctx, partitionsSQL, s.old.oid).Scan(&oid, &schema, &name); err != nil {
		return nil, fmt.Errorf("look for the partition: %w", err)
	}
	a.sql = s.applySQL(pgx.Identifier{schema, name}.Sanitize(), unique)
	return a, a.open(ctx, 1)
}

func (s *session) applySQL(leaf string, unique bool) applySQL {
	l := s.layout
	mark := pgx.Identifier{stagedGone}.Sanitize()
	var defs, sets []string
	for _, i := range l.order {
		c := l.cols[i]
		defs = append(defs, c.id()+" "+c.form.sql)
		if !c.key {
			sets = append(sets, c.id()+" = excluded."+c.id())
		}
	}
	list := l.list(l.order, "")
	q := applySQL{
		stage:      "CREATE TEMP TABLE \"tarn stage\" (" + mark + " boolean, " + strings.Join(defs, ", ") + ") ON COMMIT DELETE ROWS",
		copy:       "COPY " + stageTable + " (" + mark + ", " + list + ") FROM STDIN (FORMAT binary)",
		clear:      "TRUNCATE " + stageTable,
		deleteGone: "DELETE FROM " + leaf + " t USING " + stageTable + " s WHERE s." + mark + " AND " + l.same("t", "s"),
		show:       "SELECT (to_jsonb(s) - '" + stagedGone + "')::text FROM " + stageTable + " s",
	}
	insert := "INSERT INTO " + leaf + " AS t (" + list + ") SELECT " + list + " FROM " + stageTable + " WHERE NOT " + mark + " ON CONFLICT (" + l.keyList() + ") DO "
	switch {
	case len(sets) == 0:
		insert += "NOTHING"
	case l.ts >= 0:
		ts := l.cols[l.order[l.ts]].id()
		insert += "UPDATE SET " + strings.Join(sets, ", ") + " WHERE t." + ts + " IS NULL OR excluded." + ts + " >= t." + ts
		// A row went that is the one in Postgres, and no other with its
		// timeseries key came: the one before it is only in the source.
		q.older = "SELECT EXISTS (SELECT FROM " + stageTable + " s JOIN " + leaf + " t ON " + l.same("t", "s") + " AND t." + ts + " IS NOT DISTINCT FROM s." + ts +
			" WHERE s." + mark + " AND NOT EXISTS (SELECT FROM " + stageTable + " u WHERE NOT u." + mark + " AND " + l.same("u", "s") + " AND u." + ts + " IS NOT DISTINCT FROM s." + ts + "))"
		q.deleteGone = ""
	default:
		insert += "UPDATE SET " + strings.Join(sets, ", ")
	}
	q.insert = "WITH w AS (" + insert + " RETURNING (xmax = 0) AS fresh) SELECT count(*), count(*) FILTER (WHERE fresh) FROM w"
	if unique {
		// Values of a unique index may move between rows: first all old rows go.
		q.deleteAll = "DELETE FROM " + leaf + " t USING " + stageTable + " s WHERE " + l.same("t", "s")
	}
	return q
}

// open makes up to n connections, as many as the budget has.
func (a *applier) open(ctx context.Context, n int) error {
	if n > a.held {
		more, err := a.s.w.k.budget.take(ctx, a.s.w.row.Branch, n-a.held)
		if err != nil {
			return err
		}
		a.held += more
	}
	for len(a.conns) < a.held {
		conn, err := a.s.w.k.computes.Connect(ctx, a.s.w.row.Branch, a.s.w.row.Database, func(c *pgx.ConnConfig) {
			configure(c)
			c.User = writerRole
		})
		if err != nil {
			return tarn.Unavailable("connect: %w", err)
		}
		a.conns = append(a.conns, &writerConn{Conn: conn})
		if _, err := conn.Exec(ctx, a.sql.stage); err != nil {
			return fmt.Errorf("make the stage: %w", err)
		}
	}
	return nil
}

func (a *applier) close() {
	for _, c := range a.conns {
		closeConn(c.Conn)
	}
	a.s.w.k.budget.give(a.s.w.row.Branch, a.held)
}

// counts is what a transaction did to the rows.
type counts struct{ upserted, fresh, deleted, letters int64 }

func (n counts) and(m counts) counts {
	return counts{n.upserted + m.upserted, n.fresh + m.fresh, n.deleted + m.deleted, n.letters + m.letters}
}

// apply writes a chunk and moves the position to next, whose rows and rejected
// it sets.
func (a *applier) apply(ctx context.Context, c *chunk, next *position) error {
	n := 1
	if !a.one && len(c.slots) >= c.rows*2/5 {
		if err := a.open(ctx, wantedAppliers()); err != nil {
			return err
		}
		n = len(a.conns)
	}
	g, gctx := errgroup.WithContext(ctx)
	done := make([]counts, n)
	for i := 1; i < n; i++ {
		g.Go(func() error {
			return a.inTx(gctx, i, next, func(tx pgx.Tx) (err error) {
				if done[i], err = a.part(gctx, tx, i, c, c.part(i, n), nil); err != nil {
					return err
				}
				// Counted with the part: when it is done again it adds nothing.
				_, err = tx.Exec(gctx, addRowsSQL, a.s.w.row.UID, done[i].fresh-done[i].deleted)
				return err
			})
		})
	}
	err := a.inTx(ctx, 0, next, func(tx pgx.Tx) (err error) {
		done[0], err = a.part(ctx, tx, 0, c, c.part(0, n), c)
		if others := g.Wait(); err == nil {
			err = others
		}
		if err != nil {
			return err
		}
		var sum counts
		for _, d := range done {
			sum = sum.and(d)
		}
		return a.move(ctx, tx, sum, next, done[0].fresh-done[0].deleted)
	})
	if others := g.Wait(); err == nil {
		err = others
	}
	return err
}

// move ends a transaction's work by the position.
func (a *applier) move(ctx context.Context, tx pgx.Tx, n counts, next *position, grown int64) error {
	if a.s.pos.rejected > 0 || n.letters > 0 {
		if err := tx.QueryRow(ctx, countLettersSQL, a.s.w.row.UID, a.s.pos.generation).Scan(&next.rejected); err != nil {
			return fmt.Errorf("count dead letters: %w", err)
		}
	}
	if err := movePosition(ctx, tx, a.s.w.row.UID, a.s.pos, next, grown); err != nil {
		return err
	}
	a.upserted, a.deleted = a.upserted+n.upserted, a.deleted+n.deleted
	return nil
}

func (a *applier) inTx(ctx context.Context, i int, next *position, f func(pgx.Tx) error) error {
	conn := a.conns[i]
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		conn.used = false
		for _, sql := range strings.Split(pinPlanSQL, "; ") {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return err
			}
		}
		if next.version < a.s.snap.Version() {
			if _, err := tx.Exec(ctx, lazySQL); err != nil {
				return err
			}
		}
		return f(tx)
	})
}

// part writes some slots of a chunk, their letters, and the letters that
// belong to no slot of whole.
func (a *applier) part(ctx context.Context, tx pgx.Tx, i int, c *chunk, slots []int, whole *chunk) (counts, error) {
	w := a.s.w
	if a.s.pos.rejected > 0 {
		keys := make([][]byte, len(slots))
		for n, at := range slots {
			keys[n] = c.key(&c.slots[at])
		}
		if _, err := tx.Exec(ctx, settleLettersSQL, w.row.UID, keys); err != nil {
			return counts{}, fmt.Errorf("settle dead letters: %w", err)
		}
		if whole != nil {
			for _, row := range whole.settled {
				if _, err := tx.Exec(ctx, settleRowSQL, w.row.UID, row); err != nil {
					return counts{}, fmt.Errorf("settle dead letters: %w", err)
				}
			}
		}
	}
	var all []letter
	if whole != nil {
		all = append(all, whole.lost...)
	}
	for _, at := range slots {
		if l, ok := c.letters[at]; ok {
			all = append(all, l)
		}
	}
	if err := w.letters(a.s.pos.generation).add(ctx, tx, all); err != nil {
		return counts{}, err
	}
	n, err := a.merge(ctx, tx, i, c, slots)
	n.letters += int64(len(all))
	return n, err
}

// merge applies slots; when a row among them cannot be stored it halves them
// until it has that row, which becomes a dead letter.
func (a *applier) merge(ctx context.Context, tx pgx.Tx, i int, c *chunk, slots []int) (n counts, err error) {
	if len(slots) == 0 {
		return n, nil
	}
	err = pgx.BeginFunc(ctx, tx, func(sp pgx.Tx) (err error) {
		n, err = a.mergeOnce(ctx, sp, i, c, slots)
		return err
	})
	if err == nil || !ofRow(err) {
		return n, err
	}
	if a.s.w.row.OnReject == tarn.RejectStop {
		return n, stopped(c.slots[slots[0]].version, err)
	}
	if len(slots) > 1 {
		half := len(slots) / 2
		if n, err = a.merge(ctx, tx, i, c, slots[:half]); err != nil {
			return n, err
		}
		more, err := a.merge(ctx, tx, i, c, slots[half:])
		return n.and(more), err
	}
	s := &c.slots[slots[0]]
	if s.gone {
		return n, err // not of the row: it is only deleted
	}
	l := letter{reason: err.Error(), version: s.version, key: c.key(s), row: a.show(ctx, tx, i, c, slots)}
	if err := a.s.w.letters(a.s.pos.generation).add(ctx, tx, []letter{l}); err != nil {
		return n, err
	}
	// The row that Postgres has is not true any more: it goes.
	s.gone, c.arena[s.off+opSize-1] = true, 1
	n, err = a.mergeOnce(ctx, tx, i, c, slots)
	n.letters++
	return n, err
}

// show gives the JSON of a row that Postgres refused.
func (a *applier) show(ctx context.Context, tx pgx.Tx, i int, c *chunk, slots []int) string {
	var text string
	err := pgx.BeginFunc(ctx, tx, func(sp pgx.Tx) error {
		if err := a.stage(ctx, sp, i, c, slots); err != nil {
			return err
		}
		return sp.QueryRow(ctx, a.sql.show).Scan(&text)
	})
	if err != nil {
		return `{"tarn_key": "` + hex.EncodeToString(c.key(&c.slots[slots[0]])) + `"}`
	}
	return text
}

func (a *applier) stage(ctx context.Context, tx pgx.Tx, i int, c *chunk, slots []int) error {
	if conn := a.conns[i]; conn.used {
		if _, err := tx.Exec(ctx, a.sql.clear); err != nil {
			return fmt.Errorf("clear the stage: %w", err)
		}
	} else {
		conn.used = true
	}
	if _, err := tx.Conn().PgConn().CopyFrom(ctx, &staged{c: c, slots: slots}, a.sql.copy); err != nil {
		return fmt.Errorf("stage changes: %w", err)
	}
	return nil
}

func (a *applier) mergeOnce(ctx context.Context, tx pgx.Tx, i int, c *chunk, slots []int) (n counts, err error) {
	if err := a.stage(ctx, tx, i, c, slots); err != nil {
		return n, err
	}
	gone, come := false, false
	for _, at := range slots {
		gone, come = gone || c.slots[at].gone, come || !c.slots[at].gone
	}
	del := a.sql.deleteAll
	if del == "" && gone {
		del = a.sql.deleteGone
	}
	if del != "" {
		tag, err := tx.Exec(ctx, del)
		if err != nil {
			return n, fmt.Errorf("delete rows: %w", err)
		}
		n.deleted = tag.RowsAffected()
	}
	if come {
		if err := tx.QueryRow(ctx, a.sql.insert).Scan(&n.upserted, &n.fresh); err != nil {
			return n, fmt.Errorf("upsert rows: %w", err)
		}
	}
	if gone && a.sql.older != "" {
		var older bool
		if err := tx.QueryRow(ctx, a.sql.older).Scan(&older); err != nil {
			return n, fmt.Errorf("look for older rows: %w", err)
		}
		if older {
			return n, &reloadError{"the newest row of a key was deleted, and older ones are only in the source"}
		}
	}
	return n, nil
}

// large applies one version that no chunk holds, in one transaction: first what
// goes, then what comes, since the two have no order in the log.
func (a *applier) large(ctx context.Context, version int64, next *position) error {
	if a.s.layout.ts >= 0 {
		return &reloadError{fmt.Sprintf("version %d has more changes than are compared by timeseries key", version)}
	}
	next.version = version
	return a.inTx(ctx, 0, next, func(tx pgx.Tx) error {
		var sum counts
		for _, gone := range []bool{true, false} {
			c := newChunk(a.s.layout, a.s.w.k.chunkRows)
			flush := func() error {
				n, err := a.part(ctx, tx, 0, c, c.part(0, 1), c)
				sum = sum.and(n)
				c = newChunk(a.s.layout, a.s.w.k.chunkRows)
				return err
			}
			for ch, err := range a.s.table.Changes(ctx, delta.ChangeOptions{From: version, To: version, BatchRows: batchRowsOf(a.s.snap)}) {
				if err != nil {
					return a.s.changesGone(err)
				}
				next.time = ch.Time
				if goes := ch.Type == delta.Deleted || ch.Type == delta.PreUpdated; goes == gone {
					if stop := c.add(ch.Rows, version, gone); stop != nil && a.s.w.row.OnReject == tarn.RejectStop {
						ch.Rows.Release()
						return stopped(version, stop)
					}
				}
				ch.Rows.Release()
				if c.full() {
					if err := flush(); err != nil {
						return err
					}
				}
			}
			if err := flush(); err != nil {
				return err
			}
		}
		return a.move(ctx, tx, sum, next, sum.fresh-sum.deleted)
	})
}
