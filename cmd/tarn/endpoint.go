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

func endpointCommand(sh *shell) *cobra.Command {
	c := group("endpoint", "Endpoints: the addresses through which branches are reached")
	c.AddCommand(endpointList(sh), endpointShow(sh), endpointCreate(sh), endpointUpdate(sh), endpointDelete(sh), endpointWake(sh), endpointSuspend(sh))
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
		Use: "wake [ENDPOINT]", Short: "Start an endpoint's compute and wait until it answers",
		Args: args(0, 1, "at most an endpoint"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, n, err := sh.endpointNamed(cmd.Context(), optional(args))
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
			return sh.show(s, func() { sh.say("Endpoint %s/%s/%s is %s.", n.Project, n.Branch, n.Endpoint, s.State) })
		},
	}
}

func endpointSuspend(sh *shell) *cobra.Command {
	return &cobra.Command{
		Use: "suspend [ENDPOINT]", Short: "Stop an endpoint's compute; the next connection wakes it",
		Args: args(0, 1, "at most an endpoint"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, n, err := sh.endpointNamed(cmd.Context(), optional(args))
			if err != nil {
				return err
			}
			err = sh.during("suspending "+n.Branch, func() error { return c.Suspend(cmd.Context(), n) })
			if err != nil {
				return err
			}
			return sh.show(wire.Empty{}, func() { sh.say("Suspended endpoint %s/%s/%s.", n.Project, n.Branch, n.Endpoint) })
		},
	}
}

// endpointNamed finds an endpoint as people name it: BRANCH or PROJECT/BRANCH for
// the branch's own, PROJECT/BRANCH/ENDPOINT for any.
func (sh *shell) endpointNamed(ctx context.Context, name string) (*client.Client, tarn.EndpointName, error) {
	c, err := sh.client()
	if err != nil {
		return nil, tarn.EndpointName{}, err
	}
	if n, err := tarn.ParseEndpointName(name); err == nil {
		return c, n, nil
	}
	id := tarn.DefaultEndpoint
	if parts := strings.Split(name, "/"); len(parts) == 3 {
		if id, err = tarn.ParseID("endpoint", parts[2]); err != nil {
			return nil, tarn.EndpointName{}, err
		}
		name = parts[0] + "/" + parts[1]
	}
	b, err := sh.branchNamed(ctx, c, name)
	return c, b.Endpoint(id), err
}
