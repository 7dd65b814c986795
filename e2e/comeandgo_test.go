package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// remains are what there is of computes: processes, mounts and control groups.
func (in *instance) remains() (all []string) {
	in.t.Helper()
	for _, args := range in.processes() {
		if strings.Contains(args, filepath.Join(in.data, "mnt")) {
			all = append(all, args)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		in.t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, " "+filepath.Join(in.data, "mnt")) {
			all = append(all, strings.TrimSpace(line))
		}
	}
	b, err := os.ReadFile(filepath.Join(in.data, "groups.json"))
	if errors.Is(err, os.ErrNotExist) {
		return all
	}
	var dirs []string
	if err == nil {
		err = json.Unmarshal(b, &dirs)
	}
	if err != nil {
		in.t.Fatal(err)
	}
	for _, dir := range dirs {
		groups, err := filepath.Glob(filepath.Join(dir, "ep-*"))
		if err != nil {
			in.t.Fatal(err)
		}
		all = append(all, groups...)
	}
	return all
}

// A node that is killed over a frozen compute leaves nothing of it: frozen
// processes do not see that their mount is gone, and do not die by themselves.
func TestNodeKilledOverFrozen(t *testing.T) {
	in := start(t)
	ctx := testContext(t, 3*time.Minute)
	in.tarn("project", "create", "shop")
	in.tarn("endpoint", "update", "shop/production", "--freeze-after", "2s")
	url := in.url("shop/production")
	c := in.connect(ctx, url)
	if _, err := c.Exec(ctx, "CREATE TABLE kept AS SELECT 42 AS answer"); err != nil {
		t.Fatal(err)
	}
	in.awaitCompute(ctx, t, "frozen")
	if len(in.remains()) == 0 {
		t.Fatal("nothing is found of a compute that is there")
	}
	in.kill(t, "node")
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for left := in.remains(); len(left) > 0; left = in.remains() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("of the frozen compute is left:\n%s", strings.Join(left, "\n"))
		}
	}
	var answer int
	if err := in.connect(ctx, url).QueryRow(ctx, "SELECT answer FROM kept").Scan(&answer); err != nil || answer != 42 {
		t.Errorf("after that the table holds %d, %v", answer, err)
	}
}

// A crowd that comes to a sleeping endpoint starts one compute, and everybody is
// answered: through the pooler with what they asked for, directly with that or
// with Postgres's own word that there are too many.
func TestCrowdAtSleepingEndpoint(t *testing.T) {
	in := start(t)
	ctx := testContext(t, 4*time.Minute)
	in.tarn("project", "create", "shop")
	var at struct {
		Host       string
		PooledHost string `json:"pooled_host"`
	}
	in.tarnJSON(&at, "connection-string", "shop/production")
	direct := in.url("shop/production")
	in.tarn("endpoint", "suspend", "shop/production")
	starts := in.starts()
	const pooled, unpooled = 900, 100
	var wg sync.WaitGroup
	var mu sync.Mutex
	answered, refused := 0, 0
	for i := range pooled + unpooled {
		url := direct
		if i < pooled {
			url = strings.Replace(direct, at.Host, at.PooledHost, 1)
		}
		wg.Go(func() {
			err := ask(ctx, url)
			mu.Lock()
			defer mu.Unlock()
			var pg *pgconn.PgError
			switch {
			case err == nil:
				answered++
			case i >= pooled && errors.As(err, &pg) && pg.Code == "53300":
				refused++
			default:
				t.Errorf("client %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if got := in.starts() - starts; got != 1 {
		t.Errorf("%d starts for them all", got)
	}
	t.Logf("%d answered, %d told that there are too many", answered, refused)
}

func ask(ctx context.Context, url string) error {
	c, err := pgx.Connect(ctx, url+"&default_query_exec_mode=simple_protocol")
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx))
	var one int
	return c.QueryRow(ctx, "SELECT 1").Scan(&one)
}

// starts counts the starts of computes that the log tells of.
func (in *instance) starts() int {
	in.t.Helper()
	b, err := os.ReadFile(filepath.Join(in.data, "log", "tarn.log"))
	if err != nil {
		in.t.Fatal(err)
	}
	return strings.Count(string(b), `msg="compute active"`)
}
