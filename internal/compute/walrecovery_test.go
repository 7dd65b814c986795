package compute_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob/dir"
	"github.com/tarndb/tarn/internal/postgres"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
	"github.com/tarndb/tarn/internal/wal"
)

// cluster is a data directory whose WAL is kept by package wal, without the rest
// of a fleet: its pages stay where they were.
type cluster struct {
	t      *testing.T
	c      postgres.Config
	log    *wal.Log
	owner  *wal.Owner
	server *postgres.Server
}

const timeline = tarn.TimelineID("00112233445566778899aabbccddeeff")

func newCluster(t *testing.T, in postgres.Install) *cluster {
	t.Helper()
	c := pgtest.Config(t, in, pgtest.Options{Settings: map[string]string{
		"wal_recycle": "off", "wal_init_zero": "on", "archive_mode": "on", "archive_command": wal.ArchiveCommand,
		"max_wal_size": "64MB", "checkpoint_timeout": "30s", "synchronous_commit": "on",
	}})
	k := &cluster{t: t, c: c}
	if c.RunAs != nil {
		k.owner = &wal.Owner{UID: int(c.RunAs.UID), GID: int(c.RunAs.GID)}
	}
	k.log = wal.New(filepath.Join(filepath.Dir(c.DataDir), "wal"), k.owner)
	if err := k.log.CreateBare(); err != nil {
		t.Fatal(err)
	}
	if err := postgres.InitDB(t.Context(), in, postgres.InitOptions{DataDir: c.DataDir, WALDir: k.log.Dir(), RunAs: c.RunAs, NoSync: true}); err != nil {
		t.Fatal(err)
	}
	return k
}

func (k *cluster) start() {
	k.t.Helper()
	s, err := postgres.Start(k.t.Context(), k.c)
	if err != nil {
		k.t.Fatal(err)
	}
	k.server = s
	k.t.Cleanup(s.Kill)
}

func (k *cluster) connect() *pgx.Conn {
	k.t.Helper()
	conn, err := pgx.Connect(k.t.Context(), pgtest.ConnString(k.c, "postgres"))
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func (k *cluster) exec(c *pgx.Conn, sql string, args ...any) {
	k.t.Helper()
	if _, err := c.Exec(k.t.Context(), sql, args...); err != nil {
		k.t.Fatalf("%s: %v", sql, err)
	}
}

// copyTo makes another cluster of a stopped one, without WAL.
func (k *cluster) copyTo(path string) *cluster {
	k.t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		k.t.Fatal(err)
	}
	to := &cluster{t: k.t, c: k.c, log: wal.New(filepath.Join(path, "wal"), k.owner), owner: k.owner}
	to.c.DataDir, to.c.SocketDir, to.c.LogFile = filepath.Join(path, "data"), filepath.Join(path, "s"), filepath.Join(path, "log")
	if out, err := exec.Command("cp", "-a", k.c.DataDir, to.c.DataDir).CombinedOutput(); err != nil {
		k.t.Fatalf("copy the data directory: %v: %s", err, out)
	}
	link := filepath.Join(to.c.DataDir, "pg_wal")
	if err := os.Remove(link); err != nil {
		k.t.Fatal(err)
	}
	if err := os.Symlink(to.log.Dir(), link); err != nil {
		k.t.Fatal(err)
	}
	return to
}

// demandRecovery lets the next start replay WAL that is younger than the data
// directory.
func (k *cluster) demandRecovery() {
	k.t.Helper()
	path := filepath.Join(k.c.DataDir, "global", "pg_control")
	b, err := os.ReadFile(path)
	if err != nil {
		k.t.Fatal(err)
	}
	if err := postgres.DemandRecovery(b); err != nil {
		k.t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		k.t.Fatal(err)
	}
}

// follow copies the cluster's WAL until stop is called. It asks over its own
// connection.
func (k *cluster) follow(r *wal.Remote, c postgres.Control) (u *wal.Uploader, stop func()) {
	k.t.Helper()
	conn := k.connect()
	u = r.Uploader(wal.Source{
		Timeline: timeline, Log: k.log, TLI: c.TLI, SegmentBytes: c.SegmentBytes,
		Flushed: func(ctx context.Context) (tarn.LSN, error) {
			var text string
			if err := conn.QueryRow(ctx, `SELECT pg_current_wal_flush_lsn()::text`).Scan(&text); err != nil {
				return 0, err
			}
			return tarn.ParseLSN(text)
		},
	})
	ctx, cancel := context.WithCancel(k.t.Context())
	var work sync.WaitGroup
	work.Go(func() {
		if err := u.Run(ctx); err != nil {
			k.t.Error(err)
		}
	})
	stop = func() { cancel(); work.Wait() }
	k.t.Cleanup(stop)
	return u, stop
}

// rows are the number of rows, whether they are 1 to that number, and a sum of
// those up to n.
func (k *cluster) rows(upTo int) (n int, whole bool, sum string) {
	k.t.Helper()
	conn := k.connect()
	err := conn.QueryRow(k.t.Context(), `
		SELECT count(*), count(*) = COALESCE(max(id), 0),
			COALESCE(md5(string_agg(id || v, ',' ORDER BY id) FILTER (WHERE id <= $1)), '') FROM t`, upTo).Scan(&n, &whole, &sum)
	if err != nil {
		k.t.Fatal(err)
	}
	return n, whole, sum
}

// A Postgres writes, is killed and goes on, and its computer is lost. A copy of
// its data directory from before recovers from the object store alone.
func TestPostgresComesBackFromTheObjectStore(t *testing.T) {
	for _, in := range pgtest.Installs(t) {
		t.Run(strconv.Itoa(in.Major), func(t *testing.T) {
			k := newCluster(t, in)
			k.start()
			conn := k.connect()
			k.exec(conn, `CREATE TABLE t (id int PRIMARY KEY, v text)`)
			conn.Close(t.Context())
			if err := k.server.Stop(t.Context(), postgres.Fast); err != nil {
				t.Fatal(err)
			}
			base, err := postgres.ReadControl(k.c.DataDir)
			if err != nil {
				t.Fatal(err)
			}
			back := k.copyTo(filepath.Join(pgtest.Dir(t), "b"))

			store, err := dir.Open(filepath.Join(t.TempDir(), "bucket"))
			if err != nil {
				t.Fatal(err)
			}
			remote, err := wal.NewRemote(store, wal.RemoteOptions{})
			if err != nil {
				t.Fatal(err)
			}
			var copied tarn.LSN
			written, safe := 0, 0 // rows; those that must come back
			for life := range 4 {
				k.start()
				conn := k.connect()
				u, stop := k.follow(remote, base)
				for range 300 {
					written++
					k.exec(conn, `INSERT INTO t SELECT $1, string_agg(md5(($1::int * 1000 + i)::text), '') FROM generate_series(1, 1000) i`, written)
				}
				var lsn string
				if err := conn.QueryRow(t.Context(), `SELECT pg_current_wal_flush_lsn()::text`).Scan(&lsn); err != nil {
					t.Fatal(err)
				}
				end, err := tarn.ParseLSN(lsn)
				if err != nil {
					t.Fatal(err)
				}
				if life < 3 {
					if err := u.Flush(t.Context(), end); err != nil {
						t.Fatal(err)
					}
					safe = written
				}
				// These are on their way when the computer dies, some perhaps copied.
				for range 20 {
					written++
					k.exec(conn, `INSERT INTO t VALUES ($1, repeat('x', 5000))`, written)
				}
				k.server.Kill()
				stop()
				copied = u.Done()
			}

			position, err := remote.Position(t.Context(), timeline, wal.Start{TLI: base.TLI, LSN: base.Redo, SegmentBytes: base.SegmentBytes})
			if err != nil || len(position.Gaps) > 0 || position.To < copied {
				t.Fatalf("the store reaches %+v, the uploader was at %s: %v", position, copied, err)
			}
			g := wal.Range{TLI: base.TLI, From: base.Redo, To: position.To, SegmentBytes: base.SegmentBytes}
			if err := remote.Rebuild(t.Context(), timeline, back.log, g); err != nil {
				t.Fatal(err)
			}
			back.demandRecovery()
			back.start()
			n, whole, sum := back.rows(written)
			if !whole || n < safe || n > written {
				t.Fatalf("%d rows came back (without holes: %v), of %d written and %d copied for certain", n, whole, written, safe)
			}
			k.start()
			if _, _, want := k.rows(n); want != sum {
				t.Error("the rows that came back are not those that were written")
			}
			t.Logf("%d of %d rows; WAL up to %s in %d objects' bytes", n, written, position.To, position.Bytes)

			// It goes on where it is, and the store follows.
			conn = back.connect()
			u, stop := back.follow(remote, base)
			back.exec(conn, `INSERT INTO t SELECT i, 'after' FROM generate_series($1::int, $1 + 999) i`, n+1)
			if err := back.server.Stop(t.Context(), postgres.Fast); err != nil {
				t.Fatal(err)
			}
			stop()
			end, err := postgres.ReadControl(back.c.DataDir)
			if err != nil {
				t.Fatal(err)
			}
			last, err := back.log.RecordEnd(end.TLI, end.Checkpoint, end.SegmentBytes)
			if err != nil {
				t.Fatal(err)
			}
			if err := u.Finish(t.Context(), last); err != nil {
				t.Fatal(err)
			}
			third := back.copyTo(filepath.Join(pgtest.Dir(t), "c"))
			if err := remote.Rebuild(t.Context(), timeline, third.log, wal.Range{TLI: base.TLI, From: end.Redo, To: last, SegmentBytes: base.SegmentBytes}); err != nil {
				t.Fatal(err)
			}
			third.start()
			if got, whole, _ := third.rows(0); got != n+1000 || !whole {
				t.Errorf("after the second loss %d rows, want %d", got, n+1000)
			}
		})
	}
}
