package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/client"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/delta"
)

func (d *demo) readFiles(ctx context.Context) (string, error) {
	f, err := readFlightFiles(ctx)
	if err != nil {
		return "", err
	}
	d.files = f
	return fmt.Sprintf("%d flights in %d months, %d airports", len(f.flights), len(f.months), len(f.airports)), nil
}

func demoTable(name string) tarn.TableName {
	return tarn.TableName{Catalog: demoCatalog, Schema: demoSchema, Table: name}
}

// writeLake writes the tables as any engine beside Tarn would: files first, and
// then an entry in the catalog.
func (d *demo) writeLake(ctx context.Context) (string, error) {
	status, err := d.c.Status(ctx)
	if err != nil {
		return "", err
	}
	commits := map[string]int{}
	for name, write := range map[string]func(context.Context, blob.Store) (int, error){
		"airports": func(ctx context.Context, s blob.Store) (int, error) { return d.files.writeAirports(ctx, s) },
		"flights":  func(ctx context.Context, s blob.Store) (int, error) { return d.files.writeFlights(ctx, s) },
	} {
		location := strings.TrimSuffix(status.LakeURL, "/") + "/" + demoSchema + "/" + name
		s, err := tableStore(ctx, location)
		if err != nil {
			return "", err
		}
		if commits[name], err = write(ctx, s); err != nil {
			return "", fmt.Errorf("write %s: %w", demoTable(name), err)
		}
		if _, err := d.c.Tables().Register(ctx, demoTable(name), location); err != nil && !exists(err) {
			return "", err
		}
	}
	for name, want := range map[string]int{"airports": len(d.files.airports), "flights": len(d.files.flights)} {
		n, err := d.c.Tables().Count(ctx, demoTable(name), client.Latest)
		if err != nil {
			return "", err
		}
		if n.Count != int64(want) {
			return "", fmt.Errorf("%s has %d rows, the file %d", demoTable(name), n.Count, want)
		}
	}
	return fmt.Sprintf("%s: %d rows in %d commits; %s: %d rows in %d commits", demoTable("airports"), len(d.files.airports), commits["airports"],
		demoTable("flights"), len(d.files.flights), commits["flights"]), nil
}

func (d *demo) createProject(ctx context.Context) (string, error) {
	held := "created, with branch production, endpoint primary and database databricks_postgres"
	op, err := d.c.CreateProject(ctx, d.branch.Parent(), client.ProjectSpec{DisplayName: "Aviation (tarn demo)"})
	switch {
	case exists(err):
		held = "was there already"
	case err != nil:
		return "", err
	default:
		if err := d.c.WaitOperation(ctx, op, nil); err != nil {
			return "", err
		}
	}
	return held, d.onConnection(ctx, d.branch, func(c *pgx.Conn) error {
		var version string
		return c.QueryRow(ctx, "SHOW server_version").Scan(&version)
	})
}

// syncTables asks for both synced tables, waits until they are online at the
// newest version, and reads them through the gateway.
func (d *demo) syncTables(ctx context.Context) (string, error) {
	for name, key := range map[string]string{"airports": "iata", "flights": "flight_id"} {
		if err := d.syncTable(ctx, name, key); err != nil {
			return "", err
		}
	}
	err := d.onConnection(ctx, d.branch, func(c *pgx.Conn) error {
		var flights, delays, distances, airports, lost int64
		err := c.QueryRow(ctx, `
SELECT count(*), sum(delay), sum(distance),
       (SELECT count(*) FROM aviation.airports),
       count(*) FILTER (WHERE NOT EXISTS (SELECT FROM aviation.airports a WHERE a.iata = f.origin))
FROM aviation.flights f`).Scan(&flights, &delays, &distances, &airports, &lost)
		if err != nil {
			return err
		}
		if flights != int64(len(d.files.flights)) || delays != d.files.delaySum || distances != d.files.distanceSum || airports != int64(len(d.files.airports)) || lost != 0 {
			return fmt.Errorf("Postgres has %d flights with delays of %d and distances of %d, %d airports, %d flights without one; the files say %d, %d, %d, %d, 0",
				flights, delays, distances, airports, lost, len(d.files.flights), d.files.delaySum, d.files.distanceSum, len(d.files.airports))
		}
		return d.checkMonths(ctx, c)
	})
	return fmt.Sprintf("read back through the gateway: %d flights, %d miles, as in the files", len(d.files.flights), d.files.distanceSum), err
}

func (d *demo) checkMonths(ctx context.Context, c *pgx.Conn) error {
	rows, err := c.Query(ctx, "SELECT to_char(date, 'YYYY-MM'), count(*)::int FROM aviation.flights WHERE month = to_char(date, 'YYYY-MM') GROUP BY 1")
	if err != nil {
		return err
	}
	got := map[string]int{}
	var month string
	var n int
	if _, err := pgx.ForEachRow(rows, []any{&month, &n}, func() error { got[month] = n; return nil }); err != nil {
		return err
	}
	if !maps.Equal(got, d.files.monthRows) {
		return fmt.Errorf("flights a month are %v, in the file %v", got, d.files.monthRows)
	}
	return nil
}

// syncTable creates the synced table, or refreshes the one of an earlier run.
func (d *demo) syncTable(ctx context.Context, name, key string) error {
	n := tarn.TableName{Catalog: demoProject, Schema: demoSchema, Table: name}
	source, err := d.latestVersion(ctx, demoTable(name))
	if err != nil {
		return err
	}
	_, err = d.c.SyncedTables().Create(ctx, n, client.SyncedSpec{
		Branch: d.branch.String(), PostgresDatabase: tarn.DefaultDatabase, SourceTableFullName: demoTable(name).String(),
		PrimaryKeyColumns: []string{key}, SchedulingPolicy: string(tarn.SyncSnapshot),
	})
	if exists(err) {
		t, err := d.c.SyncedTables().Get(ctx, n)
		if err != nil {
			return err
		}
		if _, err := d.c.SyncedTables().Refresh(ctx, t); err != nil {
			return fmt.Errorf("refresh synced table %s: %w", n, err)
		}
	} else if err != nil {
		return fmt.Errorf("create synced table %s: %w", n, err)
	}
	return poll(ctx, 3*time.Minute, func() (bool, error) {
		t, err := d.c.SyncedTables().Get(ctx, n)
		if err != nil {
			return false, err
		}
		if t.Status == nil {
			return false, nil
		}
		if strings.HasSuffix(t.Status.DetailedState, "FAILED") {
			return false, fmt.Errorf("synced table %s is %s: %s", n, t.Status.DetailedState, t.Status.Message)
		}
		online := strings.Contains(t.Status.DetailedState, "ONLINE_NO_PENDING_UPDATE")
		return online && t.Status.LastProcessedCommitVersion != nil && *t.Status.LastProcessedCommitVersion >= source, nil
	})
}

func (d *demo) latestVersion(ctx context.Context, n tarn.TableName) (int64, error) {
	h, err := d.c.Tables().History(ctx, n, 1)
	if err != nil {
		return 0, err
	}
	if len(h.Commits) == 0 {
		return 0, fmt.Errorf("%s has no commits", n)
	}
	return h.Commits[0].Version, nil
}

func (d *demo) createFeed(ctx context.Context) (string, error) {
	err := d.onConnection(ctx, d.branch, func(c *pgx.Conn) error {
		_, err := c.Exec(ctx, bookingTables)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("create the app's tables: %w", err)
	}
	feeds := d.c.Feeds(d.branch, tarn.DefaultDatabase)
	_, err = feeds.Create(ctx, demoFeed, client.Feed{Catalog: demoCatalog, Schema: demoSchema, PostgresSchema: "public"})
	if err != nil && !exists(err) {
		return "", err
	}
	err = poll(ctx, time.Minute, func() (bool, error) {
		tables, err := feeds.Tables(ctx, demoFeed)
		streaming := 0
		for _, t := range tables {
			if t.State == string(tarn.FeedStreaming) {
				streaming++
			}
		}
		return streaming >= 2, err
	})
	return fmt.Sprintf("schema public streams into %s.%s", demoCatalog, demoSchema), err
}

func (d *demo) runBookings(ctx context.Context) (string, error) {
	err := d.ledger.makeBookings(ctx, d.connector(d.branch), len(d.files.flights))
	if err != nil {
		return "", err
	}
	err = d.onConnection(ctx, d.branch, func(c *pgx.Conn) error {
		d.past, err = serverNow(ctx, c)
		return err
	})
	d.pastBookings = d.ledger.bookings()
	return fmt.Sprintf("%d transactions over TLS on %d connections, %d bookings stand", len(d.ledger.inOrder()), bookers, len(d.pastBookings)), err
}

func (d *demo) runCancellations(ctx context.Context) (string, error) {
	if err := d.ledger.cancelBookings(ctx, d.connector(d.branch)); err != nil {
		return "", err
	}
	now := d.ledger.bookings()
	if len(now) >= len(d.pastBookings) {
		return "", fmt.Errorf("nothing was cancelled: %d bookings before, %d after", len(d.pastBookings), len(now))
	}
	return fmt.Sprintf("%d bookings cancelled", len(d.pastBookings)-len(now)), d.compare(ctx, d.branch, now)
}

func (d *demo) checkFeed(ctx context.Context) (string, error) {
	n := demoTable("lb_bookings_history")
	err := poll(ctx, time.Minute, func() (bool, error) {
		tables, err := d.c.Feeds(d.branch, tarn.DefaultDatabase).Tables(ctx, demoFeed)
		if err != nil {
			return false, err
		}
		for _, t := range tables {
			at, err := tarn.ParseLSN(t.CommittedLSN)
			if t.UCTable == n.String() && err == nil && at >= d.ledger.endLSN {
				return true, nil
			}
		}
		return false, nil
	})
	if err != nil {
		return "", fmt.Errorf("wait for the feed: %w", err)
	}
	entry, err := d.c.Tables().Get(ctx, n)
	if err != nil {
		return "", err
	}
	s, err := tableStore(ctx, entry.StorageLocation)
	if err != nil {
		return "", err
	}
	t, err := delta.Open(ctx, s, "")
	if err != nil {
		return "", err
	}
	snap, err := t.Latest(ctx)
	if err != nil {
		return "", err
	}
	history, err := readHistory(ctx, snap)
	if err != nil {
		return "", err
	}
	changes, err := d.ledger.checkHistory(history)
	return fmt.Sprintf("%s: %d changes, each once, in commit order", n, changes), err
}

func (d *demo) branchAtPast(ctx context.Context) (string, error) {
	past := d.branch.Parent().Branch(demoBranch)
	if op, err := d.c.DeleteBranch(ctx, past, client.Purge); err == nil {
		if err := d.c.WaitOperation(ctx, op, nil); err != nil {
			return "", err
		}
	} else if !missing(err) {
		return "", err
	}
	began := time.Now()
	forever := true
	op, err := d.c.CreateBranch(ctx, past, client.BranchSpec{SourceBranch: d.branch.String(), SourceBranchTime: d.past.UTC().Format(time.RFC3339Nano), NoExpiry: &forever})
	if err != nil {
		return "", err
	}
	if err := d.c.WaitOperation(ctx, op, nil); err != nil {
		return "", err
	}
	took := time.Since(began)
	if err := d.compare(ctx, past, d.pastBookings); err != nil {
		return "", fmt.Errorf("on the branch: %w", err)
	}
	if err := d.compare(ctx, d.branch, d.ledger.bookings()); err != nil {
		return "", fmt.Errorf("production was touched: %w", err)
	}
	// A write on one is not seen on the other.
	if err := d.onConnection(ctx, past, func(c *pgx.Conn) error {
		_, err := c.Exec(ctx, "DELETE FROM public.bookings")
		return err
	}); err != nil {
		return "", err
	}
	if err := d.compare(ctx, past, map[int64]booking{}); err != nil {
		return "", fmt.Errorf("a write on the branch: %w", err)
	}
	if err := d.compare(ctx, d.branch, d.ledger.bookings()); err != nil {
		return "", fmt.Errorf("a write on the branch was seen on production: %w", err)
	}
	return fmt.Sprintf("%s made in %s at %s: the %d cancelled bookings are there; production is untouched", demoBranch,
		took.Round(time.Millisecond), d.past.Format(time.TimeOnly), len(d.pastBookings)-len(d.ledger.bookings())), nil
}

func (d *demo) compare(ctx context.Context, b tarn.BranchName, want map[int64]booking) error {
	return d.onConnection(ctx, b, func(c *pgx.Conn) error {
		got, err := readBookings(ctx, c)
		if err != nil {
			return err
		}
		return sameBookings(got, want)
	})
}

func (d *demo) suspendAndWake(ctx context.Context) (string, error) {
	endpoint := d.branch.Endpoint(tarn.DefaultEndpoint)
	status, err := d.c.Status(ctx)
	if err != nil {
		return "", err
	}
	pid := 0
	for _, p := range status.Computes {
		if p.Branch == d.branch.String() {
			pid = p.PID
		}
	}
	if err := d.c.Suspend(ctx, endpoint); err != nil {
		return "", err
	}
	if pid == 0 || identify(pid).Start != 0 {
		return "", fmt.Errorf("the endpoint is suspended, but its Postgres (pid %d) was not seen or still runs", pid)
	}
	began := time.Now()
	if err := d.onConnection(ctx, d.branch, func(c *pgx.Conn) error {
		var one int
		return c.QueryRow(ctx, "SELECT 1").Scan(&one)
	}); err != nil {
		return "", err
	}
	took := time.Since(began)
	return fmt.Sprintf("no Postgres process was left; first answer %s after connecting", took.Round(time.Millisecond)), d.compare(ctx, d.branch, d.ledger.bookings())
}

// connector connects as any application would: TLS checked against Tarn's
// certificate authority, a database credential as the password.
func (d *demo) connector(b tarn.BranchName) connectFunc {
	return func(ctx context.Context) (*pgx.Conn, error) {
		at, err := d.c.Connection(ctx, b)
		if err != nil {
			return nil, err
		}
		cred, err := d.c.Credential(ctx, b.Endpoint(tarn.DefaultEndpoint))
		if err != nil {
			return nil, err
		}
		cfg, err := pgx.ParseConfig("application_name=tarn-demo")
		if err != nil {
			return nil, err
		}
		ca, err := os.ReadFile(at.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read the certificate authority: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(ca) {
			return nil, fmt.Errorf("%s holds no certificate", at.CAFile)
		}
		cfg.Host, cfg.Port, cfg.User, cfg.Database, cfg.Password = at.Host, uint16(at.Port), at.User, at.Database, cred.Token
		cfg.TLSConfig = &tls.Config{RootCAs: pool, ServerName: at.Host, MinVersion: tls.VersionTLS13}
		cfg.Fallbacks = nil
		return pgx.ConnectConfig(ctx, cfg)
	}
}

func (d *demo) onConnection(ctx context.Context, b tarn.BranchName, f func(*pgx.Conn) error) error {
	c, err := d.connector(b)(ctx)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", b, err)
	}
	defer c.Close(ctx)
	return f(c)
}

// printConnection says what to do next.
func (d *demo) printConnection(out io.Writer) error {
	exe := programAsTyped()
	_, err := fmt.Fprintf(out, `
API   %s
psql  psql "$(%s connection-string %s/%s --credential)"
stop  %s down
`, d.c.Host(), exe, d.branch.Project, d.branch.Branch, exe)
	return err
}

// programAsTyped is how this program is started from the working directory.
func programAsTyped() string {
	exe, err := os.Executable()
	if err != nil {
		return "tarn"
	}
	wd, err := os.Getwd()
	if err != nil {
		return exe
	}
	rel, err := filepath.Rel(wd, exe)
	if err != nil || strings.HasPrefix(rel, "..") {
		return exe
	}
	return "./" + rel
}

// exists says whether the server answered that the thing is there already.
func exists(err error) bool {
	var e *client.Error
	return errors.As(err, &e) && e.Conflict()
}

// missing says whether the server answered that the thing is not there.
func missing(err error) bool {
	var e *client.Error
	return errors.As(err, &e) && e.NotFound()
}

// poll asks until f says yes, an error, or the time is over.
func poll(ctx context.Context, limit time.Duration, f func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errors.New("not within "+limit.String()))
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := f()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}
