package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/client"
	"github.com/tarndb/tarn/internal/api/wire"
)

func snapshotCommand(sh *shell) *cobra.Command {
	c := group("snapshot", "Snapshots: points of a branch that are kept until they are deleted")
	c.AddCommand(snapshotCreate(sh), snapshotList(sh), snapshotShow(sh), snapshotDelete(sh))
	return c
}

func snapshotCreate(sh *shell) *cobra.Command {
	var f snapshotFlags
	c := &cobra.Command{
		Use: "create [PROJECT/]NAME", Short: "Keep what a branch holds now, or held at any moment of its past",
		Long: `Keep what a branch holds now, or held at any moment of its past. A snapshot has no compute and costs only what
the branch changes after it. It stays until it is deleted: also when the moment is longer ago than the project's
history, and when the branch is gone.`,
		Example: "  tarn snapshot create before-migration\n  tarn snapshot create shop/friday --from production --at '2026-11-20 18:00:00'\n  tarn snapshot create nightly --ttl 30d",
		Args:    args(1, 1, "the snapshot's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, n, err := snapshotNamed(cmd.Context(), sh, args[0])
			if err != nil {
				return err
			}
			spec, err := f.spec(n, time.Now())
			if err != nil {
				return err
			}
			return createSnapshot(cmd.Context(), sh, c, n, spec)
		},
	}
	c.Flags().StringVar(&f.from, "from", "", "the branch (default: the project's default branch)")
	c.Flags().StringVar(&f.at, "at", "", "moment of the branch: a time "+momentHelp)
	c.Flags().StringVar(&f.lsn, "lsn", "", "position of the branch (0/16B3748)")
	c.Flags().StringVar(&f.ttl, "ttl", "", "delete the snapshot after this time (default: never)")
	completeFlag(c, "from", branchNames(sh))
	return c
}

// snapshotFlags are what is asked of a new snapshot.
type snapshotFlags struct {
	from, at, lsn, ttl string
}

func (f snapshotFlags) spec(n tarn.SnapshotName, now time.Time) (client.SnapshotSpec, error) {
	var s client.SnapshotSpec
	from := f.from
	if from == "" {
		from = tarn.DefaultBranch
	}
	src, err := sourceNamed(n.Parent(), from)
	if err != nil {
		return s, err
	}
	s.SourceBranch = src.String()
	if s.SourceBranchTime, s.SourceBranchLSN, err = pointOf(f.at, f.lsn, now); err != nil {
		return s, err
	}
	yes := true
	if f.ttl == "" {
		s.NoExpiry = &yes
		return s, nil
	}
	d, err := parseSpan(f.ttl)
	s.TTL = wire.Duration(d)
	return s, err
}

// pointOf reads --at and --lsn: a time or an LSN in the API's words, or neither.
func pointOf(at, lsn string, now time.Time) (timestamp, position string, err error) {
	switch {
	case at != "" && lsn != "":
		return "", "", tarn.Invalid("--at and --lsn: say one of them")
	case at != "":
		m, err := parseMoment(at, now)
		if err != nil || m.lsn == 0 {
			return wire.Time(m.time), "", err
		}
		return "", m.lsn.String(), nil
	case lsn != "":
		l, err := tarn.ParseLSN(lsn)
		return "", l.String(), err
	}
	return "", "", nil
}

// snapshotNamed reads [PROJECT/]NAME.
func snapshotNamed(ctx context.Context, sh *shell, arg string) (*client.Client, tarn.SnapshotName, error) {
	c, err := sh.client()
	if err != nil {
		return nil, tarn.SnapshotName{}, err
	}
	if strings.HasPrefix(arg, "projects/") {
		n, err := tarn.ParseSnapshotName(arg)
		return c, n, err
	}
	project, name, both := strings.Cut(arg, "/")
	if !both {
		project, name = "", arg
	}
	p, err := sh.projectNamed(ctx, c, project)
	if err != nil {
		return c, tarn.SnapshotName{}, err
	}
	id, err := tarn.ParseID("snapshot", name)
	return c, p.Snapshot(id), err
}

func createSnapshot(ctx context.Context, sh *shell, c *client.Client, n tarn.SnapshotName, spec client.SnapshotSpec) error {
	var s client.Snapshot
	err := sh.during("creating snapshot "+n.Snapshot, func() error {
		op, err := c.Snapshots(n.Parent()).Create(ctx, n.Snapshot, spec)
		if err != nil {
			return err
		}
		return c.WaitOperation(ctx, op, &s)
	})
	if err != nil {
		return err
	}
	return sh.show(s, func() {
		sh.say("Created snapshot %s/%s of branch %s.", n.Project, n.Snapshot, last(spec.SourceBranch))
		sh.say("Use it: tarn branch create NAME --snapshot %s, or tarn branch restore %s/%s --to %s", n.Snapshot, n.Project, last(spec.SourceBranch), n.Snapshot)
	})
}

func snapshotList(sh *shell) *cobra.Command {
	return &cobra.Command{
		Use: "list [PROJECT]", Short: "List the snapshots of a project",
		Args: args(0, 1, "at most a project's name"), ValidArgsFunction: completeProject(sh),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := sh.client()
			if err != nil {
				return err
			}
			p, err := sh.projectNamed(cmd.Context(), c, optional(args))
			if err != nil {
				return err
			}
			all, err := c.Snapshots(p).List(cmd.Context())
			if err != nil {
				return err
			}
			if all == nil {
				all = []client.Snapshot{}
			}
			return sh.show(all, func() {
				var rows [][]string
				for _, s := range all {
					st := s.Status
					rows = append(rows, []string{s.SnapshotID, st.CurrentState, last(st.SourceBranch), shortTime(st.SourceBranchTime),
						dash(st.SourceBranchLSN), shortTime(st.ExpireTime), shortTime(s.CreateTime)})
				}
				sh.table("SNAPSHOT STATE BRANCH TIME LSN EXPIRES CREATED", rows)
			})
		},
	}
}

func snapshotShow(sh *shell) *cobra.Command {
	return &cobra.Command{
		Use: "show [PROJECT/]NAME", Short: "Show a snapshot",
		Example: "  tarn snapshot show before-migration",
		Args:    args(1, 1, "the snapshot's name"), ValidArgsFunction: firstOnly(completeSnapshot(sh)),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, n, err := snapshotNamed(cmd.Context(), sh, args[0])
			if err != nil {
				return err
			}
			s, err := c.Snapshots(n.Parent()).Get(cmd.Context(), n.Snapshot)
			if err != nil {
				return err
			}
			return sh.show(s, func() {
				st := s.Status
				rows := [][]string{{"Snapshot:", n.Project + "/" + n.Snapshot}, {"State:", st.CurrentState}, {"Branch:", last(st.SourceBranch)},
					{"Time:", dash(st.SourceBranchTime)}, {"LSN:", dash(st.SourceBranchLSN)}, {"Expires:", shortTime(st.ExpireTime)}, {"Created:", shortTime(s.CreateTime)}}
				if st.StatusDetail != "" {
					rows = append(rows, []string{"Detail:", st.StatusDetail})
				}
				sh.rows(rows)
			})
		},
	}
}

func snapshotDelete(sh *shell) *cobra.Command {
	return &cobra.Command{
		Use: "delete [PROJECT/]NAME", Short: "Delete a snapshot; branches made from it stay",
		Example: "  tarn snapshot delete before-migration",
		Args:    args(1, 1, "the snapshot's name"), ValidArgsFunction: firstOnly(completeSnapshot(sh)),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, n, err := snapshotNamed(cmd.Context(), sh, args[0])
			if err != nil {
				return err
			}
			err = sh.during("deleting snapshot "+n.Snapshot, func() error {
				op, err := c.Snapshots(n.Parent()).Delete(cmd.Context(), n.Snapshot)
				if err != nil {
					return err
				}
				return c.WaitOperation(cmd.Context(), op, nil)
			})
			if err != nil {
				return err
			}
			return sh.show(wire.Empty{}, func() { sh.say("Deleted snapshot %s/%s.", n.Project, n.Snapshot) })
		},
	}
}
