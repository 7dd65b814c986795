package api

import (
	"context"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/control"
)

// projectDoor answers /api/2.0/postgres/projects.
type projectDoor struct {
	control *control.Control
	ops     *operationDoor
}

func (d *projectDoor) create(ctx context.Context, q *query) (any, error) {
	var in wire.Project
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	id, err := tarn.ParseID("project", q.text("project_id"))
	if err != nil {
		return nil, badField("project_id", "%s", err)
	}
	s, err := readProjectSpec(in)
	if err != nil {
		return nil, err
	}
	s.Name = tarn.ProjectName{Project: id}
	if err := freeOfChildren(ctx, d.control, id, alreadyExists); err != nil {
		return nil, err
	}
	var policy string
	if in.Spec != nil {
		policy = in.Spec.BudgetPolicyID
	}
	op, err := d.control.CreateProject(ctx, q.who, s, tarn.InstanceSpec{UsagePolicy: policy})
	err = existing(err, alreadyExists, func() error {
		_, err := d.control.GetProject(ctx, s.Name)
		return err
	})
	return d.ops.answer(ctx, op, err)
}

// readProjectSpec reads what is asked of a new project.
func readProjectSpec(in wire.Project) (tarn.ProjectSpec, error) {
	var s tarn.ProjectSpec
	s.ProtectDefault = in.InitialBranchSpec != nil && in.InitialBranchSpec.IsProtected != nil && *in.InitialBranchSpec.IsProtected
	if sp := in.Spec; sp != nil {
		if sp.DefaultBranch != "" {
			return s, badField("spec.default_branch", "a new project begins with branch %s", tarn.DefaultBranch)
		}
		if len(sp.DisplayName) > 256 {
			return s, badField("spec.display_name", "is longer than 256 characters")
		}
		s.DisplayName, s.CustomTags = sp.DisplayName, tagsIn(sp.CustomTags)
		s.DisableNativeLogin = sp.EnablePgNativeLogin != nil && !*sp.EnablePgNativeLogin
		if sp.PgVersion != nil {
			s.PGVersion = *sp.PgVersion
		}
		if sp.HistoryRetentionDuration != "" {
			var err error
			if s.History, err = history(sp.HistoryRetentionDuration); err != nil {
				return s, err
			}
		}
		if es := sp.DefaultEndpointSettings; es != nil {
			if err := readSettings("spec.default_endpoint_settings", *es, &s.Endpoint); err != nil {
				return s, err
			}
		}
	}
	ie := in.InitialEndpointSpec
	if ie == nil {
		return s, nil
	}
	if err := readGroup("initial_endpoint_spec.group", ie.Group); err != nil {
		return s, err
	}
	// The first endpoint gets the project's defaults, so what is asked of it
	// becomes them where they say nothing else.
	return s, readSettings("initial_endpoint_spec", wire.EndpointSettings{
		AutoscalingLimitMinCU: ie.AutoscalingLimitMinCU, AutoscalingLimitMaxCU: ie.AutoscalingLimitMaxCU,
		NoSuspension: ie.NoSuspension, SuspendTimeoutDuration: ie.SuspendTimeoutDuration,
	}, &s.Endpoint)
}

// history reads how far back branches can be had again: up to 35 days as
// published, and also less than the published two, down to none.
func history(s string) (time.Duration, error) {
	d, err := wire.ParseDuration("spec.history_retention_duration", s)
	switch {
	case err != nil:
		return 0, err
	case d > tarn.MaxHistory:
		return 0, badField("spec.history_retention_duration", "got %s, want 0s to %s", s, wire.Duration(tarn.MaxHistory))
	case d == 0:
		return tarn.NoHistory, nil
	}
	return d, nil
}

func (d *projectDoor) list(ctx context.Context, q *query) (any, error) {
	pg, err := q.page("page_size")
	if err != nil {
		return nil, err
	}
	if pg.Deleted, err = q.deleted(); err != nil {
		return nil, err
	}
	ps, next, err := d.control.ListProjects(ctx, pg)
	if err != nil {
		return nil, err
	}
	if ps, err = q.seen(ctx, ps); err != nil {
		return nil, err
	}
	out := wire.ListProjects{Projects: []wire.Project{}, NextPageToken: next}
	for _, p := range ps {
		out.Projects = append(out.Projects, projectOf(p))
	}
	return out, nil
}

func (d *projectDoor) get(ctx context.Context, q *query) (any, error) {
	n, err := q.project()
	if err != nil {
		return nil, err
	}
	p, err := d.control.GetProject(ctx, n)
	if err != nil {
		return nil, err
	}
	return projectOf(p), nil
}

// projectFields are what an update may name. The create-only fields are
// accepted and left alone, because Terraform names them in every update.
var projectFields = [...]string{
	"spec.budget_policy_id", "spec.custom_tags", "spec.default_endpoint_settings", "spec.display_name",
	"spec.enable_pg_native_login", "spec.history_retention_duration", "spec.pg_version", "spec.default_branch",
	"spec.project_default_settings", "spec.allowed_ips", "initial_branch_spec", "initial_endpoint_spec",
}

func (d *projectDoor) update(ctx context.Context, q *query) (any, error) {
	n, err := q.project()
	if err != nil {
		return nil, err
	}
	var in wire.Project
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	m := parseMask(q.text("update_mask"))
	if err := m.check(projectFields[:]...); err != nil {
		return nil, err
	}
	if in.Spec == nil {
		in.Spec = &wire.ProjectSpec{}
	}
	op, err := d.control.UpdateProject(ctx, n, func(p *tarn.Project) error { return changeProject(p, m, *in.Spec) })
	return d.ops.answer(ctx, op, err)
}

// changeProject applies an update to the recorded project.
func changeProject(p *tarn.Project, m mask, s wire.ProjectSpec) error {
	if v := choose(m, s.PgVersion, p.PGVersion, "spec.pg_version"); v != nil && *v != p.PGVersion {
		return badField("spec.pg_version", "project %s runs Postgres %d; its major version cannot be changed", p.Name.Project, p.PGVersion)
	}
	if v := choose(m, given(s.DefaultBranch), "", "spec.default_branch"); v != nil && *v != "" &&
		*v != p.Name.Branch(tarn.DefaultBranch).String() {
		return unbuilt("spec.default_branch: the default branch stays %s", tarn.DefaultBranch)
	}
	if v := choose(m, given(s.DisplayName), p.Name.Project, "spec.display_name"); v != nil {
		if len(*v) > 256 {
			return badField("spec.display_name", "is longer than 256 characters")
		}
		p.DisplayName = *v
	}
	if v := choose(m, given(s.BudgetPolicyID), "", "spec.budget_policy_id"); v != nil {
		p.Instance.UsagePolicy = *v
	}
	if v := choose(m, s.EnablePgNativeLogin, true, "spec.enable_pg_native_login"); v != nil {
		p.DisableNativeLogin = !*v
	}
	if v := choose(m, given(s.HistoryRetentionDuration), "604800s", "spec.history_retention_duration"); v != nil {
		h, err := history(*v)
		if err != nil {
			return err
		}
		p.History = h
	}
	if v := choose(m, s.AllowedIPs, nil, "spec.allowed_ips"); v != nil {
		list, err := tarn.ParseAllowed(*v)
		if err != nil {
			return badField("spec.allowed_ips", "%v", err)
		}
		p.Allowed = list
	}
	var tags *[]wire.CustomTag
	if len(s.CustomTags) > 0 {
		tags = &s.CustomTags
	}
	if v := choose(m, tags, nil, "spec.custom_tags"); v != nil {
		p.CustomTags = tagsIn(*v)
	}
	es := choose(m, s.DefaultEndpointSettings, wire.EndpointSettings{}, "spec.default_endpoint_settings", "spec.project_default_settings")
	if es == nil {
		return nil
	}
	if s.DefaultEndpointSettings == nil {
		p.Endpoint = tarn.EndpointSpec{}
	}
	return readSettings("spec.default_endpoint_settings", *es, &p.Endpoint)
}

func (d *projectDoor) delete(ctx context.Context, q *query) (any, error) {
	n, err := q.project()
	if err != nil {
		return nil, err
	}
	now, err := d.ops.forGood(ctx, q, n.Branch(tarn.DefaultBranch))
	if err != nil {
		return nil, err
	}
	ask := d.control.Trash.DeleteProject
	if now {
		ask = d.control.DeleteProject
	}
	op, err := ask(ctx, n)
	return d.ops.answer(ctx, op, err)
}

func (d *projectDoor) undelete(ctx context.Context, q *query) (any, error) {
	n, err := q.project()
	if err != nil {
		return nil, err
	}
	op, err := d.control.Trash.UndeleteProject(ctx, n)
	return d.ops.answer(ctx, op, err)
}

// projectOf writes a project. Its spec is input-only: what holds is in status.
func projectOf(p tarn.Project) wire.Project {
	st := &wire.ProjectStatus{
		BudgetPolicyID:      p.Instance.UsagePolicy,
		CustomTags:          tagsOut(p.CustomTags),
		DefaultBranch:       p.Name.Branch(tarn.DefaultBranch).String(),
		DisplayName:         p.DisplayName,
		EnablePgNativeLogin: !p.DisableNativeLogin,
		Owner:               p.Owner,
		PgVersion:           p.PGVersion,
		ProjectID:           p.Name.Project,
	}
	for _, n := range p.Allowed {
		st.AllowedIPs = append(st.AllowedIPs, n.String())
	}
	if st.DisplayName == "" {
		st.DisplayName = p.Name.Project
	}
	st.HistoryRetentionDuration = wire.Duration(tarn.HistoryOf(p.History))
	lo, hi := limits(p.Endpoint)
	st.DefaultEndpointSettings = &wire.EndpointSettings{
		AutoscalingLimitMinCU: &lo, AutoscalingLimitMaxCU: &hi, PgSettings: p.Endpoint.Settings,
	}
	st.DefaultEndpointSettings.SuspendTimeoutDuration = suspendOf(p.Endpoint)
	if never := p.Endpoint.SuspendAfter < 0; never {
		st.DefaultEndpointSettings.NoSuspension = &never
	}
	return wire.Project{
		Name: p.Name.String(), ProjectID: p.Name.Project, UID: p.UID,
		CreateTime: wire.Time(p.CreateTime), UpdateTime: wire.Time(p.UpdateTime), Status: st,
		DeleteTime: wire.Time(p.DeleteTime), PurgeTime: wire.Time(p.PurgeTime),
	}
}
