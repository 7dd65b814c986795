package postgres_test

import (
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tarndb/tarn/internal/postgres"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
)

func TestControlAgreesWithSQL(t *testing.T) {
	each(t, func(t *testing.T, in postgres.Install) {
		c := pgtest.Config(t, in, pgtest.Options{})
		initDB(t, c)
		start(t, c)
		exec(t, c, "CREATE TABLE t AS SELECT 1 AS i")
		exec(t, c, "CHECKPOINT")
		got, err := postgres.ReadControl(c.DataDir)
		if err != nil {
			t.Fatal(err)
		}
		if got.State != postgres.StateInProduction {
			t.Errorf("state is %d", got.State)
		}
		for sql, have := range map[string]string{
			"SELECT system_identifier::text FROM pg_control_system()":                               strconv.FormatUint(got.SystemID, 10),
			"SELECT checkpoint_lsn::text FROM pg_control_checkpoint()":                              got.Checkpoint.String(),
			"SELECT redo_lsn::text FROM pg_control_checkpoint()":                                    got.Redo.String(),
			"SELECT timeline_id::text FROM pg_control_checkpoint()":                                 strconv.Itoa(int(got.TLI)),
			"SELECT extract(epoch FROM checkpoint_time)::bigint::text FROM pg_control_checkpoint()": strconv.FormatInt(got.CheckpointTime.Unix(), 10),
			"SELECT bytes_per_wal_segment::text FROM pg_control_init()":                             strconv.Itoa(int(got.SegmentBytes)),
		} {
			if want := query[string](t, c, sql); have != want {
				t.Errorf("%s gives %s, we read %s", sql, want, have)
			}
		}
	})
}

func TestControlAgreesWithControldata(t *testing.T) {
	compared := false
	for _, in := range pgtest.Installs(t) {
		program := filepath.Join(in.BinDir, "pg_controldata")
		if _, err := os.Stat(program); err != nil {
			continue // the embedded package has none; SQL has compared it
		}
		compared = true
		t.Run(strconv.Itoa(in.Major), func(t *testing.T) {
			c := pgtest.Config(t, in, pgtest.Options{})
			initDB(t, c)
			got, err := postgres.ReadControl(c.DataDir)
			if err != nil {
				t.Fatal(err)
			}
			cmd := osexec.Command(program, c.DataDir)
			cmd.Env = []string{"LC_ALL=C", "TZ=UTC"}
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			said := map[string]string{}
			for line := range strings.Lines(string(out)) {
				name, value, _ := strings.Cut(line, ":")
				said[name] = strings.TrimSpace(value)
			}
			for name, have := range map[string]string{
				"Database system identifier":        strconv.FormatUint(got.SystemID, 10),
				"Database cluster state":            map[uint32]string{postgres.StateShutDown: "shut down"}[got.State],
				"Latest checkpoint location":        got.Checkpoint.String(),
				"Latest checkpoint's REDO location": got.Redo.String(),
				"Latest checkpoint's TimeLineID":    strconv.Itoa(int(got.TLI)),
				"Time of latest checkpoint":         got.CheckpointTime.Format(time.ANSIC),
				"Bytes per WAL segment":             strconv.Itoa(int(got.SegmentBytes)),
			} {
				if said[name] != have {
					t.Errorf("%s: %q, we read %q", name, said[name], have)
				}
			}
		})
	}
	if !compared {
		t.Skip("no install has pg_controldata")
	}
}

func TestParseControlRefusesDamage(t *testing.T) {
	c := pgtest.Config(t, pgtest.Newest(t), pgtest.Options{})
	initDB(t, c)
	b, err := os.ReadFile(filepath.Join(c.DataDir, "global", "pg_control"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := postgres.ParseControl(b); err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{0, 8, 40, 255, 289, 294} {
		b[at] ^= 1
		if _, err := postgres.ParseControl(b); err == nil {
			t.Errorf("a flipped bit in byte %d is not seen", at)
		}
		b[at] ^= 1
	}
	for _, n := range []int{0, 11, 290} {
		if _, err := postgres.ParseControl(b[:n]); err == nil {
			t.Errorf("the first %d bytes are taken for a whole file", n)
		}
	}
}

// A data directory older than the WAL beside it loses that WAL at an ordinary
// start, unless recovery is demanded.
func TestDemandRecovery(t *testing.T) {
	each(t, func(t *testing.T, in postgres.Install) {
		c := pgtest.Config(t, in, pgtest.Options{})
		initDB(t, c)
		path := filepath.Join(c.DataDir, "global", "pg_control")
		old, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		before, err := postgres.ParseControl(old)
		if err != nil || before.State != postgres.StateShutDown {
			t.Fatalf("initdb leaves %+v, %v", before, err)
		}
		s := start(t, c)
		exec(t, c, "CREATE TABLE t AS SELECT 42 AS i")
		s.Kill()
		if err := postgres.DemandRecovery(old); err != nil {
			t.Fatal(err)
		}
		after, err := postgres.ParseControl(old)
		if err != nil || after.State != postgres.StateInProduction || after.Redo != before.Redo {
			t.Fatalf("control file says %+v, %v", after, err)
		}
		if err := os.WriteFile(path, old, 0o600); err != nil {
			t.Fatal(err)
		}
		start(t, c)
		if got := query[int32](t, c, "SELECT i FROM t"); got != 42 {
			t.Errorf("the table holds %d", got)
		}
		old[len(old)-1], old[5] = 0, old[5]^1
		if err := postgres.DemandRecovery(old); err == nil {
			t.Error("a torn control file was accepted")
		}
	})
}
