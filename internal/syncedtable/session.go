package syncedtable

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/delta"
)

// session is one run of a synced table: a version of its source, a connection
// that holds its lock, and what was found at the other end.
type session struct {
	w      *worker
	table  *delta.Table
	snap   *delta.Snapshot
	layout layout
	conn   *pgx.Conn // superuser; holds the fence
	pos    position
	old    target
	why    string // the whole table was loaded
}

// reloadShare is the part of a table's rows from which on loading all of it is
// less work than applying the changes; small tables are not worth a thought.
const (
	reloadShare = 0.10
	reloadFloor = 20_000 // changed rows
)

// sync brings the synced table to the newest version of its source.
func (w *worker) sync(ctx context.Context) error {
	s := &session{w: w}
	var err error
	if s.table, s.snap, err = w.k.source(ctx, w.row.Source); err != nil {
		return err
	}
	w.row.Newest = tarn.SourcePosition{Version: s.snap.Version(), Time: s.snap.Time()}
	if err := checkSource(s.snap, &w.row.SyncedTableSpec); err != nil {
		return err
	}
	if s.layout, err = layoutOf(s.snap.Schema(), w.row.PrimaryKey, w.row.TimeseriesKey, w.row.TypeOverrides); err != nil {
		return err
	}
	if s.conn, err = w.connect(ctx); err != nil {
		return err
	}
	defer closeConn(s.conn)
	defer w.keepAwake(ctx)()
	if err := w.fence(ctx, s.conn); err != nil {
		return err
	}
	if err := prepareTracking(ctx, s.conn); err != nil {
		return err
	}
	if s.pos, err = readPosition(ctx, s.conn, w.row.UID); err != nil {
		return err
	}
	if s.old, err = w.mayReplace(ctx, s.conn); err != nil {
		return err
	}
	if w.row.UpdateID != "" {
		if _, err := controldb.MoveUpdate(ctx, w.k.db, w.row.UpdateID, tarn.UpdateRunning, "", 0); err != nil {
			return err
		}
	}
	if err := s.bring(ctx); err != nil {
		return err
	}
	return w.online(ctx, s)
}

// bring chooses between nothing, the changes, and the whole table.
func (s *session) bring(ctx context.Context) error {
	whole, why := s.mustLoad()
	switch {
	case whole:
	case s.pos.version == s.snap.Version():
		return nil
	case s.w.row.Policy.Follows():
		sum, err := s.table.ChangesAvailable(ctx, s.pos.version+1, s.snap.Version())
		if why, err = s.tooMuch(sum, err); err != nil {
			return err
		}
		if why == "" {
			err := s.follow(ctx)
			var reload *reloadError
			if !errors.As(err, &reload) {
				return err
			}
			why = reload.why
		}
	}
	if s.w.row.Refresh != tarn.RefreshFull {
		if err := s.refuseChanges(ctx); err != nil {
			return err
		}
	}
	s.why = why
	return s.load(ctx, why)
}

// mustLoad tells when changes cannot bring the table to the version, whatever
// they are.
func (s *session) mustLoad() (whole bool, why string) {
	switch {
	case s.pos.generation == 0:
		return true, ""
	case s.w.row.Refresh == tarn.RefreshFull:
		return true, "a full refresh was asked for"
	case s.old.oid == 0 || s.old.oid != s.pos.relation || !s.old.partitioned:
		return true, "the Postgres table was not there any more"
	case s.pos.sourceID != s.snap.ID():
		return true, "the source was made anew"
	case s.pos.version > s.snap.Version():
		return true, fmt.Sprintf("the source went back from version %d", s.pos.version)
	}
	return false, ""
}

// reloadError says that the changes do not do.
type reloadError struct{ why string }

func (e *reloadError) Error() string { return "the whole table has to be loaded: " + e.why }

// tooMuch says why the changes of a range are not applied; "" = they are.
func (s *session) tooMuch(sum delta.ChangeSummary, err error) (why string, _ error) {
	switch {
	case errors.Is(err, delta.ErrNoVersion):
		return fmt.Sprintf("the source does not have the changes from version %d on any more (vacuumed or cleaned up)", s.pos.version+1), nil
	case err != nil:
		return "", refused(s.w.row.Source, err)
	case !sum.Additive:
		return "", refusedColumns(s.w.row.Source, []string{sum.SchemaChange})
	case !sum.Feed:
		return fmt.Sprintf("the source kept no change data feed at version %d", sum.FeedOff), nil
	case sum.Rows > max(reloadFloor, int64(reloadShare*float64(s.pos.rows))):
		return fmt.Sprintf("about %d rows changed, of %d", sum.Rows, s.pos.rows), nil
	}
	return "", nil
}

// refuseChanges stops before a load that would change columns in a way that
// nobody asked for.
func (s *session) refuseChanges(ctx context.Context) error {
	if s.old.oid == 0 || !s.old.partitioned {
		return nil
	}
	d, err := s.differences(ctx)
	if err == nil && len(d.changes) > 0 {
		err = refusedColumns(s.w.row.Source, d.changes)
	}
	return err
}

const probeTable = `pg_temp."tarn probe"`

// differences compares the columns of the synced table with those of the
// source, in Postgres's own spelling of types.
func (s *session) differences(ctx context.Context) (d difference, err error) {
	err = pgx.BeginFunc(ctx, s.conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `CREATE TEMP TABLE "tarn probe" (`+s.layout.definitions()+`) ON COMMIT DROP`); err != nil {
			return fmt.Errorf("look at the columns: %w", err)
		}
		var oid uint32
		if err := tx.QueryRow(ctx, oidSQL, probeTable).Scan(&oid); err != nil {
			return fmt.Errorf("look at the columns: %w", err)
		}
		want, err := columnTypes(ctx, tx, oid)
		if err != nil {
			return err
		}
		have, err := columnTypes(ctx, tx, s.old.oid)
		d = compare(have, want)
		return err
	})
	return d, err
}

// online records that the table stands at the position.
func (w *worker) online(ctx context.Context, s *session) error {
	pos := s.pos
	row := w.row // changed only when that is recorded: w.row is reported after an error
	row.State, row.Message = tarn.SyncOnline, ""
	if row.Policy == tarn.SyncContinuous {
		row.State = tarn.SyncContinuing
	}
	if pos.rejected > 0 {
		var reason string
		if err := s.conn.QueryRow(ctx, someReasonSQL, w.row.UID).Scan(&reason); err != nil {
			return fmt.Errorf("read dead letters: %w", err)
		}
		row.Message = fmt.Sprintf("%d rows could not be stored and are in %s.dead_letters, e.g.: %s", pos.rejected, trackingSchema, reason)
	}
	grown := pos.rejected - row.Rejected
	row.Version, row.VersionTS, row.Rejected = pos.version, pos.time, pos.rejected
	row.RowsSynced, row.RowsTotal = pos.rows, pos.rows+pos.rejected
	row.SyncStart, row.SyncEnd = pos.started, pos.finished
	if row.SyncEnd.IsZero() {
		row.SyncEnd = time.Now().UTC()
	}
	if s.why != "" && s.w.row.Refresh != tarn.RefreshFull {
		row.Message = first(row.Message, fmt.Sprintf("version %d was loaded whole: %s", pos.version, s.why))
	}
	w.columns = nil
	for _, f := range s.snap.Schema().Fields {
		w.columns = append(w.columns, f.Name)
	}
	if err := w.rest(ctx, row, tarn.UpdateCompleted); err != nil {
		return err
	}
	w.log.Info("synced table is online", "version", pos.version, "count", pos.rows, "took", w.row.SyncEnd.Sub(pos.started))
	if grown >= max(1, row.Alerts.DeadLetters) {
		w.alert(ctx, "dead_letters", fmt.Sprintf("%d more rows could not be stored; %s", grown, row.Message))
	}
	return nil
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
