package compute

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/postgres"
)

// A read replica is a hot standby on a fork of its branch's timeline, which is
// made when it starts and removed when it ends: it takes as long as any fork, whatever the size, and
// shares every page that neither side has written since. It follows the
// branch's compute through that one's socket. Its fork is never published, so
// that what a crash leaves of it is cleared away like any unfinished timeline.
//
// While the branch's compute sleeps the replica answers with all that was
// written. One that cannot follow any more, because WAL that it needs is gone or
// the branch's compute was given a larger size, is forked anew.

// startReplica makes the fork and runs the standby on it.
//
//  1. Pin the branch's timeline and take the WAL that the fork must replay.
//  2. Open the fork; say that it is to stay in recovery.
//  3. Start Postgres: it replays that WAL, is consistent, and follows.
//
// A crash after any step leaves an unpublished timeline.
func (f runner) startReplica(ctx context.Context, l *life, s tarn.ComputeSpec, in postgres.Install, settings map[string]string) (*engine, error) {
	id, err := forkReplica(ctx, f.maker, s.Timeline)
	if err != nil {
		return nil, fmt.Errorf("fork for a replica: %w", err)
	}
	e, err := f.openEngine(ctx, s.Endpoint, id)
	if err != nil {
		return nil, errors.Join(err, f.maker.discard(context.WithoutCancel(ctx), id))
	}
	e.replica = true
	f.rest.remove(id) // nothing of it is to be copied
	err = e.follow(settings, f.socketDir(s.Primary))
	if err == nil {
		err = e.enter(l, s)
	}
	if err == nil {
		err = e.run(ctx, in, settings)
	}
	if err != nil {
		return nil, errors.Join(e.explain(l, err), e.wreck(ctx), f.maker.discard(context.WithoutCancel(ctx), id))
	}
	return e, nil
}

// forkReplica makes a fork of a timeline as it is now, unpublished.
func forkReplica(ctx context.Context, k *maker, source tarn.TimelineID) (tarn.TimelineID, error) {
	id, err := newTimelineID()
	if err != nil {
		return "", err
	}
	t, _, err := k.pin(ctx, tarn.TimelineSpec{ID: id, Source: source, History: -1}, target{})
	if err == nil {
		err = k.retain(ctx, t)
	}
	if err != nil {
		return "", errors.Join(err, k.discard(context.WithoutCancel(ctx), id))
	}
	return id, nil
}

// follow prepares an opened fork for a standby of the compute with that socket.
// Postgres refuses to be a standby with less room than its primary has, which is
// in pg_control.
func (e *engine) follow(settings map[string]string, socketDir string) error {
	c, err := readControl(e.volume)
	if err != nil {
		return err
	}
	for name, least := range map[string]int{
		"max_connections": c.MaxConnections, "max_worker_processes": c.MaxWorkers, "max_wal_senders": c.MaxSenders,
		"max_prepared_transactions": c.MaxPrepared, "max_locks_per_transaction": c.MaxLocks,
	} {
		if has, err := strconv.Atoi(settings[name]); err != nil || has < least {
			settings[name] = strconv.Itoa(least)
		}
	}
	quote := strings.NewReplacer(`\`, `\\`, `'`, `\'`)
	settings["hot_standby"] = "on"
	settings["archive_mode"] = "off" // the branch's compute does it
	settings["wal_retrieve_retry_interval"] = "200ms"
	settings["recovery_target_timeline"] = "latest"
	// The primary is on this computer: it is there or it is not. What is frozen
	// must not be taken for dead.
	settings["primary_conninfo"] = fmt.Sprintf("host='%s' port=%d user=%s application_name='%s' options='-c wal_sender_timeout=0'",
		quote.Replace(socketDir), port, tarn.Superuser, quote.Replace(e.name))
	if err := e.pointWAL(); err != nil {
		return err
	}
	for _, name := range [...]string{"recovery.signal", "backup_label", "tablespace_map"} {
		if err := e.volume.Remove(name); err != nil {
			return err
		}
	}
	return e.volume.WriteFile("standby.signal", nil, e.on.newFile(unix.S_IFREG|0o600, ""))
}

// dropReplica ends a replica, or clears away what a crash left of it, and
// removes its fork: nothing in it is needed again.
func (f runner) dropReplica(ctx context.Context, e *engine) error {
	ctx = context.WithoutCancel(ctx)
	var err error
	if e.server != nil {
		limit, cancel := context.WithTimeout(ctx, stopPatience)
		defer cancel()
		err = e.server.Stop(limit, postgres.Fast) // its sessions hear why
	}
	return errors.Join(err, e.wreck(ctx), f.maker.discard(ctx, e.timeline))
}

// standing is how a replica stands.
type standing struct {
	lsn       tarn.LSN      // replayed up to
	behind    time.Duration // the age of the last replayed commit, while there is more to replay
	streaming bool
	paused    bool // Postgres does not replay: the primary has more room than it
}

const sqlStanding = `
SELECT COALESCE(pg_last_wal_replay_lsn(), '0/0')::text,
	CASE WHEN pg_last_wal_receive_lsn() IS NOT DISTINCT FROM pg_last_wal_replay_lsn() THEN 0
		ELSE COALESCE(EXTRACT(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()), 0) END::float8,
	EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming'),
	pg_is_wal_replay_paused()`

func (s *session) standing(ctx context.Context) (st standing, err error) {
	limit, cancel := context.WithTimeout(ctx, sessionPatience)
	defer cancel()
	var text string
	var behind float64
	if err := s.conn.QueryRow(limit, sqlStanding).Scan(&text, &behind, &st.streaming, &st.paused); err != nil {
		return st, fmt.Errorf("ask a replica how it stands: %w", err)
	}
	st.behind = time.Duration(max(behind, 0) * float64(time.Second))
	st.lsn, err = tarn.ParseLSN(text)
	return st, err
}

// strayPatience is how long a replica may be without its primary's WAL while
// that runs.
const strayPatience = 15 * time.Second

var errCannotFollow = errors.New("it cannot follow its branch any more and is made anew")

// stand learns how far the compute is. A replica that has lost its primary is
// ended, by an error.
func (w *watcher) stand(ctx context.Context) error {
	f, l := w.f, w.l
	if !w.e.replica {
		var lsn tarn.LSN
		err := w.ask(ctx, func(s *session) (err error) {
			lsn, err = s.flushed(ctx)
			return err
		})
		if err == nil {
			f.mu.Lock()
			l.status.LSN = lsn
			f.mu.Unlock()
		}
		return nil
	}
	var st standing
	if w.ask(ctx, func(s *session) (err error) {
		st, err = s.standing(ctx)
		return err
	}) != nil {
		return nil // ask has logged it
	}
	f.mu.Lock()
	primary := f.servingLife(l.spec.Timeline)
	runs := primary != nil && primary.status.State == tarn.ComputeActive
	l.status.LSN, l.status.Lag, l.status.LagBytes = st.lsn, 0, 0
	if runs && primary.status.LSN > st.lsn {
		l.status.Lag, l.status.LagBytes = st.behind, int64(primary.status.LSN-st.lsn)
	}
	f.mu.Unlock()
	now := time.Now()
	switch {
	case st.paused:
		return errCannotFollow
	case st.streaming || !runs:
		w.followed = now
	case w.followed.IsZero():
		w.followed = now
	case now.Sub(w.followed) > strayPatience:
		return errCannotFollow
	}
	return nil
}

// servingLife is the life of the compute that writes a timeline; nil without
// one. The caller holds f.mu.
func (f *Fleet) servingLife(id tarn.TimelineID) *life {
	for _, l := range f.lives {
		if l.spec.Timeline == id && !l.spec.ReadOnly && l.engine != nil {
			return l
		}
	}
	return nil
}
