package syncedtable

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// DeadLetter is a row of the source that Postgres cannot store.
type DeadLetter struct {
	ID      int64
	Version int64 // of the source
	Reason  string
	Row     string // JSON
	Lossy   bool   // U+FFFD stands in the JSON for what it has no form for
	Tries   int    // replays that failed
	Created time.Time
}

const listLettersSQL = `SELECT id, version, reason, source_row::text, lossy, tries, created FROM tarn_sync.dead_letters
WHERE uid = $1 AND generation = (SELECT generation FROM tarn_sync.position WHERE uid = $1) AND id > $2 ORDER BY id LIMIT $3`

// DeadLetters gives up to limit dead letters after an id, oldest first.
func (k *Keeper) DeadLetters(ctx context.Context, n tarn.TableName, after int64, limit int) ([]DeadLetter, error) {
	t, err := k.Get(ctx, n)
	if err != nil {
		return nil, err
	}
	if t.Rejected == 0 {
		return nil, nil // no compute is woken for nothing
	}
	w := k.newWorker(t, func(error) {})
	conn, err := w.connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("dead letters of %s: %w", n, err)
	}
	defer closeConn(conn)
	all, err := w.lettersAfter(ctx, conn, after, limit)
	if err != nil {
		return nil, fmt.Errorf("dead letters of %s: %w", n, err)
	}
	return all, nil
}

func (w *worker) lettersAfter(ctx context.Context, conn *pgx.Conn, after int64, limit int) ([]DeadLetter, error) {
	rows, err := conn.Query(ctx, listLettersSQL, w.row.UID, after, limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(r pgx.CollectableRow) (l DeadLetter, err error) {
		return l, r.Scan(&l.ID, &l.Version, &l.Reason, &l.Row, &l.Lossy, &l.Tries, &l.Created)
	})
}

// Replacement says what a replay does with what Postgres has no form for.
type Replacement int

// Whether such text may be replaced.
const (
	KeepText    Replacement = iota // the row stays a dead letter
	ReplaceText                    // U+FFFD takes its place
)

// Replayed is what became of the dead letters.
type Replayed struct {
	Stored, Left int64
}

const (
	replayPage    = 500
	dropLetterSQL = `DELETE FROM tarn_sync.dead_letters WHERE id = $1 AND uid = $2`
	triedSQL      = `UPDATE tarn_sync.dead_letters SET tries = tries + 1 WHERE id = $1 AND uid = $2`
	recountSQL    = `UPDATE tarn_sync.position p SET rows = rows + $2,
	rejected = (SELECT count(*) FROM tarn_sync.dead_letters l WHERE l.uid = p.uid AND l.generation = p.generation)
WHERE uid = $1 RETURNING rows, rejected`
)

// Replay tries to store dead letters again: whatever was in the way may be
// gone, like a unique index. A letter whose key was changed since is none any
// more, so the row of each is the newest of its key. Each is stored in one
// transaction with its end as a letter. KindConflict while an update runs.
func (k *Keeper) Replay(ctx context.Context, n tarn.TableName, how Replacement) (Replayed, error) {
	t, err := k.Get(ctx, n)
	if err != nil {
		return Replayed{}, err
	}
	if t.State.Due() {
		return Replayed{}, tarn.Conflict("replay dead letters of %s: an update runs", n).WithHint("wait until it is over: tarn sync show " + n.String())
	}
	w, err := k.claim(ctx, t)
	if err != nil {
		return Replayed{}, err
	}
	defer k.release(w)
	out, err := w.replay(ctx, how)
	if err != nil {
		return out, fmt.Errorf("replay dead letters of %s: %w", n, err)
	}
	return out, nil
}

func (w *worker) replay(ctx context.Context, how Replacement) (out Replayed, err error) {
	s := &session{w: w}
	if s.table, s.snap, err = w.k.source(ctx, w.row.SyncedTableSpec.Source); err != nil {
		return out, err
	}
	if s.conn, err = w.connect(ctx); err != nil {
		return out, err
	}
	defer closeConn(s.conn)
	defer w.keepAwake(ctx)()
	if err := w.fence(ctx, s.conn); err != nil {
		return out, err
	}
	if err := prepareTracking(ctx, s.conn); err != nil {
		return out, err
	}
	if s.pos, err = readPosition(ctx, s.conn, w.row.UID); err != nil {
		return out, err
	}
	if s.old, err = w.mayReplace(ctx, s.conn); err != nil {
		return out, err
	}
	if s.pos.generation == 0 || s.old.oid != s.pos.relation || !s.old.partitioned {
		return out, tarn.Conflict("the table is not loaded")
	}
	// Letters are of the columns that the table has now.
	if s.pos.version != s.snap.Version() && s.pos.sourceID == s.snap.ID() {
		if s.snap, err = s.table.At(ctx, s.pos.version); err != nil {
			return out, refused(w.row.SyncedTableSpec.Source, err)
		}
	}
	if s.layout, err = layoutOf(s.snap.Schema(), w.row.PrimaryKey, w.row.TimeseriesKey, w.row.TypeOverrides); err != nil {
		return out, err
	}
	a, err := s.applier(ctx)
	if err != nil {
		return out, err
	}
	defer a.close()
	for last := int64(0); ; {
		page, err := w.lettersAfter(ctx, s.conn, last, replayPage)
		if err != nil {
			return out, err
		}
		for _, l := range page {
			stored := false
			if !l.Lossy || how == ReplaceText {
				if stored, err = a.replayOne(ctx, l); err != nil {
					return out, err
				}
			}
			if stored {
				out.Stored++
			} else {
				out.Left++
			}
			last = l.ID
		}
		if len(page) < replayPage {
			break
		}
	}
	row := w.row
	if err := s.conn.QueryRow(ctx, recountSQL, w.row.UID, out.Stored).Scan(&row.RowsSynced, &row.Rejected); err != nil {
		return out, fmt.Errorf("count dead letters: %w", err)
	}
	row.RowsTotal = row.RowsSynced + row.Rejected
	if row.Rejected == 0 {
		row.Message = ""
	}
	w.event(ctx, tarn.PipelineEvent{Type: tarn.EventDeadLetters, Message: fmt.Sprintf("Dead letters were replayed: %d stored, %d left.", out.Stored, out.Left)})
	return out, controldb.UpdateSyncedTable(ctx, w.k.db, row)
}

// replayOne stores the row of a letter. What is refused again stays.
func (a *applier) replayOne(ctx context.Context, l DeadLetter) (stored bool, err error) {
	schema, err := a.s.snap.Schema().Arrow()
	if err != nil {
		return false, err
	}
	c := newChunk(a.s.layout, a.s.w.k.chunkRows)
	rec, _, err := array.RecordFromJSON(memory.DefaultAllocator, schema, strings.NewReader("["+l.Row+"]"))
	if err == nil {
		err = c.add(rec, l.Version, false)
		rec.Release()
	}
	if err == nil {
		err = a.inTx(ctx, 0, &a.s.pos, func(tx pgx.Tx) error {
			tag, err := tx.Exec(ctx, dropLetterSQL, l.ID, a.s.w.row.UID)
			if err != nil || tag.RowsAffected() == 0 {
				return err
			}
			_, err = a.mergeOnce(ctx, tx, 0, c, c.part(0, 1))
			return err
		})
		if err == nil {
			return true, nil
		}
		if !ofRow(err) {
			return false, err
		}
	}
	_, err = a.conns[0].Exec(ctx, triedSQL, l.ID, a.s.w.row.UID)
	return false, err
}
