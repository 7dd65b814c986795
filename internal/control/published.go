package control

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// Published keeps what the published API has beside projects, branches and
// endpoints.
type Published struct{ c *Control }

// Schemas lists the Postgres schemas of a database that hold its owner's things.
func (p *Published) Schemas(ctx context.Context, b tarn.BranchName, id string) (names []string, err error) {
	db, err := p.c.Databases.Get(ctx, b, id)
	if err != nil {
		return nil, err
	}
	conn, err := p.c.Connect(ctx, b, db.Name, nil)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rows, err := conn.Query(ctx, listSchemas)
	if err == nil {
		names, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	if err != nil {
		return nil, fmt.Errorf("list schemas of %s of %s: %w", db.Name, b, err)
	}
	return names, nil
}

const listSchemas = `SELECT nspname::text FROM pg_catalog.pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' ORDER BY 1`

// CreateDataAPI records what is asked of the Data API of a database.
func (p *Published) CreateDataAPI(ctx context.Context, d tarn.DataAPI) (tarn.DataAPI, error) {
	d.UID = newUID("da-")
	return controldb.PutDataAPI(ctx, p.c.cfg.DB, d)
}

// DataAPI reads it.
func (p *Published) DataAPI(ctx context.Context, b tarn.BranchName, database string) (tarn.DataAPI, error) {
	return controldb.GetDataAPI(ctx, p.c.cfg.DB, b, database)
}

// UpdateDataAPI applies f to the recorded Data API under a row lock.
func (p *Published) UpdateDataAPI(ctx context.Context, b tarn.BranchName, database string, f func(*tarn.DataAPISpec) error) (d tarn.DataAPI, err error) {
	err = p.c.cfg.DB.InTx(ctx, func(tx *controldb.Tx) error {
		if d, err = controldb.LockDataAPI(ctx, tx, b, database); err != nil {
			return err
		}
		if err := f(&d.Spec); err != nil {
			return err
		}
		return controldb.UpdateDataAPI(ctx, tx, d)
	})
	return d, err
}

// DeleteDataAPI forgets it.
func (p *Published) DeleteDataAPI(ctx context.Context, b tarn.BranchName, database string) error {
	return controldb.DeleteDataAPI(ctx, p.c.cfg.DB, b, database)
}

// CreateTable gives a Postgres table, which must be there, a name of the catalog.
func (p *Published) CreateTable(ctx context.Context, t tarn.DatabaseTable) error {
	conn, err := p.c.Connect(ctx, t.Branch, t.Database, nil)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var found bool
	if err := conn.QueryRow(ctx, tableExists, t.Name.Schema, t.Name.Table).Scan(&found); err != nil {
		return fmt.Errorf("look for table %s: %w", t.Name, err)
	}
	if !found {
		return tarn.NotFound("database %s of %s has no table %s.%s", t.Database, t.Branch, t.Name.Schema, t.Name.Table)
	}
	return controldb.InsertDatabaseTable(ctx, p.c.cfg.DB, t)
}

const tableExists = `SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'm', 'f'))`

// Table reads what a name of the catalog means.
func (p *Published) Table(ctx context.Context, n tarn.TableName) (tarn.DatabaseTable, error) {
	return controldb.GetDatabaseTable(ctx, p.c.cfg.DB, n)
}

// DeleteTable forgets the name; the Postgres table stays.
func (p *Published) DeleteTable(ctx context.Context, n tarn.TableName) error {
	return controldb.DeleteDatabaseTable(ctx, p.c.cfg.DB, n)
}

// Child reads an instance that is a branch of another's project.
func (p *Published) Child(ctx context.Context, name string) (tarn.ChildInstance, error) {
	return controldb.GetChildInstance(ctx, p.c.cfg.DB, name)
}

// Children lists those of a project, by name; the zero project means all.
func (p *Published) Children(ctx context.Context, n tarn.ProjectName) ([]tarn.ChildInstance, error) {
	return controldb.ChildInstances(ctx, p.c.cfg.DB, n.Project)
}

// CreateChild records such an instance and starts making its branch.
func (p *Published) CreateChild(ctx context.Context, i tarn.ChildInstance, s tarn.BranchSpec, e tarn.EndpointSpec) error {
	if err := checkBranch(s); err != nil {
		return err
	}
	s, err := place(ctx, p.c.cfg, s)
	if err == nil {
		err = p.c.cfg.DB.InTx(ctx, func(tx *controldb.Tx) error {
			if _, err := createBranch(ctx, tx, s); err != nil {
				return err
			}
			row, err := controldb.LockEndpoint(ctx, tx, s.Name.Endpoint(tarn.DefaultEndpoint))
			if err != nil {
				return err
			}
			row.MinCU, row.MaxCU = e.MinCU, e.MaxCU
			if err := controldb.UpdateEndpoint(ctx, tx, row); err != nil {
				return err
			}
			return controldb.InsertChildInstance(ctx, tx, i)
		})
	}
	if err != nil {
		return fmt.Errorf("create instance %s of %s: %w", i.Name, i.Parent, err)
	}
	p.c.signals.recorded()
	return nil
}

// UpdateChild records what may change of such an instance.
func (p *Published) UpdateChild(ctx context.Context, i tarn.ChildInstance) error {
	return controldb.UpdateChildInstance(ctx, p.c.cfg.DB, i)
}

// Restart has an endpoint's compute replaced by a new one, which takes the
// storage over: what a failover comes to where computes are disposable.
func (p *Published) Restart(ctx context.Context, n tarn.EndpointName) error {
	if err := p.c.SuspendEndpoint(ctx, n); err != nil {
		return err
	}
	_, err := p.c.WakeEndpoint(ctx, n)
	return err
}

// ComputeOf reads the compute of an endpoint, with state "" while there is none.
func (p *Published) ComputeOf(ctx context.Context, e tarn.Endpoint) (tarn.ComputeStatus, error) {
	all, err := p.c.Fleet(ctx)
	i := slices.IndexFunc(all, func(s tarn.ComputeStatus) bool { return s.Endpoint == e.UID })
	if err != nil || i < 0 {
		return tarn.ComputeStatus{Endpoint: e.UID}, err
	}
	return all[i], nil
}
