package api

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/control"
	"github.com/tarndb/tarn/internal/feed"
	"github.com/tarndb/tarn/internal/syncedtable"
)

// pipelineDoor answers for pipelines: it reads what movers recorded, and asks
// the movers for runs.
type pipelineDoor struct {
	keeper *syncedtable.Keeper
	feeds  *feed.Keeper
}

// latestUpdates is how many updates a pipeline's own answer shows.
const latestUpdates = 5

func (d *pipelineDoor) read(ctx context.Context, q *query) (tarn.Pipeline, error) {
	return d.keeper.Pipelines().Get(ctx, q.r.PathValue("pipeline"))
}

// table finds the synced table a pipeline moves; a feed has none.
func (d *pipelineDoor) table(ctx context.Context, p tarn.Pipeline) (tarn.SyncedTable, error) {
	if p.Kind != tarn.PipelineSyncedTable {
		return tarn.SyncedTable{}, tarn.Conflict("pipeline %s moves feed %s", p.ID, p.Name)
	}
	n, err := tarn.ParseTableName(p.Name)
	if err != nil {
		return tarn.SyncedTable{}, err
	}
	return d.keeper.Get(ctx, n)
}

func (d *pipelineDoor) get(ctx context.Context, q *query) (any, error) {
	p, err := d.read(ctx, q)
	if err != nil {
		return nil, err
	}
	return d.show(ctx, p)
}

func (d *pipelineDoor) show(ctx context.Context, p tarn.Pipeline) (wire.Pipeline, error) {
	us, err := d.keeper.Pipelines().Updates(ctx, p.ID, latestUpdates)
	if err != nil {
		return wire.Pipeline{}, err
	}
	what := "synced table "
	if p.Kind == tarn.PipelineFeed {
		what = "feed "
	}
	out := wire.Pipeline{PipelineID: p.ID, Name: what + p.Name, State: "IDLE", Health: "HEALTHY", Creator: p.Creator, RunAs: p.Creator,
		LastModified: p.CreateTime.UnixMilli(), Spec: &wire.PipelineSpec{ID: p.ID, Name: what + p.Name, Continuous: p.Kind == tarn.PipelineFeed}}
	for i, u := range us {
		out.LatestUpdates = append(out.LatestUpdates, wire.UpdateSummary{UpdateID: u.ID, State: string(u.State), CreationTime: wire.Time(u.CreateTime)})
		if i > 0 {
			continue
		}
		out.LastModified = u.UpdateTime.UnixMilli()
		switch {
		case u.State == tarn.UpdateFailed:
			out.State, out.Health, out.Cause = "FAILED", "UNHEALTHY", u.Message
		case !u.State.Ended():
			out.State = "RUNNING"
		}
	}
	if t, err := d.table(ctx, p); err == nil {
		out.Spec.Continuous = t.Policy == tarn.SyncContinuous
		out.Cause = t.Message
	}
	return out, nil
}

func (d *pipelineDoor) list(ctx context.Context, q *query) (any, error) {
	pg, err := q.page("max_results")
	if err != nil {
		return nil, err
	}
	ps, err := d.keeper.Pipelines().List(ctx)
	if err != nil {
		return nil, err
	}
	ps, err = d.seen(ctx, q, ps)
	if err != nil {
		return nil, err
	}
	// The published filter: name LIKE '…' with %.
	if like, ok := strings.CutPrefix(strings.ReplaceAll(q.text("filter"), `"`, `'`), "name LIKE '"); ok {
		word := strings.Trim(strings.TrimSuffix(like, "'"), "%")
		ps = slices.DeleteFunc(ps, func(p tarn.Pipeline) bool { return !strings.Contains(p.Name, word) })
	}
	ps, next, err := pageOf(ps, func(p tarn.Pipeline) string { return p.Name + "\x00" + p.ID }, pg)
	if err != nil {
		return nil, err
	}
	out := wire.ListPipelines{Statuses: []wire.Pipeline{}, NextPageToken: next}
	for _, p := range ps {
		one, err := d.show(ctx, p)
		if err != nil {
			return nil, err
		}
		out.Statuses = append(out.Statuses, one)
	}
	return out, nil
}

// seen keeps the pipelines of projects that who asks may see.
func (d *pipelineDoor) seen(ctx context.Context, q *query, ps []tarn.Pipeline) ([]tarn.Pipeline, error) {
	may := map[string]bool{}
	var out []tarn.Pipeline
	for _, p := range ps {
		ok, known := may[p.Project]
		if !known {
			err := q.need(ctx, tarn.ProjectName{Project: p.Project}, tarn.CanCreate)
			if k := tarn.KindOf(err); err != nil && k != tarn.KindDenied && k != tarn.KindNotFound {
				return nil, err
			}
			ok = err == nil
			may[p.Project] = ok
		}
		if ok {
			out = append(out, p)
		}
	}
	return out, nil
}

// start begins an update. full_refresh loads the whole table.
func (d *pipelineDoor) start(ctx context.Context, q *query) (any, error) {
	var in wire.StartUpdate
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	p, err := d.read(ctx, q)
	if err != nil {
		return nil, err
	}
	if in.ValidateOnly {
		return nil, unbuilt("validate_only: a pipeline here has nothing to validate but its source, which every update does")
	}
	if p.Kind == tarn.PipelineFeed {
		return d.startFeed(ctx, q, p, in)
	}
	t, err := d.table(ctx, p)
	if err != nil {
		return nil, err
	}
	kind := tarn.RefreshNew
	if in.FullRefresh != nil && *in.FullRefresh || len(in.FullRefreshSelection) > 0 {
		kind = tarn.RefreshFull
	}
	for _, name := range append(in.RefreshSelection, in.FullRefreshSelection...) {
		if name != t.Name.String() && name != t.Name.Table {
			return nil, badField("refresh_selection", "the pipeline moves %s, not %s", t.Name, name)
		}
	}
	id, err := d.keeper.Refresh(ctx, t.Name, kind)
	if err != nil {
		return nil, err
	}
	return wire.StartUpdateResponse{UpdateID: id}, nil
}

func (d *pipelineDoor) stop(ctx context.Context, q *query) (any, error) {
	p, err := d.read(ctx, q)
	if err != nil {
		return nil, err
	}
	if p.Kind == tarn.PipelineFeed {
		return d.stopFeed(ctx, q, p)
	}
	t, err := d.table(ctx, p)
	if err != nil {
		return nil, err
	}
	return wire.Empty{}, d.keeper.Stop(ctx, t.Name)
}

func updateOf(u tarn.PipelineUpdate) wire.UpdateInfo {
	return wire.UpdateInfo{PipelineID: u.PipelineID, UpdateID: u.ID, Cause: string(u.Cause), State: string(u.State),
		FullRefresh: u.Refresh == tarn.RefreshFull, CreationTime: u.CreateTime.UnixMilli(), Message: u.Message, Rows: u.Rows}
}

func (d *pipelineDoor) update(ctx context.Context, q *query) (any, error) {
	p, err := d.read(ctx, q)
	if err != nil {
		return nil, err
	}
	u, err := d.keeper.Pipelines().Update(ctx, p.ID, q.r.PathValue("update"))
	if err != nil {
		return nil, err
	}
	return wire.GetUpdate{Update: updateOf(u)}, nil
}

func (d *pipelineDoor) updates(ctx context.Context, q *query) (any, error) {
	p, err := d.read(ctx, q)
	if err != nil {
		return nil, err
	}
	pg, err := q.page("max_results")
	if err != nil {
		return nil, err
	}
	us, err := d.keeper.Pipelines().Updates(ctx, p.ID, 1<<20)
	if err != nil {
		return nil, err
	}
	us, next, err := newest(us, func(u tarn.PipelineUpdate) string { return u.ID }, pg)
	if err != nil {
		return nil, err
	}
	out := wire.ListUpdates{Updates: []wire.UpdateInfo{}, NextPageToken: next}
	for _, u := range us {
		out.Updates = append(out.Updates, updateOf(u))
	}
	return out, nil
}

// newest cuts a page out of a listing that comes newest first; the token is
// the key of the last one shown.
func newest[T any](all []T, key func(T) string, pg control.Page) ([]T, string, error) {
	if pg.Token != "" {
		i := slices.IndexFunc(all, func(v T) bool { return key(v) == pg.Token })
		if i < 0 {
			return nil, "", badField("page_token", "this server did not give it out, or what it names is not kept any more")
		}
		all = all[i+1:]
	}
	if len(all) <= pg.Size {
		return all, "", nil
	}
	return all[:pg.Size], key(all[pg.Size-1]), nil
}

func (d *pipelineDoor) events(ctx context.Context, q *query) (any, error) {
	p, err := d.read(ctx, q)
	if err != nil {
		return nil, err
	}
	pg, err := q.page("max_results")
	if err != nil {
		return nil, err
	}
	before := int64(0)
	if pg.Token != "" {
		if before, err = strconv.ParseInt(pg.Token, 10, 64); err != nil {
			return nil, badField("page_token", "this server did not give it out")
		}
	}
	es, err := d.keeper.Pipelines().Events(ctx, p.ID, before, pg.Size+1)
	if err != nil {
		return nil, err
	}
	out := wire.ListPipelineEvents{Events: []wire.PipelineEvent{}}
	if len(es) > pg.Size {
		es = es[:pg.Size]
		out.NextPageToken = strconv.FormatInt(es[len(es)-1].Sequence, 10)
	}
	for _, e := range es {
		one := wire.PipelineEvent{ID: e.ID, Timestamp: wire.Time(e.Time), Level: string(e.Level), EventType: string(e.Type), Message: e.Message, MaturityLevel: "STABLE",
			Origin: wire.EventOrigin{PipelineID: p.ID, PipelineName: p.Name, UpdateID: e.UpdateID}, Sequence: wire.EventSequence{ControlPlaneSeqNo: e.Sequence}}
		if e.Error != "" {
			one.Error = &wire.PipelineError{Fatal: e.Level == tarn.EventError, Exceptions: []wire.PipelineException{{Message: e.Error}}}
		}
		out.Events = append(out.Events, one)
	}
	return out, nil
}
