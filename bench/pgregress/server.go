package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/compute"
	"github.com/tarndb/tarn/internal/layer"
	"github.com/tarndb/tarn/internal/pagestore"
	"github.com/tarndb/tarn/internal/postgres"
	"github.com/tarndb/tarn/internal/volumefs"
)

// server is a Postgres on one of the two kinds of directory. Its WAL is beside
// the directory on both, as a compute's is.
type server struct {
	install  postgres.Install
	runAs    *postgres.RunAs
	dir      string
	port     int
	settings map[string]string
	files    files

	running *postgres.Server
	extra   map[string]string // settings of the suite that runs
}

// files is where a data directory is: a mounted volume or a plain directory.
type files interface {
	open(ctx context.Context, dataDir string) error
	close(ctx context.Context) error
}

// superuser is a second one, whom dblink and postgres_fdw connect as when nothing is said: the
// role with the name of the user that runs Postgres.
func (s *server) superuser() string {
	if s.runAs != nil {
		return s.runAs.Name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return tarn.Superuser
}

func (s *server) dataDir() string   { return filepath.Join(s.dir, "pgdata") }
func (s *server) socketDir() string { return filepath.Join(s.dir, "socket") }
func (s *server) logFile() string   { return filepath.Join(s.dir, "postgres.log") }

func (s *server) make(ctx context.Context) error {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	if err := s.files.open(ctx, s.dataDir()); err != nil {
		return err
	}
	err := postgres.InitDB(ctx, s.install, postgres.InitOptions{DataDir: s.dataDir(), WALDir: filepath.Join(s.dir, "wal"), RunAs: s.runAs})
	if err == nil {
		err = s.start(ctx)
	}
	if err == nil {
		err = s.makeSuperuser(ctx)
	}
	if err != nil {
		return errors.Join(err, s.files.close(context.WithoutCancel(ctx)))
	}
	return nil
}

func (s *server) makeSuperuser(ctx context.Context) error {
	if s.superuser() == tarn.Superuser {
		return nil
	}
	c, err := pgx.Connect(ctx, fmt.Sprintf("host=%s port=%d user=%s dbname=postgres", s.socketDir(), s.port, tarn.Superuser))
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	_, err = c.Exec(ctx, "CREATE ROLE "+pgx.Identifier{s.superuser()}.Sanitize()+" SUPERUSER LOGIN CREATEDB CREATEROLE REPLICATION BYPASSRLS")
	return err
}

func (s *server) start(ctx context.Context) error {
	all := maps.Clone(s.settings)
	for name, value := range s.extra {
		// A module's wish for a lower level of WAL is no wish.
		if name != "wal_level" {
			all[name] = value
		}
	}
	var err error
	s.running, err = postgres.Start(ctx, postgres.Config{
		Install: s.install, DataDir: s.dataDir(), SocketDir: s.socketDir(), Port: s.port, RunAs: s.runAs,
		LogFile: s.logFile(), PIDFile: filepath.Join(s.dir, "postgres.json"), Bond: postgres.Bound, Settings: all,
	})
	if err != nil {
		return err
	}
	return s.publish()
}

// publish puts a link where libpq looks by default: dblink and postgres_fdw
// connect from the server back to it and name only the port.
func (s *server) publish() error {
	if _, err := os.Stat(s.link()); errors.Is(err, os.ErrNotExist) {
		// One that leads nowhere is what a killed run of ours left.
		if err := os.Remove(s.link()); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	err := os.Symlink(filepath.Join(s.socketDir(), s.socketName()), s.link())
	if errors.Is(err, os.ErrNotExist) {
		return nil // no such place: those two fail on both sides
	}
	return err
}

func (s *server) socketName() string { return ".s.PGSQL." + strconv.Itoa(s.port) }
func (s *server) link() string       { return filepath.Join("/var/run/postgresql", s.socketName()) }

func (s *server) withdraw() error {
	if at, err := os.Readlink(s.link()); err != nil || !strings.HasPrefix(at, s.dir) {
		return nil // none, or somebody else's
	}
	return os.Remove(s.link())
}

// configure restarts the server when a suite asks for other settings; the
// volume is closed and opened, too.
func (s *server) configure(ctx context.Context, extra map[string]string) error {
	if maps.Equal(extra, s.extra) {
		return nil
	}
	if err := s.stop(ctx); err != nil {
		return err
	}
	s.extra = extra
	return s.reopen(ctx)
}

func (s *server) reopen(ctx context.Context) error {
	if err := s.files.open(ctx, s.dataDir()); err != nil {
		return err
	}
	return s.start(ctx)
}

func (s *server) stop(ctx context.Context) error {
	if s.running == nil {
		return nil
	}
	err := s.running.Stop(ctx, postgres.Fast)
	s.running = nil
	return errors.Join(err, s.withdraw(), s.files.close(ctx))
}

// survive kills Postgres in the middle of what it does, opens the volume again
// and has pg_amcheck read every table and index.
func (s *server) survive(ctx context.Context, w io.Writer) (broken bool, err error) {
	s.running.Kill()
	s.running = nil
	if err := errors.Join(s.withdraw(), s.files.close(ctx)); err != nil {
		return false, err
	}
	if err := s.reopen(ctx); err != nil {
		return false, fmt.Errorf("start Postgres on the volume after killing it: %w", err)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(s.install.BinDir, "pg_amcheck"), "-h", s.socketDir(), "-p", strconv.Itoa(s.port), "-U", s.superuser(),
		"--all", "--install-missing", "--heapallindexed", "--jobs=2")
	cmd.Env = []string{"LC_ALL=C.UTF-8"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.credential()}
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	if err != nil || len(out) > 0 {
		fmt.Fprintf(w, "pg_amcheck on the volume, after a crash: %v\n%s", err, out)
		return true, nil
	}
	fmt.Fprintln(w, "After a SIGKILL of Postgres and a recovery, pg_amcheck --all --heapallindexed finds nothing wrong on the volume.")
	return false, nil
}

func (s *server) credential() *syscall.Credential {
	if s.runAs == nil {
		return nil
	}
	return &syscall.Credential{Uid: s.runAs.UID, Gid: s.runAs.GID}
}

// ownDir makes a directory that the user of Postgres may write to.
func (s *server) ownDir(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil || s.runAs == nil {
		return err
	}
	return os.Chown(dir, int(s.runAs.UID), int(s.runAs.GID))
}

// onDisk is a plain directory.
type onDisk struct{}

func (onDisk) open(context.Context, string) error { return nil }
func (onDisk) close(context.Context) error        { return nil }

// onStore is a mounted volume of a page store of its own.
type onStore struct {
	dir   string
	runAs *postgres.RunAs

	store  *pagestore.Store
	volume *pagestore.Volume
	apart  *volumefs.Apart
	mount  *volumefs.Directory
}

const timeline = tarn.TimelineID("00000000000000000000000000000001")

func (o *onStore) open(ctx context.Context, dataDir string) (err error) {
	if o.store, err = pagestore.Open(ctx, o.dir, pagestore.Options{}); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, o.close(context.WithoutCancel(ctx)))
		}
	}()
	if _, err := o.store.Stat(ctx, timeline); err != nil {
		root := layer.NewFile{Mode: unix.S_IFDIR | 0o700, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
		if o.runAs != nil {
			root.UID, root.GID = o.runAs.UID, o.runAs.GID
		}
		if err := o.store.Create(ctx, timeline, root); err != nil {
			return err
		}
	}
	if o.volume, err = o.store.OpenVolume(ctx, timeline); err != nil {
		return err
	}
	if o.apart, err = volumefs.NewApart(o.volume, o.dir+"-spill", compute.SpillFiles, nil); err != nil {
		return err
	}
	o.mount, err = volumefs.Mount(ctx, dataDir, o.apart, volumefs.Options{})
	return err
}

func (o *onStore) close(ctx context.Context) error {
	var errs []error
	if o.mount != nil {
		errs = append(errs, o.mount.Unmount(ctx))
	}
	if o.apart != nil {
		o.apart.Close()
	}
	if o.volume != nil {
		errs = append(errs, o.volume.Close())
	}
	if o.store != nil {
		errs = append(errs, o.store.Close())
	}
	o.apart, o.mount, o.volume, o.store = nil, nil, nil, nil
	return errors.Join(errs...)
}
