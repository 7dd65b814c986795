package feed

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/pgoutput"
	"github.com/tarndb/tarn/internal/pgvalue"
)

// session follows one feed over one replication connection. Everything it
// knows is read anew when it begins; when anything goes wrong it ends and the
// next one repeats what was not confirmed.
type session struct {
	*follower
	log    *slog.Logger
	src    source
	types  *pgvalue.Types
	repl   *replication
	rx     *receiver
	slot   string
	epoch  uint32
	app    string // app transaction id of a table without oid and generation
	near   uint64 // a recent full transaction id
	tables map[uint32]*table
	graves *graveyard
	rels   map[uint32]*pgoutput.Relation
	tx     transaction
	streams
	todo todo

	processed tarn.LSN // everything up to it is in the tables' builders or in Delta
	flushed   tarn.LSN // everything up to it is in Delta
	weighed   time.Time
	lost      map[uint32]bool // tables of the stream that neither the database nor the lake knows
}

// streams are the transactions that come before their end.
type streams struct {
	open  map[uint32]*transaction // by xid
	block uint32                  // xid of the one whose block is open; 0 = none
}

// todo is what a session owes to tables that it met.
type todo struct {
	copy    map[uint32]bool    // to be copied, now
	born    map[uint32]bool    // created in the stream: every row of it comes
	waiting map[uint32]waiting // listed, but the stream may still tell of its birth
	mark    uint64             // last mark written
}

type waiting struct {
	table listed
	mark  uint64 // when this mark comes, it was not born in the stream
}

// follow runs one session. It returns nil only when ctx ends.
func (f *follower) follow(ctx context.Context, status tarn.ComputeStatus) (err error) {
	s := &session{
		follower: f, log: f.log, tables: map[uint32]*table{}, rels: map[uint32]*pgoutput.Relation{},
		lost: map[uint32]bool{}, streams: streams{open: map[uint32]*transaction{}}, graves: &graveyard{feed: f},
		todo: todo{copy: map[uint32]bool{}, born: map[uint32]bool{}, waiting: map[uint32]waiting{}},
		tx:   transaction{dir: f.k.spoolDir},
	}
	spec := f.row.FeedSpec
	f.status = status
	conn, err := f.dial(ctx, func(c *pgx.ConnConfig) { configure(c, "tarn feed "+spec.ID) })
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer closeConn(conn)
	s.types = pgvalue.NewTypes(conn)
	s.src = source{conn: conn, schema: spec.PostgresSchema, publication: f.publication(), follows: spec.Follows}
	fresh, err := s.src.prepare(ctx)
	if err != nil {
		return err
	}
	if err := s.src.identify(ctx, leaveLocked); err != nil {
		return err
	}
	if s.repl, err = s.replicate(ctx); err != nil {
		return err
	}
	defer closeConn(s.repl.conn)
	defer s.close()
	if err := conn.QueryRow(ctx, fullXIDSQL).Scan(&s.near); err != nil {
		return fmt.Errorf("read the next transaction id: %w", err)
	}
	if err := s.openSlot(ctx, fresh); err != nil {
		return err
	}
	return s.stream(ctx)
}

const fullXIDSQL = `SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint`

func (s *session) replicate(ctx context.Context) (*replication, error) {
	conn, err := s.dial(ctx, func(c *pgx.ConnConfig) { configureReplication(c, "tarn feed "+s.row.ID) })
	if err != nil {
		return nil, fmt.Errorf("connect for replication: %w", err)
	}
	r, err := newReplication(ctx, conn)
	if err != nil {
		closeConn(conn)
		return nil, err
	}
	return r, nil
}

// dial connects to the compute as it was last seen. Unlike Connect it neither
// wakes it nor counts as a use of it: a feed keeps nobody awake.
func (f *follower) dial(ctx context.Context, adjust func(*pgx.ConnConfig)) (*pgx.Conn, error) {
	st := f.status
	if st.SocketDir == "" { // not on this computer
		return f.k.computes.Connect(ctx, f.row.Branch, f.row.Database, adjust)
	}
	c, err := pgx.ParseConfig("host=/ port=1 user=" + tarn.Superuser + " password=none dbname=none sslmode=disable target_session_attrs=any")
	if err != nil {
		return nil, err
	}
	c.Host, c.Port, c.Database, c.Password, c.Fallbacks = st.SocketDir, uint16(st.Port), f.row.Database, "", nil
	adjust(c)
	return pgx.ConnectConfig(ctx, c)
}

// keepAwake uses the compute until the returned func is called: a copy that
// was asked for must not be cut off again and again by its suspension.
func (f *follower) keepAwake(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			conn, err := f.k.computes.Connect(ctx, f.row.Branch, f.row.Database, func(c *pgx.ConnConfig) { configure(c, "tarn feed "+f.row.ID) })
			if err == nil {
				closeConn(conn)
			}
			pause(ctx, useEvery)
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// useEvery is below any sensible time after which an idle compute is suspended.
const useEvery = 2 * time.Second

// closeConn says goodbye, briefly, also when the caller's context is over.
func closeConn(c *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c.Close(ctx) // nothing of ours depends on the answer
}

func (s *session) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for _, t := range s.tables {
		t.close(ctx)
	}
	s.tx.reset()
	for _, tx := range s.streams.open {
		tx.reset()
	}
}

// openSlot finds the feed's slot or makes it, and opens the tables.
//
//  1. the publication exists            before the slot, or decoding would not find it
//  2. the slot is made                  a crash leaves a slot under which no table was
//     copied: it is made anew. Tables that a later crash leaves without a copy
//     are copied by a temporary slot's snapshot
//  3. every table is copied             one Delta commit per table carries the
//     snapshot's position: a table is copied wholly or not at all
//  4. the stream begins                 transactions up to a table's position are skipped
func (s *session) openSlot(ctx context.Context, fresh bool) error {
	slots, err := s.src.slots(ctx)
	if err != nil {
		return err
	}
	var have *slotState
	usable := !fresh && s.broken < brokenStreams
	s.broken %= brokenStreams
	for i, st := range slots {
		if i == 0 && !st.lost && usable && st.held <= s.maxWAL() {
			have = &slots[0]
			continue
		}
		s.log.Warn("drop slot", "lsn", st.confirmed, "path", st.name)
		if err := s.src.dropSlot(ctx, st); err != nil {
			return err
		}
	}
	if have != nil {
		if resumed, err := s.resume(ctx, *have); resumed || err != nil {
			return err
		}
	}
	// The random part keeps two slots of one second apart: what a table knows
	// of one must not be taken for the other.
	if err := take(s, fmt.Sprintf("%s_%08x_%04x", s.src.publication, uint32(time.Now().Unix()), rand.N(1<<16))); err != nil {
		return err
	}
	defer s.keepAwake(ctx)()
	s.say(ctx, "making the replication slot: waits for the transactions that run now")
	ex, err := makeSlot(ctx, s)
	if err != nil {
		return err
	}
	s.log.Info("made slot", "lsn", ex.Point, "path", s.slot)
	s.event(ctx, tarn.EventInfo, tarn.EventUpdateProgress, "made replication slot %s at %s", s.slot, ex.Point)
	s.flushed, s.processed = ex.Point, ex.Point
	// Listed after the slot's start: a table made in between is copied empty
	// and all its rows come in the stream.
	tables, err := s.src.tables(ctx)
	if err != nil {
		return err
	}
	for _, l := range tables {
		if err := s.copyTable(ctx, l, ex); err != nil {
			return err
		}
	}
	return nil
}

// take makes a slot the session's.
func take(s *session, slot string) (err error) {
	s.slot = slot
	s.app = strings.Join([]string{"tarn", s.repl.systemID, string(s.status.Timeline), slot}, "/")
	s.epoch, err = epochOf(slot, s.src.publication)
	return err
}

// resume takes up an existing slot. One under which no table was ever copied is
// dropped: nothing is lost with it, and makeSlot may not have come to its end.
func (s *session) resume(ctx context.Context, have slotState) (resumed bool, err error) {
	if err := take(s, have.name); err != nil {
		return false, err
	}
	s.flushed, s.processed = have.confirmed, have.confirmed
	if err := s.src.free(ctx, have); err != nil {
		return false, err
	}
	if err := s.reopen(ctx); err != nil {
		return false, err
	}
	on, follows := s.onRecord()
	if len(s.tables) == 0 && have.confirmed > on {
		s.log.Info("drop slot without tables", "lsn", have.confirmed, "path", have.name)
		clear(s.todo.waiting)
		return false, s.src.dropSlot(ctx, have)
	}
	// A slot that is older than the loss came back with the branch, and is
	// confirmed to before its end; one that was made since, to behind it.
	back, err := s.k.cameBack(ctx, s.row.Branch)
	if err != nil {
		return false, err
	}
	if at := inDelta(s); back != 0 && have.confirmed <= back && at > back {
		s.broken = brokenStreams // the next session makes a new slot
		return false, fmt.Errorf("the branch came back up to %s, and the tables are at %s: what lies between is no more", back, at)
	}
	if follows && have.confirmed > on {
		s.broken = brokenStreams // the next session makes a new slot
		return false, fmt.Errorf("slot %s is confirmed to %s, the tables are at %s: it is not the one that was made, and what lies between is lost", s.slot, have.confirmed, on)
	}
	return true, nil
}

// epochOf reads the second in which a slot was made from its name.
func epochOf(slot, publication string) (epoch uint32, err error) {
	if _, err = fmt.Sscanf(strings.TrimPrefix(slot, publication+"_"), "%08x", &epoch); err != nil {
		return 0, fmt.Errorf("read the epoch of slot %s: %w", slot, err)
	}
	return epoch, nil
}

// reopen takes up the tables of an existing slot. One without a copy was made
// while nobody looked, or its copy was interrupted.
func (s *session) reopen(ctx context.Context) error {
	tables, err := s.src.tables(ctx)
	if err != nil {
		return err
	}
	var unknown []listed
	for _, l := range tables {
		rel, err := relation(ctx, s.src.conn, s.src.schema, l)
		if err != nil {
			return err
		}
		// Now: when Postgres stops, this connection ends before the stream.
		for _, c := range rel.Columns {
			if _, err := s.types.Resolve(ctx, c.TypeOID, c.TypeMod); err != nil {
				return err
			}
		}
		t, err := s.openTable(ctx, rel, onlyExisting)
		if err != nil {
			return err
		}
		if t == nil || !t.known {
			if t != nil {
				delete(s.tables, l.oid)
				t.close(ctx)
			}
			unknown = append(unknown, l)
			continue
		}
		if state := s.recorded(l.name).State; state != "" && state != tarn.FeedStreaming {
			// It was stopped or waits for a copy: it missed changes. The
			// reason may be gone by now.
			s.todo.copy[l.oid] = true
		}
	}
	if err := s.missing(ctx, tables); err != nil {
		return err
	}
	return s.await(ctx, unknown)
}

// missing records tables that are no longer the feed's. One that was dropped
// while nobody looked may still have changes in the stream, which open it again.
func (s *session) missing(ctx context.Context, there []listed) error {
	for name, t := range s.follower.tables {
		if t.State == tarn.FeedTerminated || slices.ContainsFunc(there, func(l listed) bool { return l.name == name }) {
			continue
		}
		t.State, t.Detail = tarn.FeedTerminated, goneDetail
		if !s.row.Follows(name) {
			t.Detail = "the feed leaves the table out"
		}
		if err := controldb.UpsertFeedTable(ctx, s.k.db, s.row.UID, t); err != nil {
			return fmt.Errorf("record the tables: %w", err)
		}
		s.tellChange(ctx, s.follower.tables[name], t)
		s.follower.tables[name] = t
	}
	return nil
}

const goneDetail = "the table was dropped or left the Postgres schema"

// await marks the stream so that we learn whether tables were born in it.
func (s *session) await(ctx context.Context, tables []listed) error {
	if len(tables) == 0 {
		return nil
	}
	s.todo.mark++
	for _, l := range tables {
		s.todo.waiting[l.oid] = waiting{table: l, mark: s.todo.mark}
	}
	return s.src.mark(ctx, s.todo.mark)
}

// stream reads changes until the stream or ctx ends.
func (s *session) stream(ctx context.Context) error {
	if err := s.copyDue(ctx); err != nil {
		return err
	}
	if err := s.repl.start(ctx, s.slot, s.src.publication); err != nil {
		return err
	}
	s.rx = newReceiver(s.repl)
	s.rx.flushed.Store(uint64(s.flushed))
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.rx.run(gctx) })
	g.Go(func() error {
		s.newUpkeep().run(gctx)
		return nil
	})
	g.Go(func() error {
		err := s.work(gctx)
		if err == nil {
			return nil // the receiver's error says why the events ended
		}
		return err
	})
	err := g.Wait()
	if err == nil {
		return errStreamEnded
	}
	return err
}

// work handles events; it returns nil when they end.
func (s *session) work(ctx context.Context) error {
	s.say(ctx, s.wellMessage())
	flush := time.NewTimer(s.interval())
	flush.Stop()
	armed := false
	poll := time.NewTicker(s.k.poll)
	defer poll.Stop()
	defer flush.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case e, ok := <-s.rx.events:
			if !ok {
				return nil
			}
			if err := s.handle(ctx, e); err != nil {
				return err
			}
			s.rx.taken(e)
		case <-flush.C:
			armed = false
			if err := s.flush(ctx); err != nil {
				return err
			}
		case <-poll.C:
			if err := s.look(ctx); err != nil {
				return err
			}
		}
		if !armed && s.hasPending() {
			flush.Reset(s.interval())
			armed = true
		}
	}
}

// interval is how long a change may wait for others.
func (f *follower) interval() time.Duration {
	if f.row.Flush > 0 {
		return f.row.Flush
	}
	return f.k.flush
}

func (s *session) hasPending() bool {
	for _, t := range s.tables {
		if t.pending != 0 {
			return true
		}
	}
	return false
}

// look finds tables that appeared or went, and records positions.
func (s *session) look(ctx context.Context) error {
	if going, err := s.branchGoing(ctx); err != nil || going {
		if err == nil {
			err = errBranchGoing
		}
		return err
	}
	if s.src.conn.IsClosed() {
		return nil // Postgres is stopping: the stream ends when all is sent
	}
	err := func() error {
		if err := s.weighEvery(ctx); err != nil {
			return err
		}
		if err := s.src.identify(ctx, leaveLocked); err != nil {
			return err
		}
		tables, err := s.src.tables(ctx)
		if err != nil {
			return err
		}
		var unknown []listed
		var lost bool
		there := map[uint32]bool{}
		for _, l := range tables {
			t := s.tables[l.oid]
			there[l.oid] = t == nil || t.name == l.name
			if !there[l.oid] {
				t.called = l.name
				continue
			}
			if _, waits := s.todo.waiting[l.oid]; t == nil && !waits {
				unknown = append(unknown, l)
			}
			if t != nil && t.gone != 0 {
				t.gone, t.called = 0, ""
				s.todo.copy[l.oid] = true // it left the schema and came back
			}
		}
		for oid, t := range s.tables {
			if !there[oid] && t.gone == 0 {
				// Its last changes may still be on their way.
				t.gone = s.todo.mark + 1
				lost = true
			}
		}
		if lost && len(unknown) == 0 {
			s.todo.mark++
			return s.src.mark(ctx, s.todo.mark)
		}
		return s.await(ctx, unknown)
	}()
	if err != nil && s.src.conn.IsClosed() {
		s.log.Info("lost the connection beside the stream", "err", err)
		return nil
	}
	if err == nil {
		err = s.copyDue(ctx)
	}
	if err == nil {
		err = s.acknowledge(ctx)
	}
	return err
}

// flush commits every table with pending rows and then, and only then, confirms
// the position to the slot.
func (s *session) flush(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	now := time.Now().UTC()
	for _, t := range s.tables {
		if t.pending == 0 {
			continue
		}
		t.status.sync = now
		g.Go(func() error { return t.commit(gctx, "STREAMING UPDATE") })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if s.processed > s.flushed {
		s.flushed, s.broken = s.processed, 0
	}
	for _, t := range s.tables {
		if t.status.changed {
			// A stopped table must be on record before its changes are
			// acknowledged and gone.
			if err := s.record(ctx); err != nil {
				return err
			}
			break
		}
	}
	if s.rx != nil {
		var safe tarn.LSN // what Delta says by itself; look confirms the rest
		for _, t := range s.tables {
			if t.known && t.base <= s.flushed {
				safe = max(safe, t.base)
			}
		}
		s.rx.confirm(safe)
	}
	return nil
}
