package api

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/control"
)

// instanceDoor is the Provisioned API: an instance is a project seen through
// its production branch and primary endpoint, whichever API made it.
type instanceDoor struct {
	control   *control.Control
	workspace tarn.Workspace
	issued    *issued
}

func (d *instanceDoor) create(ctx context.Context, q *query) (any, error) {
	var in wire.DatabaseInstance
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	id, err := tarn.ParseID("instance", in.Name)
	if err != nil {
		return nil, badField("name", "%s", err)
	}
	spec, inst, err := instanceSpecs(in)
	if err != nil {
		return nil, err
	}
	if err := freeOfChildren(ctx, d.control, id, resourceAlreadyExists); err != nil {
		return nil, err
	}
	if in.ParentInstanceRef != nil {
		return d.createChild(ctx, q, in, spec, inst)
	}
	spec.Name = tarn.ProjectName{Project: id}
	if _, err := d.control.CreateProject(ctx, q.who, spec, inst); err != nil {
		return nil, existing(err, resourceAlreadyExists, func() error {
			_, err := d.control.GetProject(ctx, spec.Name)
			return err
		})
	}
	if inst.Readable {
		if err := d.secondary(ctx, spec.Name.Branch(tarn.DefaultBranch), spec.Endpoint); err != nil {
			return nil, err
		}
	}
	return d.show(ctx, spec.Name)
}

// instanceSpecs reads what is asked of a new instance.
func instanceSpecs(in wire.DatabaseInstance) (tarn.ProjectSpec, tarn.InstanceSpec, error) {
	spec := tarn.ProjectSpec{CustomTags: tagsIn(in.CustomTags)}
	inst := tarn.InstanceSpec{Capacity: in.Capacity, NodeCount: 1, UsagePolicy: in.UsagePolicyID}
	if in.NodeCount != nil {
		inst.NodeCount = *in.NodeCount
	}
	inst.Readable = in.EnableReadableSecondaries != nil && *in.EnableReadableSecondaries
	if err := checkNodes(inst); err != nil {
		return spec, inst, err
	}
	if in.Stopped != nil && *in.Stopped {
		return spec, inst, badField("stopped", "an instance begins running; create it, then stop it")
	}
	if inst.Capacity == "" {
		inst.Capacity = capacities[0].name
	}
	var err error
	if spec.Endpoint.MinCU, spec.Endpoint.MaxCU, err = limitsOf(inst.Capacity); err != nil {
		return spec, inst, err
	}
	if in.RetentionWindowInDays != nil {
		if spec.History, err = retention(*in.RetentionWindowInDays); err != nil {
			return spec, inst, err
		}
	}
	spec.DisableNativeLogin = in.EnablePgNativeLogin != nil && !*in.EnablePgNativeLogin
	return spec, inst, nil
}

// checkNodes holds node_count to the published bounds. A secondary that is not
// read does not run: a compute is disposable, and a new one takes over at once.
func checkNodes(i tarn.InstanceSpec) error {
	switch {
	case i.NodeCount < 1 || i.NodeCount > 3:
		return badField("node_count", "got %d, want 1 to 3", i.NodeCount)
	case i.Readable && i.NodeCount < 2:
		return badField("enable_readable_secondaries", "an instance of one node has no secondaries: say node_count 2 or 3")
	}
	return nil
}

// capacities are the published sizes. A Provisioned CU has about the memory of
// eight Autoscaling ones; an instance here may shrink below its size by the
// widest range an endpoint allows, 16.
var capacities = [...]struct {
	name     string
	min, max float64 // Autoscaling CU
}{
	{"CU_1", 0.5, 8}, {"CU_2", 0.5, 16}, {"CU_4", 16, 32}, {"CU_8", 48, 64},
}

func limitsOf(capacity string) (lo, hi float64, err error) {
	for _, c := range capacities {
		if c.name == capacity {
			return c.min, c.max, nil
		}
	}
	return 0, 0, badField("capacity", "got %q, want CU_1, CU_2, CU_4 or CU_8", capacity)
}

// capacityOf is the smallest published size that holds hi Autoscaling CU.
func capacityOf(hi float64) string {
	for _, c := range capacities {
		if hi <= c.max {
			return c.name
		}
	}
	return capacities[len(capacities)-1].name
}

const (
	day              = 24 * time.Hour
	defaultRetention = 7 // days
)

func retention(days int) (time.Duration, error) {
	if days < 2 || days > 35 {
		return 0, badField("retention_window_in_days", "got %d, want 2 to 35", days)
	}
	return time.Duration(days) * day, nil
}

func (d *instanceDoor) get(ctx context.Context, q *query) (any, error) {
	n, err := q.project()
	if err != nil {
		return nil, err
	}
	return d.shown(ctx, q, n)
}

// shown writes the instance that a path names.
func (d *instanceDoor) shown(ctx context.Context, q *query, n tarn.ProjectName) (any, error) {
	if q.child != nil {
		return d.viewChild(ctx, *q.child)
	}
	return d.show(ctx, n)
}

func (d *instanceDoor) show(ctx context.Context, n tarn.ProjectName) (any, error) {
	p, err := d.control.GetProject(ctx, n)
	if err != nil {
		return nil, err
	}
	if !p.PurgeTime.IsZero() {
		return nil, tarn.NotFound("instance %q is deleted", n.Project).WithHint("The postgres service can bring it back: tarn project undelete " + n.Project)
	}
	return d.view(ctx, p)
}

// view reads the two things an instance shows beside its project. Either may
// be missing while the project is being made or removed.
func (d *instanceDoor) view(ctx context.Context, p tarn.Project) (wire.DatabaseInstance, error) {
	name := p.Name.Branch(tarn.DefaultBranch)
	b, e, err := d.parts(ctx, name)
	if err != nil {
		return wire.DatabaseInstance{}, err
	}
	out := instanceOf(p, b, e)
	children, err := d.control.Published.Children(ctx, p.Name)
	if err != nil {
		return out, err
	}
	out.ChildInstanceRefs = childrenOf(children, p.Name.Project)
	return out, d.readable(ctx, name, p.Instance, &out)
}

func (d *instanceDoor) parts(ctx context.Context, name tarn.BranchName) (tarn.Branch, tarn.Endpoint, error) {
	b, err := d.control.GetBranch(ctx, name)
	if err != nil && tarn.KindOf(err) != tarn.KindNotFound {
		return b, tarn.Endpoint{}, err
	}
	e, err := d.control.GetEndpoint(ctx, name.Endpoint(tarn.DefaultEndpoint))
	if err != nil && tarn.KindOf(err) != tarn.KindNotFound {
		return b, e, err
	}
	return b, e, nil
}

func (d *instanceDoor) list(ctx context.Context, q *query) (any, error) {
	pg, err := q.page("page_size")
	if err != nil {
		return nil, err
	}
	ps, next, err := d.control.ListProjects(ctx, pg)
	if err != nil {
		return nil, err
	}
	if ps, err = q.seen(ctx, ps); err != nil {
		return nil, err
	}
	out := wire.ListDatabaseInstances{DatabaseInstances: []wire.DatabaseInstance{}, NextPageToken: next}
	for _, p := range ps {
		i, err := d.view(ctx, p)
		if err != nil {
			return nil, err
		}
		out.DatabaseInstances = append(out.DatabaseInstances, i)
		// The children of an instance stand on its page: they are few.
		children, err := d.control.Published.Children(ctx, p.Name)
		if err != nil {
			return nil, err
		}
		for _, c := range children {
			i, err := d.viewChild(ctx, c)
			if err != nil {
				return nil, err
			}
			out.DatabaseInstances = append(out.DatabaseInstances, i)
		}
	}
	return out, nil
}

func (d *instanceDoor) find(ctx context.Context, q *query) (any, error) {
	uid := q.text("uid")
	if uid == "" {
		return nil, badField("uid", "is missing")
	}
	if c, ok, err := d.childOfUID(ctx, uid); err != nil || ok {
		if err == nil {
			err = q.need(ctx, c.Branch.Parent(), tarn.CanCreate)
		}
		if err != nil {
			return nil, err
		}
		return d.viewChild(ctx, c)
	}
	for pg := (control.Page{Size: maxPage}); ; {
		ps, next, err := d.control.ListProjects(ctx, pg)
		if err != nil {
			return nil, err
		}
		if i := slices.IndexFunc(ps, func(p tarn.Project) bool { return p.UID == uid }); i >= 0 {
			if err := q.need(ctx, ps[i].Name, tarn.CanCreate); err != nil {
				return nil, err
			}
			return d.view(ctx, ps[i])
		}
		if next == "" {
			return nil, tarn.NotFound("no instance has uid %q", uid)
		}
		pg.Token = next
	}
}

// delete drops the project. Its other branches are the instance's descendants,
// which only force removes with it.
func (d *instanceDoor) delete(ctx context.Context, q *query) (any, error) {
	n, err := q.project()
	if err != nil {
		return nil, err
	}
	purge, err := q.flag("purge")
	if err != nil {
		return nil, err
	}
	if purge != nil && !*purge {
		return nil, badField("purge", "an instance is deleted for good; leave purge out or say purge=true")
	}
	force, err := q.flag("force")
	if err != nil {
		return nil, err
	}
	if q.child != nil {
		_, err := d.control.DeleteBranch(ctx, q.child.Branch)
		return nil, err
	}
	if force == nil || !*force {
		bs, _, err := d.control.ListBranches(ctx, n, control.Page{Size: 2})
		if err != nil {
			return nil, err
		}
		if len(bs) > 1 {
			return nil, tarn.Conflict("delete instance %s: it has other branches, e.g. %s", n.Project, otherThan(bs, tarn.DefaultBranch)).
				WithHint("delete them first, or delete with force=true")
		}
	}
	_, err = d.control.DeleteProject(ctx, n)
	return nil, err
}

func otherThan(bs []tarn.Branch, id string) string {
	for _, b := range bs {
		if b.Name.Branch != id {
			return b.Name.Branch
		}
	}
	return ""
}

// credential signs a password good for the instances named.
func (d *instanceDoor) credential(ctx context.Context, q *query) (any, error) {
	var in wire.GenerateInstanceCredential
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	if len(in.Claims) > 0 {
		return nil, unbuilt("claims: credentials restricted to tables are not there yet; leave claims out")
	}
	if len(in.InstanceNames) == 0 {
		return nil, badField("instance_names", "is missing: name the instances the credential is for")
	}
	var es []tarn.EndpointName
	for _, name := range in.InstanceNames {
		b, err := branchOfInstance(ctx, d.control, name)
		if err != nil {
			return nil, err
		}
		e := b.Endpoint(tarn.DefaultEndpoint)
		if _, err := d.control.GetEndpoint(ctx, e); err != nil {
			return nil, err
		}
		es = append(es, e)
	}
	return d.issued.once(credentialRequest{q.who.Name, in.RequestID, strings.Join(in.InstanceNames, ",")}, func() (wire.InstanceCredential, error) {
		secret, until, err := d.control.IssueCredential(ctx, q.who, es, maxCredential)
		return wire.InstanceCredential{Token: secret.Reveal(), ExpirationTime: wire.Time(until)}, err
	})
}

// instanceOf writes an instance; b and e are zero while they do not exist.
func instanceOf(p tarn.Project, b tarn.Branch, e tarn.Endpoint) wire.DatabaseInstance {
	var (
		capacity = p.Instance.Capacity
		nodes    = max(1, p.Instance.NodeCount)
		days     = int(tarn.HistoryOf(p.History) / day)
		login    = !p.DisableNativeLogin
		readable = p.Instance.Readable
		tags     = tagsOut(p.CustomTags)
		disabled = e.Disabled
	)
	if capacity == "" {
		capacity = capacityOf(e.MaxCU)
	}
	i := wire.DatabaseInstance{
		Name: p.Name.Project, UID: p.UID,
		Capacity: capacity, CustomTags: tags, UsagePolicyID: p.Instance.UsagePolicy,
		EnablePgNativeLogin: &login, EnableReadableSecondaries: &readable,
		NodeCount: &nodes, RetentionWindowInDays: &days, Stopped: &disabled,
	}
	i.DatabaseInstanceStatus = wire.DatabaseInstanceStatus{
		CreationTime: wire.Time(p.CreateTime), Creator: p.Owner,
		ReadWriteDNS: instanceHost(p, e), State: instanceState(b, e),
		EffectiveCapacity: capacity, EffectiveCustomTags: tags, EffectiveUsagePolicyID: p.Instance.UsagePolicy,
		EffectiveEnablePgNativeLogin: &login, EffectiveEnableReadableSecondaries: &readable,
		EffectiveNodeCount: &nodes, EffectiveRetentionWindowInDays: &days, EffectiveStopped: &disabled,
	}
	if p.PGVersion != 0 {
		i.PgVersion = fmt.Sprintf("PG_VERSION_%d", p.PGVersion)
	}
	return i
}

// instanceHost is the name or address an instance is reached at.
func instanceHost(p tarn.Project, e tarn.Endpoint) string {
	if e.Domain == "" {
		return e.Host
	}
	return tarn.InstancePrefix + p.UID + "." + e.Domain
}

// instanceState folds the states of branch and endpoint into the published
// one. A suspended endpoint wakes by itself, so it is AVAILABLE.
func instanceState(b tarn.Branch, e tarn.Endpoint) string {
	running := e.State == tarn.EndpointActive || e.State == tarn.EndpointInit
	switch {
	case b.State == tarn.BranchDeleted:
		return wire.InstanceDeleting
	case b.State == tarn.BranchResetting:
		return wire.InstanceUpdating
	case b.State != tarn.BranchReady || e.UID == "":
		return wire.InstanceStarting
	case e.Disabled && running:
		return wire.InstanceUpdating
	case e.Disabled:
		return wire.InstanceStopped
	}
	return wire.InstanceAvailable
}

// tagsIn and tagsOut convert custom tags; the wire has them as a sorted list.
func tagsIn(ts []wire.CustomTag) map[string]string {
	if len(ts) == 0 {
		return nil
	}
	m := make(map[string]string, len(ts))
	for _, t := range ts {
		m[t.Key] = t.Value
	}
	return m
}

func tagsOut(m map[string]string) []wire.CustomTag {
	var ts []wire.CustomTag
	for k, v := range m {
		ts = append(ts, wire.CustomTag{Key: k, Value: v})
	}
	slices.SortFunc(ts, func(a, b wire.CustomTag) int { return strings.Compare(a.Key, b.Key) })
	return ts
}
