package catalog

import (
	"context"
	"errors"
	"slices"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// RecordLineage notes where the rows came from that a statement wrote. Movers
// write the same rows with what they commit.
func (c *Catalog) RecordLineage(ctx context.Context, edges ...tarn.LineageEdge) error {
	var errs []error // one by one: two statements may write the same in another order
	for _, e := range edges {
		errs = append(errs, controldb.RecordLineage(ctx, c.db, e))
	}
	return errors.Join(errs...)
}

// Lineage gives the edges into a table and out of it, as far as the principal may
// see the tables at their other ends. KindDenied when it may not see the table
// itself, which need not be there any more.
func (r *Rights) Lineage(ctx context.Context, n tarn.TableName) (up, down []tarn.LineageEdge, err error) {
	if err := r.CheckVisible(ctx, n.Securable()); err != nil {
		return nil, nil, err
	}
	registered, err := controldb.ListRegisteredCatalogs(ctx, r.db)
	if err != nil {
		return nil, nil, err
	}
	// A Postgres table has a second name, by which its feeds knew it.
	names, called := []tarn.TableName{n}, map[string]string{}
	for _, c := range registered {
		called[tarn.DatabaseCatalog(c.Branch, c.Database)] = c.Name
		if c.Name == n.Catalog {
			names = append(names, tarn.TableName{Catalog: tarn.DatabaseCatalog(c.Branch, c.Database), Schema: n.Schema, Table: n.Table})
		}
	}
	sees, err := r.Visible(ctx, "")
	if err != nil {
		return nil, nil, err
	}
	seen := func(all []tarn.LineageEdge) []tarn.LineageEdge {
		return slices.DeleteFunc(all, func(e tarn.LineageEdge) bool { return !sees(e.Source.Securable()) || !sees(e.Target.Securable()) })
	}
	if up, err = controldb.UpstreamOf(ctx, r.db, names); err != nil {
		return nil, nil, err
	}
	if down, err = controldb.DownstreamOf(ctx, r.db, names); err != nil {
		return nil, nil, err
	}
	for _, all := range [][]tarn.LineageEdge{up, down} {
		for i := range all {
			for _, end := range []*tarn.TableName{&all[i].Source, &all[i].Target} {
				if name, ok := called[end.Catalog]; ok {
					end.Catalog = name
				}
			}
		}
	}
	return seen(up), seen(down), nil
}
