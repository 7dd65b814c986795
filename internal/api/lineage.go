package api

import (
	"context"
	"strings"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/catalog"
)

// lineageDoor tells where the rows of tables came from and went.
type lineageDoor struct{ catalog *catalog.Catalog }

func lineageRoutes(c Config) []route {
	d := &lineageDoor{c.Catalog}
	const at = "/api/2.0/lineage-tracking/"
	return []route{
		{"GET " + at + "table-lineage", signedIn, d.table, says[none, wire.TableLineage]("catalog.tableLineage", "table_name include_entity_lineage")},
		{"GET " + at + "column-lineage", signedIn, d.column, says[none, wire.ColumnLineage]("catalog.columnLineage", "table_name column_name")},
	}
}

// asked reads which table is meant, from the query or, as published examples
// send it, from the body of the GET.
func (d *lineageDoor) asked(ctx context.Context, q *query) (column string, up, down []tarn.LineageEdge, err error) {
	var in struct {
		Table  string `json:"table_name"`
		Column string `json:"column_name"`
	}
	if err := q.decode(&in); err != nil {
		return "", nil, nil, err
	}
	if s := q.text("table_name"); s != "" {
		in.Table = s
	}
	if s := q.text("column_name"); s != "" {
		in.Column = s
	}
	n, err := tarn.ParseTableName(in.Table)
	if err != nil {
		return "", nil, nil, badField("table_name", "%s", err)
	}
	up, down, err = d.catalog.For(q.who).Lineage(ctx, n)
	return in.Column, up, down, err
}

func (d *lineageDoor) table(ctx context.Context, q *query) (any, error) {
	_, up, down, err := d.asked(ctx, q)
	if err != nil {
		return nil, err
	}
	return wire.TableLineage{
		Upstreams:   nodesOf(up, func(e tarn.LineageEdge) tarn.TableName { return e.Source }),
		Downstreams: nodesOf(down, func(e tarn.LineageEdge) tarn.TableName { return e.Target }),
	}, nil
}

// nodesOf puts the edges to one table together.
func nodesOf(edges []tarn.LineageEdge, end func(tarn.LineageEdge) tarn.TableName) []wire.LineageNode {
	out := []wire.LineageNode{}
	at := map[tarn.TableName]int{}
	for _, e := range edges {
		n := end(e)
		i, ok := at[n]
		if !ok {
			i = len(out)
			at[n] = i
			out = append(out, wire.LineageNode{TableInfo: wire.LineageTable{Name: n.Table, CatalogName: n.Catalog, SchemaName: n.Schema, TableType: "TABLE"}})
		}
		first, last := micros(e.First), micros(e.Last)
		out[i].TableInfo.LineageTimestamp = max(out[i].TableInfo.LineageTimestamp, last)
		if e.Pipeline != "" {
			out[i].PipelineInfos = append(out[i].PipelineInfos, wire.LineagePipeline{Kind: string(e.Kind), PipelineID: e.Pipeline, UpdateID: e.Run, FirstTime: first, LineageTimestamp: last})
		} else {
			out[i].QueryInfos = append(out[i].QueryInfos, wire.LineageQuery{Kind: string(e.Kind), QueryID: e.Run, UserName: e.Principal, FirstTime: first, LineageTimestamp: last})
		}
	}
	return out
}

// micros writes a time so that texts are in the order of times.
func micros(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000Z") }

func (d *lineageDoor) column(ctx context.Context, q *query) (any, error) {
	column, up, down, err := d.asked(ctx, q)
	if err != nil {
		return nil, err
	}
	if column == "" {
		return nil, badField("column_name", "want a column of the table")
	}
	out := wire.ColumnLineage{UpstreamCols: []wire.LineageColumn{}, DownstreamCols: []wire.LineageColumn{}}
	add := func(to *[]wire.LineageColumn, n tarn.TableName, name string, last time.Time) {
		c := wire.LineageColumn{Name: name, CatalogName: n.Catalog, SchemaName: n.Schema, TableName: n.Table, TableType: "TABLE", LineageTimestamp: micros(last)}
		for i, have := range *to {
			if have.Name == c.Name && have.TableName == c.TableName && have.SchemaName == c.SchemaName && have.CatalogName == c.CatalogName {
				(*to)[i].LineageTimestamp = max(have.LineageTimestamp, c.LineageTimestamp)
				return
			}
		}
		*to = append(*to, c)
	}
	for _, e := range up {
		for _, p := range e.Columns {
			if strings.EqualFold(p.Target, column) {
				add(&out.UpstreamCols, e.Source, p.Source, e.Last)
			}
		}
	}
	for _, e := range down {
		for _, p := range e.Columns {
			if strings.EqualFold(p.Source, column) {
				add(&out.DownstreamCols, e.Target, p.Target, e.Last)
			}
		}
	}
	return out, nil
}
