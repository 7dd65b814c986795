// Package pgtest gives tests of any room a real, scratch Postgres: it finds
// the installed versions, makes a data directory in a place that Postgres's
// user can reach, starts a server and removes everything afterwards, also when
// the test fails or its process is killed. It knows nothing of what is tested.
package pgtest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/postgres"
)

// Options of a scratch server. The zero value gives a durable one with
// Postgres's own settings.
type Options struct {
	Settings map[string]string // e.g. "wal_level": "logical"
	// Throwaway gives up durability for speed: no fsync anywhere. Wrong for
	// tests that crash a machine; right for nearly all others (a crash of
	// Postgres alone loses nothing).
	Throwaway bool
	Dir       string // where to put it; "" = Dir(t)
}

// startTime bounds making and starting a server on a crowded machine.
const startTime = 2 * time.Minute

// Installs lists the Postgres versions tests run against, newest first: the
// one under build/postgres-* of this module and those of the machine. It fails
// the test when there is none.
func Installs(t testing.TB) []postgres.Install {
	t.Helper()
	var extra []string
	if root := moduleRoot(t); root != "" {
		match, err := filepath.Glob(filepath.Join(root, "build", "postgres-*", "bin"))
		if err != nil {
			t.Fatal(err)
		}
		extra = match
	}
	found, err := postgres.Find(t.Context(), "", extra...)
	if err != nil {
		t.Fatalf("%v (%s)", err, tarn.HintOf(err))
	}
	if os.Getenv(NewestEnv) != "" {
		return found[:1]
	}
	return found
}

// NewestEnv, when it is set, has Installs give the newest version only.
const NewestEnv = "TARN_TEST_NEWEST"

// Newest is the first of Installs.
func Newest(t testing.TB) postgres.Install {
	t.Helper()
	return Installs(t)[0]
}

// Start makes and starts a throw-away server and returns it with a connection
// string for its superuser, tarn_admin, and database postgres.
func Start(t testing.TB, in postgres.Install) (*postgres.Server, string) {
	t.Helper()
	return StartWith(t, in, Options{Throwaway: true})
}

// StartWith is Start with options.
func StartWith(t testing.TB, in postgres.Install, o Options) (*postgres.Server, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTime)
	defer cancel()
	c := Config(t, in, o)
	if err := postgres.InitDB(ctx, in, postgres.InitOptions{DataDir: c.DataDir, RunAs: c.RunAs, NoSync: o.Throwaway}); err != nil {
		t.Fatalf("%v (%s)", err, tarn.HintOf(err))
	}
	s, err := postgres.Start(ctx, c)
	if err != nil {
		t.Fatalf("%v (%s)", err, tarn.HintOf(err))
	}
	t.Cleanup(s.Kill)
	return s, ConnString(c, "postgres")
}

// Config is a configuration for a server in a directory of its own, not yet
// initialized; for tests that start and stop servers themselves. Such a server
// dies with the test's process.
func Config(t testing.TB, in postgres.Install, o Options) postgres.Config {
	t.Helper()
	runAs, err := postgres.DefaultRunAs()
	if err != nil {
		t.Fatal(err)
	}
	dir := o.Dir
	if dir == "" {
		dir = Dir(t)
	}
	settings := map[string]string{"shared_buffers": "16MB"}
	if o.Throwaway {
		settings["fsync"] = "off"
		settings["full_page_writes"] = "off"
	}
	for name, value := range o.Settings {
		settings[name] = value
	}
	return postgres.Config{
		Install:   in,
		DataDir:   filepath.Join(dir, "data"),
		SocketDir: filepath.Join(dir, "s"),
		Port:      5432,
		Settings:  settings,
		RunAs:     runAs,
		LogFile:   filepath.Join(dir, "log"),
		Bond:      postgres.Bound,
	}
}

// ConnString connects to c's server as its superuser.
func ConnString(c postgres.Config, database string) string {
	return fmt.Sprintf("host=%s port=%d user=%s dbname=%s sslmode=disable", c.SocketDir, c.Port, tarn.Superuser, database)
}

// Dir makes a directory with a short path (sockets have 107 bytes) that
// Postgres's user can enter, unlike t.TempDir's, and removes it after the
// test.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tarn-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove %s: %v", dir, err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// moduleRoot is the nearest directory upwards that holds go.mod; "" without.
func moduleRoot(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return ""
		}
		dir = parent
	}
}
