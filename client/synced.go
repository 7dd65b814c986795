package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
)

// What synced tables and pipelines are spoken of in.
type (
	SyncSettings   = wire.SyncSettings
	TypeOverride   = wire.TypeOverride
	Verification   = wire.Verification
	DeadLetter     = wire.DeadLetter
	Replayed       = wire.Replayed
	Pipeline       = wire.Pipeline
	PipelineUpdate = wire.UpdateInfo
	PipelineEvent  = wire.PipelineEvent
)

func syncedPath(n tarn.TableName, what string) string {
	return mine + "synced_tables/" + url.PathEscape(n.String()) + what
}

// Change gives a synced table another policy or other settings in place; nil
// leaves what is.
func (s *SyncedTables) Change(ctx context.Context, n tarn.TableName, policy *string, settings *SyncSettings) (SyncedTable, error) {
	var t SyncedTable
	err := s.c.do(ctx, http.MethodPatch, syncedPath(n, ""), nil, wire.SyncedTableChange{SchedulingPolicy: policy, Settings: settings}, &t)
	return t, err
}

// Verify compares both sides of a synced table; it reads all of both.
func (s *SyncedTables) Verify(ctx context.Context, n tarn.TableName) (Verification, error) {
	var v Verification
	err := s.c.do(ctx, http.MethodPost, syncedPath(n, "/verify"), nil, nil, &v)
	return v, err
}

// DeadLetters gives up to limit rows that Postgres cannot store, oldest first;
// 0 = all.
func (s *SyncedTables) DeadLetters(ctx context.Context, n tarn.TableName, limit int) ([]DeadLetter, error) {
	var all []DeadLetter
	err := everyPage(func(token string) (string, error) {
		var page wire.ListDeadLetters
		err := s.c.get(ctx, syncedPath(n, "/dead_letters"), query("page_token", token), &page)
		all = append(all, page.DeadLetters...)
		if limit > 0 && len(all) >= limit {
			all = all[:limit]
			return "", err
		}
		return page.NextPageToken, err
	})
	return all, err
}

// Replay tries to store dead letters again; text that Postgres has no form for
// may be replaced.
func (s *SyncedTables) Replay(ctx context.Context, n tarn.TableName, replaceText bool) (Replayed, error) {
	var r Replayed
	err := s.c.do(ctx, http.MethodPost, syncedPath(n, "/replay"), nil, wire.Replay{ReplaceText: replaceText}, &r)
	return r, err
}

// Pipelines are what moves synced tables and feeds.
type Pipelines struct{ c *Client }

// Pipelines speaks of the pipelines that move them.
func (s *SyncedTables) Pipelines() *Pipelines { return &Pipelines{s.c} }

const pipelinesPath = "/api/2.0/pipelines"

func pipelinePath(id, what string) string { return pipelinesPath + "/" + url.PathEscape(id) + what }

// List lists all pipelines.
func (p *Pipelines) List(ctx context.Context) ([]Pipeline, error) {
	var all []Pipeline
	err := everyPage(func(token string) (string, error) {
		var page wire.ListPipelines
		err := p.c.get(ctx, pipelinesPath, query("page_token", token), &page)
		all = append(all, page.Statuses...)
		return page.NextPageToken, err
	})
	return all, err
}

// Get reads one pipeline.
func (p *Pipelines) Get(ctx context.Context, id string) (Pipeline, error) {
	var out Pipeline
	err := p.c.get(ctx, pipelinePath(id, ""), nil, &out)
	return out, err
}

// Start begins an update and gives its id; full reads everything again.
func (p *Pipelines) Start(ctx context.Context, id string, full bool) (string, error) {
	var out wire.StartUpdateResponse
	err := p.c.do(ctx, http.MethodPost, pipelinePath(id, "/updates"), nil, wire.StartUpdate{FullRefresh: &full}, &out)
	return out.UpdateID, err
}

// Stop ends the update that runs.
func (p *Pipelines) Stop(ctx context.Context, id string) error {
	return p.c.do(ctx, http.MethodPost, pipelinePath(id, "/stop"), nil, nil, nil)
}

// Update reads one update.
func (p *Pipelines) Update(ctx context.Context, id, update string) (PipelineUpdate, error) {
	var out wire.GetUpdate
	err := p.c.get(ctx, pipelinePath(id, "/updates/"+url.PathEscape(update)), nil, &out)
	return out.Update, err
}

// Updates lists the newest updates, at most one page of them.
func (p *Pipelines) Updates(ctx context.Context, id string) ([]PipelineUpdate, error) {
	var page wire.ListUpdates
	err := p.c.get(ctx, pipelinePath(id, "/updates"), nil, &page)
	return page.Updates, err
}

// Events lists the newest events, at most one page of them.
func (p *Pipelines) Events(ctx context.Context, id string) ([]PipelineEvent, error) {
	var page wire.ListPipelineEvents
	err := p.c.get(ctx, pipelinePath(id, "/events"), nil, &page)
	return page.Events, err
}
