package e2e

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// TestDiskFull fills the file system under the data directory while rows are
// written. Postgres must be told; nothing acknowledged may be lost; writes must
// work again when space returns, without a hand at the server.
func TestDiskFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("a file system of a limited size can be mounted by root only")
	}
	dir, err := os.MkdirTemp("", "tarn-e2e-full-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Errorf("remove %s: %v", dir, err)
		}
	})
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=700m,mode=755"); err != nil {
		t.Fatalf("mount a file system of 700 MB: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	inner := filepath.Join(dir, "tarn")
	if err := os.Mkdir(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	in := startIn(t, inner)
	ctx := testContext(t, 5*time.Minute)
	in.tarn("project", "create", "full")
	url := in.url("full/production")
	c := in.connect(ctx, url)
	if _, err := c.Exec(ctx, "CREATE TABLE rows (id bigint PRIMARY KEY, body bytea NOT NULL)"); err != nil {
		t.Fatal(err)
	}

	filler := filepath.Join(dir, "filler")
	leave(t, dir, filler, 40<<20)
	var acked []int64
	var refusal error
	for id := int64(1); refusal == nil && id < 5000; id++ {
		if refusal = insert(ctx, c, id); refusal == nil {
			acked = append(acked, id)
		}
	}
	if refusal == nil {
		t.Fatalf("%d rows of 100 KB were accepted by a disk with 40 MB left", len(acked))
	}
	t.Logf("refused after %d rows: %v", len(acked), refusal)
	var pg *pgconn.PgError
	if errors.As(refusal, &pg) && pg.Code != "53100" && pg.Code[:2] != "57" && pg.Code != "XX000" && pg.Code[:2] != "58" {
		t.Errorf("refused with %s (%s), want a disk-full or shutdown error", pg.Code, pg.Message)
	}

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		if c, err = pgx.Connect(ctx, url); err == nil {
			if err = insert(ctx, c, -1); err == nil {
				break
			}
			c.Close(ctx)
		}
		select {
		case <-ctx.Done():
			t.Fatalf("writes do not work again after space returned: %v", err)
		case <-tick.C:
		}
	}
	defer c.Close(ctx)
	var there int
	if err := c.QueryRow(ctx, "SELECT count(*) FROM rows WHERE id = ANY($1) AND length(body) = 100000", acked).Scan(&there); err != nil {
		t.Fatal(err)
	}
	if there != len(acked) {
		t.Errorf("%d of %d acknowledged rows are there", there, len(acked))
	}
	in.amcheck(ctx, t)
}

func insert(ctx context.Context, c *pgx.Conn, id int64) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	// Bytes that do not compress, so that they take the room they should.
	_, err := c.Exec(ctx, `INSERT INTO rows SELECT $1::bigint, string_agg(decode(md5(i::text || $1::bigint::text), 'hex'), '') FROM generate_series(1, 6250) i`, id)
	return err
}

// leave fills the file system of dir until about free bytes are left.
func leave(t *testing.T, dir, filler string, free int64) {
	t.Helper()
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		t.Fatal(err)
	}
	n := int64(s.Bavail)*s.Bsize - free
	if n <= 0 {
		t.Fatalf("only %d bytes are free before the test fills the disk", int64(s.Bavail)*s.Bsize)
	}
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Fallocate(int(f.Fd()), 0, 0, n); err != nil {
		t.Fatal(err)
	}
}
