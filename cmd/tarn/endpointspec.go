package main

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/client"
	"github.com/tarndb/tarn/internal/api/wire"
)

// endpointFlags are what may be said of an endpoint.
type endpointFlags struct {
	minCU, maxCU          float64
	suspend, freeze       string
	set, unset            []string
	disable, enable, only bool
}

func (f *endpointFlags) add(fs *pflag.FlagSet) {
	fs.Float64Var(&f.minCU, "min-cu", 0, "smallest size in CU (2 GB of memory, 1 CPU)")
	fs.Float64Var(&f.maxCU, "max-cu", 0, "largest size in CU; the same as --min-cu is a fixed size")
	fs.StringVar(&f.suspend, "suspend-after", "", "stop it after so long without a statement, e.g. 10m; never")
	fs.StringVar(&f.freeze, "freeze-after", "", "freeze it, sessions and all, after so long without a statement, e.g. 1m; never")
	fs.StringArrayVar(&f.set, "set", nil, "Postgres setting NAME=VALUE; may be given again")
}

// change says in the API's words what the flags ask, and what they name. has are
// the settings now.
func (f *endpointFlags) change(has map[string]string) (s client.EndpointSpec, mask []string, err error) {
	name := func(field string) { mask = append(mask, "spec."+field) }
	if f.minCU != 0 {
		s.AutoscalingLimitMinCU = &f.minCU
		name("autoscaling_limit_min_cu")
	}
	if f.maxCU != 0 {
		s.AutoscalingLimitMaxCU = &f.maxCU
		name("autoscaling_limit_max_cu")
	}
	yes := true
	switch f.suspend {
	case "":
	case "never":
		s.NoSuspension = &yes
		name("no_suspension")
	default:
		d, err := parseSpan(f.suspend)
		if err != nil {
			return s, nil, err
		}
		s.SuspendTimeoutDuration = wire.Duration(d)
		name("suspend_timeout_duration")
	}
	if f.freeze != "" {
		d := time.Duration(0)
		if f.freeze != "never" {
			if d, err = parseSpan(f.freeze); err != nil {
				return s, nil, err
			}
		}
		s.TarnFreezeTimeoutDuration = wire.Duration(d)
		name("tarn_freeze_timeout_duration")
	}
	if len(f.set)+len(f.unset) > 0 {
		all := maps.Clone(has)
		if all == nil {
			all = map[string]string{}
		}
		for _, p := range f.set {
			n, v, ok := strings.Cut(p, "=")
			if !ok {
				return s, nil, tarn.Invalid("--set %s: want NAME=VALUE", p)
			}
			all[n] = v
		}
		for _, n := range f.unset {
			delete(all, n)
		}
		s.Settings = &wire.PgSettings{PgSettings: all}
		name("settings")
	}
	if f.disable || f.enable {
		s.Disabled = &f.disable
		name("disabled")
	}
	return s, mask, nil
}

func endpointCreate(sh *shell) *cobra.Command {
	var f endpointFlags
	c := &cobra.Command{
		Use: "create BRANCH/ENDPOINT --read-only", Short: "Make a read replica of a branch, with an address of its own",
		Long: "Make a read replica of a branch: a Postgres that follows the branch's own, answers reads only, and has its own address and size.\nNothing is copied for it, so it is there in about a second.",
		Args: args(1, 1, "PROJECT/BRANCH/ENDPOINT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !f.only {
				return tarn.Invalid("a branch has its one READ_WRITE endpoint, %s, from its beginning", tarn.DefaultEndpoint).
					WithHint("say --read-only for a replica; change the other with tarn endpoint update")
			}
			c, n, err := sh.endpointNamed(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if n.Endpoint == tarn.DefaultEndpoint {
				return tarn.Invalid("a replica needs a name of its own: %s/%s/NAME", n.Project, n.Branch)
			}
			s, _, err := f.change(nil)
			if err != nil {
				return err
			}
			s.EndpointType = string(tarn.ReadOnly)
			var e client.Endpoint
			err = sh.during("creating replica "+n.Endpoint, func() error {
				op, err := client.CreateReplica(cmd.Context(), c, n, s)
				if err == nil {
					err = c.WaitOperation(cmd.Context(), op, &e)
				}
				return err
			})
			if err != nil {
				return err
			}
			return sh.show(e, func() { sayEndpoint(sh, e) })
		},
	}
	f.add(c.Flags())
	c.Flags().BoolVar(&f.only, "read-only", false, "a replica, which is all that can be made")
	return c
}

func endpointUpdate(sh *shell) *cobra.Command {
	var f endpointFlags
	c := &cobra.Command{
		Use: "update [ENDPOINT]", Short: "Change an endpoint's size, suspend times and Postgres settings",
		Args: args(0, 1, "at most an endpoint"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			c, n, err := sh.endpointNamed(ctx, optional(args))
			if err != nil {
				return err
			}
			e, err := client.ReadEndpoint(ctx, c, n)
			if err != nil {
				return err
			}
			var has map[string]string
			if e.Status != nil && e.Status.Settings != nil {
				has = e.Status.Settings.PgSettings
			}
			s, mask, err := f.change(has)
			if err != nil {
				return err
			}
			if len(mask) == 0 {
				return tarn.Invalid("nothing to change").WithHint("see tarn endpoint update --help")
			}
			err = sh.during("updating "+n.Endpoint, func() error {
				op, err := c.UpdateEndpoint(ctx, n, strings.Join(mask, ","), s)
				if err == nil {
					err = c.WaitOperation(ctx, op, &e)
				}
				return err
			})
			if err != nil {
				return err
			}
			return sh.show(e, func() { sayEndpoint(sh, e) })
		},
	}
	f.add(c.Flags())
	c.Flags().StringArrayVar(&f.unset, "unset", nil, "take a Postgres setting away; may be given again")
	c.Flags().BoolVar(&f.disable, "disable", false, "suspend it, and let no connection wake it")
	c.Flags().BoolVar(&f.enable, "enable", false, "the opposite")
	c.MarkFlagsMutuallyExclusive("disable", "enable")
	return c
}

func endpointDelete(sh *shell) *cobra.Command {
	return &cobra.Command{
		Use: "delete ENDPOINT", Short: "Delete a read replica", Args: args(1, 1, "PROJECT/BRANCH/ENDPOINT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, n, err := sh.endpointNamed(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			err = sh.during("deleting "+n.Endpoint, func() error {
				op, err := client.DeleteReplica(cmd.Context(), c, n)
				if err == nil {
					err = c.WaitOperation(cmd.Context(), op, nil)
				}
				return err
			})
			if err != nil {
				return err
			}
			return sh.show(wire.Empty{}, func() { sh.say("Deleted endpoint %s/%s/%s.", n.Project, n.Branch, n.Endpoint) })
		},
	}
}

func endpointShow(sh *shell) *cobra.Command {
	return &cobra.Command{
		Use: "show [ENDPOINT]", Short: "Show an endpoint: address, state, size, settings", Args: args(0, 1, "at most an endpoint"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, n, err := sh.endpointNamed(cmd.Context(), optional(args))
			if err != nil {
				return err
			}
			e, err := client.ReadEndpoint(cmd.Context(), c, n)
			if err != nil {
				return err
			}
			return sh.show(e, func() { sayEndpoint(sh, e) })
		},
	}
}

func sayEndpoint(sh *shell, e client.Endpoint) {
	if e.Status == nil {
		return
	}
	st := e.Status
	sh.say("Endpoint %s", e.Name)
	freeze := st.TarnFreezeTimeoutDuration
	rows := [][]string{{"type", strings.TrimPrefix(st.EndpointType, "ENDPOINT_TYPE_")}, {"state", endpointRow(e)[2]}, {"host", endpointRow(e)[3]},
		{"CU", endpointRow(e)[4]}, {"freeze after", cmp.Or(freeze, "never")}, {"suspend after", endpointRow(e)[5]}, {"last active", endpointRow(e)[6]}}
	if st.Settings != nil {
		for _, n := range slices.Sorted(maps.Keys(st.Settings.PgSettings)) {
			rows = append(rows, []string{"set " + n, st.Settings.PgSettings[n]})
		}
	}
	sh.rows(rows)
}
