package control

import (
	"slices"
	"testing"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// perform has every operation that is open performed on a scripted node.
func perform(t *testing.T, c *Control) {
	t.Helper()
	w := worker{cfg: c.cfg, fleet: c.fleet, signals: c.signals}
	for {
		worked, err := w.workOne(t.Context())
		ok(t, err)
		if !worked {
			return
		}
	}
}

func trash(t *testing.T, db *controldb.DB) {
	ctx, node := t.Context(), &scripted{}
	c := New(Config{DB: db, Node: node, Owner: "ann@example.com"})
	_, err := c.Bootstrap(ctx)
	ok(t, err)
	p := tarn.ProjectName{Project: "binned"}
	_, err = controldb.InsertProject(ctx, db, tarn.Project{ProjectSpec: tarn.ProjectSpec{Name: p, DisplayName: "x", PGVersion: 18}, UID: "binned", Owner: ann.Name})
	ok(t, err)
	timeline := map[string]tarn.TimelineID{}
	for _, id := range []string{"production", "dev", "old"} {
		b := tarn.Branch{BranchSpec: tarn.BranchSpec{Name: p.Branch(id)}, Default: id == "production"}
		if !b.Default {
			b.Source = "production"
		}
		ok(t, db.InTx(ctx, func(tx *controldb.Tx) error {
			if err := insertBranch(ctx, tx, b, tarn.EndpointSpec{}); err != nil {
				return err
			}
			return controldb.SetBranchState(ctx, tx, b.Name, tarn.BranchInit, tarn.BranchReady, "")
		}))
		made, err := c.GetBranch(ctx, b.Name)
		ok(t, err)
		timeline[id] = made.Timeline
	}
	removed := func(id string) bool {
		for _, n := range node.notes() {
			if n == "delete "+string(timeline[id]) {
				return true
			}
		}
		return false
	}
	listed := func(show controldb.Deleted) (ids []string) {
		all, _, err := c.ListBranches(ctx, p, Page{Deleted: show})
		ok(t, err)
		for _, b := range all {
			ids = append(ids, b.Name.Branch+" "+string(b.State))
		}
		return ids
	}

	// A deleted branch is hidden, keeps its data, and comes back.
	_, err = c.Trash.DeleteBranch(ctx, p.Branch("dev"))
	ok(t, err)
	perform(t, c)
	equal(t, listed(controldb.HideDeleted), []string{"old READY", "production READY"})
	equal(t, listed(controldb.ShowDeleted), []string{"dev DELETED", "old READY", "production READY"})
	if _, err := c.UpdateBranch(ctx, p.Branch("dev"), func(b *tarn.Branch) error { b.Protected = true; return nil }); tarn.KindOf(err) != tarn.KindConflict {
		t.Errorf("update of a deleted branch: %v", err)
	}
	_, err = c.Trash.UndeleteBranch(ctx, p.Branch("dev"))
	ok(t, err)
	perform(t, c)
	equal(t, listed(controldb.HideDeleted), []string{"dev READY", "old READY", "production READY"})

	// A deletion that is performed after its end was asked for removes nothing.
	_, err = c.Trash.DeleteBranch(ctx, p.Branch("old"))
	ok(t, err)
	perform(t, c)
	_, err = c.Trash.DeleteProject(ctx, p)
	ok(t, err)
	_, err = c.Trash.UndeleteProject(ctx, p)
	ok(t, err)
	perform(t, c)
	equal(t, listed(controldb.ShowDeleted), []string{"dev READY", "old DELETED", "production READY"})

	// With the project its branches go and come; what was deleted before stays so.
	_, err = c.Trash.DeleteProject(ctx, p)
	ok(t, err)
	perform(t, c)
	got, err := c.GetProject(ctx, p)
	ok(t, err)
	if d := got.PurgeTime.Sub(got.DeleteTime); d < KeepDeleted-time.Minute || d > KeepDeleted+time.Minute {
		t.Errorf("purged %s after it was deleted, want %s", d, KeepDeleted)
	}
	all, _, err := c.ListProjects(ctx, Page{Size: 1000})
	ok(t, err)
	for _, q := range all {
		if q.Name == p {
			t.Error("a deleted project is listed")
		}
	}
	for what, try := range map[string]func() error{
		"create": func() error {
			_, err := c.CreateProject(ctx, ann, tarn.ProjectSpec{Name: p}, tarn.InstanceSpec{})
			return err
		},
		"update":       func() error { _, err := c.UpdateProject(ctx, p, func(*tarn.Project) error { return nil }); return err },
		"branch":       func() error { _, err := c.CreateBranch(ctx, ann, tarn.BranchSpec{Name: p.Branch("new")}); return err },
		"undelete old": func() error { _, err := c.Trash.UndeleteBranch(ctx, p.Branch("old")); return err },
		"wake":         func() error { _, err := c.WakeEndpoint(ctx, p.Branch("production").Endpoint("primary")); return err },
	} {
		if err := try(); tarn.KindOf(err) != tarn.KindConflict {
			t.Errorf("%s in a deleted project: %v", what, err)
		}
	}
	_, err = c.Trash.UndeleteProject(ctx, p)
	ok(t, err)
	perform(t, c)
	equal(t, listed(controldb.ShowDeleted), []string{"dev READY", "old DELETED", "production READY"})
	for id := range timeline {
		if removed(id) {
			t.Errorf("the data of %s is removed", id)
		}
	}

	// Purged by hand while it is hidden, and by its time.
	_, err = c.Trash.DeleteBranch(ctx, p.Branch("dev"))
	ok(t, err)
	_, err = c.DeleteBranch(ctx, p.Branch("dev"))
	ok(t, err)
	perform(t, c)
	if !removed("dev") {
		t.Error("dev was purged and has its data")
	}
	ok(t, db.InTx(ctx, func(tx *controldb.Tx) error {
		return controldb.HideBranch(ctx, tx, p.Branch("old"), time.Now())
	}))
	ok(t, (&sweeper{c: c}).purge(ctx))
	perform(t, c)
	equal(t, listed(controldb.ShowDeleted), []string{"production READY"})
	if !removed("old") || removed("production") {
		t.Errorf("purged old %v, production %v", removed("old"), removed("production"))
	}
	_, err = c.Trash.DeleteProject(ctx, p)
	ok(t, err)
	_, err = c.DeleteProject(ctx, p)
	ok(t, err)
	perform(t, c)
	if _, err := c.GetProject(ctx, p); tarn.KindOf(err) != tarn.KindNotFound {
		t.Errorf("a purged project: %v", err)
	}
}

func equal(t *testing.T, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
