package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tarndb/tarn/client"
	"github.com/tarndb/tarn/internal/api"
	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/delta"
)

func tableCommand(sh *shell) *cobra.Command {
	c := group("table", "Delta tables: of the catalog, or in any folder with --path")
	c.Long = c.Short + ".\n\nA table that needs a Delta feature Tarn does not know is refused with exit code 3\nand the feature's name on standard error."
	c.AddCommand(tableList(sh), tableShow(sh), tableHead(sh), tableRead(sh), tableCount(sh), tableHistory(sh), tableChanges(sh),
		tableOptimize(sh), tableVacuum(sh), tableRestore(sh), tableRegister(sh), tableDrop(sh))
	return c
}

// source says which table is meant, and at which version.
type source struct {
	path    string
	version int64
}

func (s *source) register(c *cobra.Command) {
	c.Flags().StringVar(&s.path, "path", "", "folder, file:// or s3:// URL of a table, used without a server")
}

func (s *source) registerVersion(c *cobra.Command) {
	c.Flags().Int64Var(&s.version, "version", client.Latest, "version of the table (default: the newest)")
}

// args wants a name or --path.
func (s *source) args(c *cobra.Command, got []string) error {
	if s.path != "" && len(got) == 0 || s.path == "" && len(got) == 1 {
		return nil
	}
	return usage(c, "%s wants one table: a name catalog.schema.table, or --path FOLDER", c.CommandPath())
}

// snapshot opens the table at --path.
func (s *source) snapshot(ctx context.Context) (*delta.Snapshot, error) {
	t, err := tableAt(ctx, s.path)
	if err != nil {
		return nil, err
	}
	if s.version >= 0 {
		return t.At(ctx, s.version)
	}
	return t.Latest(ctx)
}

func tableList(sh *shell) *cobra.Command {
	return &cobra.Command{
		Use: "list [CATALOG[.SCHEMA]]", Short: "List the tables of the catalog", Args: args(0, 1, "at most a catalog or schema"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := sh.client()
			if err != nil {
				return err
			}
			catalog, schema, _ := strings.Cut(optional(args), ".")
			ts, err := c.Tables().List(cmd.Context(), catalog, schema)
			if err != nil {
				return err
			}
			if ts == nil {
				ts = []client.CatalogTable{}
			}
			return sh.show(ts, func() {
				var rows [][]string
				for _, t := range ts {
					rows = append(rows, []string{t.FullName, t.DataSourceFormat, dash(t.Owner), dash(t.StorageLocation)})
				}
				sh.table("TABLE FORMAT OWNER LOCATION", rows)
			})
		},
	}
}

func tableHead(sh *shell) *cobra.Command {
	var s source
	var limit int64
	c := &cobra.Command{
		Use: "head NAME | head --path FOLDER", Short: "Show a table's first rows",
		Example: "  tarn table head lake.gold.users -n 5\n  tarn table head --path ./lake/gold/users",
		Args:    s.args,
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 1 {
				return usage(cmd, "-n wants at least 1 row")
			}
			rows, err := sh.head(cmd.Context(), s, optional(args), limit)
			if err != nil {
				return err
			}
			return sh.show(rows, func() { printRows(sh, rows) })
		},
	}
	s.register(c)
	s.registerVersion(c)
	c.Flags().Int64VarP(&limit, "rows", "n", 10, "how many rows")
	return c
}

func (sh *shell) head(ctx context.Context, s source, name string, limit int64) (client.TableRows, error) {
	if s.path != "" {
		snap, err := s.snapshot(ctx)
		if err != nil {
			return client.TableRows{}, err
		}
		return api.Head(ctx, s.path, snap, limit)
	}
	c, n, err := sh.tableNamed(name)
	if err != nil {
		return client.TableRows{}, err
	}
	return c.Tables().Head(ctx, n, s.version, limit)
}

func printRows(sh *shell, t client.TableRows) {
	var names []string
	for _, c := range t.Columns {
		names = append(names, strings.ReplaceAll(c.Name, " ", "_"))
	}
	var rows [][]string
	for _, r := range t.Rows {
		var row []string
		for _, v := range r {
			row = append(row, cell(v))
		}
		rows = append(rows, row)
	}
	sh.table(strings.Join(names, " "), rows)
}

// cell shows a JSON value to people: strings without quotes, on one line.
func cell(v json.RawMessage) string {
	var s string
	if json.Unmarshal(v, &s) != nil || string(v) == "null" {
		return string(v)
	}
	return strings.NewReplacer("\n", `\n`, "\t", `\t`, "\r", `\r`).Replace(s)
}

func tableCount(sh *shell) *cobra.Command {
	var s source
	c := &cobra.Command{
		Use: "count NAME | count --path FOLDER", Short: "Count a table's rows; prints the number alone",
		Args: s.args,
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := sh.count(cmd.Context(), s, optional(args))
			if err != nil {
				return err
			}
			return sh.show(n, func() { sh.say("%d", n.Count) })
		},
	}
	s.register(c)
	s.registerVersion(c)
	return c
}

func (sh *shell) count(ctx context.Context, s source, name string) (client.TableCount, error) {
	if s.path != "" {
		snap, err := s.snapshot(ctx)
		if err != nil {
			return client.TableCount{}, err
		}
		return api.Count(ctx, s.path, snap)
	}
	c, n, err := sh.tableNamed(name)
	if err != nil {
		return client.TableCount{}, err
	}
	return c.Tables().Count(ctx, n, s.version)
}

func tableHistory(sh *shell) *cobra.Command {
	var s source
	var limit int64
	c := &cobra.Command{
		Use: "history NAME | history --path FOLDER", Short: "List a table's commits, newest first",
		Args: s.args,
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 0 {
				return usage(cmd, "-n wants a number that is not negative")
			}
			h, err := sh.history(cmd.Context(), s, optional(args), limit)
			if err != nil {
				return err
			}
			return sh.show(h, func() {
				var rows [][]string
				for _, c := range h.Commits {
					rows = append(rows, []string{fmt.Sprint(c.Version), shortTime(c.Timestamp), dash(c.Operation)})
				}
				sh.table("VERSION TIME OPERATION", rows)
			})
		},
	}
	s.register(c)
	c.Flags().Int64VarP(&limit, "limit", "n", 0, "how many commits (default: all)")
	return c
}

func (sh *shell) history(ctx context.Context, s source, name string, limit int64) (client.TableHistory, error) {
	if s.path != "" {
		t, err := tableAt(ctx, s.path)
		if err != nil {
			return client.TableHistory{}, err
		}
		return api.History(ctx, s.path, t, int(limit))
	}
	c, n, err := sh.tableNamed(name)
	if err != nil {
		return client.TableHistory{}, err
	}
	return c.Tables().History(ctx, n, limit)
}

func tableRegister(sh *shell) *cobra.Command {
	return &cobra.Command{
		Use: "register NAME LOCATION", Short: "Register a Delta table that lies in a folder with the catalog",
		Example: "  tarn table register lake.gold.users ./lake/gold/users",
		Args:    args(2, 2, "a name catalog.schema.table and a folder or URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, n, err := sh.tableNamed(args[0])
			if err != nil {
				return err
			}
			location, err := locationURL(args[1])
			if err != nil {
				return err
			}
			t, err := c.Tables().Register(cmd.Context(), n, location)
			if err != nil {
				return err
			}
			return sh.show(t, func() { sh.say("Registered %s at %s.", t.FullName, t.StorageLocation) })
		},
	}
}

func tableDrop(sh *shell) *cobra.Command {
	return &cobra.Command{
		Use: "drop NAME", Short: "Remove a table from the catalog; its files stay", Args: args(1, 1, "the table's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, n, err := sh.tableNamed(args[0])
			if err != nil {
				return err
			}
			if err := c.Tables().Drop(cmd.Context(), n); err != nil {
				return err
			}
			return sh.show(wire.Empty{}, func() { sh.say("Dropped %s from the catalog; its files stay.", n) })
		},
	}
}
