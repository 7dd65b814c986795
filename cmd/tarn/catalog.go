package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/client"
	"github.com/tarndb/tarn/internal/api/wire"
)

func catalogCommand(sh *shell) *cobra.Command {
	c := group("catalog", "Catalogs: what holds schemas and tables")
	c.AddCommand(catalogCreate(sh), catalogRegister(sh), catalogList(sh), objectShow(sh, tarn.SecurableCatalog), objectDelete(sh, tarn.SecurableCatalog))
	return c
}

func schemaCommand(sh *shell) *cobra.Command {
	c := group("schema", "Schemas of catalogs")
	c.AddCommand(schemaCreate(sh), schemaList(sh), objectShow(sh, tarn.SecurableSchema), objectDelete(sh, tarn.SecurableSchema))
	return c
}

func catalogCreate(sh *shell) *cobra.Command {
	var in client.Catalog
	c := &cobra.Command{
		Use: "create NAME", Short: "Create a catalog", Args: args(1, 1, "a name"),
		Example: "  tarn catalog create analytics --comment 'of the analysts'",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := sh.client()
			if err != nil {
				return err
			}
			in.Name = args[0]
			out, err := client.GovernanceOf(c).CreateCatalog(cmd.Context(), in)
			if err != nil {
				return err
			}
			return sh.show(out, func() { sh.say("Created catalog %s; its tables lie under %s.", out.Name, out.StorageRoot) })
		},
	}
	c.Flags().StringVar(&in.Comment, "comment", "", "what it is for")
	c.Flags().StringVar(&in.StorageRoot, "root", "", "URL of the folder of its tables (default: beside catalog lake's); admins only")
	return c
}

func catalogRegister(sh *shell) *cobra.Command {
	var in client.RegisteredSpec
	c := &cobra.Command{
		Use: "register NAME [BRANCH]", Short: "Show a Postgres database as a catalog, for reading", Args: args(1, 2, "a name for the catalog"),
		Long: `Show a database of a branch as a catalog: its schemas, tables and views are listed, and SQL
reads them beside Delta tables. The catalog follows the database while that is awake and goes
with its branch.`,
		Example: "  tarn catalog register shop_pg shop\n  tarn sql 'SELECT count(*) FROM shop_pg.public.orders'",
		ValidArgsFunction: func(cmd *cobra.Command, args []string, to string) ([]string, cobra.ShellCompDirective) {
			if len(args) != 1 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return branchNames(sh)(cmd, nil, to)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := sh.client()
			if err != nil {
				return err
			}
			b, err := sh.branchNamed(cmd.Context(), c, optional(args[1:]))
			if err != nil {
				return err
			}
			in.Branch = b.String()
			op, err := client.GovernanceOf(c).Register(cmd.Context(), args[0], in)
			if err != nil {
				return err
			}
			var out client.Registered
			if err := c.WaitOperation(cmd.Context(), op, &out); err != nil {
				return err
			}
			return sh.show(out, func() {
				sh.say("Catalog %s shows database %s of %s/%s.", args[0], in.PostgresDatabase, b.Project, b.Branch)
			})
		},
	}
	c.Flags().StringVar(&in.PostgresDatabase, "dbname", tarn.DefaultDatabase, "Postgres database")
	return c
}

func catalogList(sh *shell) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the catalogs you may see", Args: args(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := sh.client()
			if err != nil {
				return err
			}
			all, err := client.GovernanceOf(c).Catalogs(cmd.Context())
			if err != nil {
				return err
			}
			return sh.show(all, func() {
				var rows [][]string
				for _, x := range all {
					rows = append(rows, []string{x.Name, x.CatalogType, dash(x.Owner), dash(x.Comment)})
				}
				sh.table("CATALOG TYPE OWNER COMMENT", rows)
			})
		},
	}
}

func schemaCreate(sh *shell) *cobra.Command {
	var comment string
	c := &cobra.Command{
		Use: "create CATALOG.SCHEMA", Short: "Create a schema", Args: args(1, 1, "a name catalog.schema"),
		RunE: func(cmd *cobra.Command, args []string) error {
			on, err := tarn.ParseSecurable(tarn.SecurableSchema, args[0])
			if err != nil {
				return err
			}
			c, err := sh.client()
			if err != nil {
				return err
			}
			out, err := client.GovernanceOf(c).CreateSchema(cmd.Context(), client.Schema{Name: on.Schema, CatalogName: on.Catalog, Comment: comment})
			if err != nil {
				return err
			}
			return sh.show(out, func() { sh.say("Created schema %s.", out.FullName) })
		},
	}
	c.Flags().StringVar(&comment, "comment", "", "what it is for")
	return c
}

func schemaList(sh *shell) *cobra.Command {
	return &cobra.Command{
		Use: "list CATALOG", Short: "List the schemas of a catalog that you may see", Args: args(1, 1, "a catalog"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := sh.client()
			if err != nil {
				return err
			}
			all, err := client.GovernanceOf(c).Schemas(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return sh.show(all, func() {
				var rows [][]string
				for _, x := range all {
					rows = append(rows, []string{x.FullName, dash(x.Owner), dash(x.Comment)})
				}
				sh.table("SCHEMA OWNER COMMENT", rows)
			})
		},
	}
}

// objectShow shows a catalog or a schema.
func objectShow(sh *shell, t tarn.SecurableType) *cobra.Command {
	word := strings.ToLower(string(t))
	return &cobra.Command{
		Use: "show NAME", Short: "Show a " + word, Args: args(1, 1, "a name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			on, err := tarn.ParseSecurable(t, args[0])
			if err != nil {
				return err
			}
			c, err := sh.client()
			if err != nil {
				return err
			}
			g := client.GovernanceOf(c)
			if t == tarn.SecurableSchema {
				s, err := g.Schema(cmd.Context(), on)
				if err != nil {
					return err
				}
				return sh.show(s, func() {
					sh.rows([][]string{{"schema", s.FullName}, {"owner", dash(s.Owner)}, {"comment", dash(s.Comment)}, {"id", dash(s.SchemaID)}})
				})
			}
			x, err := g.Catalog(cmd.Context(), on.Catalog)
			if err != nil {
				return err
			}
			return sh.show(x, func() {
				sh.rows([][]string{{"catalog", x.Name}, {"type", x.CatalogType}, {"owner", dash(x.Owner)}, {"comment", dash(x.Comment)}, {"root", dash(x.StorageRoot)}, {"id", dash(x.ID)}})
			})
		},
	}
}

// objectDelete deletes a catalog or a schema.
func objectDelete(sh *shell, t tarn.SecurableType) *cobra.Command {
	word := strings.ToLower(string(t))
	var force bool
	c := &cobra.Command{
		Use: "delete NAME", Short: "Delete a " + word + "; files of its tables stay", Args: args(1, 1, "a name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			on, err := tarn.ParseSecurable(t, args[0])
			if err != nil {
				return err
			}
			c, err := sh.client()
			if err != nil {
				return err
			}
			if err := client.GovernanceOf(c).Delete(cmd.Context(), on, force); err != nil {
				return err
			}
			return sh.show(wire.Empty{}, func() { sh.say("Deleted %s.", on) })
		},
	}
	c.Flags().BoolVar(&force, "force", false, "also when it holds something, which then goes too")
	return c
}
