package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/client"
	"github.com/tarndb/tarn/internal/api/wire"
)

func principalCommand(sh *shell) *cobra.Command {
	c := group("principal", "Users and service principals: who may ask")
	c.AddCommand(principalCreate(sh), principalList(sh), principalShow(sh), principalSwitch(sh, "enable", "Let a principal sign in again", true),
		principalSwitch(sh, "disable", "End a principal's sign-ins and allow no others", false),
		principalPassword(sh), principalSecret(sh), principalDelete(sh))
	return c
}

// typeWords are the types as people type them.
var typeWords = map[string]tarn.PrincipalType{"user": tarn.PrincipalUser, "service-principal": tarn.PrincipalService, "group": tarn.PrincipalGroup}

func typeWord(u client.User) string {
	return strings.ToLower(strings.ReplaceAll(string(client.TypeOf(u)), "_", "-"))
}

func principalCreate(sh *shell) *cobra.Command {
	var service, admin bool
	var display string
	c := &cobra.Command{
		Use: "create NAME", Short: "Create a user or a service principal",
		Long: `Create a user, whose name is an e-mail address, or a service principal, whose name is shown to people and
which gets an application id to sign in with. Neither can use a project before it is given a permission on it.`,
		Example: "  tarn principal create ada@example.com\n  tarn principal create --service nightly-job",
		Args:    args(1, 1, "the principal's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := sh.client()
			if err != nil {
				return err
			}
			in, t := client.User{UserName: args[0], DisplayName: display}, tarn.PrincipalUser
			if service {
				in, t = client.User{DisplayName: args[0]}, tarn.PrincipalService
			}
			u, err := client.PrincipalsOf(c).Create(cmd.Context(), t, in)
			if err != nil {
				return err
			}
			if admin {
				admins, err := client.PrincipalsOf(c).Find(cmd.Context(), tarn.AdminsGroup)
				if err != nil {
					return err
				}
				if _, err := client.PrincipalsOf(c).Change(cmd.Context(), admins, members("add", u.ID)); err != nil {
					return err
				}
			}
			return sh.show(u, func() {
				sh.say("Created %s %s.", strings.ReplaceAll(typeWord(u), "-", " "), client.NameOf(u))
				if service {
					sh.say("Give it a secret:  tarn principal secret create %s", client.NameOf(u))
				} else {
					sh.say("Give it a password for the sign-in page:  tarn principal password %s", client.NameOf(u))
				}
			})
		},
	}
	c.Flags().BoolVar(&service, "service", false, "make a service principal: a program, not a person")
	c.Flags().BoolVar(&admin, "admin", false, "enter it in group admins")
	c.Flags().StringVar(&display, "display-name", "", "name shown to people")
	return c
}

func principalList(sh *shell) *cobra.Command {
	var kind string
	c := &cobra.Command{
		Use: "list", Short: "List users, service principals and groups", Args: args(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			types := []tarn.PrincipalType{tarn.PrincipalUser, tarn.PrincipalService, tarn.PrincipalGroup}
			if kind != "" {
				t, ok := typeWords[kind]
				if !ok {
					return usage(cmd, "--type %q: want user, service-principal or group", kind)
				}
				types = []tarn.PrincipalType{t}
			}
			c, err := sh.client()
			if err != nil {
				return err
			}
			all := []client.User{}
			for _, t := range types {
				us, err := client.PrincipalsOf(c).List(cmd.Context(), t, "")
				if err != nil {
					return err
				}
				all = append(all, us...)
			}
			return sh.show(all, func() { sh.table("NAME TYPE STATE DISPLAY-NAME GROUPS", principalRows(all)) })
		},
	}
	c.Flags().StringVar(&kind, "type", "", "only these: user, service-principal or group")
	completeFlag(c, "type", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return []string{"user", "service-principal", "group"}, cobra.ShellCompDirectiveNoFileComp
	})
	return c
}

func principalRows(us []client.User) (rows [][]string) {
	for _, u := range us {
		state := "active"
		if u.Active != nil && !*u.Active {
			state = "disabled"
		}
		shown := u.DisplayName
		if shown == client.NameOf(u) {
			shown = ""
		}
		rows = append(rows, []string{client.NameOf(u), typeWord(u), state, dash(shown), dash(displays(u.Groups))})
	}
	return rows
}

func displays(vs []wire.ScimValue) string {
	var out []string
	for _, v := range vs {
		out = append(out, v.Display)
	}
	return strings.Join(out, ",")
}

// withPrincipal is a command that does something with one principal.
func withPrincipal(sh *shell, c *cobra.Command, do func(ctx context.Context, c *client.Client, u client.User, args []string) error) *cobra.Command {
	if c.Args == nil {
		c.Args = args(1, 1, "the principal's name")
	}
	c.ValidArgsFunction = completePrincipal(sh)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := sh.client()
		if err != nil {
			return err
		}
		u, err := client.PrincipalsOf(c).Find(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return do(cmd.Context(), c, u, args[1:])
	}
	return c
}

func completePrincipal(sh *shell) completion {
	return firstOnly(completing(sh, func(ctx context.Context, c *client.Client, _ string) ([]string, error) {
		var names []string
		for _, t := range typeWords {
			us, err := client.PrincipalsOf(c).List(ctx, t, "")
			if err != nil {
				return nil, err
			}
			for _, u := range us {
				names = append(names, client.NameOf(u))
			}
		}
		return names, nil
	}))
}

func principalShow(sh *shell) *cobra.Command {
	return withPrincipal(sh, &cobra.Command{Use: "show NAME", Short: "Show a principal"},
		func(_ context.Context, _ *client.Client, u client.User, _ []string) error {
			return sh.show(u, func() {
				rows := principalRows([]client.User{u})[0]
				out := [][]string{{"name", rows[0]}, {"id", u.ID}, {"type", rows[1]}, {"state", rows[2]}, {"display name", rows[3]}, {"groups", rows[4]}}
				if client.TypeOf(u) == tarn.PrincipalGroup {
					out = append(out, []string{"members", dash(displays(u.Members))})
				}
				sh.rows(out)
			})
		})
}

func principalSwitch(sh *shell, verb, short string, active bool) *cobra.Command {
	return withPrincipal(sh, &cobra.Command{Use: verb + " NAME", Short: short},
		func(ctx context.Context, c *client.Client, u client.User, _ []string) error {
			u, err := client.PrincipalsOf(c).Change(ctx, u, client.Change{Op: "replace", Path: "active", Value: active})
			if err != nil {
				return err
			}
			return sh.show(u, func() { sh.say("%s is %sd.", client.NameOf(u), verb) })
		})
}

func principalDelete(sh *shell) *cobra.Command {
	return withPrincipal(sh, &cobra.Command{
		Use: "delete NAME", Short: "Delete a principal with its tokens, secrets and permissions",
		Long: "Delete a principal with its tokens, secrets, memberships and permissions. Postgres roles of its name stay,\nand nobody can log in as them with a token.",
	}, func(ctx context.Context, c *client.Client, u client.User, _ []string) error {
		if err := client.PrincipalsOf(c).Delete(ctx, u); err != nil {
			return err
		}
		return sh.show(wire.Empty{}, func() { sh.say("Deleted %s.", client.NameOf(u)) })
	})
}

func principalPassword(sh *shell) *cobra.Command {
	var remove bool
	c := &cobra.Command{
		Use: "password [NAME]", Short: "Set a user's password for the sign-in page, from standard input",
		Example: "  tarn principal password\n  printf %s \"$PASSWORD\" | tarn principal password ada@example.com",
		Args:    args(0, 1, "a user's name, or none for your own"), ValidArgsFunction: completePrincipal(sh),
		RunE: func(cmd *cobra.Command, args []string) error {
			var name string
			if len(args) == 1 {
				name = args[0]
			}
			var password string
			if !remove {
				var err error
				if password, err = readSecret(sh, "Password: "); err != nil {
					return err
				}
				if password == "" {
					return usage(cmd, "no password on standard input; --remove takes it away")
				}
			}
			c, err := sh.client()
			if err != nil {
				return err
			}
			if err := client.PrincipalsOf(c).SetPassword(cmd.Context(), name, tarn.Secret(password)); err != nil {
				return err
			}
			return sh.show(wire.Empty{}, func() {
				if remove {
					sh.say("The password is gone.")
				} else {
					sh.say("The password is set. Sign in with:  tarn login")
				}
			})
		},
	}
	c.Flags().BoolVar(&remove, "remove", false, "take the password away")
	return c
}

// readSecret reads one line, without showing it when a person types.
func readSecret(sh *shell, prompt string) (string, error) {
	if interactive(sh.in) {
		return hidden(sh, prompt)
	}
	b, err := io.ReadAll(io.LimitReader(sh.in, 4<<10))
	if err != nil {
		return "", fmt.Errorf("read from standard input: %w", err)
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}

func principalSecret(sh *shell) *cobra.Command {
	c := group("secret", "Secrets of a service principal")
	c.AddCommand(secretCreate(sh), secretList(sh), secretDelete(sh))
	return c
}

func secretCreate(sh *shell) *cobra.Command {
	var ttl string
	c := withPrincipal(sh, &cobra.Command{
		Use: "create NAME", Short: "Create a secret and print it, this once",
		Example: "  tarn principal secret create nightly-job --ttl 90d",
	}, func(ctx context.Context, c *client.Client, u client.User, _ []string) error {
		var life time.Duration
		if ttl != "" {
			var err error
			if life, err = parseSpan(ttl); err != nil {
				return err
			}
		}
		s, err := client.PrincipalsOf(c).CreateSecret(ctx, u, life)
		if err != nil {
			return err
		}
		return sh.show(s, func() {
			sh.note("client id %s, secret:", client.NameOf(u))
			sh.say("%s", s.Secret)
		})
	})
	c.Flags().StringVar(&ttl, "ttl", "", "how long it works, e.g. 90d (default: until deleted)")
	return c
}

func secretList(sh *shell) *cobra.Command {
	return withPrincipal(sh, &cobra.Command{Use: "list NAME", Short: "List secrets without their values"},
		func(ctx context.Context, c *client.Client, u client.User, _ []string) error {
			all, err := client.PrincipalsOf(c).Secrets(ctx, u)
			if err != nil {
				return err
			}
			return sh.show(all, func() {
				var rows [][]string
				for _, s := range all {
					expires := "never"
					if s.ExpireTime != "" {
						expires = shortTime(s.ExpireTime)
					}
					rows = append(rows, []string{s.ID, shortTime(s.CreateTime), expires})
				}
				sh.table("ID CREATED EXPIRES", rows)
			})
		})
}

func secretDelete(sh *shell) *cobra.Command {
	return withPrincipal(sh, &cobra.Command{Use: "delete NAME ID", Short: "End a secret", Args: args(2, 2, "the principal's name and the secret's id")},
		func(ctx context.Context, c *client.Client, u client.User, args []string) error {
			if err := client.PrincipalsOf(c).DeleteSecret(ctx, u, args[0]); err != nil {
				return err
			}
			return sh.show(wire.Empty{}, func() { sh.say("Deleted secret %s.", args[0]) })
		})
}
