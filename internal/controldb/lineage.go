package controldb

import (
	"context"
	"encoding/json"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
)

// RecordLineage notes that rows went from one table to another just now. Pairs of
// columns are added to those that are known.
func RecordLineage(ctx context.Context, c Conn, e tarn.LineageEdge) error {
	columns, err := json.Marshal(append([]tarn.ColumnPair{}, e.Columns...))
	if err != nil {
		return err
	}
	_, err = c.querier().Exec(ctx, recordLineage, e.Source.Catalog, e.Source.Schema, e.Source.Table, e.Target.Catalog, e.Target.Schema, e.Target.Table,
		e.Kind, e.Pipeline, e.Run, e.Principal, columns)
	return fault(err, "lineage of %s", e.Target)
}

const recordLineage = `
INSERT INTO lineage AS l (source_catalog, source_schema, source_name, target_catalog, target_schema, target_name, kind, pipeline, run, principal, columns)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
ON CONFLICT (target_catalog, target_schema, target_name, source_catalog, source_schema, source_name, kind, pipeline) DO UPDATE
SET last = now(), run = EXCLUDED.run, principal = EXCLUDED.principal, columns = CASE WHEN l.columns @> EXCLUDED.columns THEN l.columns
	ELSE (SELECT jsonb_agg(DISTINCT v) FROM jsonb_array_elements(l.columns || EXCLUDED.columns) v) END`

// UpstreamOf gives the edges into a table, DownstreamOf those out of it, by name.
// The table may be called by more than one name.
func UpstreamOf(ctx context.Context, c Conn, names []tarn.TableName) ([]tarn.LineageEdge, error) {
	return lineage(ctx, c, lineageInto, names)
}

// DownstreamOf: see UpstreamOf.
func DownstreamOf(ctx context.Context, c Conn, names []tarn.TableName) ([]tarn.LineageEdge, error) {
	return lineage(ctx, c, lineageFrom, names)
}

func lineage(ctx context.Context, c Conn, sql string, names []tarn.TableName) (all []tarn.LineageEdge, err error) {
	for _, n := range names {
		some, err := list(ctx, c, scanLineage, sql, n.Catalog, n.Schema, n.Table)
		if err != nil {
			return nil, fault(err, "lineage of %s", n)
		}
		all = append(all, some...)
	}
	return all, nil
}

const (
	lineageColumns = `SELECT source_catalog, source_schema, source_name, target_catalog, target_schema, target_name, kind, pipeline, run, principal, columns, first, last FROM lineage `
	lineageOrder   = ` ORDER BY source_catalog, source_schema, source_name, target_catalog, target_schema, target_name, kind, pipeline`
	lineageInto    = lineageColumns + `WHERE target_catalog = $1 AND target_schema = $2 AND target_name = $3` + lineageOrder
	lineageFrom    = lineageColumns + `WHERE source_catalog = $1 AND source_schema = $2 AND source_name = $3` + lineageOrder
)

func scanLineage(r pgx.Row) (e tarn.LineageEdge, err error) {
	err = r.Scan(&e.Source.Catalog, &e.Source.Schema, &e.Source.Table, &e.Target.Catalog, &e.Target.Schema, &e.Target.Table,
		&e.Kind, &e.Pipeline, &e.Run, &e.Principal, &e.Columns, (*stamp)(&e.First), (*stamp)(&e.Last))
	return e, err
}

// ForgetLineage forgets edges that no rows took since a time.
func ForgetLineage(ctx context.Context, c Conn, before time.Time) error {
	_, err := c.querier().Exec(ctx, forgetLineage, before)
	return fault(err, "lineage")
}

const forgetLineage = `DELETE FROM lineage WHERE last < $1`
