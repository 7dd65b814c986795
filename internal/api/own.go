package api

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/control"
)

// ownDoor answers what no published API has: where things run and how to
// reach them.
type ownDoor struct {
	control   *control.Control
	workspace tarn.Workspace
	caFile    string
	version   string
	lakeURL   string
	storage   string // URL; "" = none
	copied    func() time.Duration
	processes func() []wire.Process
	volumes   func() string
	sessions  func() []wire.GatewaySession
}

func (d *ownDoor) status(ctx context.Context, q *query) (any, error) {
	out := wire.Status{
		Version: d.version, WorkspaceID: strconv.FormatInt(d.workspace.ID, 10), Owner: d.workspace.Owner,
		User: q.who.Name, API: q.base, CAFile: d.caFile,
		LakeURL: d.lakeURL, Projects: []string{}, Branches: []string{},
		Endpoints: []wire.Address{}, Computes: []wire.Compute{}, Processes: []wire.Process{},
	}
	if d.volumes != nil {
		out.Volumes = d.volumes()
	}
	if d.processes != nil && q.who.Admin {
		out.Processes = append(out.Processes, d.processes()...)
	}
	es, err := d.control.AllEndpoints(ctx)
	if err != nil {
		return nil, err
	}
	if es, err = d.seen(ctx, q, es); err != nil {
		return nil, err
	}
	for _, e := range es {
		out.Projects = append(out.Projects, e.Name.Parent().Parent().String())
		out.Branches = append(out.Branches, e.Name.Parent().String())
		out.Endpoints = append(out.Endpoints, wire.Address{Name: e.Name.String(), Host: e.Address(), Port: e.Port, State: string(e.State)})
	}
	slices.Sort(out.Projects)
	slices.Sort(out.Branches)
	out.Projects, out.Branches = slices.Compact(out.Projects), slices.Compact(out.Branches)
	cs, err := d.control.Fleet(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range cs {
		if !slices.Contains(out.Branches, c.Branch.String()) {
			continue
		}
		out.Computes = append(out.Computes, computeOf(c))
		if c.PID != 0 && q.who.Admin {
			out.Processes = append(out.Processes, wire.Process{Role: "postgres", PID: c.PID, Endpoint: c.Endpoint, SocketDir: c.SocketDir, Port: c.Port})
		}
	}
	if q.who.Admin {
		out.Storage, err = d.copies(ctx)
	}
	return out, err
}

// seen keeps of endpoints those in projects that who asks may see.
func (d *ownDoor) seen(ctx context.Context, q *query, es []tarn.Endpoint) ([]tarn.Endpoint, error) {
	sees, err := q.sees(ctx)
	if err != nil || q.who.Admin {
		return es, err
	}
	var out []tarn.Endpoint
	for _, e := range es {
		p, err := d.control.GetProject(ctx, e.Name.Parent().Parent())
		if err != nil {
			return nil, err
		}
		if sees(p) {
			out = append(out, e)
		}
	}
	return out, nil
}

// copies tells how far the object store has every branch; nil without one.
func (d *ownDoor) copies(ctx context.Context) (*wire.Storage, error) {
	if d.storage == "" {
		return nil, nil
	}
	all, err := d.control.Pasts.Copies(ctx)
	if err != nil && tarn.KindOf(err) != tarn.KindUnavailable { // the node is busy, or gone
		return nil, err
	}
	out := &wire.Storage{URL: d.storage, Branches: []wire.BranchCopy{}}
	if !strings.HasPrefix(d.lakeURL, strings.TrimSuffix(d.storage, "/")+"/") {
		out.LakeOutside = d.lakeURL
	}
	if d.copied != nil {
		out.ControlSecs = d.copied().Seconds()
	}
	for _, c := range all {
		b := wire.BranchCopy{
			Branch: c.Branch.String(), LagBytes: c.LagBytes, LagSecs: c.LagAge.Seconds(), Waiting: c.Waiting, Away: c.Away,
			Problem: c.Problem, BackTime: wire.Time(c.BackTime),
		}
		if c.BackLSN != 0 {
			b.BackLSN = c.BackLSN.String()
		}
		out.Branches = append(out.Branches, b)
	}
	return out, nil
}

func (d *ownDoor) connection(ctx context.Context, q *query) (any, error) {
	b, err := q.branch()
	if err != nil {
		return nil, err
	}
	e, err := d.control.GetEndpoint(ctx, b.Endpoint(tarn.DefaultEndpoint))
	if err != nil {
		return nil, err
	}
	return wire.Connection{
		Endpoint: e.Name.String(), Host: e.Address(), PooledHost: e.PoolerAddress(), Port: e.Port,
		Database: tarn.DefaultDatabase, User: q.who.Name, CAFile: d.caFile,
	}, nil
}

// act does POST …/endpoints/{endpoint}:wake and :suspend.
func (d *ownDoor) act(ctx context.Context, q *query) (any, error) {
	id, verb, _ := strings.Cut(q.r.PathValue("verb"), ":")
	n, err := q.endpointNamed(id)
	if err != nil {
		return nil, err
	}
	switch verb {
	case "wake":
		c, err := d.control.WakeEndpoint(ctx, n)
		if err != nil {
			return nil, err
		}
		return computeOf(c), nil
	case "suspend":
		if err := q.need(ctx, n.Parent().Parent(), tarn.CanManage); err != nil {
			return nil, err
		}
		return nil, d.control.SuspendEndpoint(ctx, n)
	}
	return nil, tarn.NotFound("an endpoint can do :wake and :suspend, not %q", verb)
}

func computeOf(c tarn.ComputeStatus) wire.Compute {
	var steps []wire.Step
	for _, s := range c.Start {
		steps = append(steps, wire.Step{Name: s.Name, TookMS: tarn.Milliseconds(s.Took)})
	}
	return wire.Compute{
		Endpoint: c.Endpoint, Branch: c.Branch.String(), State: string(c.State), PID: c.PID, PGVersion: c.PGVersion,
		StartTime: wire.Time(c.StartTime), LastActiveTime: wire.Time(c.LastActive), Message: c.Message,
		StartSteps: steps, CU: c.CU, FixedBy: c.FixedBy, MemoryBytes: c.MemoryBytes,
		ReadOnly: c.ReadOnly, LagBytes: c.LagBytes, LagSecs: c.Lag.Seconds(), LSN: lsnOf(c.LSN),
	}
}

// lsnOf prints a position; "" = none.
func lsnOf(l tarn.LSN) string {
	if l == 0 {
		return ""
	}
	return l.String()
}
