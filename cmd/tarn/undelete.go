package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/client"
	"github.com/tarndb/tarn/internal/api/wire"
)

func keepFlag(c *cobra.Command, keep *bool) {
	c.Flags().BoolVar(keep, "keep", false, "keep its data for a week, in which undelete brings it back")
}

func leftover(keep bool) client.Leftover {
	if keep {
		return client.Keep
	}
	return client.Purge
}

func projectUndelete(sh *shell) *cobra.Command {
	return &cobra.Command{
		Use: "undelete NAME", Short: "Bring back a project that was deleted with --keep or by the API",
		Args: args(1, 1, "the project's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := tarn.ParseID("project", args[0])
			if err != nil {
				return err
			}
			c, err := sh.client()
			if err != nil {
				return err
			}
			return undelete(cmd.Context(), sh, c, tarn.ProjectName{Project: id}, "project "+id)
		},
	}
}

func branchUndelete(sh *shell) *cobra.Command {
	return &cobra.Command{
		Use: "undelete [PROJECT/]NAME", Short: "Bring back a branch that was deleted with --keep or by the API",
		Args: args(1, 1, "the branch's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := sh.client()
			if err != nil {
				return err
			}
			n, err := sh.newBranchNamed(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			return undelete(cmd.Context(), sh, c, n, "branch "+n.Project+"/"+n.Branch)
		},
	}
}

func undelete(ctx context.Context, sh *shell, c *client.Client, name fmt.Stringer, called string) error {
	err := sh.during("bringing back "+called, func() error {
		op, err := client.Undelete(ctx, c, name)
		if err != nil {
			return err
		}
		return c.WaitOperation(ctx, op, nil)
	})
	if err != nil {
		return err
	}
	return sh.show(wire.Empty{}, func() { sh.say("Brought back %s.", called) })
}
