package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/client"
)

// completion gives what a shell offers for an argument or a flag's value.
type completion = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)

// completePatience bounds how long a shell waits for names: it is typing.
const completePatience = 2 * time.Second

// completing builds a completion from a listing of names. A server that does
// not answer offers nothing. Only the first argument is completed.
func completing(sh *shell, list func(ctx context.Context, c *client.Client, typed string) ([]string, error)) completion {
	return func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completePatience)
		defer cancel()
		c, err := sh.client()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		names, err := list(ctx, c, typed)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var fit []string
		for _, n := range names {
			if strings.HasPrefix(n, typed) {
				fit = append(fit, n)
			}
		}
		return fit, cobra.ShellCompDirectiveNoFileComp
	}
}

// firstOnly offers nothing for arguments after the first.
func firstOnly(f completion) completion {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return f(cmd, args, typed)
	}
}

// completeFlag offers values for a flag of cmd, which must have it.
func completeFlag(cmd *cobra.Command, flag string, f completion) {
	if err := cmd.RegisterFlagCompletionFunc(flag, f); err != nil {
		panic(err) // our own bug: there is no such flag
	}
}

func completeProject(sh *shell) completion {
	return firstOnly(completing(sh, func(ctx context.Context, c *client.Client, _ string) ([]string, error) {
		ps, err := c.Projects(ctx)
		var names []string
		for _, p := range ps {
			names = append(names, p.ProjectID)
		}
		return names, err
	}))
}

// inProject lists names of one project as they are typed: with the project
// where that was typed, or where nobody knows which is meant.
func inProject(ctx context.Context, sh *shell, c *client.Client, typed string, list func(tarn.ProjectName) ([]string, error)) ([]string, error) {
	project, _, both := strings.Cut(typed, "/")
	p, prefix := tarn.ProjectName{Project: project}, project+"/"
	if !both {
		var err error
		if p, err = sh.projectNamed(ctx, c, ""); err != nil {
			ps, err := c.Projects(ctx)
			var names []string
			for _, p := range ps {
				names = append(names, p.ProjectID+"/")
			}
			return names, err
		}
		prefix = ""
	}
	ids, err := list(p)
	for i := range ids {
		ids[i] = prefix + ids[i]
	}
	return ids, err
}

func branchNames(sh *shell) completion {
	return completing(sh, func(ctx context.Context, c *client.Client, typed string) ([]string, error) {
		return inProject(ctx, sh, c, typed, func(p tarn.ProjectName) ([]string, error) {
			bs, err := c.Branches(ctx, p)
			var ids []string
			for _, b := range bs {
				ids = append(ids, b.BranchID)
			}
			return ids, err
		})
	})
}

func completeBranch(sh *shell) completion { return firstOnly(branchNames(sh)) }

func completeSnapshot(sh *shell) completion {
	return completing(sh, func(ctx context.Context, c *client.Client, typed string) ([]string, error) {
		return inProject(ctx, sh, c, typed, func(p tarn.ProjectName) ([]string, error) {
			all, err := c.Snapshots(p).List(ctx)
			var ids []string
			for _, s := range all {
				ids = append(ids, s.SnapshotID)
			}
			return ids, err
		})
	})
}
