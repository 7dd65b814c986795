package client

import (
	"context"
	"net/http"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
)

// Window tells what of a branch's past can be had again.
func (c *Client) Window(ctx context.Context, n tarn.BranchName) (Window, error) {
	var w Window
	err := c.get(ctx, mine+n.String()+"/window", nil, &w)
	return w, err
}

// RestoreBranch puts a branch back to a time, an LSN or a snapshot. What it
// held until then goes on as another branch.
func (c *Client) RestoreBranch(ctx context.Context, n tarn.BranchName, s RestoreSpec) (Operation, error) {
	var op Operation
	err := c.do(ctx, http.MethodPost, mine+n.String()+":restore", nil, s, &op)
	return op, err
}

// ResetBranch puts a branch to what its parent holds now. What it held until
// then is removed, or goes on as branch keepAs when that is not "".
func (c *Client) ResetBranch(ctx context.Context, n tarn.BranchName, keepAs string) (Operation, error) {
	var op Operation
	err := c.do(ctx, http.MethodPost, mine+n.String()+":reset", nil, wire.ResetBranch{KeepAs: keepAs}, &op)
	return op, err
}

// CreateSnapshot keeps a point of a branch.
func (c *Client) CreateSnapshot(ctx context.Context, n tarn.SnapshotName, s SnapshotSpec) (Operation, error) {
	var op Operation
	err := c.do(ctx, http.MethodPost, pg+n.Parent().String()+"/snapshots", query("snapshot_id", n.Snapshot), Snapshot{Spec: &s}, &op)
	return op, err
}

// Snapshot reads one snapshot.
func (c *Client) Snapshot(ctx context.Context, n tarn.SnapshotName) (Snapshot, error) {
	var s Snapshot
	err := c.get(ctx, pg+n.String(), nil, &s)
	return s, err
}

// Snapshots lists the snapshots of a project.
func (c *Client) Snapshots(ctx context.Context, n tarn.ProjectName) ([]Snapshot, error) {
	var all []Snapshot
	err := everyPage(func(token string) (string, error) {
		var page wire.ListSnapshots
		err := c.get(ctx, pg+n.String()+"/snapshots", query("page_token", token), &page)
		all = append(all, page.Snapshots...)
		return page.NextPageToken, err
	})
	return all, err
}

// DeleteSnapshot lets go of a snapshot's point.
func (c *Client) DeleteSnapshot(ctx context.Context, n tarn.SnapshotName) (Operation, error) {
	var op Operation
	err := c.do(ctx, http.MethodDelete, pg+n.String(), nil, nil, &op)
	return op, err
}
