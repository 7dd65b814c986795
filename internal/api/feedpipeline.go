package api

import (
	"context"
	"slices"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
)

// The pipeline of a feed runs by itself. Stopping it pauses the feed, starting
// it lets it go on, and a full refresh copies tables anew.

// feedOf finds the feed a pipeline moves and refuses who may not change it, as
// the feed's own routes do.
func (d *pipelineDoor) feedOf(ctx context.Context, q *query, p tarn.Pipeline) (tarn.Feed, error) {
	if err := q.need(ctx, tarn.ProjectName{Project: p.Project}, tarn.CanManage); err != nil {
		return tarn.Feed{}, err
	}
	all, err := d.feeds.List(ctx, tarn.BranchName{})
	if err != nil {
		return tarn.Feed{}, err
	}
	i := slices.IndexFunc(all, func(f tarn.Feed) bool { return f.PipelineID == p.ID })
	if i < 0 {
		return tarn.Feed{}, tarn.NotFound("the feed of pipeline %s does not exist", p.ID)
	}
	return all[i], nil
}

func (d *pipelineDoor) startFeed(ctx context.Context, q *query, p tarn.Pipeline, in wire.StartUpdate) (any, error) {
	f, err := d.feedOf(ctx, q, p)
	if err != nil {
		return nil, err
	}
	last, err := d.newestUpdate(ctx, p)
	if err != nil {
		return nil, err
	}
	full := in.FullRefresh != nil && *in.FullRefresh || len(in.FullRefreshSelection) > 0
	switch {
	case len(in.RefreshSelection) > 0:
		return nil, badField("refresh_selection", "a feed follows all of its tables; full_refresh_selection copies some of them anew")
	case !full && !f.Paused:
		return nil, tarn.Conflict("feed %s is following already", f.ID).WithHint("full_refresh copies its tables anew")
	}
	if full {
		if _, err := d.feeds.Resync(ctx, f.Branch, f.ID, in.FullRefreshSelection); err != nil {
			return nil, err
		}
	}
	if f.Paused {
		s := f.FeedSettings
		s.Paused = false
		if _, err := d.feeds.Update(ctx, f.Branch, f.ID, s); err != nil {
			return nil, err
		}
	}
	return d.begun(ctx, p, last)
}

func (d *pipelineDoor) stopFeed(ctx context.Context, q *query, p tarn.Pipeline) (any, error) {
	f, err := d.feedOf(ctx, q, p)
	if err != nil {
		return nil, err
	}
	s := f.FeedSettings
	s.Paused = true
	_, err = d.feeds.Update(ctx, f.Branch, f.ID, s)
	return wire.Empty{}, err
}

// feedPatience is how long a feed that was started may take to begin. It does
// not begin while its compute sleeps.
const feedPatience = 2 * time.Second

// begun answers with the update that began behind last. A feed whose compute
// sleeps begins one when it wakes: the answer then names none.
func (d *pipelineDoor) begun(ctx context.Context, p tarn.Pipeline, last string) (any, error) {
	tick := time.NewTicker(feedPatience / 20)
	defer tick.Stop()
	end := time.NewTimer(feedPatience)
	defer end.Stop()
	for {
		id, err := d.newestUpdate(ctx, p)
		if err != nil || id != last {
			return wire.StartUpdateResponse{UpdateID: id}, err
		}
		select {
		case <-tick.C:
		case <-end.C:
			return wire.StartUpdateResponse{}, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (d *pipelineDoor) newestUpdate(ctx context.Context, p tarn.Pipeline) (string, error) {
	us, err := d.keeper.Pipelines().Updates(ctx, p.ID, 1)
	if err != nil || len(us) == 0 {
		return "", err
	}
	return us[0].ID, nil
}
