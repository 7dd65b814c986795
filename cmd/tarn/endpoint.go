package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/client"
	"github.com/tarndb/tarn/internal/api/wire"
)

func endpointCommand(sh *shell) *cobra.Command {
	c := group("endpoint", "Endpoints: the addresses through which branches are reached")
	c.AddCommand(endpointList(sh), endpointWake(sh), endpointSuspend(sh))
	return c
}

func endpointList(sh *shell) *cobra.Command {
	return &cobra.Command{
		Use: "list [PROJECT]", Short: "List the endpoints of a project's branches",
		Args: args(0, 1, "at most a project's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := sh.client()
			if err != nil {
				return err
			}
			p, err := sh.projectNamed(cmd.Context(), c, optional(args))
			if err != nil {
				return err
			}
			es, err := endpointsOf(cmd.Context(), c, p)
			if err != nil {
				return err
			}
			return sh.show(es, func() {
				var rows [][]string
				for _, e := range es {
					rows = append(rows, endpointRow(e))
				}
				sh.table("BRANCH ENDPOINT STATE HOST CU SUSPEND ACTIVE", rows)
			})
		},
	}
}

func endpointsOf(ctx context.Context, c *client.Client, p tarn.ProjectName) ([]client.Endpoint, error) {
	bs, err := c.Branches(ctx, p)
	if err != nil {
		return nil, err
	}
	all := []client.Endpoint{}
	for _, b := range bs {
		es, err := c.Endpoints(ctx, p.Branch(b.BranchID))
		if err != nil {
			return nil, err
		}
		all = append(all, es...)
	}
	return all, nil
}

func endpointRow(e client.Endpoint) []string {
	st, host, state, suspend := e.Status, "-", e.Status.CurrentState, "never"
	if st.Hosts != nil {
		host = dash(st.Hosts.Host)
	}
	if st.Disabled {
		state = "DISABLED"
	}
	if st.SuspendTimeoutDuration != "" {
		suspend = st.SuspendTimeoutDuration
	}
	cu := fmt.Sprintf("%g-%g", st.AutoscalingLimitMinCU, st.AutoscalingLimitMaxCU)
	return []string{last(e.Parent), e.EndpointID, state, host, cu, suspend, shortTime(st.LastActiveTime)}
}

func endpointWake(sh *shell) *cobra.Command {
	return &cobra.Command{
		Use: "wake [BRANCH]", Short: "Start a branch's compute and wait until it answers",
		Args: args(0, 1, "at most a branch"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, n, err := sh.primaryOf(cmd.Context(), optional(args))
			if err != nil {
				return err
			}
			var s client.Compute
			err = sh.during("waking "+n.Branch, func() error {
				s, err = c.Wake(cmd.Context(), n)
				return err
			})
			if err != nil {
				return err
			}
			return sh.show(s, func() { sh.say("Branch %s/%s is %s.", n.Project, n.Branch, s.State) })
		},
	}
}

func endpointSuspend(sh *shell) *cobra.Command {
	return &cobra.Command{
		Use: "suspend [BRANCH]", Short: "Stop a branch's compute; the next connection wakes it",
		Args: args(0, 1, "at most a branch"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, n, err := sh.primaryOf(cmd.Context(), optional(args))
			if err != nil {
				return err
			}
			err = sh.during("suspending "+n.Branch, func() error { return c.Suspend(cmd.Context(), n) })
			if err != nil {
				return err
			}
			return sh.show(wire.Empty{}, func() { sh.say("Suspended branch %s/%s.", n.Project, n.Branch) })
		},
	}
}

// primaryOf finds the endpoint of a branch as people name it.
func (sh *shell) primaryOf(ctx context.Context, branch string) (*client.Client, tarn.EndpointName, error) {
	c, err := sh.client()
	if err != nil {
		return nil, tarn.EndpointName{}, err
	}
	b, err := sh.branchNamed(ctx, c, branch)
	return c, b.Endpoint(tarn.DefaultEndpoint), err
}
