package api

import (
	"context"
	"net/http"
	"strings"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/control"
)

// access says who may ask. What a route's path names is checked before the
// route answers, so that a new route is closed unless it says otherwise.
type access int

const (
	// signedIn wants a valid token, and where the path names a project also a
	// level on it: CAN_CREATE, the lowest, to read and CAN_MANAGE to change.
	signedIn   access = iota
	public            // anybody
	adminOnly         // admins of the workspace
	mayUse            // signedIn, with CAN_USE on the path's project
	ofTable           // like mayUse on the project of the path's synced table; to read CAN_CREATE
	ofPipeline        // the same for the table that the path's pipeline moves
)

// level is what the route wants on its project; "" = it names none.
func (rt route) level() tarn.Level {
	read := strings.HasPrefix(rt.pattern, http.MethodGet+" ")
	switch rt.access {
	case signedIn:
		switch {
		case !strings.Contains(rt.pattern, "{project}"):
			return ""
		case read:
			return tarn.CanCreate
		}
		return tarn.CanManage
	case ofTable, ofPipeline:
		if read {
			return tarn.CanCreate
		}
		return tarn.CanUse
	case mayUse:
		return tarn.CanUse
	}
	return ""
}

// authorize refuses whoever may not ask for the route.
func (d *door) authorize(ctx context.Context, rt route, q *query) error {
	if rt.access == adminOnly && !q.who.Admin {
		return tarn.Denied("%s may not do this: only admins of the workspace may", q.who.Name).
			WithHint("An admin can make it one: tarn group add " + tarn.AdminsGroup + " " + q.who.Name)
	}
	l := rt.level()
	if l == "" {
		return nil
	}
	if err := d.locate(ctx, rt, q); err != nil {
		return err
	}
	var n tarn.ProjectName
	var err error
	switch rt.access {
	case ofTable, ofPipeline:
		n, err = d.projectOf(ctx, rt.access, q)
	default:
		n, err = q.project()
	}
	if err != nil {
		return err
	}
	return q.need(ctx, n, l)
}

// locate finds the child instance that a path names, if it names one.
func (d *door) locate(ctx context.Context, rt route, q *query) error {
	if d.child == nil || !strings.Contains(rt.pattern, instancesPath) {
		return nil
	}
	c, err := d.child(ctx, q.r.PathValue("project"))
	switch {
	case err == nil:
		q.child = &c
	case tarn.KindOf(err) != tarn.KindNotFound:
		return err
	}
	return nil
}

// need refuses who asks when its level on a project is below l.
func (q *query) need(ctx context.Context, n tarn.ProjectName, l tarn.Level) error {
	return q.access.Need(ctx, q.who, n, l)
}

// sees tells which projects who asks may see.
func (q *query) sees(ctx context.Context) (func(tarn.Project) bool, error) {
	ls, err := q.access.Levels(ctx, q.who)
	return func(p tarn.Project) bool { return ls.Of(p).Covers(tarn.CanCreate) }, err
}

// seen keeps of projects those who asks may see.
func (q *query) seen(ctx context.Context, ps []tarn.Project) ([]tarn.Project, error) {
	sees, err := q.sees(ctx)
	if err != nil {
		return nil, err
	}
	var out []tarn.Project
	for _, p := range ps {
		if sees(p) {
			out = append(out, p)
		}
	}
	return out, nil
}

// accessOfControl is nil where there is no control to ask.
func accessOfControl(c *control.Control) *control.Access {
	if c == nil {
		return nil
	}
	return c.Access
}

// childrenOfControl is nil where there is no control to ask.
func childrenOfControl(c *control.Control) func(ctx context.Context, name string) (tarn.ChildInstance, error) {
	if c == nil {
		return nil
	}
	return c.Published.Child
}
