package control_test

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/compute"
	"github.com/tarndb/tarn/internal/control"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/node"
	"github.com/tarndb/tarn/internal/postgres"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
	"github.com/tarndb/tarn/internal/token"
)

var (
	_ control.Node   = (*node.Client)(nil)
	_ control.Signer = (*token.Signer)(nil)
)

// house is a control on a real fleet.
type house struct {
	*control.Control
	t      *testing.T
	cfg    control.Config
	db     *controldb.DB
	fleet  *compute.Fleet
	signer *token.Signer
	begin  control.Beginning
}

func open(t *testing.T) *house {
	t.Helper()
	h := openIdle(t)
	h.work(h.Control)
	return h
}

// work lets c work until the test ends or stop is called.
func (h *house) work(c *control.Control) (stop func()) {
	run, cancel := context.WithCancel(context.WithoutCancel(h.t.Context()))
	done := make(chan error, 1)
	go func() { done <- c.Run(run) }()
	stop = sync.OnceFunc(func() {
		cancel()
		ok(h.t, <-done)
	})
	h.t.Cleanup(stop)
	return stop
}

// on is another control of the same workspace, on another node.
func (h *house) on(n control.Node) *control.Control {
	cfg := h.cfg
	cfg.Node = n
	return control.New(cfg)
}

// openIdle is a house in which nobody performs operations.
func openIdle(t *testing.T) *house {
	t.Helper()
	ctx := t.Context()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	_, conn := pgtest.Start(t, pgtest.Newest(t))
	h := &house{t: t}
	h.db = must(controldb.Open(ctx, conn))(t)
	t.Cleanup(h.db.Close)
	h.fleet = must(compute.Open(ctx, compute.Options{
		Dir: pgtest.Dir(t), Installs: pgtest.Installs(t), RunAs: must(postgres.DefaultRunAs())(t), Log: log, MemoryBytes: 1 << 30,
	}))(t)
	t.Cleanup(func() { ok(t, h.fleet.Close()) })
	h.signer = token.NewSigner(h.db, "https://issuer", "tarn", token.Options{})
	h.cfg = control.Config{DB: h.db, Node: h.fleet, Signer: h.signer, Owner: "Ann@example.com", Port: 5433, Log: log}
	h.Control = control.New(h.cfg)
	h.begin = must(h.Bootstrap(ctx))(t)
	return h
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		ok(t, err)
		return v
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v (%s)", err, tarn.HintOf(err))
	}
}

func wantKind(t *testing.T, err error, k tarn.Kind) {
	t.Helper()
	if err == nil || tarn.KindOf(err) != k {
		t.Fatalf("got error %v of kind %s, want kind %s", err, tarn.KindOf(err), k)
	}
}

// end waits for an operation and wants it to have ended well.
func (h *house) end(op tarn.Operation, err error) {
	h.t.Helper()
	ok(h.t, err)
	ctx, cancel := context.WithTimeout(h.t.Context(), 2*time.Minute)
	defer cancel()
	op, err = h.WaitOperation(ctx, op.Name)
	ok(h.t, err)
	if !op.Done || op.Error != "" {
		h.t.Fatalf("operation %+v", op)
	}
}

// query reads one value on a branch as Tarn itself.
func query[T any](h *house, b tarn.BranchName, sql string, args ...any) (v T) {
	h.t.Helper()
	conn := must(h.Connect(h.t.Context(), b, "", nil))(h.t)
	defer conn.Close(h.t.Context())
	ok(h.t, conn.QueryRow(h.t.Context(), sql, args...).Scan(&v))
	return v
}

func (h *house) exec(b tarn.BranchName, sql string) {
	h.t.Helper()
	conn := must(h.Connect(h.t.Context(), b, "", nil))(h.t)
	defer conn.Close(h.t.Context())
	_, err := conn.Exec(h.t.Context(), sql)
	ok(h.t, err)
}

func TestLifeOfAProject(t *testing.T) {
	h, ctx := open(t), t.Context()
	owner := h.begin.Owner
	shop := tarn.ProjectName{Project: "shop"}
	prod, dev := shop.Branch(tarn.DefaultBranch), shop.Branch("dev")

	changed := h.EndpointsChanged()
	op := must(h.CreateProject(ctx, owner, tarn.ProjectSpec{Name: shop}, tarn.InstanceSpec{}))(t)
	<-changed
	_, err := h.CreateProject(ctx, owner, tarn.ProjectSpec{Name: shop}, tarn.InstanceSpec{})
	wantKind(t, err, tarn.KindConflict)
	if tarn.HintOf(err) == "" {
		t.Errorf("%v has no hint", err)
	}
	h.end(op, nil)
	h.theOwnerOwns(prod)

	// What is written on a branch is seen on its child, and not the other way.
	h.exec(prod, `CREATE TABLE t AS SELECT 1 AS v`)
	h.end(h.CreateBranch(ctx, owner, tarn.BranchSpec{Name: dev}))
	h.exec(dev, `INSERT INTO t VALUES (2)`)
	if p, d := query[int](h, prod, `SELECT count(*) FROM t`), query[int](h, dev, `SELECT count(*) FROM t`); p != 1 || d != 2 {
		t.Fatalf("production has %d rows, dev %d, want 1 and 2", p, d)
	}
	past := shop.Branch("past")
	at := query[time.Time](h, dev, `SELECT clock_timestamp()`)
	h.exec(dev, `INSERT INTO t VALUES (3)`)
	h.end(h.CreateBranch(ctx, owner, tarn.BranchSpec{Name: past, Source: "dev", SourceTime: at}))
	if n := query[int](h, past, `SELECT count(*) FROM t`); n != 2 {
		t.Fatalf("branch from before the third row has %d rows, want 2", n)
	}

	h.endpointsSleepAndWake(prod)
	h.credentials(prod, dev)

	_, err = h.DeleteBranch(ctx, prod)
	wantKind(t, err, tarn.KindConflict)
	_, err = h.DeleteBranch(ctx, dev) // it has a child
	wantKind(t, err, tarn.KindConflict)
	h.end(h.DeleteBranch(ctx, past))
	_, err = h.GetBranch(ctx, past)
	wantKind(t, err, tarn.KindNotFound)

	h.end(h.DeleteProject(ctx, shop))
	_, err = h.GetProject(ctx, shop)
	wantKind(t, err, tarn.KindNotFound)
	if left := must(h.AllEndpoints(ctx))(t); len(left) != 0 {
		t.Errorf("endpoints left: %+v", left)
	}
	for _, tl := range must(h.fleet.Timelines(ctx))(t) {
		if tl.Parent.Timeline != "" {
			t.Errorf("timeline left: %+v", tl)
		}
	}
	for _, st := range must(h.fleet.Computes(ctx))(t) {
		if st.State == tarn.ComputeActive {
			t.Errorf("compute left: %+v", st)
		}
	}
	// Its name is free again, and its address not soon another's.
	h.end(h.CreateProject(ctx, owner, tarn.ProjectSpec{Name: shop}, tarn.InstanceSpec{Stopped: true}))
	if st := must(h.ComputeOf(ctx, prod))(t); st.State != tarn.ComputeStopped {
		t.Errorf("compute of a project made as stopped: %+v", st)
	}
}

// theOwnerOwns checks what a new project's database must be like.
func (h *house) theOwnerOwns(b tarn.BranchName) {
	h.t.Helper()
	if got := query[string](h, b, `SHOW application_name`); got != "tarn" {
		h.t.Errorf("application_name %q", got)
	}
	if !query[bool](h, b, `
SELECT rolcanlogin AND rolcreatedb AND rolcreaterole AND NOT rolsuper AND rolpassword IS NULL
	AND pg_has_role(rolname, 'databricks_superuser', 'USAGE') AND pg_has_role(rolname, 'tarn_oauth', 'MEMBER')
	AND (SELECT datdba FROM pg_database WHERE datname = current_database()) = oid
	AND (SELECT nspowner FROM pg_namespace WHERE nspname = 'public') = oid
FROM pg_authid WHERE rolname = $1`, h.begin.Owner.Name) {
		h.t.Error("the owner's role is not as it should be")
	}
	// The owner can work: on data, roles and databases.
	conn := must(h.Connect(h.t.Context(), b, "", func(c *pgx.ConnConfig) { c.User = h.begin.Owner.Name }))(h.t)
	defer conn.Close(h.t.Context())
	for _, sql := range []string{
		`CREATE TABLE mine (id int PRIMARY KEY)`, `CREATE ROLE app LOGIN PASSWORD 'secret'`, `GRANT databricks_superuser TO app`,
		`CREATE DATABASE second`, `DROP DATABASE second`, `DROP TABLE mine`,
	} {
		_, err := conn.Exec(h.t.Context(), sql)
		ok(h.t, err)
	}
}

func (h *house) endpointsSleepAndWake(b tarn.BranchName) {
	t, ctx, n := h.t, h.t.Context(), b.Endpoint(tarn.DefaultEndpoint)
	t.Helper()
	e := must(h.GetEndpoint(ctx, n))(t)
	if e.State != tarn.EndpointActive || e.Port != 5433 || e.Host == "" || e.LastActive.IsZero() {
		t.Fatalf("running endpoint is %+v", e)
	}
	ok(t, h.SuspendEndpoint(ctx, n))
	if e = must(h.GetEndpoint(ctx, n))(t); e.State != tarn.EndpointIdle {
		t.Fatalf("suspended endpoint is %s", e.State)
	}
	must(h.WakeEndpoint(ctx, n))(t)
	if e = must(h.GetEndpoint(ctx, n))(t); e.State != tarn.EndpointActive {
		t.Fatalf("woken endpoint is %s", e.State)
	}

	h.end(h.UpdateEndpoint(ctx, n, func(e *tarn.Endpoint) error { e.Disabled = true; return nil }))
	if st := must(h.ComputeOf(ctx, b))(t); st.State != tarn.ComputeStopped {
		t.Fatalf("compute of a disabled endpoint is %s", st.State)
	}
	_, err := h.WakeEndpoint(ctx, n)
	wantKind(t, err, tarn.KindConflict)
	_, err = h.Connect(ctx, b, "", nil)
	wantKind(t, err, tarn.KindConflict)
	h.end(h.UpdateEndpoint(ctx, n, func(e *tarn.Endpoint) error {
		e.Disabled, e.Settings = false, map[string]string{"work_mem": "12345kB"}
		return nil
	}))
	if got := query[string](h, b, `SHOW work_mem`); got != "12345kB" {
		t.Errorf("work_mem of the endpoint's settings: %q", got)
	}

	stop := func(stopped bool) {
		h.end(h.UpdateProject(ctx, b.Parent(), func(p *tarn.Project) error { p.Instance.Stopped = stopped; return nil }))
	}
	stop(true)
	for _, st := range must(h.fleet.Computes(ctx))(t) {
		if st.State == tarn.ComputeActive {
			t.Errorf("compute of a stopped instance: %+v", st)
		}
	}
	_, err = h.WakeEndpoint(ctx, n)
	wantKind(t, err, tarn.KindConflict)
	stop(false)
	must(h.WakeEndpoint(ctx, n))(t)
}

func (h *house) credentials(branches ...tarn.BranchName) {
	t, ctx := h.t, h.t.Context()
	t.Helper()
	var names []tarn.EndpointName
	var uids []string
	for _, b := range branches {
		e := must(h.GetEndpoint(ctx, b.Endpoint(tarn.DefaultEndpoint)))(t)
		names, uids = append(names, e.Name), append(uids, e.UID)
	}
	secret, expiry, err := h.IssueCredential(ctx, h.begin.Owner, names, 10*time.Minute)
	ok(t, err)
	claims := must(h.signer.Verify(ctx, secret.Reveal()))(t)
	if claims.Subject != h.begin.Owner.Name || claims.Type != tarn.PrincipalUser || !slices.Equal(claims.Endpoints, uids) || !claims.Expiry.Equal(expiry) {
		t.Errorf("claims %+v, want endpoints %q until %s", claims, uids, expiry)
	}
	for _, ttl := range []time.Duration{time.Minute, 2 * time.Hour, -time.Hour} {
		_, _, err = h.IssueCredential(ctx, h.begin.Owner, nil, ttl)
		wantKind(t, err, tarn.KindInvalid)
	}
	_, _, err = h.IssueCredential(ctx, h.begin.Owner, []tarn.EndpointName{{Project: "shop", Branch: "x", Endpoint: "y"}}, 0)
	wantKind(t, err, tarn.KindNotFound)
}
