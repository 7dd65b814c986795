package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/client"
)

// step is one edge that `tarn lineage` shows.
type step struct {
	Direction string `json:"direction"` // upstream or downstream
	Depth     int    `json:"depth"`
	Source    string `json:"source"` // table, or column of it
	Target    string `json:"target"`
	Kind      string `json:"kind,omitempty"`
	Evidence  string `json:"evidence,omitempty"` // pipelines/id/updates/id, or statements/id
	First     string `json:"first_time,omitempty"`
	Last      string `json:"last_time"`
}

// lineageWalk goes from a table, or a column, over what is next to it.
type lineageWalk struct {
	g      *client.Governance
	column bool
	depth  int
	steps  []step
}

// spot is a table, or a column of one.
type spot struct {
	table  tarn.TableName
	column string
}

func (p spot) String() string {
	if p.column != "" {
		return p.table.String() + "." + p.column
	}
	return p.table.String()
}

func lineageCommand(sh *shell) *cobra.Command {
	w := &lineageWalk{}
	var column string
	var up, down bool
	c := &cobra.Command{
		Use: "lineage TABLE", Short: "Show which tables a table's rows came from and went to",
		Long: "Show which tables the rows of a table came from and went to, by synced tables,\n" +
			"feeds and SQL, with the newest run of each. One sees the tables that one may see.\n" +
			"With --column what a column was computed from, where that is known.",
		Example: "  tarn lineage lake.gold.users\n  tarn lineage lake.gold.users --upstream --depth 3\n  tarn lineage lake.gold.users --column email --json",
		Args:    args(1, 1, "a table"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, n, err := sh.tableNamed(args[0])
			if err != nil {
				return err
			}
			if w.depth < 1 || w.depth > 100 {
				return tarn.Invalid("--depth %d: want 1 to 100", w.depth)
			}
			w.g, w.column = client.GovernanceOf(c), column != ""
			for _, direction := range []string{"upstream", "downstream"} {
				if direction == "upstream" && down || direction == "downstream" && up {
					continue
				}
				if err := w.walk(cmd.Context(), spot{n, column}, direction); err != nil {
					return err
				}
			}
			if w.steps == nil {
				w.steps = []step{}
			}
			return sh.show(w.steps, func() {
				if len(w.steps) == 0 {
					sh.note("nothing is known of where it came from or went")
					return
				}
				var rows [][]string
				for _, s := range w.steps {
					rows = append(rows, []string{s.Direction, fmt.Sprint(s.Depth), s.Source, s.Target, dash(s.Kind), dash(s.Evidence), shortTime(s.Last)})
				}
				sh.table("DIRECTION DEPTH SOURCE TARGET KIND EVIDENCE LAST", rows)
			})
		},
	}
	f := c.Flags()
	f.StringVar(&column, "column", "", "of this column alone")
	f.BoolVar(&up, "upstream", false, "only where it came from")
	f.BoolVar(&down, "downstream", false, "only where it went")
	f.IntVar(&w.depth, "depth", 1, "how many tables far to look")
	c.MarkFlagsMutuallyExclusive("upstream", "downstream")
	return c
}

// walk goes in one direction, each spot once.
func (w *lineageWalk) walk(ctx context.Context, from spot, direction string) error {
	seen := map[string]bool{from.String(): true}
	at := []spot{from}
	for depth := 1; depth <= w.depth && len(at) > 0; depth++ {
		var next []spot
		for _, p := range at {
			// A database without a catalog is not a name to ask about.
			if _, err := tarn.ParseTableName(p.table.String()); err != nil {
				continue
			}
			found, steps, err := w.around(ctx, p, direction)
			if tarn.KindOf(err) == tarn.KindDenied && depth > 1 {
				continue // taken back meanwhile
			}
			if err != nil {
				return err
			}
			for i := range steps {
				steps[i].Depth, steps[i].Direction = depth, direction
			}
			w.steps = append(w.steps, steps...)
			for _, f := range found {
				if !seen[f.String()] {
					seen[f.String()] = true
					next = append(next, f)
				}
			}
		}
		at = next
	}
	return nil
}

// around asks what is next to a spot.
func (w *lineageWalk) around(ctx context.Context, p spot, direction string) (found []spot, steps []step, err error) {
	add := func(other spot, s step) {
		if s.Source, s.Target = other.String(), p.String(); direction == "downstream" {
			s.Source, s.Target = s.Target, s.Source
		}
		steps = append(steps, s)
	}
	if w.column {
		l, err := w.g.ColumnLineage(ctx, p.table, p.column)
		if err != nil {
			return nil, nil, err
		}
		all := l.UpstreamCols
		if direction == "downstream" {
			all = l.DownstreamCols
		}
		for _, c := range all {
			o := spot{tarn.TableName{Catalog: c.CatalogName, Schema: c.SchemaName, Table: c.TableName}, c.Name}
			found = append(found, o)
			add(o, step{Last: c.LineageTimestamp})
		}
		return found, steps, nil
	}
	l, err := w.g.Lineage(ctx, p.table)
	if err != nil {
		return nil, nil, err
	}
	all := l.Upstreams
	if direction == "downstream" {
		all = l.Downstreams
	}
	for _, n := range all {
		o := spot{table: tarn.TableName{Catalog: n.TableInfo.CatalogName, Schema: n.TableInfo.SchemaName, Table: n.TableInfo.Name}}
		found = append(found, o)
		for _, x := range n.PipelineInfos {
			add(o, step{Kind: x.Kind, Evidence: "pipelines/" + x.PipelineID + "/updates/" + x.UpdateID, First: x.FirstTime, Last: x.LineageTimestamp})
		}
		for _, x := range n.QueryInfos {
			add(o, step{Kind: x.Kind, Evidence: "statements/" + x.QueryID, First: x.FirstTime, Last: x.LineageTimestamp})
		}
	}
	return found, steps, nil
}
