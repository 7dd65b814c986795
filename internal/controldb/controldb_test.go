package controldb_test

import (
	"context"
	"reflect"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
	"github.com/tarndb/tarn/internal/token"
)

var _ token.KeyStore = (*controldb.DB)(nil)

func open(t *testing.T) *controldb.DB {
	t.Helper()
	_, conn := pgtest.Start(t, pgtest.Newest(t))
	// Two processes may start at once on an empty database.
	var dbs [2]*controldb.DB
	var g errgroup.Group
	for i := range dbs {
		g.Go(func() (err error) {
			dbs[i], err = controldb.Open(t.Context(), conn)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	dbs[1].Close()
	t.Cleanup(dbs[0].Close)
	return dbs[0]
}

func TestRows(t *testing.T) {
	db := open(t)
	for _, c := range []struct {
		name string
		f    func(*testing.T, *controldb.DB)
	}{
		{"Workspace", workspace}, {"Tokens", tokens}, {"SigningKeys", signingKeys}, {"Projects", projects}, {"Branches", branches},
		{"Endpoints", endpoints}, {"Operations", operations}, {"Catalog", catalog}, {"SyncedTables", syncedTables}, {"Pipelines", pipelines}, {"Feeds", feeds}, {"Snapshots", snapshots}, {"Swaps", swaps},
	} {
		t.Run(c.name, func(t *testing.T) { c.f(t, db) })
	}
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantKind(t *testing.T, err error, k tarn.Kind) {
	t.Helper()
	if err == nil || tarn.KindOf(err) != k {
		t.Fatalf("got error %v of kind %s, want kind %s", err, tarn.KindOf(err), k)
	}
}

func same(t *testing.T, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got\n%+v\nwant\n%+v", got, want)
	}
}

func workspace(t *testing.T, db *controldb.DB) {
	ctx := t.Context()
	_, _, err := controldb.GetWorkspace(ctx, db)
	wantKind(t, err, tarn.KindNotFound)
	w := tarn.Workspace{ID: 7312345678901234, Owner: "ann@example.com"}
	do(t, controldb.InsertWorkspace(ctx, db, w, 300))
	wantKind(t, controldb.InsertWorkspace(ctx, db, tarn.Workspace{ID: 2, Owner: "bob"}, 1), tarn.KindConflict)
	got, block, err := controldb.GetWorkspace(ctx, db)
	do(t, err)
	same(t, got, w)
	same(t, block, 300)
	for _, want := range []int{1, 2, 3, 1} {
		do(t, db.InTx(ctx, func(tx *controldb.Tx) error {
			n, err := controldb.NextAddress(ctx, tx, 3)
			same(t, n, want)
			return err
		}))
	}
}

func tokens(t *testing.T, db *controldb.DB) {
	ctx := t.Context()
	p := must[tarn.Principal](t)(controldb.InsertPrincipal(ctx, db, tarn.Principal{Name: "ann@example.com", Type: tarn.PrincipalUser, Admin: true}))
	same(t, must[tarn.Principal](t)(controldb.GetPrincipal(ctx, db, p.Name)), p)
	all := must[[]tarn.Principal](t)(controldb.ListPrincipals(ctx, db))
	same(t, len(all), 3)
	same(t, all[1], p) // between the groups admins and users
	_, err := controldb.InsertPrincipal(ctx, db, p)
	wantKind(t, err, tarn.KindConflict)
	good := must[tarn.Token](t)(controldb.InsertToken(ctx, db, tarn.Token{ID: "a", Comment: "laptop", Owner: p.Name}, [32]byte{1}))
	_, err = controldb.InsertToken(ctx, db, tarn.Token{ID: "b", Owner: p.Name, ExpireTime: time.Now().Add(-time.Second)}, [32]byte{2})
	do(t, err)
	if !good.ExpireTime.IsZero() || good.CreateTime.IsZero() {
		t.Fatalf("token times: %+v", good)
	}
	same(t, must[tarn.Principal](t)(controldb.PrincipalOfToken(ctx, db, [32]byte{1})), p)
	for _, h := range []byte{2, 3} { // expired, unknown
		_, err = controldb.PrincipalOfToken(ctx, db, [32]byte{h})
		wantKind(t, err, tarn.KindNotFound)
	}
	wantKind(t, controldb.DeleteToken(ctx, db, "someone else", "a"), tarn.KindNotFound)
	do(t, controldb.DeleteToken(ctx, db, p.Name, "a"))
	_, err = controldb.PrincipalOfToken(ctx, db, [32]byte{1})
	wantKind(t, err, tarn.KindNotFound)
	same(t, len(must[[]tarn.Token](t)(controldb.ListTokens(ctx, db, p.Name))), 1)
}

func signingKeys(t *testing.T, db *controldb.DB) {
	ctx := t.Context()
	at := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	old, young := token.Key{ID: "old", Created: at, PKCS8: []byte{1}}, token.Key{ID: "young", Created: at.Add(time.Hour), PKCS8: []byte{2}}
	for _, k := range []token.Key{old, young, old} {
		do(t, db.AddSigningKey(ctx, k))
	}
	same(t, must[[]token.Key](t)(db.SigningKeys(ctx)), []token.Key{young, old})
}

func project(name string) tarn.Project {
	return tarn.Project{
		ProjectSpec: tarn.ProjectSpec{
			Name: tarn.ProjectName{Project: name}, DisplayName: "Shop & Co.", PGVersion: 18, History: 35 * 24 * time.Hour,
			CustomTags:         map[string]string{"team": "red"},
			Endpoint:           tarn.EndpointSpec{MinCU: 0.5, MaxCU: 8, SuspendAfter: -1, Settings: map[string]string{"work_mem": "8MB"}},
			DisableNativeLogin: true,
		},
		UID: uuid.NewString(), Owner: "ann@example.com",
		Instance: tarn.InstanceSpec{Capacity: "CU_2", NodeCount: 1, Readable: true, UsagePolicy: "u"},
	}
}

func projects(t *testing.T, db *controldb.DB) {
	ctx := t.Context()
	p := project("rows-p")
	got := must[tarn.Project](t)(controldb.InsertProject(ctx, db, p))
	if got.Endpoint.SuspendAfter >= 0 {
		t.Fatalf("never suspend was read as %s", got.Endpoint.SuspendAfter)
	}
	p.CreateTime, p.UpdateTime, p.Endpoint.SuspendAfter = got.CreateTime, got.UpdateTime, got.Endpoint.SuspendAfter
	same(t, got, p)
	same(t, must[tarn.Project](t)(controldb.GetProject(ctx, db, p.Name)), p)
	_, err := controldb.InsertProject(ctx, db, p)
	wantKind(t, err, tarn.KindConflict)
	same(t, err.Error(), `project "rows-p" already exists`)
	p.DisplayName, p.CustomTags, p.Instance.Stopped, p.Endpoint.Settings = "other", nil, true, nil
	do(t, controldb.UpdateProject(ctx, db, p))
	got = must[tarn.Project](t)(controldb.GetProject(ctx, db, p.Name))
	p.UpdateTime = got.UpdateTime
	same(t, got, p)
	must[tarn.Project](t)(controldb.InsertProject(ctx, db, project("rows-q")))
	one := must[[]tarn.Project](t)(controldb.ListProjects(ctx, db, "", 1, controldb.HideDeleted))
	two := must[[]tarn.Project](t)(controldb.ListProjects(ctx, db, one[0].Name.Project, 5, controldb.HideDeleted))
	same(t, len(one)+len(two), 2)
	for _, n := range []tarn.ProjectName{one[0].Name, two[0].Name} {
		do(t, controldb.DeleteProject(ctx, db, n))
	}
	wantKind(t, controldb.DeleteProject(ctx, db, p.Name), tarn.KindNotFound)
	_, err = controldb.GetProject(ctx, db, p.Name)
	wantKind(t, err, tarn.KindNotFound)
}

// line makes a project with branches, each made from the one before it.
func line(t *testing.T, db *controldb.DB, in string, names ...string) []tarn.Branch {
	t.Helper()
	p := must[tarn.Project](t)(controldb.InsertProject(t.Context(), db, project(in)))
	var out []tarn.Branch
	for i, name := range names {
		id := uuid.New()
		b := tarn.Branch{BranchSpec: tarn.BranchSpec{Name: p.Name.Branch(name)}, UID: uuid.NewString(), Default: i == 0,
			Timeline: tarn.TimelineID(hex(id[:]))}
		if i > 0 {
			b.Source = names[i-1]
		}
		out = append(out, must[tarn.Branch](t)(controldb.InsertBranch(t.Context(), db, b)))
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		left, err := controldb.LeavesFirst(ctx, db, p.Name)
		if err != nil {
			t.Error(err)
		}
		for _, b := range left {
			if err := controldb.DeleteBranch(ctx, db, b.Name); err != nil {
				t.Error(err)
			}
		}
		if err := controldb.DeleteProject(ctx, db, p.Name); err != nil {
			t.Error(err)
		}
	})
	return out
}

func hex(b []byte) string {
	const digits = "0123456789abcdef"
	var out []byte
	for _, c := range b {
		out = append(out, digits[c>>4], digits[c&15])
	}
	return string(out)
}

func branches(t *testing.T, db *controldb.DB) {
	ctx := t.Context()
	bs := line(t, db, "tree", "production", "dev", "feature")
	prod, dev, feature := bs[0], bs[1], bs[2]
	same(t, prod.State, tarn.BranchInit)
	same(t, must[tarn.Branch](t)(controldb.GetDefaultBranch(ctx, db, prod.Name.Parent())), prod)
	pit := tarn.Branch{BranchSpec: tarn.BranchSpec{Name: prod.Name.Parent().Branch("past"), Source: "dev",
		SourceTime: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC), ExpireTime: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)},
		UID: uuid.NewString(), Timeline: tarn.TimelineID("0123456789abcdef0123456789abcdef")}
	got := must[tarn.Branch](t)(controldb.InsertBranch(ctx, db, pit))
	same(t, got.BranchSpec, pit.BranchSpec)
	pit.Name.Branch, pit.UID, pit.SourceTime, pit.SourceLSN = "at-lsn", uuid.NewString(), time.Time{}, 0x16_B374D848
	pit.Timeline = "1123456789abcdef0123456789abcdef"
	got = must[tarn.Branch](t)(controldb.InsertBranch(ctx, db, pit))
	same(t, got.BranchSpec, pit.BranchSpec)
	same(t, must[[]string](t)(controldb.ListChildren(ctx, db, dev.Name)), []string{"at-lsn", "feature", "past"})
	wantKind(t, controldb.DeleteBranch(ctx, db, dev.Name), tarn.KindConflict)
	_, err := controldb.InsertBranch(ctx, db, feature)
	wantKind(t, err, tarn.KindConflict)

	var order []string
	for _, b := range must[[]tarn.Branch](t)(controldb.LeavesFirst(ctx, db, prod.Name.Parent())) {
		order = append(order, b.Name.Branch)
	}
	same(t, order, []string{"at-lsn", "feature", "past", "dev", "production"})

	expired := func(since time.Time) (names []string) {
		for _, b := range must[[]tarn.Branch](t)(controldb.ListExpired(ctx, db, since)) {
			names = append(names, b.Name.Branch)
		}
		return names
	}
	same(t, expired(time.Now()), []string{"at-lsn", "past"})
	op := tarn.Operation{Name: pit.Name.String() + "/operations/1", Verb: "delete", Target: pit.Name.String()}
	must[tarn.Operation](t)(controldb.InsertOperation(ctx, db, op))
	same(t, expired(time.Now().Add(-time.Hour)), []string{"past"})
	do(t, controldb.FinishOperation(ctx, db, op.Name, 0, ""))

	do(t, controldb.SetBranchState(ctx, db, dev.Name, tarn.BranchInit, tarn.BranchReady, ""))
	wantKind(t, controldb.SetBranchState(ctx, db, dev.Name, tarn.BranchInit, tarn.BranchReady, ""), tarn.KindConflict)
	dev.ExpireTime, dev.Protected = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), true
	do(t, controldb.UpdateBranch(ctx, db, dev))
	do(t, controldb.SetBranchMessage(ctx, db, dev.Name, "well"))
	got = must[tarn.Branch](t)(controldb.GetBranch(ctx, db, dev.Name))
	same(t, got.BranchSpec, dev.BranchSpec)
	same(t, []any{got.State, got.StatusMessage}, []any{tarn.BranchReady, "well"})
	do(t, controldb.MarkDeleted(ctx, db, tarn.BranchName{Project: "tree"}))
	page := must[[]tarn.Branch](t)(controldb.ListBranches(ctx, db, prod.Name.Parent(), "dev", 2, controldb.HideDeleted))
	same(t, []string{page[0].Name.Branch, page[1].Name.Branch}, []string{"feature", "past"})
	same(t, page[0].State, tarn.BranchDeleted)
}

func endpoints(t *testing.T, db *controldb.DB) {
	ctx := t.Context()
	b := line(t, db, "ends", "production")[0]
	e := tarn.Endpoint{EndpointSpec: tarn.EndpointSpec{Name: b.Name.Endpoint("primary"), Type: tarn.ReadWrite, MinCU: 0.5, MaxCU: 2,
		SuspendAfter: 5 * time.Minute, Settings: map[string]string{"a": "b"}}, UID: "ep-1", Host: "127.70.1.2"}
	got := must[tarn.Endpoint](t)(controldb.InsertEndpoint(ctx, db, e))
	e.CreateTime, e.UpdateTime = got.CreateTime, got.UpdateTime
	same(t, got, e)
	second := e
	second.Name.Endpoint, second.UID, second.Host = "other", "ep-2", "127.70.1.3"
	_, err := controldb.InsertEndpoint(ctx, db, second)
	wantKind(t, err, tarn.KindConflict)
	second.Type = tarn.ReadOnly
	must[tarn.Endpoint](t)(controldb.InsertEndpoint(ctx, db, second))
	same(t, must[tarn.Endpoint](t)(controldb.GetReadWriteEndpoint(ctx, db, b.Name)), e)
	same(t, must[bool](t)(controldb.HostTaken(ctx, db, e.Host)), true)
	same(t, must[bool](t)(controldb.HostTaken(ctx, db, "127.70.1.9")), false)

	e.Disabled, e.MaxCU = true, 4
	do(t, controldb.UpdateEndpoint(ctx, db, e))
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	do(t, controldb.SetLastActive(ctx, db, e.UID, at))
	do(t, controldb.SetLastActive(ctx, db, e.UID, at.Add(-time.Hour))) // never backwards
	w := must[controldb.Wakeable](t)(controldb.GetWakeable(ctx, db, e.Name))
	e.LastActive, e.UpdateTime = at, w.Endpoint.UpdateTime
	same(t, w, controldb.Wakeable{Endpoint: e, State: tarn.BranchInit, Timeline: b.Timeline, PGVersion: 18, Primary: e.UID})
	same(t, len(must[[]controldb.Wakeable](t)(controldb.ListWakeables(ctx, db))), 2)
	same(t, len(must[[]tarn.Endpoint](t)(controldb.ListEndpoints(ctx, db, b.Name, "other", 10))), 1)
	same(t, len(must[[]tarn.Endpoint](t)(controldb.AllEndpoints(ctx, db, ""))), 2)
	for _, r := range []controldb.Reached{
		must[controldb.Reached](t)(controldb.ReachHost(ctx, db, e.Host, "")),
		must[controldb.Reached](t)(controldb.ReachHost(ctx, db, "127.134.1.2", e.Host)),
		must[controldb.Reached](t)(controldb.ReachUID(ctx, db, e.UID)),
		must[controldb.Reached](t)(controldb.ReachName(ctx, db, e.Name)),
	} {
		same(t, r.Endpoint, e)
	}
	_, err = controldb.ReachHost(ctx, db, "127.70.1.9", "")
	wantKind(t, err, tarn.KindNotFound)
	_, err = controldb.GetWakeable(ctx, db, b.Name.Endpoint("missing"))
	wantKind(t, err, tarn.KindNotFound)
}

func operations(t *testing.T, db *controldb.DB) {
	ctx := t.Context()
	for _, target := range []string{"projects/a/branches/x", "projects/a", "projects/ab"} {
		must[tarn.Operation](t)(controldb.InsertOperation(ctx, db, tarn.Operation{Name: target + "/operations/1", Verb: "create", Target: target}))
	}
	// Inside one claim another worker gets the next thing that has nothing to
	// do with it: projects/a must wait for its branch, projects/ab need not.
	claim := func(f func(o tarn.Operation, attempt int, ok bool, tx *controldb.Tx)) {
		t.Helper()
		do(t, db.InTx(ctx, func(tx *controldb.Tx) error {
			o, attempt, ok, err := controldb.ClaimOperation(ctx, tx)
			f(o, attempt, ok, tx)
			return err
		}))
	}
	claim(func(o tarn.Operation, _ int, ok bool, tx *controldb.Tx) {
		same(t, o.Target, "projects/a/branches/x")
		claim(func(o tarn.Operation, _ int, _ bool, _ *controldb.Tx) { same(t, o.Target, "projects/ab") })
		do(t, controldb.FinishOperation(ctx, tx, o.Name, tarn.KindConflict, "no"))
	})
	got := must[tarn.Operation](t)(controldb.GetOperation(ctx, db, "projects/a/branches/x/operations/1"))
	same(t, []any{got.Done, got.ErrorKind, got.Error}, []any{true, tarn.KindConflict, "no"})
	claim(func(o tarn.Operation, attempt int, _ bool, tx *controldb.Tx) {
		same(t, []any{o.Target, attempt}, []any{"projects/a", 0})
		do(t, controldb.DeferOperation(ctx, tx, o.Name, time.Hour))
	})
	claim(func(o tarn.Operation, _ int, _ bool, tx *controldb.Tx) {
		same(t, o.Target, "projects/ab")
		do(t, controldb.FinishOperation(ctx, tx, o.Name, 0, ""))
	})
	claim(func(_ tarn.Operation, _ int, ok bool, _ *controldb.Tx) { same(t, ok, false) })
	do(t, controldb.DeferOperation(ctx, db, "projects/a/operations/1", 0))
	claim(func(o tarn.Operation, attempt int, _ bool, tx *controldb.Tx) {
		same(t, []any{o.Target, attempt}, []any{"projects/a", 2})
		do(t, controldb.FinishOperation(ctx, tx, o.Name, 0, ""))
	})
	do(t, controldb.PruneOperations(ctx, db, time.Now().Add(time.Hour)))
	_, err := controldb.GetOperation(ctx, db, "projects/a/operations/1")
	wantKind(t, err, tarn.KindNotFound)
}

func catalog(t *testing.T, db *controldb.DB) {
	ctx := t.Context()
	c := must[tarn.CatalogEntry](t)(controldb.InsertCatalog(ctx, db, tarn.CatalogEntry{ObjectEntry: tarn.ObjectEntry{Name: "lake", Comment: "c"}, Root: "file:///x"}))
	_, err := controldb.InsertCatalog(ctx, db, tarn.CatalogEntry{ObjectEntry: tarn.ObjectEntry{Name: "lake"}, Root: "file:///y"})
	wantKind(t, err, tarn.KindConflict)
	same(t, must[tarn.CatalogEntry](t)(controldb.GetCatalog(ctx, db, "lake")), c)
	same(t, must[[]tarn.CatalogEntry](t)(controldb.ListCatalogs(ctx, db)), []tarn.CatalogEntry{c})
	for range 2 {
		do(t, controldb.EnsureSchema(ctx, db, "lake", "gold", ""))
	}
	wantKind(t, controldb.EnsureSchema(ctx, db, "nowhere", "gold", ""), tarn.KindConflict)
	same(t, must[[]tarn.SchemaEntry](t)(controldb.ListSchemas(ctx, db, "lake"))[0].Name, "gold")
	tab := tarn.CatalogTable{Name: tarn.TableName{Catalog: "lake", Schema: "gold", Table: "t"}, ID: "1", Location: "file:///x/gold/t", Owner: "ann", Comment: "c"}
	got := must[tarn.CatalogTable](t)(controldb.InsertTable(ctx, db, tab))
	tab.CreateTime, tab.UpdateTime, tab.Owner = got.CreateTime, got.UpdateTime, "" // nobody is called ann
	same(t, must[tarn.CatalogTable](t)(controldb.GetTable(ctx, db, tab.Name)), tab)
	again := tab
	again.ID = "2"
	_, err = controldb.InsertTable(ctx, db, again)
	wantKind(t, err, tarn.KindConflict)
	same(t, len(must[[]tarn.CatalogTable](t)(controldb.ListTables(ctx, db, "lake", ""))), 1)
	do(t, controldb.DropTable(ctx, db, tab.Name))
	wantKind(t, controldb.DropTable(ctx, db, tab.Name), tarn.KindNotFound)
	same(t, must[bool](t)(controldb.LocationUsed(ctx, db, tab.Location)), true)
	same(t, must[bool](t)(controldb.LocationUsed(ctx, db, "file:///elsewhere")), false)
	must[tarn.CatalogTable](t)(controldb.InsertTable(ctx, db, again))
	same(t, must[tarn.CatalogTable](t)(controldb.GetTable(ctx, db, tab.Name)).ID, "2")
}

func syncedTables(t *testing.T, db *controldb.DB) {
	ctx := t.Context()
	b := line(t, db, "sync", "production")[0]
	s := tarn.SyncedTable{SyncedTableSpec: tarn.SyncedTableSpec{Name: tarn.TableName{Catalog: "shop", Schema: "public", Table: "users"},
		Source: tarn.TableName{Catalog: "lake", Schema: "gold", Table: "users"}, PrimaryKey: []string{"id", "part"}, Branch: b.Name,
		NewPipelineCatalog: "shop", NewPipelineSchema: "staging"}, State: tarn.SyncProvisioning, Version: -1, RowsTotal: 3}
	s.TimeseriesKey, s.TypeOverrides = "at", []tarn.TypeOverride{{Column: "v", Type: tarn.TypeVarchar, Size: 7}}
	s.Interval, s.Schedule, s.OnReject = 90*time.Second, tarn.Schedule{Cron: "0 2 * * *", Zone: "Europe/Berlin"}, tarn.RejectStop
	s.Alerts = tarn.Alerts{Webhook: "http://localhost/x", Lag: time.Minute, DeadLetters: 3}
	yes, no := true, false
	s.Asked = tarn.SyncedTableAsked{BudgetPolicy: "b", Channel: "PREVIEW", Accelerated: &yes, MakeObjects: &no}
	got := must[tarn.SyncedTable](t)(controldb.InsertSyncedTable(ctx, db, "ada", s))
	if got.UID == "" || got.PipelineID == "" || got.CreateTime.IsZero() || got.Database != tarn.DefaultDatabase || got.Policy != tarn.SyncSnapshot {
		t.Fatalf("defaults missing: %+v", got)
	}
	s.UID, s.PipelineID, s.Database, s.Policy, s.CreateTime, s.UpdateTime = got.UID, got.PipelineID, got.Database, got.Policy, got.CreateTime, got.UpdateTime
	same(t, got, s)
	same(t, must[tarn.SyncedTable](t)(controldb.GetSyncedTable(ctx, db, s.Name)), s)
	twin := s
	twin.UID = ""
	_, err := controldb.InsertSyncedTable(ctx, db, "ada", twin)
	wantKind(t, err, tarn.KindConflict)
	twin.Name.Catalog = "elsewhere" // another name for the same Postgres table
	_, err = controldb.InsertSyncedTable(ctx, db, "ada", twin)
	wantKind(t, err, tarn.KindConflict)
	twin.Name.Table, twin.Branch.Branch = "more", "missing"
	_, err = controldb.InsertSyncedTable(ctx, db, "ada", twin)
	wantKind(t, err, tarn.KindNotFound)

	s.State, s.Message, s.Version, s.RowsSynced = tarn.SyncOnline, "m", 12, 3
	s.VersionTS, s.SyncStart, s.SyncEnd = b.CreateTime, b.CreateTime, b.UpdateTime
	s.Rejected, s.Newest = 4, tarn.SourcePosition{Version: 13, Time: b.UpdateTime}
	do(t, controldb.UpdateSyncedTable(ctx, db, s))
	got = must[tarn.SyncedTable](t)(controldb.GetSyncedTable(ctx, db, s.Name))
	s.UpdateTime = got.UpdateTime
	same(t, got, s)
	asked := s
	asked.State, asked.UpdateID, asked.Refresh = tarn.SyncUpdating, "u1", tarn.RefreshFull
	do(t, controldb.AskSyncedTable(ctx, db, asked, tarn.SyncOnline))
	wantKind(t, controldb.AskSyncedTable(ctx, db, asked, tarn.SyncOnline), tarn.KindConflict)
	do(t, controldb.AnswerSyncedTable(ctx, db, s.UID, "u0"))
	same(t, must[tarn.SyncedTable](t)(controldb.GetSyncedTable(ctx, db, s.Name)).Refresh, tarn.RefreshFull)
	do(t, controldb.AnswerSyncedTable(ctx, db, s.UID, "u1"))
	s.SyncSettings = tarn.SyncSettings{Interval: time.Second}
	do(t, controldb.SetSyncSettings(ctx, db, s.UID, tarn.SyncContinuous, s.SyncSettings))
	got = must[tarn.SyncedTable](t)(controldb.GetSyncedTable(ctx, db, s.Name))
	same(t, []any{got.Refresh, got.UpdateID, got.State, got.Policy, got.SyncSettings}, []any{tarn.Refresh(""), "u1", tarn.SyncUpdating, tarn.SyncContinuous, s.SyncSettings})
	same(t, len(must[[]tarn.SyncedTable](t)(controldb.ListSyncedTables(ctx, db, ""))), 1)
	same(t, len(must[[]tarn.SyncedTable](t)(controldb.ListSyncedTables(ctx, db, "other"))), 0)
	same(t, must[[]string](t)(controldb.ListHolds(ctx, db, b.Name)), []string{"synced table shop.public.users"})
	wantKind(t, controldb.DeleteBranch(ctx, db, b.Name), tarn.KindConflict)

	do(t, controldb.MarkDeleted(ctx, db, b.Name))
	twin.Branch = b.Name
	_, err = controldb.InsertSyncedTable(ctx, db, "ada", twin)
	wantKind(t, err, tarn.KindNotFound)
	do(t, controldb.DeleteSyncedTable(ctx, db, s.UID))
	wantKind(t, controldb.DeleteSyncedTable(ctx, db, s.UID), tarn.KindNotFound)
	wantKind(t, controldb.UpdateSyncedTable(ctx, db, s), tarn.KindNotFound)
	_, err = controldb.GetPipeline(ctx, db, s.PipelineID)
	wantKind(t, err, tarn.KindNotFound)
}

func pipelines(t *testing.T, db *controldb.DB) {
	ctx := t.Context()
	p := must[tarn.Pipeline](t)(controldb.SetPipeline(ctx, db, tarn.Pipeline{Kind: tarn.PipelineFeed, Name: "app", Owner: "f1", Project: "p", Creator: "ada"}))
	p.Name = "app2"
	same(t, must[tarn.Pipeline](t)(controldb.SetPipeline(ctx, db, p)), p)
	same(t, must[[]tarn.Pipeline](t)(controldb.ListPipelines(ctx, db)), []tarn.Pipeline{p})
	var us []tarn.PipelineUpdate
	for range controldb.KeptUpdates + 3 {
		us = append(us, must[tarn.PipelineUpdate](t)(controldb.InsertUpdate(ctx, db, tarn.PipelineUpdate{PipelineID: p.ID, Cause: tarn.CauseAsked})))
	}
	_, err := controldb.InsertUpdate(ctx, db, tarn.PipelineUpdate{PipelineID: "gone", Cause: tarn.CauseAsked})
	wantKind(t, err, tarn.KindNotFound)
	last := us[len(us)-1]
	same(t, []any{last.State, last.Refresh}, []any{tarn.UpdateQueued, tarn.RefreshNew})
	same(t, must[bool](t)(controldb.MoveUpdate(ctx, db, last.ID, tarn.UpdateRunning, "", 0)), true)
	same(t, must[bool](t)(controldb.MoveUpdate(ctx, db, last.ID, tarn.UpdateCanceled, "asked", 7)), true)
	same(t, must[bool](t)(controldb.MoveUpdate(ctx, db, last.ID, tarn.UpdateCompleted, "", 9)), false)
	got := must[tarn.PipelineUpdate](t)(controldb.GetUpdate(ctx, db, p.ID, last.ID))
	same(t, []any{got.State, got.Message, got.Rows}, []any{tarn.UpdateCanceled, "asked", int64(7)})
	for _, u := range us[:5] {
		must[bool](t)(controldb.MoveUpdate(ctx, db, u.ID, tarn.UpdateCompleted, "", 0))
	}
	do(t, controldb.TrimPipelines(ctx, db, time.Now()))
	kept := must[[]tarn.PipelineUpdate](t)(controldb.ListUpdates(ctx, db, p.ID, 1000))
	same(t, []any{len(kept), kept[0].ID}, []any{controldb.KeptUpdates, last.ID})

	do(t, controldb.InsertEvent(ctx, db, tarn.PipelineEvent{PipelineID: p.ID, UpdateID: last.ID, Level: tarn.EventError, Type: tarn.EventUpdateProgress, Message: "m", Error: "22021"}))
	do(t, controldb.InsertEvent(ctx, db, tarn.PipelineEvent{PipelineID: "gone"}))
	es := must[[]tarn.PipelineEvent](t)(controldb.ListEvents(ctx, db, p.ID, 0, 2))
	same(t, []any{len(es), es[0].Message, es[0].Error, es[0].Level, es[1].Type}, []any{2, "m", "22021", tarn.EventError, tarn.EventCreateUpdate})
	same(t, must[[]tarn.PipelineEvent](t)(controldb.ListEvents(ctx, db, p.ID, es[1].Sequence, 1))[0].UpdateID, us[len(us)-2].ID)
	do(t, controldb.TrimPipelines(ctx, db, time.Now().Add(controldb.PipelineRetention+time.Hour)))
	same(t, len(must[[]tarn.PipelineEvent](t)(controldb.ListEvents(ctx, db, p.ID, 0, 1000))), 1)
	do(t, controldb.DeletePipeline(ctx, db, p.ID))
	same(t, len(must[[]tarn.PipelineUpdate](t)(controldb.ListUpdates(ctx, db, p.ID, 9))), 0)
}

func feeds(t *testing.T, db *controldb.DB) {
	ctx := t.Context()
	b := line(t, db, "follow", "production")[0]
	f := tarn.Feed{FeedSpec: tarn.FeedSpec{Branch: b.Name, PostgresSchema: "app", Catalog: "lake", Schema: "bronze"}}
	got := must[tarn.Feed](t)(controldb.InsertFeed(ctx, db, f))
	f.ID, f.Database, f.UID, f.PipelineID, f.CreateTime = "app", tarn.DefaultDatabase, got.UID, got.PipelineID, got.CreateTime
	same(t, got, f)
	twin := f
	twin.UID, twin.PipelineID, twin.ID = "", "", "other"
	_, err := controldb.InsertFeed(ctx, db, twin)
	wantKind(t, err, tarn.KindConflict)
	tab := tarn.FeedTable{PostgresTable: "orders", Target: tarn.TableName{Catalog: "lake", Schema: "bronze", Table: "lb_orders_history"},
		State: tarn.FeedSnapshotting}
	do(t, controldb.UpsertFeedTable(ctx, db, f.UID, tab))
	tab.State, tab.CommittedLSN, tab.LastSync, tab.Detail = tarn.FeedStreaming, 0x1_000000FF, b.CreateTime, "d"
	tab.Rows, tab.DeadLetters, tab.Copied, tab.CopyRows = 4, 3, 2, 1
	do(t, controldb.UpsertFeedTable(ctx, db, f.UID, tab))
	do(t, controldb.SetFeedMessage(ctx, db, f.UID, "slow"))
	f.Tables, f.Message, f.WALHeld = []tarn.FeedTable{tab}, "slow", 7
	f.FeedSettings = tarn.FeedSettings{Include: []string{"o*"}, Exclude: []string{"a", "b"}, Flush: 5 * time.Second, MaxWAL: 1 << 30, Paused: true, Derived: tarn.DerivedBoth}
	do(t, controldb.SetFeedSettings(ctx, db, f.UID, f.FeedSettings))
	do(t, controldb.SetFeedWAL(ctx, db, f.UID, 7))
	same(t, must[tarn.Feed](t)(controldb.FeedOfPipeline(ctx, db, f.PipelineID)), f)
	same(t, must[tarn.Feed](t)(controldb.GetFeed(ctx, db, b.Name, "app")), f)
	same(t, must[[]tarn.Feed](t)(controldb.ListFeeds(ctx, db, tarn.BranchName{})), []tarn.Feed{f})
	same(t, len(must[[]tarn.Feed](t)(controldb.ListFeeds(ctx, db, b.Name.Parent().Branch("dev")))), 0)
	same(t, must[[]string](t)(controldb.ListHolds(ctx, db, b.Name)), []string{"feed app"})
	do(t, controldb.DeleteFeed(ctx, db, f.UID))
	wantKind(t, controldb.DeleteFeed(ctx, db, f.UID), tarn.KindNotFound)
	wantKind(t, controldb.UpsertFeedTable(ctx, db, f.UID, tab), tarn.KindNotFound)
}
