package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/client"
)

const grantHelp = `What may be granted: USE CATALOG, USE SCHEMA, SELECT, MODIFY, CREATE TABLE,
CREATE SCHEMA, CREATE CATALOG (on the metastore), MANAGE, ALL PRIVILEGES. Write
underscores for blanks, and several with commas. What is granted on a catalog or
schema holds for everything in it. OBJECT is catalog, catalog.schema,
catalog.schema.table, or metastore.`

// objectNamed reads an object of grants by how many parts its name has.
func objectNamed(s string) (tarn.Securable, error) {
	if s == (tarn.Securable{}).FullName() {
		return tarn.Securable{}, nil
	}
	for _, t := range []tarn.SecurableType{tarn.SecurableCatalog, tarn.SecurableSchema, tarn.SecurableTable} {
		if on, err := tarn.ParseSecurable(t, s); err == nil {
			return on, nil
		}
	}
	return tarn.Securable{}, tarn.Invalid("object %q: want catalog, catalog.schema, catalog.schema.table or metastore", s)
}

func grantCommand(sh *shell) *cobra.Command {
	return &cobra.Command{
		Use: "grant PRIVILEGE[,…] OBJECT PRINCIPAL", Short: "Give a principal privileges on a catalog object", Long: "Give a user, group or service principal privileges on a catalog object.\n\n" + grantHelp,
		Example: "  tarn grant use_catalog,use_schema lake analysts\n  tarn grant select lake.gold.users ann@example.com",
		Args:    args(3, 3, "privileges, an object and a principal"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeGrants(cmd.Context(), sh, args, func(ps []string) (add, remove []string) { return ps, nil })
		},
	}
}

func revokeCommand(sh *shell) *cobra.Command {
	return &cobra.Command{
		Use: "revoke PRIVILEGE[,…] OBJECT PRINCIPAL", Short: "Take privileges on a catalog object from a principal", Long: "Take from a principal what it was granted on a catalog object.\n\n" + grantHelp,
		Example: "  tarn revoke select lake.gold.users ann@example.com",
		Args:    args(3, 3, "privileges, an object and a principal"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeGrants(cmd.Context(), sh, args, func(ps []string) (add, remove []string) { return nil, ps })
		},
	}
}

func changeGrants(ctx context.Context, sh *shell, args []string, split func([]string) (add, remove []string)) error {
	var ps []string
	for _, s := range strings.Split(args[0], ",") {
		p, err := tarn.ParsePrivilege(s)
		if err != nil {
			return err
		}
		ps = append(ps, string(p))
	}
	on, err := objectNamed(args[1])
	if err != nil {
		return err
	}
	c, err := sh.client()
	if err != nil {
		return err
	}
	add, remove := split(ps)
	g, err := client.GovernanceOf(c).Change(ctx, on, args[2], add, remove)
	if err != nil {
		return err
	}
	return sh.show(g, func() { sayGrants(sh, g) })
}

func sayGrants(sh *shell, g client.Grants) {
	var rows [][]string
	for _, a := range g.PrivilegeAssignments {
		rows = append(rows, []string{a.Principal, wordsOf(a.Privileges)})
	}
	sh.table("PRINCIPAL PRIVILEGES", rows)
}

func wordsOf(ps []string) string {
	var out []string
	for _, p := range ps {
		out = append(out, tarn.Privilege(p).Words())
	}
	return strings.Join(out, ", ")
}

func grantsCommand(sh *shell) *cobra.Command {
	c := group("grants", "What was granted on catalog objects")
	c.AddCommand(grantsShow(sh))
	return c
}

func grantsShow(sh *shell) *cobra.Command {
	var effective bool
	c := &cobra.Command{
		Use: "show OBJECT", Short: "Show what was granted on an object", Args: args(1, 1, "an object"),
		Example: "  tarn grants show lake.gold\n  tarn grants show lake.gold.users --effective",
		RunE: func(cmd *cobra.Command, args []string) error {
			on, err := objectNamed(args[0])
			if err != nil {
				return err
			}
			c, err := sh.client()
			if err != nil {
				return err
			}
			if !effective {
				g, err := client.GovernanceOf(c).Grants(cmd.Context(), on)
				if err != nil {
					return err
				}
				return sh.show(g, func() { sayGrants(sh, g) })
			}
			g, err := client.GovernanceOf(c).EffectiveGrants(cmd.Context(), on)
			if err != nil {
				return err
			}
			return sh.show(g, func() {
				var rows [][]string
				for _, a := range g.PrivilegeAssignments {
					for _, p := range a.Privileges {
						from := on.FullName()
						if p.InheritedFromName != "" {
							from = p.InheritedFromName
						}
						rows = append(rows, []string{a.Principal, tarn.Privilege(p.Privilege).Words(), from})
					}
				}
				sh.table("PRINCIPAL PRIVILEGE GRANTED_ON", rows)
			})
		},
	}
	c.Flags().BoolVar(&effective, "effective", false, "also what was granted on the schema, the catalog and the metastore")
	return c
}
