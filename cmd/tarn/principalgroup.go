package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/client"
	"github.com/tarndb/tarn/internal/api/wire"
)

func groupCommand(sh *shell) *cobra.Command {
	c := group("group", "Groups of users, service principals and groups")
	c.AddCommand(groupCreate(sh), groupList(sh), groupMembers(sh, "add", "Enter members in a group"), groupMembers(sh, "remove", "Take members out of a group"),
		withGroup(sh, &cobra.Command{Use: "show NAME", Short: "Show a group and its members"}, func(_ context.Context, _ *client.Client, u client.User) error {
			return sh.show(u, func() {
				sh.rows([][]string{{"name", u.DisplayName}, {"id", u.ID}, {"members", dash(displays(u.Members))}, {"in groups", dash(displays(u.Groups))}})
			})
		}),
		withGroup(sh, &cobra.Command{Use: "delete NAME", Short: "Delete a group; its members stay"}, func(ctx context.Context, c *client.Client, u client.User) error {
			if err := client.PrincipalsOf(c).Delete(ctx, u); err != nil {
				return err
			}
			return sh.show(wire.Empty{}, func() { sh.say("Deleted group %s.", u.DisplayName) })
		}))
	return c
}

// members is a change of a group's members.
func members(op string, ids ...string) client.Change {
	vs := []wire.ScimValue{}
	for _, id := range ids {
		vs = append(vs, wire.ScimValue{Value: id})
	}
	return client.Change{Op: op, Path: "members", Value: vs}
}

func findAll(ctx context.Context, c *client.Client, names []string) (ids []string, err error) {
	for _, n := range names {
		u, err := client.PrincipalsOf(c).Find(ctx, n)
		if err != nil {
			return nil, err
		}
		ids = append(ids, u.ID)
	}
	return ids, nil
}

func groupCreate(sh *shell) *cobra.Command {
	return &cobra.Command{
		Use: "create NAME [MEMBER]...", Short: "Create a group",
		Example: "  tarn group create analysts ada@example.com bob@example.com",
		Args:    args(1, 1000, "the group's name, and perhaps members"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := sh.client()
			if err != nil {
				return err
			}
			ids, err := findAll(cmd.Context(), c, args[1:])
			if err != nil {
				return err
			}
			in := client.User{DisplayName: args[0]}
			for _, id := range ids {
				in.Members = append(in.Members, wire.ScimValue{Value: id})
			}
			u, err := client.PrincipalsOf(c).Create(cmd.Context(), tarn.PrincipalGroup, in)
			if err != nil {
				return err
			}
			return sh.show(u, func() { sh.say("Created group %s with %d members.", u.DisplayName, len(u.Members)) })
		},
	}
}

func groupList(sh *shell) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List groups", Args: args(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := sh.client()
			if err != nil {
				return err
			}
			all, err := client.PrincipalsOf(c).List(cmd.Context(), tarn.PrincipalGroup, "")
			if err != nil {
				return err
			}
			return sh.show(all, func() {
				var rows [][]string
				for _, u := range all {
					in := displays(u.Members)
					if u.DisplayName == tarn.UsersGroup {
						in = "(everybody)"
					}
					rows = append(rows, []string{u.DisplayName, dash(in)})
				}
				sh.table("NAME MEMBERS", rows)
			})
		},
	}
}

func withGroup(sh *shell, c *cobra.Command, do func(ctx context.Context, c *client.Client, u client.User) error) *cobra.Command {
	return withPrincipal(sh, c, func(ctx context.Context, c *client.Client, u client.User, _ []string) error {
		if client.TypeOf(u) != tarn.PrincipalGroup {
			return tarn.Invalid("%s is no group", client.NameOf(u))
		}
		return do(ctx, c, u)
	})
}

func groupMembers(sh *shell, op, short string) *cobra.Command {
	return withPrincipal(sh, &cobra.Command{
		Use: op + " GROUP MEMBER...", Short: short, Example: "  tarn group " + op + " analysts ada@example.com",
		Args: args(2, 1000, "the group's name and members"),
	}, func(ctx context.Context, c *client.Client, u client.User, names []string) error {
		if client.TypeOf(u) != tarn.PrincipalGroup {
			return tarn.Invalid("%s is no group", client.NameOf(u))
		}
		ids, err := findAll(ctx, c, names)
		if err != nil {
			return err
		}
		if u, err = client.PrincipalsOf(c).Change(ctx, u, members(op, ids...)); err != nil {
			return err
		}
		return sh.show(u, func() { sh.say("Group %s now has: %s", u.DisplayName, dash(displays(u.Members))) })
	})
}

func permissionCommand(sh *shell) *cobra.Command {
	c := group("permission", "Who may do what with a project")
	c.AddCommand(permissionList(sh), permissionGrant(sh), permissionRevoke(sh))
	return c
}

func permissionList(sh *shell) *cobra.Command {
	return &cobra.Command{
		Use: "list PROJECT", Short: "List who may do what with a project",
		Args: args(1, 1, "the project's name"), ValidArgsFunction: completeProject(sh),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, n, err := projectArg(sh, args[0])
			if err != nil {
				return err
			}
			p, err := client.PrincipalsOf(c).Permissions(cmd.Context(), n)
			if err != nil {
				return err
			}
			return showPermissions(sh, p)
		},
	}
}

func projectArg(sh *shell, name string) (*client.Client, tarn.ProjectName, error) {
	id, err := tarn.ParseID("project", name)
	if err != nil {
		return nil, tarn.ProjectName{}, err
	}
	c, err := sh.client()
	return c, tarn.ProjectName{Project: id}, err
}

func showPermissions(sh *shell, p client.ObjectPermissions) error {
	return sh.show(p, func() {
		var rows [][]string
		for _, a := range p.List {
			for _, l := range a.AllPermissions {
				from := "given here"
				if l.Inherited {
					from = "of the workspace"
				}
				rows = append(rows, []string{first(a.UserName, a.ServiceName, a.GroupName), l.PermissionLevel, from})
			}
		}
		sh.table("PRINCIPAL LEVEL FROM", rows)
	})
}

const levelHelp = `  CAN_CREATE  see it
  CAN_USE     also get credentials, wake it, make roles, databases and synced tables
  CAN_MANAGE  also change and delete it, and say who else may`

func permissionGrant(sh *shell) *cobra.Command {
	return &cobra.Command{
		Use: "grant PROJECT PRINCIPAL LEVEL", Short: "Give a principal a level on a project",
		Long:    "Give a principal a level on a project, in place of the one it had:\n\n" + levelHelp,
		Example: "  tarn permission grant shop analysts CAN_USE",
		Args:    args(3, 3, "a project, a principal and a level"), ValidArgsFunction: completeProject(sh),
		RunE: func(cmd *cobra.Command, args []string) error {
			l := tarn.Level(strings.ToUpper(strings.ReplaceAll(args[2], "-", "_")))
			if !l.Covers(tarn.CanCreate) {
				return usage(cmd, "no level %q; there are CAN_CREATE, CAN_USE and CAN_MANAGE", args[2])
			}
			c, n, err := projectArg(sh, args[0])
			if err != nil {
				return err
			}
			u, err := client.PrincipalsOf(c).Find(cmd.Context(), args[1])
			if err != nil {
				return err
			}
			p, err := client.PrincipalsOf(c).Grant(cmd.Context(), n, u, l)
			if err != nil {
				return err
			}
			return showPermissions(sh, p)
		},
	}
}

func permissionRevoke(sh *shell) *cobra.Command {
	return &cobra.Command{
		Use: "revoke PROJECT PRINCIPAL", Short: "Take a principal's level on a project away",
		Args: args(2, 2, "a project and a principal"), ValidArgsFunction: completeProject(sh),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, n, err := projectArg(sh, args[0])
			if err != nil {
				return err
			}
			u, err := client.PrincipalsOf(c).Find(cmd.Context(), args[1])
			if err != nil {
				return err
			}
			p, err := client.PrincipalsOf(c).Ungrant(cmd.Context(), n, u)
			if err != nil {
				return err
			}
			return showPermissions(sh, p)
		},
	}
}
