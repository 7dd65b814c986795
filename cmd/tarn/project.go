package main

import (
	"bufio"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/client"
	"github.com/tarndb/tarn/internal/api/wire"
)

func projectCommand(sh *shell) *cobra.Command {
	c := group("project", "Projects: what a team owns; each holds branches")
	c.AddCommand(projectCreate(sh), projectList(sh), projectUpdate(sh), projectDelete(sh), projectUndelete(sh))
	return c
}

func projectCreate(sh *shell) *cobra.Command {
	var spec client.ProjectSpec
	var pgVersion int
	var history string
	c := &cobra.Command{
		Use: "create NAME", Short: "Create a project with branch production",
		Example: "  tarn project create shop\n  tarn project create shop --pg-version 17 --history 14d",
		Args:    args(1, 1, "the project's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := tarn.ParseID("project", args[0])
			if err != nil {
				return err
			}
			if pgVersion != 0 {
				spec.PgVersion = &pgVersion
			}
			if history != "" {
				d, err := parseHistory(history)
				if err != nil {
					return err
				}
				spec.HistoryRetentionDuration = wire.Duration(d)
			}
			return sh.createProject(cmd.Context(), tarn.ProjectName{Project: id}, spec)
		},
	}
	c.Flags().StringVar(&spec.DisplayName, "display-name", "", "name shown to people")
	c.Flags().IntVar(&pgVersion, "pg-version", 0, "Postgres major version (default: the newest found)")
	c.Flags().StringVar(&history, "history", "", historyHelp+" (default 7d)")
	return c
}

const historyHelp = "how far back branches can be made from and restored to, up to 35d; 0 = not at all"

// parseHistory reads --history: a length of time, or 0.
func parseHistory(s string) (time.Duration, error) {
	switch s {
	case "0", "0s", "0d":
		return 0, nil
	}
	return parseSpan(s)
}

func projectUpdate(sh *shell) *cobra.Command {
	var spec client.ProjectSpec
	var history string
	var allow []string
	c := &cobra.Command{
		Use: "update NAME", Short: "Change a project's history, display name or allowed networks",
		Long: `Change a project's history, display name, or the networks its Postgres clients may come from. A
shorter history lets go of the past before it for good; a longer one
reaches back no further than what is still there, and grows from now on. Snapshots are not concerned.`,
		Example: "  tarn project update shop --history 14d\n  tarn project update shop --history 0\n  tarn project update shop --allow-ip 10.0.0.0/8,192.0.2.7",
		Args:    args(1, 1, "the project's name"), ValidArgsFunction: completeProject(sh),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := tarn.ParseID("project", args[0])
			if err != nil {
				return err
			}
			var mask []string
			if cmd.Flags().Changed("history") {
				d, err := parseHistory(history)
				if err != nil {
					return err
				}
				spec.HistoryRetentionDuration, mask = wire.Duration(d), append(mask, "spec.history_retention_duration")
			}
			if cmd.Flags().Changed("display-name") {
				mask = append(mask, "spec.display_name")
			}
			if cmd.Flags().Changed("allow-ip") {
				if slices.Equal(allow, []string{"all"}) {
					allow = []string{}
				}
				if _, err := tarn.ParseAllowed(allow); err != nil {
					return err
				}
				spec.AllowedIPs, mask = &allow, append(mask, "spec.allowed_ips")
			}
			if len(mask) == 0 {
				return usage(cmd, "nothing to change: say --history, --display-name or --allow-ip")
			}
			return updateProject(cmd.Context(), sh, tarn.ProjectName{Project: id}, strings.Join(mask, ","), spec)
		},
	}
	c.Flags().StringVar(&spec.DisplayName, "display-name", "", "name shown to people")
	c.Flags().StringVar(&history, "history", "", historyHelp)
	c.Flags().StringSliceVar(&allow, "allow-ip", nil, "networks from which Postgres clients may connect, in place of those before, or all")
	return c
}

func updateProject(ctx context.Context, sh *shell, n tarn.ProjectName, mask string, spec client.ProjectSpec) error {
	c, err := sh.client()
	if err != nil {
		return err
	}
	var p client.Project
	err = sh.during("updating project "+n.Project, func() error {
		op, err := c.UpdateProject(ctx, n, mask, spec)
		if err != nil {
			return err
		}
		return c.WaitOperation(ctx, op, &p)
	})
	if err != nil {
		return err
	}
	return sh.show(p, func() {
		history := "no history"
		if p.Status != nil {
			if d, err := wire.ParseDuration("history", p.Status.HistoryRetentionDuration); err == nil && d > 0 {
				history = "a history of " + tarn.Span(d)
			}
		}
		sh.say("Updated project %s: its branches keep %s.", n.Project, history)
		if p.Status != nil && len(p.Status.AllowedIPs) > 0 {
			sh.say("Clients may connect from %s only.", strings.Join(p.Status.AllowedIPs, ", "))
		}
	})
}

func (sh *shell) createProject(ctx context.Context, n tarn.ProjectName, spec client.ProjectSpec) error {
	c, err := sh.client()
	if err != nil {
		return err
	}
	var p client.Project
	err = sh.making(ctx, "creating project "+n.Project, c, n.Project, func() error {
		op, err := c.CreateProject(ctx, n, spec)
		if err != nil {
			return err
		}
		return c.WaitOperation(ctx, op, &p)
	})
	if err != nil {
		return err
	}
	return sh.show(p, func() {
		sh.say("Created project %s with branch %s.", n.Project, tarn.DefaultBranch)
		sh.say("Connect: tarn psql %s", n.Project)
	})
}

func projectList(sh *shell) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List projects", Args: args(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := sh.client()
			if err != nil {
				return err
			}
			ps, err := c.Projects(cmd.Context())
			if err != nil {
				return err
			}
			if ps == nil {
				ps = []client.Project{}
			}
			return sh.show(ps, func() {
				var rows [][]string
				for _, p := range ps {
					rows = append(rows, []string{p.ProjectID, "Postgres " + strconv.Itoa(p.Status.PgVersion), dash(p.Status.Owner), shortTime(p.CreateTime)})
				}
				sh.table("PROJECT VERSION OWNER CREATED", rows)
			})
		},
	}
}

func projectDelete(sh *shell) *cobra.Command {
	var yes, keep bool
	c := &cobra.Command{
		Use: "delete NAME", Short: "Delete a project with all its branches and their data",
		Args: args(1, 1, "the project's name"), ValidArgsFunction: completeProject(sh),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := tarn.ParseID("project", args[0])
			if err != nil {
				return err
			}
			c, err := sh.client()
			if err != nil {
				return err
			}
			if !yes && !keep {
				if err := sh.confirm("delete project " + id + " with all its branches and their data"); err != nil {
					return err
				}
			}
			err = sh.during("deleting project "+id, func() error {
				op, err := c.DeleteProject(cmd.Context(), tarn.ProjectName{Project: id}, leftover(keep))
				if err != nil {
					return err
				}
				return c.WaitOperation(cmd.Context(), op, nil)
			})
			if err != nil {
				return err
			}
			return sh.show(wire.Empty{}, func() {
				sh.say("Deleted project %s.", id)
				if keep {
					sh.say("Bring it back: tarn project undelete %s", id)
				}
			})
		},
	}
	keepFlag(c, &keep)
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return c
}

// confirm asks a person; programs must say --yes, so that none deletes by
// accident what cannot be brought back.
func (sh *shell) confirm(what string) error {
	if !interactive(sh.in) {
		return &usageError{msg: "this would " + what, hint: "say --yes to do it"}
	}
	fmt.Fprintf(sh.err, "This will %s. Type yes to go on: ", what)
	answer, err := bufio.NewReader(sh.in).ReadString('\n')
	if strings.TrimSpace(answer) != "yes" {
		return tarn.Invalid("nothing was done")
	}
	return err
}
