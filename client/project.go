package client

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
)

// Status tells what the server runs and where.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.get(ctx, mine+"status", nil, &s)
	return s, err
}

// Me tells who the token belongs to.
func (c *Client) Me(ctx context.Context) (User, error) {
	var u User
	err := c.get(ctx, "/api/2.0/preview/scim/v2/Me", nil, &u)
	return u, err
}

// CreateProject begins a project with branch production and endpoint primary.
func (c *Client) CreateProject(ctx context.Context, n tarn.ProjectName, s ProjectSpec) (Operation, error) {
	var op Operation
	err := c.do(ctx, http.MethodPost, pg+"projects", query("project_id", n.Project), Project{Spec: &s}, &op)
	return op, err
}

// Project reads one project.
func (c *Client) Project(ctx context.Context, n tarn.ProjectName) (Project, error) {
	var p Project
	err := c.get(ctx, pg+n.String(), nil, &p)
	return p, err
}

// Projects lists all projects.
func (c *Client) Projects(ctx context.Context) ([]Project, error) {
	var all []Project
	err := everyPage(func(token string) (string, error) {
		var page wire.ListProjects
		err := c.get(ctx, pg+"projects", query("page_token", token), &page)
		all = append(all, page.Projects...)
		return page.NextPageToken, err
	})
	return all, err
}

// UpdateProject changes what mask names, e.g. "spec.display_name".
func (c *Client) UpdateProject(ctx context.Context, n tarn.ProjectName, mask string, s ProjectSpec) (Operation, error) {
	var op Operation
	err := c.do(ctx, http.MethodPatch, pg+n.String(), query("update_mask", mask), Project{Name: n.String(), Spec: &s}, &op)
	return op, err
}

// DeleteProject deletes a project with all its branches; what is left of it is
// Keep or Purge.
func (c *Client) DeleteProject(ctx context.Context, n tarn.ProjectName, leftover Leftover) (Operation, error) {
	return remove(ctx, c, n.String(), leftover)
}

func remove(ctx context.Context, c *Client, name string, leftover Leftover) (Operation, error) {
	var op Operation
	var q url.Values
	if leftover == Purge {
		q = query("purge", "true")
	}
	err := c.do(ctx, http.MethodDelete, pg+name, q, nil, &op)
	return op, err
}

// Undelete brings back a project or branch that was deleted and kept.
func Undelete(ctx context.Context, c *Client, name fmt.Stringer) (Operation, error) {
	var op Operation
	err := c.do(ctx, http.MethodPost, pg+name.String()+"/undelete", nil, nil, &op)
	return op, err
}

// CreateBranch begins a branch.
func (c *Client) CreateBranch(ctx context.Context, n tarn.BranchName, s BranchSpec) (Operation, error) {
	var op Operation
	err := c.do(ctx, http.MethodPost, pg+n.Parent().String()+"/branches", query("branch_id", n.Branch), Branch{Spec: &s}, &op)
	return op, err
}

// Branch reads one branch.
func (c *Client) Branch(ctx context.Context, n tarn.BranchName) (Branch, error) {
	var b Branch
	err := c.get(ctx, pg+n.String(), nil, &b)
	return b, err
}

// Branches lists the branches of a project.
func (c *Client) Branches(ctx context.Context, n tarn.ProjectName) ([]Branch, error) {
	var all []Branch
	err := everyPage(func(token string) (string, error) {
		var page wire.ListBranches
		err := c.get(ctx, pg+n.String()+"/branches", query("page_token", token), &page)
		all = append(all, page.Branches...)
		return page.NextPageToken, err
	})
	return all, err
}

// UpdateBranch changes what mask names, e.g. "spec.is_protected".
func (c *Client) UpdateBranch(ctx context.Context, n tarn.BranchName, mask string, s BranchSpec) (Operation, error) {
	var op Operation
	err := c.do(ctx, http.MethodPatch, pg+n.String(), query("update_mask", mask), Branch{Name: n.String(), Spec: &s}, &op)
	return op, err
}

// DeleteBranch deletes a branch and its endpoints; what is left of it is Keep or
// Purge.
func (c *Client) DeleteBranch(ctx context.Context, n tarn.BranchName, leftover Leftover) (Operation, error) {
	return remove(ctx, c, n.String(), leftover)
}

// Endpoints lists the endpoints of a branch.
func (c *Client) Endpoints(ctx context.Context, n tarn.BranchName) ([]Endpoint, error) {
	var all []Endpoint
	err := everyPage(func(token string) (string, error) {
		var page wire.ListEndpoints
		err := c.get(ctx, pg+n.String()+"/endpoints", query("page_token", token), &page)
		all = append(all, page.Endpoints...)
		return page.NextPageToken, err
	})
	return all, err
}

// UpdateEndpoint changes what mask names, e.g. "spec.disabled".
func (c *Client) UpdateEndpoint(ctx context.Context, n tarn.EndpointName, mask string, s EndpointSpec) (Operation, error) {
	var op Operation
	err := c.do(ctx, http.MethodPatch, pg+n.String(), query("update_mask", mask), Endpoint{Name: n.String(), Spec: &s}, &op)
	return op, err
}

// Wake starts the endpoint's compute and returns when it answers.
func (c *Client) Wake(ctx context.Context, n tarn.EndpointName) (Compute, error) {
	var s Compute
	err := c.do(ctx, http.MethodPost, mine+n.String()+":wake", nil, nil, &s)
	return s, err
}

// Suspend stops the endpoint's compute; the next connection wakes it again.
func (c *Client) Suspend(ctx context.Context, n tarn.EndpointName) error {
	return c.do(ctx, http.MethodPost, mine+n.String()+":suspend", nil, nil, nil)
}

// Connection tells how to reach a branch with a Postgres client.
func (c *Client) Connection(ctx context.Context, n tarn.BranchName) (Connection, error) {
	var s Connection
	err := c.get(ctx, mine+n.String()+"/connection", nil, &s)
	return s, err
}

// Credential makes a Postgres password for an endpoint, good for an hour.
func (c *Client) Credential(ctx context.Context, n tarn.EndpointName) (Credential, error) {
	var s Credential
	err := c.do(ctx, http.MethodPost, pg+"credentials", nil, wire.GenerateCredential{Endpoint: n.String()}, &s)
	return s, err
}
