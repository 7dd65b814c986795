package control

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// CreateProject records the project with branch production and endpoint primary
// and starts making them. KindConflict when the name is taken.
func (c *Control) CreateProject(ctx context.Context, p tarn.Principal, s tarn.ProjectSpec, inst tarn.InstanceSpec) (tarn.Operation, error) {
	op, err := recordProject(ctx, c.cfg, p, s, inst)
	if err != nil {
		return tarn.Operation{}, fmt.Errorf("create project %s: %w", s.Name.Project, err)
	}
	c.signals.recorded()
	return op, nil
}

func recordProject(ctx context.Context, cfg Config, p tarn.Principal, s tarn.ProjectSpec, inst tarn.InstanceSpec) (op tarn.Operation, err error) {
	s.Endpoint.Name, s.Endpoint.Type, s.Endpoint.Disabled = tarn.EndpointName{}, tarn.ReadWrite, false
	fillProject(&s)
	if err := checkProject(s); err != nil {
		return op, err
	}
	if err := checkRoleName(p.Name); err != nil {
		return op, err
	}
	if s.PGVersion, err = pgVersion(ctx, cfg.Node, s.PGVersion); err != nil {
		return op, err
	}
	project := tarn.Project{ProjectSpec: s, UID: uuid.NewString(), Owner: p.Name, Instance: inst}
	b := tarn.Branch{BranchSpec: tarn.BranchSpec{Name: s.Name.Branch(tarn.DefaultBranch), Protected: s.ProtectDefault}, Default: true}
	err = cfg.DB.InTx(ctx, func(tx *controldb.Tx) (err error) {
		if _, err := controldb.InsertProject(ctx, tx, project); err != nil {
			if tarn.KindOf(err) == tarn.KindConflict {
				return tarn.Conflict("%w", err).WithHint(takenBy(ctx, cfg.DB, s.Name))
			}
			return err
		}
		if err := insertBranch(ctx, tx, b, s.Endpoint); err != nil {
			return err
		}
		op, err = insertOperation(ctx, tx, "create", s.Name.String())
		return err
	})
	return op, err
}

// pgVersion resolves the asked Postgres major, 0 = the one the node prefers.
func pgVersion(ctx context.Context, node Timelines, asked int) (int, error) {
	have, err := node.Versions(ctx)
	switch {
	case err != nil:
		return 0, err
	case len(have) == 0:
		return 0, tarn.Unavailable("no Postgres was found on this computer").WithHint("Install Postgres 15 to 18, or start tarn up with --pg-bin.")
	case asked == 0:
		return have[0], nil
	case !slices.Contains(have, asked):
		return 0, tarn.Invalid("Postgres %d is not on this computer, which has %v", asked, have)
	}
	return asked, nil
}

// insertBranch records a branch with its endpoint primary, which gets an
// address of its own.
func insertBranch(ctx context.Context, tx *controldb.Tx, b tarn.Branch, e tarn.EndpointSpec) error {
	b.UID, b.Timeline = newUID("br-"), newTimelineID()
	if _, err := controldb.InsertBranch(ctx, tx, b); err != nil {
		return err
	}
	return insertPrimary(ctx, tx, b.Name, e)
}

// insertPrimary records a branch's endpoint primary.
func insertPrimary(ctx context.Context, tx *controldb.Tx, b tarn.BranchName, e tarn.EndpointSpec) error {
	host, err := takeAddress(ctx, tx)
	if err != nil {
		return err
	}
	e.Name, e.Type, e.Disabled = b.Endpoint(tarn.DefaultEndpoint), tarn.ReadWrite, false
	_, err = controldb.InsertEndpoint(ctx, tx, tarn.Endpoint{EndpointSpec: e, UID: newUID("ep-"), Host: host})
	return err
}

// GetProject reads a project.
func (c *Control) GetProject(ctx context.Context, n tarn.ProjectName) (tarn.Project, error) {
	return controldb.GetProject(ctx, c.cfg.DB, n)
}

// ListProjects gives one page of the projects, by id, and the next page's
// token.
func (c *Control) ListProjects(ctx context.Context, pg Page) ([]tarn.Project, string, error) {
	after, size, err := pg.start()
	if err != nil {
		return nil, "", err
	}
	rows, err := controldb.ListProjects(ctx, c.cfg.DB, after, size+1, pg.Deleted)
	if err != nil {
		return nil, "", err
	}
	rows, next := cut(rows, size, func(p tarn.Project) string { return p.Name.Project })
	return rows, next, nil
}

// UpdateProject applies f to the recorded project under a row lock and saves
// it. f may be called more than once and must change nothing else. A project's
// ids and its Postgres version never change; its endpoint defaults concern
// only new branches.
func (c *Control) UpdateProject(ctx context.Context, n tarn.ProjectName, f func(*tarn.Project) error) (tarn.Operation, error) {
	var op tarn.Operation
	err := c.cfg.DB.InTx(ctx, func(tx *controldb.Tx) error {
		old, err := controldb.LockProject(ctx, tx, n)
		if err != nil {
			return err
		}
		if err := refuseDeleted(old); err != nil {
			return err
		}
		p := old
		p.CustomTags, p.Endpoint.Settings = maps.Clone(old.CustomTags), maps.Clone(old.Endpoint.Settings)
		if err := f(&p); err != nil {
			return err
		}
		fillProject(&p.ProjectSpec)
		switch {
		case p.Name != old.Name || p.UID != old.UID || p.Owner != old.Owner:
			return tarn.Invalid("a project's id, uid and owner cannot change")
		case p.PGVersion != old.PGVersion:
			return tarn.Invalid("a project's Postgres version cannot change")
		}
		if err := checkProject(p.ProjectSpec); err != nil {
			return err
		}
		if err := controldb.UpdateProject(ctx, tx, p); err != nil {
			return err
		}
		op, err = insertOperation(ctx, tx, "update", n.String())
		return err
	})
	if err != nil {
		return tarn.Operation{}, fmt.Errorf("update project %s: %w", n.Project, err)
	}
	c.signals.recorded()
	return op, nil
}

// DeleteProject removes a project for good; Trash.DeleteProject lets it be brought
// back. It marks every branch and snapshot of the project as on its way out
// and starts removing them. A protected branch forbids it. Asked again
// meanwhile, it gives the same operation.
func (c *Control) DeleteProject(ctx context.Context, n tarn.ProjectName) (tarn.Operation, error) {
	var op tarn.Operation
	err := c.cfg.DB.InTx(ctx, func(tx *controldb.Tx) error {
		p, err := controldb.LockProject(ctx, tx, n)
		if err != nil {
			return err
		}
		protected, err := controldb.ListProtected(ctx, tx, n)
		if err != nil {
			return err
		}
		if len(protected) > 0 {
			return tarn.Conflict("it has protected branches: %s", strings.Join(protected, ", ")).WithHint(unprotect(n.Branch(protected[0])))
		}
		if err := controldb.MarkDeleted(ctx, tx, tarn.BranchName{Project: n.Project}); err != nil {
			return err
		}
		if err := controldb.MarkSnapshotDeleted(ctx, tx, tarn.SnapshotName{Project: n.Project}); err != nil {
			return err
		}
		if err := controldb.ForgetHidden(ctx, tx, n); err != nil {
			return err
		}
		op, err = insertRemoval(ctx, tx, n.String(), p.PurgeTime)
		return err
	})
	if err != nil {
		return tarn.Operation{}, fmt.Errorf("delete project %s: %w", n.Project, err)
	}
	c.signals.recorded()
	return op, nil
}
