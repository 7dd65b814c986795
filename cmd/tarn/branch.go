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

func branchCommand(sh *shell) *cobra.Command {
	c := group("branch", "Branches: writable copies of a project's data, made at once")
	c.AddCommand(
		branchCreate(sh), branchList(sh), branchShow(sh), branchDelete(sh), branchUndelete(sh), branchRestore(sh), branchReset(sh),
		branchProtect(sh, "protect", "Refuse to delete, restore or reset a branch", "Protected branch %s/%s: it cannot be deleted, restored or reset.", true),
		branchProtect(sh, "unprotect", "Take a branch's protection away", "Branch %s/%s is no longer protected.", false),
	)
	return c
}

// branchFlags are what is asked of a new branch.
type branchFlags struct {
	from, at, lsn, snapshot, ttl string
	protected                    bool
}

func branchCreate(sh *shell) *cobra.Command {
	var f branchFlags
	c := &cobra.Command{
		Use: "create [PROJECT/]NAME", Short: "Create a branch, from now, from any moment of the past or from a snapshot",
		Example: "  tarn branch create dev\n  tarn branch create shop/fix --from production --at -10m\n" +
			"  tarn branch create shop/fix --at '2 hours ago'\n  tarn branch create again --snapshot before-migration\n  tarn branch create test --ttl 2h",
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
			spec, err := f.spec(n, time.Now())
			if err != nil {
				return err
			}
			return sh.createBranch(cmd.Context(), c, n, spec)
		},
	}
	c.Flags().StringVar(&f.from, "from", "", "source branch (default: the project's default branch)")
	c.Flags().StringVar(&f.at, "at", "", "moment of the source: a time "+momentHelp)
	c.Flags().StringVar(&f.lsn, "lsn", "", "position of the source (0/16B3748)")
	c.Flags().StringVar(&f.snapshot, "snapshot", "", "begin with what a snapshot holds, instead of --from")
	c.Flags().StringVar(&f.ttl, "ttl", "", "delete the branch after this time, at most 30d (default: never)")
	c.Flags().BoolVar(&f.protected, "protected", false, "refuse to delete, restore or reset the branch")
	completeFlag(c, "from", branchNames(sh))
	completeFlag(c, "snapshot", completeSnapshot(sh))
	return c
}

// newBranchNamed reads the name of a branch that is made or deleted: a lone
// word is always the branch's, never a project's.
func (sh *shell) newBranchNamed(ctx context.Context, c *client.Client, arg string) (tarn.BranchName, error) {
	if strings.Contains(arg, "/") {
		return sh.branchNamed(ctx, c, arg)
	}
	p, err := sh.projectNamed(ctx, c, "")
	if err != nil {
		return tarn.BranchName{}, err
	}
	id, err := tarn.ParseID("branch", arg)
	return p.Branch(id), err
}

// spec says in the API's words what the flags ask.
func (f branchFlags) spec(n tarn.BranchName, now time.Time) (client.BranchSpec, error) {
	var s client.BranchSpec
	if f.from != "" {
		src, err := sourceNamed(n.Parent(), f.from)
		if err != nil {
			return s, err
		}
		s.SourceBranch = src.String()
	}
	var err error
	if s.SourceBranchTime, s.SourceBranchLSN, err = pointOf(f.at, f.lsn, now); err != nil {
		return s, err
	}
	if f.snapshot != "" {
		if f.from != "" || f.at != "" || f.lsn != "" {
			return s, tarn.Invalid("--snapshot stands alone: a branch is made from a snapshot, or from a branch with --from, --at or --lsn")
		}
		id, err := tarn.ParseID("snapshot", strings.TrimPrefix(f.snapshot, n.Project+"/"))
		if err != nil {
			return s, err
		}
		s.SourceSnapshot = n.Parent().Snapshot(id).String()
	}
	yes := true
	if f.ttl == "" {
		s.NoExpiry = &yes
	} else {
		d, err := parseSpan(f.ttl)
		if err != nil {
			return s, err
		}
		s.TTL = wire.Duration(d)
	}
	if f.protected {
		s.IsProtected = &yes
	}
	return s, nil
}

// sourceNamed reads --from: a branch of the same project, with or without it.
func sourceNamed(p tarn.ProjectName, from string) (tarn.BranchName, error) {
	id := last(from)
	if from != id && from != p.Project+"/"+id && from != p.Branch(id).String() {
		return tarn.BranchName{}, tarn.Invalid("--from %s: it must be a branch of the same project, %s", from, p.Project)
	}
	id, err := tarn.ParseID("branch", id)
	return p.Branch(id), err
}

func (sh *shell) createBranch(ctx context.Context, c *client.Client, n tarn.BranchName, spec client.BranchSpec) error {
	began := time.Now()
	var b client.Branch
	err := sh.during("creating branch "+n.Branch, func() error {
		op, err := c.CreateBranch(ctx, n, spec)
		if err != nil {
			return err
		}
		return c.WaitOperation(ctx, op, &b)
	})
	if err != nil {
		return err
	}
	took := time.Since(began).Round(time.Millisecond)
	return sh.show(b, func() {
		from := ""
		if b.Status != nil && (b.Status.SourceBranch != "" || b.Status.SourceSnapshot != "") {
			from = " from " + origin(*b.Status)
		}
		sh.say("Created branch %s/%s%s in %s.", n.Project, n.Branch, from, took)
		sh.say("Connect: tarn psql %s/%s", n.Project, n.Branch)
	})
}

func branchList(sh *shell) *cobra.Command {
	return &cobra.Command{
		Use: "list [PROJECT]", Short: "List the branches of a project",
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
			bs, err := c.Branches(cmd.Context(), p)
			if err != nil {
				return err
			}
			if bs == nil {
				bs = []client.Branch{}
			}
			s, err := c.Status(cmd.Context())
			if err != nil {
				s.Storage = nil // the node does not answer
			}
			return sh.show(bs, func() {
				heading := "BRANCH STATE SOURCE PROTECTED EXPIRES CREATED"
				if s.Storage != nil {
					heading += " ARCHIVE BACK"
				}
				var rows [][]string
				for _, b := range bs {
					row := branchRow(b)
					if c := copyOf(s, p.Branch(b.BranchID)); c != nil {
						row = append(row, archived(*c), cameBack(*c))
					}
					rows = append(rows, row)
				}
				sh.table(heading, rows)
			})
		},
	}
}

func branchRow(b client.Branch) []string {
	protected, name := "-", b.BranchID
	if b.Status.IsProtected {
		protected = "yes"
	}
	if b.Status.Default {
		name += " *"
	}
	source := last(b.Status.SourceBranch)
	if s := b.Status.SourceSnapshot; s != "" {
		source = "snapshot " + last(s)
	}
	return []string{name, b.Status.CurrentState, dash(source), protected, shortTime(b.Status.ExpireTime), shortTime(b.CreateTime)}
}

func branchDelete(sh *shell) *cobra.Command {
	var keep bool
	c := &cobra.Command{
		Use: "delete [PROJECT/]NAME", Short: "Delete a branch and its data; its snapshots stay",
		Args: args(1, 1, "the branch's name"), ValidArgsFunction: completeBranch(sh),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := sh.client()
			if err != nil {
				return err
			}
			n, err := sh.newBranchNamed(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			err = sh.during("deleting branch "+n.Branch, func() error {
				op, err := c.DeleteBranch(cmd.Context(), n, leftover(keep))
				if err != nil {
					return err
				}
				return c.WaitOperation(cmd.Context(), op, nil)
			})
			if err != nil {
				return err
			}
			return sh.show(wire.Empty{}, func() {
				sh.say("Deleted branch %s/%s.", n.Project, n.Branch)
				if keep {
					sh.say("Bring it back: tarn branch undelete %s/%s", n.Project, n.Branch)
				}
			})
		},
	}
	keepFlag(c, &keep)
	return c
}

// optional is the only argument, or "".
func optional(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}
