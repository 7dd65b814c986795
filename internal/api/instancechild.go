package api

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/control"
)

// instancesPath is in the pattern of every route whose {project} is the name of
// an instance.
const instancesPath = "/api/2.0/database/instances/{project}"

// branchOfInstance finds the branch that an instance is.
func branchOfInstance(ctx context.Context, c *control.Control, name string) (tarn.BranchName, error) {
	id, err := tarn.ParseID("instance", name)
	if err != nil {
		return tarn.BranchName{}, nothing(err)
	}
	child, err := c.Published.Child(ctx, id)
	switch {
	case err == nil:
		return child.Branch, nil
	case tarn.KindOf(err) != tarn.KindNotFound:
		return tarn.BranchName{}, err
	}
	return tarn.ProjectName{Project: id}.Branch(tarn.DefaultBranch), nil
}

// freeOfChildren refuses a name that a child instance has: instances and
// projects share their names.
func freeOfChildren(ctx context.Context, c *control.Control, name, code string) error {
	_, err := c.Published.Child(ctx, name)
	switch {
	case err == nil:
		return &failure{status: 409, code: code, msg: "instance " + name + " exists"}
	case tarn.KindOf(err) == tarn.KindNotFound:
		return nil
	}
	return err
}

// createChild makes an instance that is a branch of another one's project.
func (d *instanceDoor) createChild(ctx context.Context, q *query, in wire.DatabaseInstance, spec tarn.ProjectSpec, inst tarn.InstanceSpec) (any, error) {
	ref := *in.ParentInstanceRef
	if in.RetentionWindowInDays != nil || in.EnablePgNativeLogin != nil {
		return nil, badField("parent_instance_ref", "a child has its parent's retention_window_in_days and enable_pg_native_login: leave them out")
	}
	source, err := branchOfInstance(ctx, d.control, ref.Name)
	if err != nil {
		return nil, err
	}
	if err := q.need(ctx, source.Parent(), tarn.CanManage); err != nil {
		return nil, err
	}
	if _, err := d.control.GetProject(ctx, tarn.ProjectName{Project: in.Name}); err == nil {
		return nil, &failure{status: 409, code: resourceAlreadyExists, msg: "instance " + in.Name + " exists"}
	} else if tarn.KindOf(err) != tarn.KindNotFound {
		return nil, err
	}
	if ref.LSN != "" { // it wins
		ref.BranchTime = ""
	}
	s := tarn.BranchSpec{Name: source.Parent().Branch(in.Name), Source: source.Branch}
	if s.SourceTime, s.SourceLSN, err = readPoint("parent_instance_ref.", ref.BranchTime, ref.LSN); err != nil {
		return nil, err
	}
	parent, err := d.uidOf(ctx, source, ref.Name)
	if err != nil {
		return nil, err
	}
	child := tarn.ChildInstance{
		Name: in.Name, Branch: s.Name, Parent: ref.Name, ParentUID: parent, BranchTime: s.SourceTime, LSN: s.SourceLSN,
		Creator: q.who.Name, CustomTags: tagsIn(in.CustomTags), Instance: inst,
	}
	if err := d.control.Published.CreateChild(ctx, child, s, spec.Endpoint); err != nil {
		return nil, existing(err, resourceAlreadyExists, func() error {
			_, err := d.control.GetBranch(ctx, s.Name)
			return err
		})
	}
	if inst.Readable {
		if err := d.secondary(ctx, s.Name, spec.Endpoint); err != nil {
			return nil, err
		}
	}
	return d.viewChild(ctx, child)
}

// uidOf is the uid of the instance of that name, which is that branch.
func (d *instanceDoor) uidOf(ctx context.Context, b tarn.BranchName, name string) (string, error) {
	if name == b.Project {
		p, err := d.control.GetProject(ctx, b.Parent())
		return p.UID, err
	}
	row, err := d.control.GetBranch(ctx, b)
	return row.UID, err
}

func (d *instanceDoor) childOfUID(ctx context.Context, uid string) (tarn.ChildInstance, bool, error) {
	all, err := d.control.Published.Children(ctx, tarn.ProjectName{})
	if err != nil {
		return tarn.ChildInstance{}, false, err
	}
	for _, c := range all {
		if b, err := d.control.GetBranch(ctx, c.Branch); err == nil && b.UID == uid {
			return c, true, nil
		}
	}
	return tarn.ChildInstance{}, false, nil
}

// viewChild writes a child as an instance: its own name, size and tags with the
// retention of its project.
func (d *instanceDoor) viewChild(ctx context.Context, c tarn.ChildInstance) (wire.DatabaseInstance, error) {
	p, err := d.control.GetProject(ctx, c.Branch.Parent())
	if err != nil {
		return wire.DatabaseInstance{}, err
	}
	b, e, err := d.parts(ctx, c.Branch)
	if err != nil {
		return wire.DatabaseInstance{}, err
	}
	p.Name, p.UID, p.Owner, p.CreateTime = tarn.ProjectName{Project: c.Name}, b.UID, c.Creator, b.CreateTime
	p.Instance, p.CustomTags = c.Instance, c.CustomTags
	out := instanceOf(p, b, e)
	out.ReadWriteDNS = e.Address()
	out.ParentInstanceRef = &wire.DatabaseInstanceRef{Name: c.Parent, UID: c.ParentUID, BranchTime: wire.Time(c.BranchTime), LSN: lsnOf(c.LSN), EffectiveLSN: lsnOf(b.SourceLSN)}
	children, err := d.control.Published.Children(ctx, c.Branch.Parent())
	if err != nil {
		return out, err
	}
	out.ChildInstanceRefs = childrenOf(children, c.Name)
	return out, d.readable(ctx, c.Branch, c.Instance, &out)
}

func childrenOf(all []tarn.ChildInstance, parent string) []wire.DatabaseInstanceRef {
	var out []wire.DatabaseInstanceRef
	for _, c := range all {
		if c.Parent == parent {
			out = append(out, wire.DatabaseInstanceRef{Name: c.Name, BranchTime: wire.Time(c.BranchTime), LSN: lsnOf(c.LSN)})
		}
	}
	return out
}

// secondaryEndpoint is the replica that serves an instance's readable
// secondaries.
const secondaryEndpoint = "secondary"

// secondary makes it; one that is there stays.
func (d *instanceDoor) secondary(ctx context.Context, b tarn.BranchName, limits tarn.EndpointSpec) error {
	n := b.Endpoint(secondaryEndpoint)
	if _, err := d.control.GetEndpoint(ctx, n); tarn.KindOf(err) != tarn.KindNotFound {
		return err
	}
	_, err := d.control.Replicas.Create(ctx, n, func(e *tarn.Endpoint) error {
		e.MinCU, e.MaxCU, e.Settings = limits.MinCU, limits.MaxCU, maps.Clone(limits.Settings)
		return nil
	})
	return err
}

// secondaries brings the secondary of an instance to what an update asked.
func (d *instanceDoor) secondaries(ctx context.Context, b tarn.BranchName, have tarn.InstanceSpec, c instanceChange) error {
	n := b.Endpoint(secondaryEndpoint)
	if !have.Readable {
		_, err := d.control.Replicas.Delete(ctx, n)
		if tarn.KindOf(err) == tarn.KindNotFound {
			err = nil
		}
		return err
	}
	primary, err := d.control.GetEndpoint(ctx, b.Endpoint(tarn.DefaultEndpoint))
	if err == nil {
		err = d.secondary(ctx, b, primary.EndpointSpec)
	}
	if err != nil || c.stopped == nil && c.capacity == nil {
		return err
	}
	_, err = d.control.UpdateEndpoint(ctx, n, func(e *tarn.Endpoint) error {
		e.MinCU, e.MaxCU, e.Disabled = primary.MinCU, primary.MaxCU, primary.Disabled
		return nil
	})
	return err
}

// readable writes where the secondary is reached.
func (d *instanceDoor) readable(ctx context.Context, b tarn.BranchName, i tarn.InstanceSpec, out *wire.DatabaseInstance) error {
	if !i.Readable {
		return nil
	}
	e, err := d.control.GetEndpoint(ctx, b.Endpoint(secondaryEndpoint))
	if tarn.KindOf(err) == tarn.KindNotFound {
		return nil
	}
	out.ReadOnlyDNS = e.Address()
	return err
}

// record is what is kept of the instance that a path names, and its branch.
func (d *instanceDoor) record(ctx context.Context, q *query, n tarn.ProjectName) (tarn.BranchName, tarn.InstanceSpec, error) {
	if q.child != nil {
		return q.child.Branch, q.child.Instance, nil
	}
	p, err := d.control.GetProject(ctx, n)
	return n.Branch(tarn.DefaultBranch), p.Instance, err
}

// failover has the instance's compute replaced.
func (d *instanceDoor) failover(ctx context.Context, q *query) (any, error) {
	n, err := q.project()
	if err != nil {
		return nil, err
	}
	b, have, err := d.record(ctx, q, n)
	if err != nil {
		return nil, err
	}
	var in wire.FailoverInstance
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	if in.FailoverTargetDatabaseInstanceName != "" {
		return nil, unbuilt("failover_target_database_instance_name: an instance fails over to its own nodes; leave it out")
	}
	if have.NodeCount < 2 {
		return nil, tarn.Conflict("the instance has one node, and nothing to fail over to").WithHint("Give it another: update node_count to 2.")
	}
	if err := d.control.Published.Restart(ctx, b.Endpoint(tarn.DefaultEndpoint)); err != nil {
		return nil, err
	}
	return d.shown(ctx, q, n)
}

// upgrade does nothing to an instance that is there: every one is a project of
// the postgres service already.
func (d *instanceDoor) upgrade(ctx context.Context, q *query) (any, error) {
	n, err := q.project()
	if err == nil {
		_, err = d.control.GetProject(ctx, n)
	}
	return nil, err
}

// credentialRequest names one request of one principal for a credential.
type credentialRequest struct{ who, id, names string }

// issued remembers for a while what requests with an id were answered, so that
// one that is sent again gets the same.
type issued struct {
	mu      sync.Mutex // not held while a credential is made
	answers map[credentialRequest]answered
}

type answered struct {
	wire.InstanceCredential
	at time.Time
}

// repeatable is how long a request can be sent again, and mostAnswers how many
// are remembered.
const (
	repeatable  = 5 * time.Minute
	mostAnswers = 10_000
)

func (i *issued) once(r credentialRequest, ask func() (wire.InstanceCredential, error)) (any, error) {
	if r.id == "" {
		return ask()
	}
	i.mu.Lock()
	old, ok := i.answers[r]
	i.mu.Unlock()
	if ok && time.Since(old.at) < repeatable {
		return old.InstanceCredential, nil
	}
	c, err := ask()
	if err != nil {
		return nil, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.answers) >= mostAnswers || i.answers == nil {
		i.answers = map[credentialRequest]answered{}
	}
	maps.DeleteFunc(i.answers, func(_ credentialRequest, a answered) bool { return time.Since(a.at) >= repeatable })
	i.answers[r] = answered{c, time.Now()}
	return c, nil
}
