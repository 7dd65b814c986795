package client

import (
	"context"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
)

// What is next to a table and to a column, as the API sends it.
type (
	TableLineage  = wire.TableLineage
	LineageNode   = wire.LineageNode
	ColumnLineage = wire.ColumnLineage
	LineageColumn = wire.LineageColumn
)

const lineagePath = "/api/2.0/lineage-tracking/"

// Lineage gives the tables whose rows went into a table, and where its rows went.
func (g *Governance) Lineage(ctx context.Context, n tarn.TableName) (TableLineage, error) {
	var out TableLineage
	err := g.c.get(ctx, lineagePath+"table-lineage", query("table_name", n.String()), &out)
	return out, err
}

// ColumnLineage does the same for a column.
func (g *Governance) ColumnLineage(ctx context.Context, n tarn.TableName, column string) (ColumnLineage, error) {
	var out ColumnLineage
	err := g.c.get(ctx, lineagePath+"column-lineage", query("table_name", n.String(), "column_name", column), &out)
	return out, err
}
