package postgres_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/postgres"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
)

func TestFind(t *testing.T) {
	all := pgtest.Installs(t)
	for i, in := range all {
		if in.Major < postgres.MinMajor || in.Major > postgres.MaxMajor || i > 0 && all[i-1].Major <= in.Major {
			t.Errorf("found %+v at place %d", in, i)
		}
	}
	oldest := all[len(all)-1]
	got, err := postgres.Find(t.Context(), oldest.BinDir, all[0].BinDir)
	if err != nil {
		t.Fatal(err)
	}
	if got[0] != oldest || len(got) != len(all) {
		t.Errorf("with an explicit directory found %+v", got)
	}
}

func TestFindFollowsLinkedPrograms(t *testing.T) {
	in := pgtest.Newest(t)
	links := t.TempDir()
	for _, name := range []string{"postgres", "initdb"} {
		if err := os.Symlink(filepath.Join(in.BinDir, name), filepath.Join(links, name)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := postgres.Find(t.Context(), links)
	if err != nil {
		t.Fatal(err)
	}
	want, err := filepath.EvalSymlinks(in.BinDir)
	if err != nil {
		t.Fatal(err)
	}
	if got[0].BinDir != want || got[0].Version != in.Version {
		t.Errorf("found %+v, want the one in %s", got[0], want)
	}
}

func TestFindExplicit(t *testing.T) {
	empty := t.TempDir()
	if _, err := postgres.Find(t.Context(), empty); tarn.KindOf(err) != tarn.KindInvalid || tarn.HintOf(err) == "" {
		t.Errorf("an empty directory: %v", err)
	}
	// An older Postgres, as its programs present themselves.
	old := t.TempDir()
	script := []byte("#!/bin/sh\necho 'postgres (PostgreSQL) 14.2 (Debian 14.2-1)'\n")
	for _, name := range []string{"postgres", "initdb"} {
		if err := os.WriteFile(filepath.Join(old, name), script, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := postgres.Find(t.Context(), old); tarn.KindOf(err) != tarn.KindInvalid || !strings.Contains(err.Error(), "14.2") {
		t.Errorf("Postgres 14: %v", err)
	}
	// Where it is only guessed, it is passed over.
	if _, err := postgres.Find(t.Context(), "", old); err != nil {
		t.Error(err)
	}
}

func TestInitDBErrors(t *testing.T) {
	in := pgtest.Newest(t)
	c := pgtest.Config(t, in, pgtest.Options{})
	initDB(t, c)
	err := postgres.InitDB(deadline(t), in, postgres.InitOptions{DataDir: c.DataDir, RunAs: c.RunAs})
	if err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("initialize twice: %v", err)
	}
	if c.RunAs == nil {
		return
	}
	if err := postgres.InitDB(deadline(t), in, postgres.InitOptions{DataDir: filepath.Join(pgtest.Dir(t), "d")}); tarn.KindOf(err) != tarn.KindInvalid {
		t.Errorf("as root: %v", err)
	}
	closed := filepath.Join(pgtest.Dir(t), "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	err = postgres.InitDB(deadline(t), in, postgres.InitOptions{DataDir: filepath.Join(closed, "d"), RunAs: c.RunAs})
	if tarn.KindOf(err) != tarn.KindInvalid || !strings.Contains(err.Error(), closed) || !strings.Contains(tarn.HintOf(err), "chmod o+x "+closed) {
		t.Errorf("below a closed directory: %v (%s)", err, tarn.HintOf(err))
	}
}
