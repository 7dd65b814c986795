package client

import (
	"context"
	"net/http"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
)

// Past is the past of one branch.
type Past struct {
	c      *Client
	branch tarn.BranchName
}

// Past gives the calls that concern a branch's past.
func (c *Client) Past(n tarn.BranchName) *Past { return &Past{c, n} }

// Window tells what of it can be had again.
func (p *Past) Window(ctx context.Context) (Window, error) {
	var w Window
	err := p.c.get(ctx, mine+p.branch.String()+"/window", nil, &w)
	return w, err
}

// Restore puts the branch back to a time, an LSN or a snapshot. What it held
// until then goes on as another branch.
func (p *Past) Restore(ctx context.Context, s RestoreSpec) (Operation, error) {
	var op Operation
	err := p.c.do(ctx, http.MethodPost, mine+p.branch.String()+":restore", nil, s, &op)
	return op, err
}

// Reset puts the branch to what its parent holds now. What it held until then
// is removed, or goes on as branch keepAs when that is not "".
func (p *Past) Reset(ctx context.Context, keepAs string) (Operation, error) {
	var op Operation
	err := p.c.do(ctx, http.MethodPost, mine+p.branch.String()+":reset", nil, wire.ResetBranch{KeepAs: keepAs}, &op)
	return op, err
}

// Snapshots are those of one project.
type Snapshots struct {
	c       *Client
	project tarn.ProjectName
}

// Snapshots gives the calls that concern a project's snapshots.
func (c *Client) Snapshots(n tarn.ProjectName) *Snapshots { return &Snapshots{c, n} }

func (s *Snapshots) path(id string) string { return pg + s.project.Snapshot(id).String() }

// Create keeps a point of a branch.
func (s *Snapshots) Create(ctx context.Context, id string, spec SnapshotSpec) (Operation, error) {
	var op Operation
	err := s.c.do(ctx, http.MethodPost, pg+s.project.String()+"/snapshots", query("snapshot_id", id), Snapshot{Spec: &spec}, &op)
	return op, err
}

// Get reads one snapshot.
func (s *Snapshots) Get(ctx context.Context, id string) (Snapshot, error) {
	var out Snapshot
	err := s.c.get(ctx, s.path(id), nil, &out)
	return out, err
}

// List gives all snapshots of the project.
func (s *Snapshots) List(ctx context.Context) ([]Snapshot, error) {
	var all []Snapshot
	err := everyPage(func(token string) (string, error) {
		var page wire.ListSnapshots
		err := s.c.get(ctx, pg+s.project.String()+"/snapshots", query("page_token", token), &page)
		all = append(all, page.Snapshots...)
		return page.NextPageToken, err
	})
	return all, err
}

// Delete lets go of a snapshot's point.
func (s *Snapshots) Delete(ctx context.Context, id string) (Operation, error) {
	var op Operation
	err := s.c.do(ctx, http.MethodDelete, s.path(id), nil, nil, &op)
	return op, err
}
