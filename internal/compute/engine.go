package compute

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/postgres"
	"github.com/tarndb/tarn/internal/postgres/cgroup"
	"github.com/tarndb/tarn/internal/wal"
)

const (
	// stopPatience is how long a fast shutdown may take: it writes a checkpoint
	// and lets every walsender send the rest.
	stopPatience = 2 * time.Minute
	// cleanPatience bounds unmounting and the like, which take milliseconds.
	cleanPatience = 30 * time.Second
	port          = 5432
	logBytes      = 16 << 20 // a longer log is put aside at the next start
)

// engine is a timeline's volume and the Postgres on it. Whoever makes one holds
// the timeline meanwhile, and ends it with stop or wreck.
//
//	             ┌─────hide──────┐
//	             ▼               │
//	openEngine ──▶ opened ──show──▶ shown ──run──▶ serving ──stop──▶ gone
//	                  └───────────────┴──────────────┼───────wreck──▶ gone
//	adopt ───────────────────────────────────────────┘──handOver──▶ the next adopt
//
// This process itself serves what is shown. It never touches a file there: killed
// while it waits for its own answer, it would never end, nor would whoever waits
// for it. What it changes, it changes while the volume is only opened; what it
// reads, it reads from the volume.
type engine struct {
	on       *machine
	name     string
	timeline tarn.TimelineID
	volume   volume
	mount    shown            // nil unless shown
	server   *postgres.Server // nil before run
	group    *cgroup.Group    // nil where its size cannot change
	ice      ice
	replica  bool              // it follows another
	set      map[string]string // its endpoint\'s settings, when it started
	wal      *wal.Log
	control  postgres.Control // before the start; zero where there was none, or nothing is copied
	copying  *copying         // nil while its WAL is not copied
	fenced   atomic.Bool      // its commits wait for the object store
	steps    *tarn.Steps      // of its start; nil when nobody asks
}

// openEngine opens a timeline's volume.
func (m *machine) openEngine(ctx context.Context, name string, id tarn.TimelineID) (*engine, error) {
	e := m.newEngine(name, id)
	if err := m.closeStuck(id); err != nil {
		return nil, err
	}
	m.rest.note(id) // until whatever is written now is copied
	var err error
	if e.volume, err = m.store.OpenVolume(ctx, id); err != nil {
		return nil, err
	}
	if v, ok := e.volume.(leased); ok {
		ok, err := tenancy{m}.goesOn(id, v.Lease())
		if err == nil && !ok {
			err = tarn.Unavailable("another node had timeline %s until just now", id)
		}
		if err != nil {
			return nil, errors.Join(err, e.closeVolume())
		}
	}
	if err := e.readControl(); err != nil {
		return nil, errors.Join(err, e.closeVolume())
	}
	return e, nil
}

// show makes the volume a directory.
func (e *engine) show(ctx context.Context) (err error) {
	e.mount, err = e.volume.Show(ctx, e.dataDir(), e.on.log)
	return err
}

func (m *machine) newEngine(name string, id tarn.TimelineID) *engine {
	return &engine{on: m, name: name, timeline: id, wal: m.walOf(id)}
}

func (e *engine) dataDir() string { return e.on.path("mnt", e.name) }
func (e *engine) pidFile() string { return e.on.path("run", e.name+".pid") }
func (e *engine) logFile() string { return e.on.path("log", e.name+".log") }

// start makes an opened volume fit for this computer and runs Postgres.
//
//  1. Point pg_wal to this timeline's own WAL: initdb and forks leave the path of
//     another, and the data directory may have moved.
//  2. Remove what would turn the start into a recovery that nobody asked for.
//  3. Remove the lock file of a Postgres that is gone; write pg_hba.conf if it
//     differs: nobody but us says who may connect.
//  4. Show the volume and start Postgres.
func (e *engine) start(ctx context.Context, in postgres.Install, settings map[string]string) error {
	if err := e.pointWAL(); err != nil {
		return err
	}
	for _, name := range [...]string{"recovery.signal", "standby.signal", "backup_label", "tablespace_map"} {
		if err := e.volume.Remove(name); err != nil {
			return err
		}
	}
	return e.run(ctx, in, settings)
}

// run starts Postgres on an opened volume.
func (e *engine) run(ctx context.Context, in postgres.Install, settings map[string]string) error {
	if err := e.volume.Remove("postmaster.pid"); err != nil {
		return err
	}
	if err := e.writeFile("pg_hba.conf", hba); err != nil {
		return err
	}
	// A fork's says where its parent's is.
	if err := e.writeFile("postgresql.conf", conf+"include '"+confQuote.Replace(e.settingsFile())+"'\ninclude_if_exists '"+confQuote.Replace(fenceFile(e))+"'\n"); err != nil {
		return err
	}
	if err := e.pointScratch(); err != nil {
		return err
	}
	e.steps.Done("files")
	if err := e.show(ctx); err != nil {
		return err
	}
	e.steps.Done("mount")
	settings, file := live(settings)
	if err := errors.Join(e.writeSettings(file), unfence(e)); err != nil { // in run: hide clears it away
		return err
	}
	if st, err := os.Stat(e.logFile()); err == nil && st.Size() > logBytes {
		if err := os.Rename(e.logFile(), e.logFile()+".1"); err != nil {
			return err
		}
	}
	// Made anew by ourselves: below the temporary directory somebody else may
	// have put a directory or a link of that name.
	socketDir := e.on.socketDir(e.name)
	if err := os.RemoveAll(socketDir); err != nil {
		return err
	}
	if err := os.Mkdir(socketDir, 0o700); err != nil {
		return err
	}
	s, err := postgres.Start(ctx, e.config(in, settings))
	if e.server = s; s != nil {
		e.steps.Add(s.Steps()...)
	}
	return err
}

func (e *engine) settingsFile() string { return e.on.path("run", e.name+".conf") }

// writeSettings replaces the file of settings that can change while Postgres
// runs, whole.
func (e *engine) writeSettings(text string) error {
	path := e.settingsFile()
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func (e *engine) config(in postgres.Install, settings map[string]string) postgres.Config {
	c := postgres.Config{
		Install:   in,
		DataDir:   e.dataDir(),
		ReadFile:  e.volume.ReadFile,
		SocketDir: e.on.socketDir(e.name),
		Port:      port,
		Settings:  settings,
		RunAs:     e.on.o.RunAs,
		LogFile:   e.logFile(),
		PIDFile:   e.pidFile(),
		Log:       e.on.log,
	}
	switch {
	case e.group == nil:
	case e.group.Enters():
		c.Enter = e.group.Enter
	default:
		c.Entered = e.group.Add
	}
	return c
}

// hba lets in whoever reaches the socket: its directory has mode 0700, and
// clients have been authenticated before.
const hba = `# Written by Tarn; changes are undone at the next start.
local all all trust
local replication tarn_admin trust
host all all all reject
host replication all all reject
`

// conf replaces initdb's sample. What an endpoint sets is in a file that is
// included, what must not change on the command line, which wins.
const conf = `# Written by Tarn; changes are undone at the next start.
timezone = 'UTC'
log_timezone = 'UTC'
datestyle = 'iso, mdy'
default_text_search_config = 'pg_catalog.english'
dynamic_shared_memory_type = posix
`

func (e *engine) pointWAL() error {
	at, err := e.volume.Readlink("pg_wal")
	if err == nil && at == e.wal.Dir() {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return e.volume.Symlink("pg_wal", e.on.newFile(unix.S_IFLNK|0o777, e.wal.Dir()))
}

// writeFile replaces a file of an opened volume unless it says so already.
func (e *engine) writeFile(name, text string) error {
	if b, err := e.volume.ReadFile(name); err == nil && string(b) == text {
		return nil
	}
	return e.volume.WriteFile(name, []byte(text), e.on.newFile(unix.S_IFREG|0o600, ""))
}

// stop ends the engine cleanly and leaves a mark at the very end of the
// timeline, so that a fork of a stopped parent needs no recovery.
//
//  1. Fast shutdown: sessions end, walsenders send the rest, a checkpoint is
//     written. It is killed when that takes too long.
//  2. Unmount; nothing can come any more.
//  3. Read pg_control: where the log ends.
//  4. Mark the head, unless Postgres did not end cleanly.
//  5. Close the volume, which syncs.
//  6. Copy the end of the WAL to the object store; what does not arrive soon is
//     copied afterwards (copyAtRest).
//
// A crash anywhere leaves a timeline that recovers at its next start.
func (e *engine) stop(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	limit, cancel := context.WithTimeout(ctx, stopPatience)
	defer cancel()
	var errs []error
	copied := e.stopCopying()
	if e.server != nil {
		if err := e.server.Stop(limit, postgres.Fast); err != nil {
			errs = append(errs, err)
		}
	}
	errs = append(errs, e.ungroup(ctx))
	if err := e.hide(ctx); err != nil {
		errs = append(errs, err)
	}
	control, err := readControl(e.volume)
	if err != nil {
		errs = append(errs, err)
	}
	if err == nil && control.State == postgres.StateShutDown {
		if err := e.markEnd(ctx, control); err != nil {
			errs = append(errs, err)
		}
	} else {
		errs = append(errs, fmt.Errorf("Postgres on timeline %s did not shut down cleanly; its next start recovers", e.timeline))
	}
	errs = append(errs, e.closeVolume())
	if err == nil {
		e.finishCopying(ctx, copied, control)
	}
	return errors.Join(errs...)
}

func (e *engine) markEnd(ctx context.Context, c postgres.Control) error {
	end, err := e.wal.RecordEnd(c.TLI, c.Checkpoint, c.SegmentBytes)
	if err != nil {
		return fmt.Errorf("mark the end of timeline %s: %w", e.timeline, err)
	}
	m := tarn.Mark{Seq: e.volume.Head(), LSN: end}
	m.Time = time.Now().UTC()
	return e.volume.Mark(ctx, m)
}

// wreck ends the engine at once: after a crash, or when a start did not work
// out. It returns when nothing of it is left.
func (e *engine) wreck(ctx context.Context) error {
	if e.server != nil {
		e.server.Kill()
	}
	e.stopCopying()
	defer e.on.rest.wake() // unless it starts again, what was acknowledged is copied at rest
	return errors.Join(e.ungroup(ctx), e.hide(context.WithoutCancel(ctx)), e.closeVolume())
}

// closeVolume ends the volume. When it cannot be closed, because the disk is
// full, it is kept for the next openEngine to try again.
func (e *engine) closeVolume() error {
	err := e.volume.Close()
	if err != nil {
		e.on.stuckMu.Lock()
		defer e.on.stuckMu.Unlock()
		e.on.stuck[e.timeline] = e.volume
	}
	return err
}

// closeStuck closes the volume that closeVolume could not.
func (m *machine) closeStuck(id tarn.TimelineID) error {
	m.stuckMu.Lock()
	v := m.stuck[id]
	m.stuckMu.Unlock()
	if v == nil {
		return nil
	}
	if err := v.Close(); err != nil {
		return fmt.Errorf("close what was left open of timeline %s: %w", id, err)
	}
	m.stuckMu.Lock()
	defer m.stuckMu.Unlock()
	delete(m.stuck, id)
	return nil
}

// hide removes the mount, its directory and what run left; the volume can be
// shown again. Postgres has ended.
func (e *engine) hide(ctx context.Context) error {
	if e.mount == nil {
		return nil
	}
	limit, cancel := context.WithTimeout(ctx, cleanPatience)
	defer cancel()
	if err := e.mount.Unmount(limit); err != nil {
		return err
	}
	e.mount = nil
	return e.on.sweep(e.name)
}

// engineName names the engines the fleet runs for itself. No endpoint's UID
// begins like that.
func engineName(id tarn.TimelineID) string { return "_" + string(id) }

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
