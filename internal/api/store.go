package api

import (
	"context"

	"github.com/google/uuid"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/control"
)

// PageStore tells of a node's page store; *node.Client is one.
type PageStore interface {
	StoreStats(ctx context.Context) (tarn.StoreStats, error)
	CheckStore(ctx context.Context, s tarn.StoreCheckSpec) (tarn.StoreCheck, error)
}

// storeDoor answers for the page store, in the names of branches.
type storeDoor struct {
	control *control.Control
	store   PageStore
}

func (d *storeDoor) stats(ctx context.Context, _ *query) (any, error) {
	if d.store == nil {
		return nil, errNoStore
	}
	st, err := d.store.StoreStats(ctx)
	if err != nil {
		return nil, err
	}
	names, err := d.branches(ctx)
	if err != nil {
		return nil, err
	}
	out := wire.StoreStats{TotalBytes: int64(st.Total), FreeBytes: int64(st.Free), TableBytes: st.TableBytes, Timelines: []wire.StoreTimeline{}}
	for _, t := range st.Timelines {
		out.Timelines = append(out.Timelines, wire.StoreTimeline{
			Branch: names[t.ID], Timeline: string(t.ID), Parent: string(t.Parent.Timeline), Template: t.Template, Deleted: t.Deleted, Open: t.Open,
			VisibleBytes: t.Visible, LogBytes: t.LogBytes, MapBytes: t.MapBytes, WALBytes: t.WALBytes, GarbageBytes: t.Garbage,
			MemoryBytes: t.Memory, BehindBytes: t.Behind, Marks: t.Marks,
			HistoryRetentionDuration: wire.Duration(t.History), CollectTime: wire.Time(t.Collected),
		})
	}
	return out, nil
}

var errNoStore = tarn.Unavailable("this server knows no page store")

// begin does POST …/store/checks, and check GET …/store/checks/{check}. Both say
// what the check is to do: after a restart of the node it begins anew.
func (d *storeDoor) begin(ctx context.Context, q *query) (any, error) {
	return d.look(ctx, q, uuid.NewString())
}

func (d *storeDoor) check(ctx context.Context, q *query) (any, error) {
	id, err := uuid.Parse(q.r.PathValue("check"))
	if err != nil {
		return nil, tarn.Invalid("read the check's id: %w", err)
	}
	return d.look(ctx, q, id.String())
}

func (d *storeDoor) look(ctx context.Context, q *query, id string) (any, error) {
	if d.store == nil {
		return nil, errNoStore
	}
	spec := tarn.StoreCheckSpec{ID: id}
	for name, to := range map[string]*bool{"local": &spec.Local, "repair": &spec.Repair} {
		asked, err := q.flag(name)
		if err != nil {
			return nil, err
		}
		*to = asked != nil && *asked
	}
	c, err := d.store.CheckStore(ctx, spec)
	if err != nil {
		return nil, err
	}
	var names map[tarn.TimelineID]string
	if len(c.Findings) > 0 {
		if names, err = d.branches(ctx); err != nil {
			return nil, err
		}
	}
	return wire.StoreCheckOf(c, names), nil
}

// branches names the timelines that branches have now.
func (d *storeDoor) branches(ctx context.Context) (map[tarn.TimelineID]string, error) {
	names := map[tarn.TimelineID]string{}
	for token := ""; ; {
		ps, next, err := d.control.ListProjects(ctx, control.Page{Token: token})
		if err != nil {
			return nil, err
		}
		for _, p := range ps {
			if err := d.branchesOf(ctx, p.Name, names); err != nil {
				return nil, err
			}
		}
		if token = next; token == "" {
			return names, nil
		}
	}
}

func (d *storeDoor) branchesOf(ctx context.Context, p tarn.ProjectName, names map[tarn.TimelineID]string) error {
	for token := ""; ; {
		bs, next, err := d.control.ListBranches(ctx, p, control.Page{Token: token})
		if tarn.KindOf(err) == tarn.KindNotFound {
			return nil // deleted meanwhile
		}
		if err != nil {
			return err
		}
		for _, b := range bs {
			if b.Timeline != "" {
				names[b.Timeline] = b.Name.String()
			}
		}
		if token = next; token == "" {
			return nil
		}
	}
}
