package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/client"
	"github.com/tarndb/tarn/internal/api/wire"
)

func feedCommand(sh *shell) *cobra.Command {
	c := group("feed", "Feeds: Postgres schemas followed into Delta tables")
	var p place
	c.PersistentFlags().StringVar(&p.branch, "branch", "", "branch of the feed (default: the project's default branch)")
	c.PersistentFlags().StringVar(&p.database, "dbname", "", "Postgres database (default "+tarn.DefaultDatabase+")")
	// A branch may also be an argument of create and list.
	c.AddCommand(feedCreate(sh, &p), feedList(sh, &p), feedGet(sh, &p), feedUpdate(sh, &p), feedPause(sh, &p), feedResume(sh, &p), feedResync(sh, &p), feedVerify(sh, &p), feedDelete(sh, &p))
	return c
}

// place says which database of which branch.
type place struct{ branch, database string }

// feeds speaks of the feeds at p.
func (sh *shell) feeds(ctx context.Context, p place) (*client.Feeds, error) {
	c, err := sh.client()
	if err != nil {
		return nil, err
	}
	b, err := sh.branchNamed(ctx, c, p.branch)
	if err != nil {
		return nil, err
	}
	return c.Feeds(b, p.database), nil
}

func feedCreate(sh *shell, p *place) *cobra.Command {
	var schema, to, id string
	var set feedFlags
	c := &cobra.Command{
		Use: "create [BRANCH] --to CATALOG.SCHEMA", Short: "Follow a Postgres schema into Delta tables lb_<table>_history",
		Example: "  tarn feed create --to lake.app\n  tarn feed create shop/dev --schema sales --to lake.sales",
		Args:    args(0, 1, "at most a branch"),
		RunE: func(cmd *cobra.Command, args []string) error {
			catalog, target, ok := strings.Cut(to, ".")
			if !ok || catalog == "" || target == "" {
				return usage(cmd, "--to %q: want catalog.schema", to)
			}
			settings := set.settings(cmd)
			p.branch = first(optional(args), p.branch)
			fs, err := sh.feeds(cmd.Context(), *p)
			if err != nil {
				return err
			}
			f, err := fs.Create(cmd.Context(), id, client.Feed{PostgresSchema: schema, Catalog: catalog, Schema: target, FeedSettings: settings})
			if err != nil {
				return err
			}
			return sh.show(f, func() {
				sh.say("Created feed %s: Postgres schema %s into %s.%s.", f.CdfConfigID, f.PostgresSchema, f.Catalog, f.Schema)
				sh.say("Follow it: tarn feed show %s", f.CdfConfigID)
			})
		},
	}
	c.Flags().StringVar(&schema, "schema", "public", "Postgres schema to follow")
	c.Flags().StringVar(&to, "to", "", "catalog.schema of the Delta tables")
	c.Flags().StringVar(&id, "id", "", "the feed's id (default: the Postgres schema's name)")
	set.add(c)
	return c
}

func feedList(sh *shell, p *place) *cobra.Command {
	return &cobra.Command{
		Use: "list [BRANCH]", Short: "List the feeds of a branch", Args: args(0, 1, "at most a branch"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p.branch = first(optional(args), p.branch)
			fs, err := sh.feeds(cmd.Context(), *p)
			if err != nil {
				return err
			}
			all, err := fs.List(cmd.Context())
			if err != nil {
				return err
			}
			if all == nil {
				all = []client.Feed{}
			}
			return sh.show(all, func() {
				var rows [][]string
				for _, f := range all {
					rows = append(rows, []string{f.CdfConfigID, f.PostgresSchema, f.Catalog + "." + f.Schema, shortTime(f.CreateTime)})
				}
				sh.table("FEED SCHEMA INTO CREATED", rows)
			})
		},
	}
}

// feedWithTables is what feed get prints with --json.
type feedWithTables struct {
	client.Feed
	Tables []client.FeedTable `json:"cdf_statuses"`
}

func feedGet(sh *shell, p *place) *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Aliases: []string{"get"}, Short: "Show a feed and how far each of its tables is", Args: args(1, 1, "the feed's id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			fs, err := sh.feeds(cmd.Context(), *p)
			if err != nil {
				return err
			}
			f, err := fs.Get(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			ts, err := fs.Tables(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if ts == nil {
				ts = []client.FeedTable{}
			}
			return sh.show(feedWithTables{f, ts}, func() {
				sh.say("Feed %s: Postgres schema %s into %s.%s", f.CdfConfigID, f.PostgresSchema, f.Catalog, f.Schema)
				for _, line := range describeFeed(f) {
					sh.say("%s", line)
				}
				if len(ts) == 0 {
					sh.say("It follows no table yet.")
					return
				}
				var rows [][]string
				for _, t := range ts {
					rows = append(rows, []string{t.PostgresTable, t.UCTable, strings.TrimPrefix(t.State, "CDF_STATE_"), dash(t.CommittedLSN), fmt.Sprint(t.Rows), shortTime(t.LastSyncTime), dash(copying(t))})
				}
				sh.table("TABLE INTO STATE LSN ROWS SYNCED DETAIL", rows)
			})
		},
	}
}

func feedDelete(sh *shell, p *place) *cobra.Command {
	var purge bool
	c := &cobra.Command{
		Use: "delete ID", Short: "Stop a feed; its Delta tables stay unless --purge", Args: args(1, 1, "the feed's id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			fs, err := sh.feeds(cmd.Context(), *p)
			if err != nil {
				return err
			}
			leftover := client.Keep
			if purge {
				leftover = client.Purge
			}
			err = sh.during("deleting feed "+args[0], func() error { return fs.Delete(cmd.Context(), args[0], leftover) })
			if err != nil {
				return err
			}
			return sh.show(wire.Empty{}, func() { sh.say("Deleted feed %s.", args[0]) })
		},
	}
	c.Flags().BoolVar(&purge, "purge", false, "delete the Delta tables too")
	return c
}
