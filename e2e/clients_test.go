package e2e

import (
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestRealClients has every client do its work through the gateway, direct and
// through the pooler.
func TestRealClients(t *testing.T) {
	// Debian's Postgres, because its pg_dump is no older.
	bins, _ := filepath.Glob("/usr/lib/postgresql/*/bin/pg_dump")
	if len(bins) == 0 {
		t.Fatal("pg_dump is not installed: make setup-test")
	}
	bin := filepath.Dir(bins[len(bins)-1])
	in := start(t, "--pg-bin", bin)
	in.tarn("project", "create", "shop")
	ctx := testContext(t, 5*time.Minute)
	urls := map[string]string{
		"direct": in.url("shop"),
		"pooled": strings.TrimSpace(in.tarn("connection-string", "shop", "--credential", "--pooled")),
	}
	for _, how := range []string{"direct", "pooled"} {
		t.Run(how, func(t *testing.T) {
			at := urls[how]
			program := func(t *testing.T, name string, args ...string) string {
				t.Helper()
				cmd := exec.CommandContext(ctx, name, args...)
				cmd.Env = append(os.Environ(), "HOME="+in.config, "NODE_PATH="+absolute(t, "../build/clients/node_modules"))
				out, err := cmd.CombinedOutput()
				if err != nil {
					t.Fatalf("%s: %v\n%s", filepath.Base(name), err, out)
				}
				return string(out)
			}
			t.Run("psql", func(t *testing.T) {
				out := program(t, "psql", at, "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", "SET search_path = pg_catalog", "-c", "SHOW search_path",
					"-c", "SELECT 1; SELECT 2", "-c", "BEGIN", "-c", "DECLARE c CURSOR FOR SELECT 3", "-c", "FETCH c", "-c", "COMMIT", "-c", "\\d")
				if got := strings.Join(strings.Fields(out), " "); !strings.HasPrefix(got, "pg_catalog 1 2 3") {
					t.Errorf("psql: %q", got)
				}
			})
			t.Run("pgbench", func(t *testing.T) {
				if how == "direct" {
					program(t, filepath.Join(bin, "pgbench"), "-i", "-q", "-s", "1", at)
				}
				for _, mode := range []string{"simple", "extended", "prepared"} {
					out := program(t, filepath.Join(bin, "pgbench"), "-n", "-M", mode, "-c", "8", "-j", "2", "-t", "30", at)
					if !strings.Contains(out, "240/240") || !strings.Contains(out, "failed transactions: 0 ") {
						t.Errorf("pgbench -M %s:\n%s", mode, out)
					}
				}
			})
			t.Run("python", func(t *testing.T) {
				out := program(t, absolute(t, "../build/venv/bin/python"), filepath.Join("testdata", "clients.py"), how, at)
				if strings.Contains(out, "failed") { // what libraries only warn of
					t.Errorf("the clients say:\n%s", out)
				}
			})
			t.Run("node", func(t *testing.T) { program(t, "node", filepath.Join("testdata", "clients.js"), how, at) })
			t.Run("jdbc", func(t *testing.T) {
				u, err := url.Parse(at)
				if err != nil {
					t.Fatal(err)
				}
				password, _ := u.User.Password()
				program(t, "java", "-cp", absolute(t, "../build/clients/postgresql-42.7.8.jar"), filepath.Join("testdata", "Clients.java"), how,
					u.Hostname(), u.Port(), strings.TrimPrefix(u.Path, "/"), u.User.Username(), password, u.Query().Get("sslrootcert"))
			})
			t.Run("pgx", func(t *testing.T) {
				c := in.connect(ctx, at)
				var b pgx.Batch
				for i := range 50 {
					b.Queue("SELECT $1::int", i)
				}
				if err := c.SendBatch(ctx, &b).Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
	t.Run("dump and restore", func(t *testing.T) {
		in.tarn("branch", "create", "shop/copy")
		direct, copied := in.connect(ctx, urls["direct"]), in.url("shop/copy")
		file := filepath.Join(t.TempDir(), "dump")
		for _, c := range []*exec.Cmd{
			exec.CommandContext(ctx, filepath.Join(bin, "pg_dump"), "-Fc", "-t", "pgbench_*", "-f", file, urls["direct"]),
			exec.CommandContext(ctx, filepath.Join(bin, "pg_restore"), "--clean", "--if-exists", "--no-owner", "-d", copied, file),
		} {
			if out, err := c.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", filepath.Base(c.Path), err, out)
			}
		}
		const sqlSum = `SELECT count(*) || ' ' || sum(abalance) FROM pgbench_accounts`
		var from, to string
		if err := direct.QueryRow(ctx, sqlSum).Scan(&from); err != nil {
			t.Fatal(err)
		}
		if err := in.connect(ctx, copied).QueryRow(ctx, sqlSum).Scan(&to); err != nil || from != to {
			t.Errorf("dumped %q, restored %q (%v)", from, to, err)
		}
	})
	t.Run("connections", func(t *testing.T) {
		in.connect(ctx, urls["pooled"])
		var all struct {
			Connections []struct {
				Pooled bool   `json:"pooled"`
				Role   string `json:"role"`
			}
		}
		in.tarnJSON(&all, "connections")
		if len(all.Connections) == 0 || !all.Connections[len(all.Connections)-1].Pooled {
			t.Errorf("connections: %+v", all)
		}
		in.tarn("project", "update", "shop", "--allow-ip", "10.0.0.0/8")
		_, err := pgx.Connect(ctx, urls["direct"])
		if err == nil || !strings.Contains(err.Error(), "28000") {
			t.Errorf("a client from elsewhere: %v", err)
		}
		in.tarn("project", "update", "shop", "--allow-ip", "all")
		in.connect(ctx, in.url("shop"))
	})
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	p, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
