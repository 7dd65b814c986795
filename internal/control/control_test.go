package control

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// scripted is a node that creates nothing: it answers as a test says and
// notes what it was asked. It stands in where a real node could not be made to
// fail at the right moment; fleet_test.go has the real one.
type scripted struct {
	mu       sync.Mutex
	create   func(ctx context.Context) error // next answers of CreateTimeline
	asked    []string
	computes []tarn.ComputeStatus
}

func (s *scripted) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, fmt.Sprintf(format, args...))
}

func (s *scripted) notes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

func (s *scripted) CreateTimeline(ctx context.Context, t tarn.TimelineSpec) (tarn.TimelineStatus, error) {
	s.note("create %s from %s", t.ID, t.Source)
	if s.create != nil {
		return tarn.TimelineStatus{}, s.create(ctx)
	}
	return tarn.TimelineStatus{ID: t.ID}, nil
}

func (s *scripted) DeleteTimeline(_ context.Context, id tarn.TimelineID) error {
	s.note("delete %s", id)
	return tarn.NotFound("timeline %s does not exist", id)
}

func (s *scripted) Timeline(_ context.Context, id tarn.TimelineID) (tarn.TimelineStatus, error) {
	return tarn.TimelineStatus{ID: id}, nil
}

// Window is an hour long for every timeline.
func (s *scripted) Window(context.Context, tarn.TimelineID) (tarn.Window, error) {
	now := time.Now()
	return tarn.Window{From: tarn.Mark{LSN: 1, Time: now.Add(-time.Hour)}, To: tarn.Mark{LSN: 1 << 20, Time: now}, History: time.Hour}, nil
}

func (s *scripted) SetHistory(_ context.Context, id tarn.TimelineID, d time.Duration) error {
	s.note("history %s %s", id, d)
	return nil
}

func (s *scripted) DropSlots(_ context.Context, id tarn.TimelineID) error {
	s.note("drop slots %s", id)
	return nil
}

func (s *scripted) Timelines(context.Context) ([]tarn.TimelineStatus, error) { return nil, nil }

func (s *scripted) Versions(context.Context) ([]int, error) { return []int{18, 16}, nil }

func (s *scripted) Wake(_ context.Context, c tarn.ComputeSpec) (tarn.ComputeStatus, error) {
	s.note("wake %s", c.Endpoint)
	return tarn.ComputeStatus{Endpoint: c.Endpoint, State: tarn.ComputeActive}, nil
}

func (s *scripted) Suspend(_ context.Context, endpoint string) error {
	s.note("suspend %s", endpoint)
	return nil
}

func (s *scripted) Computes(context.Context) ([]tarn.ComputeStatus, error) { return s.computes, nil }

var ann = tarn.Principal{Name: "ann@example.com", Type: tarn.PrincipalUser, Admin: true}

func TestRecords(t *testing.T) {
	_, conn := pgtest.Start(t, pgtest.Newest(t))
	db, err := controldb.Open(t.Context(), conn)
	ok(t, err)
	t.Cleanup(db.Close)
	for _, c := range []struct {
		name string
		f    func(*testing.T, *controldb.DB)
	}{
		{"Bootstrap", bootstrap}, {"Tokens", tokens}, {"OneNameOneProject", oneName}, {"AddressesDiffer", addressesDiffer},
		{"Refusals", refusals}, {"Updates", updates}, {"Pages", pages},
		{"WorkOutlivesAProcess", outlives}, {"Retries", retries}, {"FailureIsTold", failure},
		{"DeletionWaitsForHolds", holds}, {"DeletionIsAskedOnce", once}, {"DeletedThingsComeBack", trash}, {"Sweep", sweep},
	} {
		t.Run(c.name, func(t *testing.T) { c.f(t, db) })
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v (%s)", err, tarn.HintOf(err))
	}
}

func kind(t *testing.T, err error, k tarn.Kind) {
	t.Helper()
	if err == nil || tarn.KindOf(err) != k {
		t.Fatalf("got error %v of kind %s, want kind %s", err, tarn.KindOf(err), k)
	}
}

// run lets c work until the test ends or stop is called.
func run(t *testing.T, c *Control) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func wait(t *testing.T, c *Control, name string) tarn.Operation {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	op, err := c.WaitOperation(ctx, name)
	ok(t, err)
	return op
}

// ready records a project as if it had been made.
func ready(t *testing.T, c *Control, id string) tarn.ProjectName {
	t.Helper()
	ctx, n := t.Context(), tarn.ProjectName{Project: id}
	op, err := c.CreateProject(ctx, ann, tarn.ProjectSpec{Name: n}, tarn.InstanceSpec{})
	ok(t, err)
	ok(t, controldb.FinishOperation(ctx, c.cfg.DB, op.Name, 0, ""))
	ok(t, controldb.SetBranchState(ctx, c.cfg.DB, n.Branch("production"), tarn.BranchInit, tarn.BranchReady, ""))
	return n
}

// child records a branch of production as if it had been made.
func child(t *testing.T, c *Control, n tarn.BranchName) {
	t.Helper()
	op, err := c.CreateBranch(t.Context(), ann, tarn.BranchSpec{Name: n})
	ok(t, err)
	ok(t, controldb.FinishOperation(t.Context(), c.cfg.DB, op.Name, 0, ""))
	ok(t, controldb.SetBranchState(t.Context(), c.cfg.DB, n, tarn.BranchInit, tarn.BranchReady, ""))
}

func bootstrap(t *testing.T, db *controldb.DB) {
	_, err := New(Config{DB: db, Owner: "pg_boss"}).Bootstrap(t.Context())
	kind(t, err, tarn.KindInvalid)
	// Many at once: one makes the workspace, all find the same.
	var got [4]Beginning
	var g errgroup.Group
	for i := range got {
		g.Go(func() (err error) {
			c := New(Config{DB: db, Owner: ann.Name})
			got[i], err = c.Bootstrap(t.Context())
			if c.Workspace() != got[i].Workspace {
				t.Errorf("workspace %+v, began with %+v", c.Workspace(), got[i].Workspace)
			}
			return err
		})
	}
	ok(t, g.Wait())
	tokens := 0
	for _, b := range got {
		if b.Workspace != got[0].Workspace || b.Owner.ID != got[0].Owner.ID || b.Owner.Name != ann.Name || !b.Owner.Admin || b.Workspace.ID < 1e15 {
			t.Errorf("began with %+v", b)
		}
		if b.Token == "" {
			continue
		}
		tokens++
		p, err := New(Config{DB: db}).Authenticate(t.Context(), b.Token.Reveal())
		ok(t, err)
		if p.ID != b.Owner.ID || !p.Admin {
			t.Errorf("token of %+v, want of %+v", p, b.Owner)
		}
	}
	if tokens != 1 {
		t.Errorf("%d first tokens, want 1", tokens)
	}
}

func tokens(t *testing.T, db *controldb.DB) {
	c, ctx := New(Config{DB: db}), t.Context()
	tok, secret, err := c.CreateToken(ctx, ann, "laptop", time.Hour)
	ok(t, err)
	if left := time.Until(tok.ExpireTime); left < 59*time.Minute || left > time.Hour {
		t.Errorf("expires in %s", left)
	}
	p, err := c.Authenticate(ctx, secret.Reveal())
	ok(t, err)
	if p.Name != ann.Name {
		t.Errorf("authenticated as %+v", p)
	}
	for _, bad := range []string{"", "dapi0", secret.Reveal() + "0"} {
		_, err = c.Authenticate(ctx, bad)
		kind(t, err, tarn.KindDenied)
	}
	kind(t, c.RevokeToken(ctx, tarn.Principal{Name: "bob"}, tok.ID), tarn.KindNotFound)
	ok(t, c.RevokeToken(ctx, ann, tok.ID))
	_, err = c.Authenticate(ctx, secret.Reveal())
	kind(t, err, tarn.KindDenied)
	_, _, err = c.CreateToken(ctx, ann, "", -time.Second)
	kind(t, err, tarn.KindInvalid)
}

func oneName(t *testing.T, db *controldb.DB) {
	c := New(Config{DB: db, Node: &scripted{}})
	var g errgroup.Group
	errs := make([]error, 8)
	for i := range errs {
		g.Go(func() error {
			_, errs[i] = c.CreateProject(t.Context(), ann, tarn.ProjectSpec{Name: tarn.ProjectName{Project: "same"}}, tarn.InstanceSpec{})
			return nil
		})
	}
	ok(t, g.Wait())
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
			continue
		}
		kind(t, err, tarn.KindConflict)
		if !strings.Contains(err.Error(), `project "same" already exists`) || tarn.HintOf(err) == "" {
			t.Errorf("error %q, hint %q", err, tarn.HintOf(err))
		}
	}
	if won != 1 {
		t.Errorf("%d made the project, want 1", won)
	}
	p, err := c.GetProject(t.Context(), tarn.ProjectName{Project: "same"})
	ok(t, err)
	if p.PGVersion != 18 || p.History != 7*24*time.Hour || p.DisplayName != "same" || p.Endpoint.MaxCU != 2 || p.Owner != ann.Name || p.UID == "" {
		t.Errorf("defaults: %+v", p)
	}
	b, err := c.GetBranch(t.Context(), p.Name.Branch("production"))
	ok(t, err)
	if !b.Default || b.State != tarn.BranchInit {
		t.Errorf("branch %+v", b)
	}
	_, err = c.WakeEndpoint(t.Context(), b.Name.Endpoint("primary"))
	kind(t, err, tarn.KindUnavailable)
}

func addressesDiffer(t *testing.T, db *controldb.DB) {
	c := New(Config{DB: db, Node: &scripted{}})
	var g errgroup.Group
	for i := range 20 {
		g.Go(func() error {
			_, err := c.CreateProject(t.Context(), ann, tarn.ProjectSpec{Name: tarn.ProjectName{Project: fmt.Sprintf("many-%d", i)}}, tarn.InstanceSpec{})
			return err
		})
	}
	ok(t, g.Wait())
	all, err := c.AllEndpoints(t.Context())
	ok(t, err)
	hosts := make(map[string]bool)
	for _, e := range all {
		if hosts[e.Host] || !strings.HasPrefix(e.Host, "127.") || e.Port != 5432 || e.State != tarn.EndpointIdle {
			t.Errorf("endpoint %+v", e)
		}
		hosts[e.Host] = true
	}
	if len(all) < 20 {
		t.Errorf("%d endpoints", len(all))
	}
}

func TestAddress(t *testing.T) {
	seen := make(map[string]bool)
	for n := 1; n <= addresses; n++ {
		seen[address(3<<8|250, n)] = true
	}
	if len(seen) != addresses {
		t.Errorf("%d addresses, want %d", len(seen), addresses)
	}
	for n, want := range map[int]string{1: "127.67.250.2", 253: "127.67.250.254", 254: "127.67.251.2", 6*253 + 1: "127.67.0.2"} {
		if got := address(3<<8|250, n); got != want {
			t.Errorf("address %d is %s, want %s", n, got, want)
		}
	}
}

func refusals(t *testing.T, db *controldb.DB) {
	c, ctx := New(Config{DB: db, Node: &scripted{}}), t.Context()
	n := ready(t, c, "strict")
	for name, s := range map[string]tarn.ProjectSpec{
		"no id":          {},
		"bad id":         {Name: tarn.ProjectName{Project: "Shop"}},
		"long display":   {Name: tarn.ProjectName{Project: "x"}, DisplayName: strings.Repeat("d", 257)},
		"old Postgres":   {Name: tarn.ProjectName{Project: "x"}, PGVersion: 17},
		"long history":   {Name: tarn.ProjectName{Project: "x"}, History: 36 * 24 * time.Hour},
		"small":          {Name: tarn.ProjectName{Project: "x"}, Endpoint: tarn.EndpointSpec{MinCU: 0.1, MaxCU: 1}},
		"not a number":   {Name: tarn.ProjectName{Project: "x"}, Endpoint: tarn.EndpointSpec{MinCU: math.NaN()}},
		"wide":           {Name: tarn.ProjectName{Project: "x"}, Endpoint: tarn.EndpointSpec{MinCU: 1, MaxCU: 18}},
		"min above max":  {Name: tarn.ProjectName{Project: "x"}, Endpoint: tarn.EndpointSpec{MinCU: 3, MaxCU: 2}},
		"hasty":          {Name: tarn.ProjectName{Project: "x"}, Endpoint: tarn.EndpointSpec{SuspendAfter: time.Millisecond}},
		"own setting":    {Name: tarn.ProjectName{Project: "x"}, Endpoint: tarn.EndpointSpec{Settings: map[string]string{"port": "1"}}},
		"node's setting": {Name: tarn.ProjectName{Project: "x"}, Endpoint: tarn.EndpointSpec{Settings: map[string]string{"archive_command": "true"}}},
		"no setting":     {Name: tarn.ProjectName{Project: "x"}, Endpoint: tarn.EndpointSpec{Settings: map[string]string{"a b": "1"}}},
	} {
		if _, err := c.CreateProject(ctx, ann, s, tarn.InstanceSpec{}); tarn.KindOf(err) != tarn.KindInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := c.CreateProject(ctx, tarn.Principal{Name: strings.Repeat("n", 64)}, tarn.ProjectSpec{Name: tarn.ProjectName{Project: "x"}}, tarn.InstanceSpec{})
	kind(t, err, tarn.KindInvalid)

	now := time.Now()
	for name, c2 := range map[string]struct {
		s tarn.BranchSpec
		k tarn.Kind
	}{
		"bad id":          {tarn.BranchSpec{Name: n.Branch("-")}, tarn.KindInvalid},
		"no project":      {tarn.BranchSpec{Name: tarn.BranchName{Project: "none", Branch: "b"}}, tarn.KindNotFound},
		"no source":       {tarn.BranchSpec{Name: n.Branch("b"), Source: "none"}, tarn.KindNotFound},
		"taken":           {tarn.BranchSpec{Name: n.Branch("production")}, tarn.KindConflict},
		"time and lsn":    {tarn.BranchSpec{Name: n.Branch("b"), SourceTime: now, SourceLSN: 1}, tarn.KindInvalid},
		"future":          {tarn.BranchSpec{Name: n.Branch("b"), SourceTime: now.Add(time.Hour)}, tarn.KindInvalid},
		"before window":   {tarn.BranchSpec{Name: n.Branch("b"), SourceTime: now.Add(-8 * 24 * time.Hour)}, tarn.KindInvalid},
		"expired":         {tarn.BranchSpec{Name: n.Branch("b"), ExpireTime: now.Add(-time.Hour)}, tarn.KindInvalid},
		"long life":       {tarn.BranchSpec{Name: n.Branch("b"), ExpireTime: now.Add(31 * 24 * time.Hour)}, tarn.KindInvalid},
		"protected, ends": {tarn.BranchSpec{Name: n.Branch("b"), ExpireTime: now.Add(time.Hour), Protected: true}, tarn.KindInvalid},
	} {
		if _, err := c.CreateBranch(ctx, ann, c2.s); err == nil || tarn.KindOf(err) != c2.k {
			t.Errorf("%s: %v, want kind %s", name, err, c2.k)
		}
	}
	_, err = c.DeleteBranch(ctx, n.Branch("none"))
	kind(t, err, tarn.KindNotFound)
	_, err = c.DeleteProject(ctx, tarn.ProjectName{Project: "none"})
	kind(t, err, tarn.KindNotFound)
	_, err = c.GetOperation(ctx, "projects/x/operations/y")
	kind(t, err, tarn.KindNotFound)
}

func updates(t *testing.T, db *controldb.DB) {
	c, ctx := New(Config{DB: db, Node: &scripted{}}), t.Context()
	n := ready(t, c, "mend")
	mine := errors.New("mine")
	_, err := c.UpdateProject(ctx, n, func(*tarn.Project) error { return mine })
	if !errors.Is(err, mine) {
		t.Errorf("error of f: %v", err)
	}
	for _, f := range []func(*tarn.Project){
		func(p *tarn.Project) { p.Name.Project = "other" }, func(p *tarn.Project) { p.PGVersion = 16 },
		func(p *tarn.Project) { p.UID = "x" }, func(p *tarn.Project) { p.History = 36 * 24 * time.Hour },
	} {
		_, err := c.UpdateProject(ctx, n, func(p *tarn.Project) error { f(p); return nil })
		kind(t, err, tarn.KindInvalid)
	}
	// Updates of one row at once all count.
	var g errgroup.Group
	for i := range 8 {
		g.Go(func() error {
			_, err := c.UpdateProject(ctx, n, func(p *tarn.Project) error {
				if p.CustomTags == nil {
					p.CustomTags = make(map[string]string)
				}
				p.CustomTags[fmt.Sprint(i)] = "x"
				return nil
			})
			return err
		})
	}
	ok(t, g.Wait())
	p, err := c.GetProject(ctx, n)
	ok(t, err)
	if len(p.CustomTags) != 8 {
		t.Errorf("tags %v", p.CustomTags)
	}

	dev := n.Branch("dev")
	child(t, c, dev)
	expire := time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond)
	_, err = c.UpdateBranch(ctx, dev, func(b *tarn.Branch) error { b.ExpireTime = expire; return nil })
	ok(t, err)
	_, err = c.CreateBranch(ctx, ann, tarn.BranchSpec{Name: n.Branch("sub"), Source: "dev"})
	kind(t, err, tarn.KindConflict) // its source expires
	for _, f := range []func(*tarn.Branch){
		func(b *tarn.Branch) { b.Protected = true }, func(b *tarn.Branch) { b.Source = "" }, func(b *tarn.Branch) { b.Default = true },
	} {
		_, err := c.UpdateBranch(ctx, dev, func(b *tarn.Branch) error { f(b); return nil })
		kind(t, err, tarn.KindInvalid)
	}
	_, err = c.UpdateBranch(ctx, dev, func(b *tarn.Branch) error { b.ExpireTime, b.Protected = time.Time{}, true; return nil })
	ok(t, err)
	_, err = c.DeleteBranch(ctx, dev)
	kind(t, err, tarn.KindConflict) // it is protected

	e := dev.Endpoint("primary")
	_, err = c.UpdateEndpoint(ctx, e, func(e *tarn.Endpoint) error { e.SuspendAfter, e.MaxCU = -1, 8; return nil })
	ok(t, err)
	got, err := c.GetEndpoint(ctx, e)
	ok(t, err)
	if got.SuspendAfter >= 0 || got.MaxCU != 8 {
		t.Errorf("endpoint %+v", got)
	}
	_, err = c.UpdateEndpoint(ctx, e, func(e *tarn.Endpoint) error { e.FreezeAfter = time.Second; return nil })
	kind(t, err, tarn.KindInvalid)
	// The sweep of a later case would keep it awake.
	_, err = c.UpdateEndpoint(ctx, e, func(e *tarn.Endpoint) error { e.SuspendAfter, e.FreezeAfter = time.Minute, -1; return nil })
	ok(t, err)
	if got, err = c.GetEndpoint(ctx, e); err != nil || got.FreezeAfter >= 0 {
		t.Errorf("endpoint %+v, %v", got, err)
	}
	_, err = c.UpdateEndpoint(ctx, e, func(e *tarn.Endpoint) error { e.Host = "127.0.0.1"; return nil })
	kind(t, err, tarn.KindInvalid)
}

func pages(t *testing.T, db *controldb.DB) {
	c, ctx := New(Config{DB: db, Node: &scripted{}}), t.Context()
	n := ready(t, c, "paged")
	for i := range 4 {
		child(t, c, n.Branch(fmt.Sprintf("b%d", i)))
	}
	var got []string
	for pg := (Page{Size: 2}); ; {
		rows, next, err := c.ListBranches(ctx, n, pg)
		ok(t, err)
		if len(rows) > 2 {
			t.Fatalf("page of %d", len(rows))
		}
		for _, b := range rows {
			got = append(got, b.Name.Branch)
		}
		if next == "" {
			break
		}
		pg.Token = next
	}
	if want := []string{"b0", "b1", "b2", "b3", "production"}; !slices.Equal(got, want) {
		t.Errorf("branches %q, want %q", got, want)
	}
	for _, pg := range []Page{{Size: -1}, {Token: "%"}, {Token: "garbage"}, {Token: "AAAA"}} {
		_, _, err := c.ListProjects(ctx, pg)
		kind(t, err, tarn.KindInvalid)
	}
	_, _, err := c.ListBranches(ctx, tarn.ProjectName{Project: "none"}, Page{})
	kind(t, err, tarn.KindNotFound)
	_, _, err = c.ListEndpoints(ctx, n.Branch("none"), Page{})
	kind(t, err, tarn.KindNotFound)
}

// settle performs all that earlier tests left to do.
func settle(t *testing.T, db *controldb.DB) {
	t.Helper()
	c := New(Config{DB: db, Node: &scripted{}})
	ctx := t.Context()
	for {
		var op tarn.Operation
		var found bool
		ok(t, db.InTx(ctx, func(tx *controldb.Tx) (err error) {
			op, _, found, err = controldb.ClaimOperation(ctx, tx)
			if err != nil || !found {
				return err
			}
			return controldb.FinishOperation(ctx, tx, op.Name, 0, "")
		}))
		if !found {
			c.signals.performed()
			return
		}
	}
}

func outlives(t *testing.T, db *controldb.DB) {
	settle(t, db)
	ctx := t.Context()
	node := &scripted{}
	began := make(chan struct{}, 1)
	node.create = func(ctx context.Context) error {
		began <- struct{}{}
		<-ctx.Done() // the process is told to end in the middle of it
		return context.Cause(ctx)
	}
	c := New(Config{DB: db, Node: node})
	n := ready(t, c, "outlive")
	stop := run(t, c)
	op, err := c.CreateBranch(ctx, ann, tarn.BranchSpec{Name: n.Branch("dev")})
	ok(t, err)
	<-began
	stop()
	if op, err = c.GetOperation(ctx, op.Name); err != nil || op.Done {
		t.Fatalf("interrupted operation %+v, %v", op, err)
	}
	short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	if _, err = c.WaitOperation(short, op.Name); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("wait without workers ended with %v", err)
	}

	next := &scripted{}
	c = New(Config{DB: db, Node: next})
	run(t, c)
	if op = wait(t, c, op.Name); op.Error != "" {
		t.Fatalf("operation %+v", op)
	}
	if !slices.Equal(next.notes(), node.notes()) {
		t.Errorf("the next process asked for %q, the first for %q", next.notes(), node.notes())
	}
	b, err := c.GetBranch(ctx, n.Branch("dev"))
	ok(t, err)
	if b.State != tarn.BranchReady {
		t.Errorf("branch %+v", b)
	}
}

func retries(t *testing.T, db *controldb.DB) {
	settle(t, db)
	var tries int
	node := &scripted{}
	node.create = func(context.Context) error {
		if tries++; tries < 3 {
			return tarn.Unavailable("not yet")
		}
		return nil
	}
	c := New(Config{DB: db, Node: node})
	n := ready(t, c, "retry")
	run(t, c)
	op, err := c.CreateBranch(t.Context(), ann, tarn.BranchSpec{Name: n.Branch("dev")})
	ok(t, err)
	if op = wait(t, c, op.Name); op.Error != "" || tries != 3 {
		t.Errorf("after %d tries: %+v", tries, op)
	}
}

func failure(t *testing.T, db *controldb.DB) {
	settle(t, db)
	ctx := t.Context()
	var asked atomic.Int32
	node := &scripted{create: func(context.Context) error {
		switch asked.Add(1) {
		case 1:
			return tarn.Invalid("before the first mark")
		case 2:
			return nil
		}
		return errors.New("disk on fire")
	}}
	c := New(Config{DB: db, Node: node})
	n := ready(t, c, "fail")
	run(t, c)
	dev := n.Branch("dev")
	op, err := c.CreateBranch(ctx, ann, tarn.BranchSpec{Name: dev, SourceLSN: 7})
	ok(t, err)
	op = wait(t, c, op.Name)
	if op.ErrorKind != tarn.KindInvalid || !strings.Contains(op.Error, "before the first mark") {
		t.Errorf("operation %+v", op)
	}
	// What cannot be made is not kept: its name is free for a better question.
	_, err = c.GetBranch(ctx, dev)
	kind(t, err, tarn.KindNotFound)
	op, err = c.CreateBranch(ctx, ann, tarn.BranchSpec{Name: dev})
	ok(t, err)
	if op = wait(t, c, op.Name); op.Error != "" {
		t.Errorf("second branch of the name: %+v", op)
	}

	// What broke on our side stays to be looked at, and can be deleted.
	broken := n.Branch("broken")
	op, err = c.CreateBranch(ctx, ann, tarn.BranchSpec{Name: broken})
	ok(t, err)
	if op = wait(t, c, op.Name); op.ErrorKind != tarn.KindInternal {
		t.Errorf("operation %+v", op)
	}
	b, err := c.GetBranch(ctx, broken)
	ok(t, err)
	if b.State != tarn.BranchInit || !strings.Contains(b.StatusMessage, "disk on fire") {
		t.Errorf("branch %+v", b)
	}
	op, err = c.DeleteBranch(ctx, broken)
	ok(t, err)
	if op = wait(t, c, op.Name); op.Error != "" {
		t.Errorf("deletion of a branch that was not made: %+v", op)
	}
	_, err = c.GetBranch(ctx, broken)
	kind(t, err, tarn.KindNotFound)
}

func holds(t *testing.T, db *controldb.DB) {
	settle(t, db)
	ctx := t.Context()
	c := New(Config{DB: db, Node: &scripted{}, Hold: time.Hour})
	n := ready(t, c, "held")
	dev := n.Branch("dev")
	child(t, c, dev)
	f, err := controldb.InsertFeed(ctx, db, tarn.Feed{FeedSpec: tarn.FeedSpec{Branch: dev, PostgresSchema: "app", Catalog: "lake", Schema: "s"}})
	ok(t, err)
	stop := run(t, c)
	op, err := c.DeleteBranch(ctx, dev)
	ok(t, err)
	b, err := c.GetBranch(ctx, dev)
	ok(t, err)
	if b.State != tarn.BranchDeleted {
		t.Fatalf("branch that is being deleted is %s", b.State)
	}
	_, err = c.WakeEndpoint(ctx, dev.Endpoint("primary"))
	kind(t, err, tarn.KindConflict)
	_, err = controldb.InsertFeed(ctx, db, tarn.Feed{FeedSpec: tarn.FeedSpec{Branch: dev, PostgresSchema: "late"}})
	kind(t, err, tarn.KindNotFound)
	// Nothing goes while the feed holds the branch; then all goes.
	stop()
	if notes := c.cfg.Node.(*scripted).notes(); len(notes) != 0 {
		t.Fatalf("node was asked to %q", notes)
	}
	ok(t, controldb.DeleteFeed(ctx, db, f.UID))
	stop = run(t, c)
	if op = wait(t, c, op.Name); op.Error != "" {
		t.Fatalf("operation %+v", op)
	}
	_, err = c.GetBranch(ctx, dev)
	kind(t, err, tarn.KindNotFound)
	stop()

	// A hold that stays ends the deletion, and says which it is.
	s, err := controldb.InsertSyncedTable(ctx, db, "ada", tarn.SyncedTable{SyncedTableSpec: tarn.SyncedTableSpec{
		Name: tarn.TableName{Catalog: "c", Schema: "s", Table: "t"}, PrimaryKey: []string{"id"}, Branch: n.Branch("production")}})
	ok(t, err)
	c = New(Config{DB: db, Node: &scripted{}, Hold: time.Nanosecond})
	run(t, c)
	op, err = c.DeleteProject(ctx, n)
	ok(t, err)
	op = wait(t, c, op.Name)
	if op.ErrorKind != tarn.KindConflict || !strings.Contains(op.Error, "synced table c.s.t") {
		t.Errorf("operation %+v", op)
	}
	b, err = c.GetBranch(ctx, n.Branch("production"))
	ok(t, err)
	if b.State != tarn.BranchDeleted || !strings.Contains(b.StatusMessage, "synced table c.s.t") {
		t.Errorf("branch %+v", b)
	}
	ok(t, controldb.DeleteSyncedTable(ctx, db, s.UID))
	again, err := c.DeleteProject(ctx, n)
	ok(t, err)
	if done := wait(t, c, again.Name); done.Error != "" || done.Name == op.Name {
		t.Errorf("second deletion %+v", done)
	}
}

func once(t *testing.T, db *controldb.DB) {
	settle(t, db)
	ctx := t.Context()
	c := New(Config{DB: db, Node: &scripted{}})
	n := ready(t, c, "once")
	dev := n.Branch("dev")
	child(t, c, dev)
	first, err := c.DeleteBranch(ctx, dev)
	ok(t, err)
	second, err := c.DeleteBranch(ctx, dev)
	ok(t, err)
	if first.Name != second.Name {
		t.Errorf("deletions %s and %s", first.Name, second.Name)
	}
	whole, err := c.DeleteProject(ctx, n)
	ok(t, err)
	run(t, c)
	for _, op := range []tarn.Operation{first, whole} {
		if op = wait(t, c, op.Name); op.Error != "" {
			t.Errorf("operation %+v", op)
		}
	}
	again := ready(t, c, "once")
	if _, err := c.GetBranch(ctx, again.Branch("production")); err != nil {
		t.Errorf("project of the same name: %v", err)
	}
}

func sweep(t *testing.T, db *controldb.DB) {
	settle(t, db)
	ctx := t.Context()
	node := &scripted{}
	c := New(Config{DB: db, Node: node})
	n := ready(t, c, "swept")
	for _, id := range []string{"ends", "off", "on", "astray"} {
		child(t, c, n.Branch(id))
	}
	uid := func(branch string) string {
		e, err := controldb.GetEndpoint(ctx, db, n.Branch(branch).Endpoint("primary"))
		ok(t, err)
		return e.UID
	}
	_, err := c.UpdateEndpoint(ctx, n.Branch("off").Endpoint("primary"), func(e *tarn.Endpoint) error { e.Disabled = true; return nil })
	ok(t, err)
	seen := time.Now().UTC().Truncate(time.Microsecond)
	node.computes = []tarn.ComputeStatus{
		{Endpoint: "ep-" + uuid.NewString(), State: tarn.ComputeActive}, // its row is gone
		{Endpoint: uid("off"), State: tarn.ComputeStarting},
		{Endpoint: uid("on"), State: tarn.ComputeActive, LastActive: seen},
		{Endpoint: uid("astray"), State: tarn.ComputeActive, Timeline: newTimelineID()}, // its branch was restored since
	}
	s := &sweeper{c: c}
	ok(t, s.computes(ctx))
	want := []string{"suspend " + node.computes[0].Endpoint, "suspend " + uid("off"), "suspend " + uid("astray")}
	if got := node.notes(); !slices.Equal(got, want) {
		t.Errorf("node was asked to %q, want %q", got, want)
	}
	if e, err := controldb.GetEndpoint(ctx, db, n.Branch("on").Endpoint("primary")); err != nil || !e.LastActive.Equal(seen) {
		t.Errorf("endpoint %+v, %v; last seen active %s", e, err, seen)
	}

	staysAwake(t, db, c, s, node, n.Branch("on").Endpoint("primary"))

	b, err := c.GetBranch(ctx, n.Branch("ends"))
	ok(t, err)
	b.ExpireTime = time.Now().Add(-time.Minute)
	ok(t, controldb.UpdateBranch(ctx, db, b))
	ok(t, s.expired(ctx))
	if b, err = c.GetBranch(ctx, b.Name); err != nil || b.State != tarn.BranchDeleted {
		t.Errorf("expired branch %+v, %v", b, err)
	}
	op, err := controldb.GetOpenOperation(ctx, db, "delete", b.Name.String())
	ok(t, err)
	run(t, c)
	if op = wait(t, c, op.Name); op.Error != "" {
		t.Errorf("operation %+v", op)
	}
	ok(t, s.prune(ctx))

	whole := tarn.ProjectName{Project: "born-protected"}
	_, err = c.CreateProject(ctx, ann, tarn.ProjectSpec{Name: whole, ProtectDefault: true}, tarn.InstanceSpec{})
	ok(t, err)
	if b, err = c.GetBranch(ctx, whole.Branch("production")); err != nil || !b.Protected {
		t.Errorf("branch %+v, %v", b, err)
	}

	// A protected branch neither expires nor goes; a snapshot's time comes, too.
	kept := n.Branch("on")
	_, err = c.UpdateBranch(ctx, kept, func(b *tarn.Branch) error { b.Protected = true; return nil })
	ok(t, err)
	_, err = c.UpdateBranch(ctx, kept, func(b *tarn.Branch) error { b.ExpireTime = time.Now().Add(time.Hour); return nil })
	kind(t, err, tarn.KindInvalid)
	_, err = c.DeleteProject(ctx, n)
	kind(t, err, tarn.KindConflict)
	if hint := tarn.HintOf(err); !strings.Contains(err.Error(), "protected branches: on") || !strings.Contains(hint, "tarn branch unprotect swept/on") {
		t.Errorf("%v (%s)", err, hint)
	}
	snap := n.Snapshot("ends")
	op, err = c.Snapshots.Create(ctx, ann, tarn.SnapshotSpec{Name: snap, ExpireTime: time.Now().Add(50 * time.Millisecond)})
	ok(t, err)
	if op = wait(t, c, op.Name); op.Error != "" {
		t.Errorf("operation %+v", op)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); ; <-tick.C {
		ok(t, s.expired(ctx))
		if _, err = c.Snapshots.Get(ctx, snap); tarn.KindOf(err) == tarn.KindNotFound {
			break
		}
		ok(t, err)
		if time.Now().After(deadline) {
			t.Fatal("an expired snapshot does not go")
		}
	}
}
