package compute

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
)

// A copy of a running data directory may hold pages that are half old and half
// new. Here every page is that changed between two copies: the worst that one
// copy, taken over that time, could be. Recovery makes all of them whole.
func TestTornCopy(t *testing.T) {
	f := openFleet(t, options(t, pgtest.Dir(t)))
	if f.store.PageWrites() != tornPages {
		t.Skip("only where pages are written in pieces")
	}
	parent := create(t, f, tarn.TimelineSpec{})
	s := spec("ep-parent", parent.ID)
	s.Settings = map[string]string{"shared_buffers": "1MB", "autovacuum": "off"} // every page goes out soon
	c := connectTo(t, wake(t, f, s), tarn.Superuser)
	run(t, c, `CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL, filler text NOT NULL) WITH (fillfactor = 70)`)
	run(t, c, `INSERT INTO account SELECT i, 1000, repeat('x', 100) FROM generate_series(1, 20000) i`)
	run(t, c, `CREATE INDEX ON account (balance, id)`)
	run(t, c, `CHECKPOINT`)
	move := func(step int) {
		t.Helper()
		run(t, c, `UPDATE account SET balance = balance + CASE id % 2 WHEN 0 THEN $1 ELSE -$1 END WHERE id % 7 = $1 % 7`, step)
		run(t, c, `UPDATE account SET balance = balance - CASE id % 2 WHEN 0 THEN $1 ELSE -$1 END WHERE id % 7 = $1 % 7 AND id % 3 = 0`, step)
	}
	move(1)
	child := timeline{ID: newID(t), PGVersion: pgtest.Newest(t).Major}
	if _, err := f.store.Fork(t.Context(), parent.ID, child.ID); err != nil {
		t.Fatal(err)
	}
	for step := 2; step < 12; step++ {
		move(step)
	}
	later := newID(t)
	if _, err := f.store.Fork(t.Context(), parent.ID, later); err != nil {
		t.Fatal(err)
	}
	torn := tear(t, f.path("plain", string(child.ID), "data"), f.path("plain", string(later), "data"))
	t.Logf("%d pages torn", torn)
	if torn < 100 {
		t.Errorf("only %d pages are torn", torn)
	}
	if err := f.store.Delete(t.Context(), later); err != nil {
		t.Fatal(err)
	}
	e := f.serving(parent.ID)
	own, err := e.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer own.close(t.Context())
	end, err := own.flush(t.Context(), "fork")
	if err != nil {
		t.Fatal(err)
	}
	want := query[string](t, c, `SELECT md5(string_agg(id || ':' || balance, ',' ORDER BY id)) FROM account`)
	if _, err := f.maker.equip(t.Context(), e.wal, child, tarn.Mark{LSN: end, Time: time.Now().UTC()}, markBeginning); err != nil {
		t.Fatal(err)
	}
	if err := f.records.publish(child); err != nil {
		t.Fatal(err)
	}
	cc := connectTo(t, wake(t, f, spec("ep-child", child.ID)), tarn.Superuser)
	// Reading every page also checks its checksum.
	if got := query[string](t, cc, `SELECT md5(string_agg(id || ':' || balance, ',' ORDER BY id)) FROM account`); got != want {
		t.Error("the fork has other balances than its parent")
	}
	run(t, cc, `SET enable_seqscan = off`)
	for _, q := range []string{
		`SELECT count(*) FROM (SELECT balance, id FROM account ORDER BY balance, id) x`,
		`SELECT count(*) FROM account WHERE id BETWEEN 1 AND 20000`,
	} {
		if n := query[int](t, cc, q); n != 20000 {
			t.Errorf("%s: %d", q, n)
		}
	}
}

// tear makes the second half of every page below dir that is another one below
// later that other one's.
func tear(t *testing.T, dir, later string) (torn int) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(dir, "base"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		was, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		is, err := os.ReadFile(filepath.Join(later, name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		for at := 0; at+layer.PageSize <= min(len(was), len(is)); at += layer.PageSize {
			half, end := at+layer.PageSize/2, at+layer.PageSize
			if !bytes.Equal(was[at:half], is[at:half]) && !bytes.Equal(was[half:end], is[half:end]) {
				copy(was[half:end], is[half:end])
				torn++
			}
		}
		return os.WriteFile(path, was, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	return torn
}
