package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/client"
	"github.com/tarndb/tarn/internal/api/wire"
)

func branchRestore(sh *shell) *cobra.Command {
	var to, keepAs string
	c := &cobra.Command{
		Use: "restore [PROJECT/]NAME --to TIME|LSN|SNAPSHOT", Short: "Put a branch back to a moment of its past, or to a snapshot",
		Long: `Put a branch back to what it held at a time or an LSN, or to what a snapshot holds.

Its address stays; data, roles and passwords are those of that moment. Sessions are cut and may connect again at
once. Nothing is lost: what the branch held until now goes on as another branch, and the branches made from it
belong to that one.`,
		Example: "  tarn branch restore production --to '10 minutes ago'\n  tarn branch restore shop/production --to '2026-11-20 14:00:00' --keep-as broken\n" +
			"  tarn branch restore shop/production --to 0/1A2B3C8\n  tarn branch restore shop/production --to before-migration",
		Args: args(1, 1, "the branch's name"), ValidArgsFunction: completeBranch(sh),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, n, err := ownBranch(cmd.Context(), sh, args[0])
			if err != nil {
				return err
			}
			spec, err := restoreTo(n, to, time.Now())
			if err != nil {
				return err
			}
			if keepAs != "" {
				if spec.KeepAs, err = ownID(n, keepAs, "--keep-as"); err != nil {
					return err
				}
			}
			return putBranch(cmd.Context(), sh, c, n, "restoring", "Restored", func() (client.Operation, error) {
				return c.Past(n).Restore(cmd.Context(), spec)
			})
		},
	}
	c.Flags().StringVar(&to, "to", "", "a time "+momentHelp+", or the name of a snapshot")
	c.Flags().StringVar(&keepAs, "keep-as", "", "name of the branch that goes on with what is replaced (default: NAME-before-restore-TIME)")
	completeFlag(c, "to", completeSnapshot(sh))
	return c
}

// restoreTo reads --to. A snapshot's name begins with a letter and a moment's
// does not, unless it is an LSN, which has a slash.
func restoreTo(n tarn.BranchName, to string, now time.Time) (client.RestoreSpec, error) {
	if to == "" {
		return client.RestoreSpec{}, &usageError{msg: "restore to what?", hint: "say --to with a time, an LSN or a snapshot, e.g. --to '10 minutes ago'"}
	}
	if id, err := tarn.ParseID("snapshot", to); err == nil {
		return client.RestoreSpec{SourceSnapshot: n.Parent().Snapshot(id).String()}, nil
	}
	m, err := parseMoment(to, now)
	switch {
	case err != nil:
		return client.RestoreSpec{}, err
	case m.lsn != 0:
		return client.RestoreSpec{SourceBranchLSN: m.lsn.String()}, nil
	}
	return client.RestoreSpec{SourceBranchTime: wire.Time(m.time)}, nil
}

func branchReset(sh *shell) *cobra.Command {
	var keepAs string
	c := &cobra.Command{
		Use: "reset [PROJECT/]NAME", Short: "Put a branch to what its parent holds now",
		Long: `Put a branch to what its parent holds now. Its address stays; sessions are cut and may connect again at once.
What the branch held until now is gone, unless it is kept as another branch.`,
		Example: "  tarn branch reset dev\n  tarn branch reset shop/dev --keep-as dev-was",
		Args:    args(1, 1, "the branch's name"), ValidArgsFunction: completeBranch(sh),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, n, err := ownBranch(cmd.Context(), sh, args[0])
			if err != nil {
				return err
			}
			id := ""
			if keepAs != "" {
				if id, err = ownID(n, keepAs, "--keep-as"); err != nil {
					return err
				}
			}
			return putBranch(cmd.Context(), sh, c, n, "resetting", "Reset", func() (client.Operation, error) { return c.Past(n).Reset(cmd.Context(), id) })
		},
	}
	c.Flags().StringVar(&keepAs, "keep-as", "", "keep what the branch holds now as a branch of this name (default: it is gone)")
	return c
}

// putBranch restores or resets a branch and says where what it held is now.
func putBranch(ctx context.Context, sh *shell, c *client.Client, n tarn.BranchName, doing, done string, ask func() (client.Operation, error)) error {
	began := time.Now()
	var b client.Branch
	err := sh.during(doing+" branch "+n.Branch, func() error {
		op, err := ask()
		if err != nil {
			return err
		}
		return c.WaitOperation(ctx, op, &b)
	})
	if err != nil {
		return err
	}
	took := time.Since(began).Round(time.Millisecond)
	w, err := c.Past(n).Window(ctx)
	if err != nil {
		return err
	}
	return sh.show(shownBranch{b, &w, nil}, func() {
		sh.say("%s branch %s/%s in %s.", done, n.Project, n.Branch, took)
		if w.EarlierBranch != "" {
			sh.say("What it held before is branch %s/%s.", n.Project, last(w.EarlierBranch))
		}
	})
}

func branchProtect(sh *shell, use, short, done string, protected bool) *cobra.Command {
	return &cobra.Command{
		Use: use + " [PROJECT/]NAME", Short: short,
		Example: "  tarn branch " + use + " production",
		Args:    args(1, 1, "the branch's name"), ValidArgsFunction: completeBranch(sh),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, n, err := ownBranch(cmd.Context(), sh, args[0])
			if err != nil {
				return err
			}
			var b client.Branch
			err = sh.during("changing branch "+n.Branch, func() error {
				op, err := c.UpdateBranch(cmd.Context(), n, "spec.is_protected", client.BranchSpec{IsProtected: &protected})
				if err != nil {
					return err
				}
				return c.WaitOperation(cmd.Context(), op, &b)
			})
			if err != nil {
				return err
			}
			return sh.show(b, func() { sh.say(done, n.Project, n.Branch) })
		},
	}
}

// shownBranch is what branch show prints as JSON.
type shownBranch struct {
	client.Branch
	Window *client.Window   `json:"window,omitempty"` // nil while the branch is being made
	Copy   *wire.BranchCopy `json:"copy,omitempty"`   // nil without an object store
}

func branchShow(sh *shell) *cobra.Command {
	return &cobra.Command{
		Use: "show [BRANCH]", Short: "Show a branch, and which of its past can be had again",
		Example: "  tarn branch show\n  tarn branch show shop/dev --json",
		Args:    args(0, 1, "at most a branch"), ValidArgsFunction: completeBranch(sh),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := sh.client()
			if err != nil {
				return err
			}
			n, err := sh.branchNamed(cmd.Context(), c, optional(args))
			if err != nil {
				return err
			}
			shown := shownBranch{}
			if shown.Branch, err = c.Branch(cmd.Context(), n); err != nil {
				return err
			}
			if w, err := c.Past(n).Window(cmd.Context()); err == nil {
				shown.Window = &w
			} else if tarn.KindOf(err) != tarn.KindUnavailable {
				return err
			}
			if s, err := c.Status(cmd.Context()); err == nil { // else the node does not answer
				shown.Copy = copyOf(s, n)
			}
			return sh.show(shown, func() { describe(sh, n, shown) })
		},
	}
}

func describe(sh *shell, n tarn.BranchName, b shownBranch) {
	st := b.Status
	state := st.CurrentState
	for _, word := range []struct {
		holds bool
		word  string
	}{{st.Default, "default"}, {st.IsProtected, "protected"}} {
		if word.holds {
			state += ", " + word.word
		}
	}
	rows := [][]string{{"Branch:", n.Project + "/" + n.Branch}, {"State:", state}, {"Made from:", origin(*st)}, {"Created:", shortTime(b.CreateTime)}}
	if st.StatusDetail != "" {
		rows = append(rows, []string{"Detail:", st.StatusDetail})
	}
	if st.ExpireTime != "" {
		rows = append(rows, []string{"Expires:", shortTime(st.ExpireTime)})
	}
	if w := b.Window; w != nil {
		past := "from " + w.FromTime + " (LSN " + w.FromLSN + ") to now (LSN " + w.ToLSN + ")"
		history, err := wire.ParseDuration("", w.HistoryRetentionDuration)
		switch {
		case err == nil && history == 0:
			past = "none: the project keeps no history"
		case err == nil:
			past += ", at most " + tarn.Span(history)
		}
		rows = append(rows, []string{"Past:", past})
		if w.EarlierBranch != "" {
			rows = append(rows, []string{"Before that:", "branch " + n.Project + "/" + last(w.EarlierBranch)})
		}
		rows = append(rows, []string{"Own size:", size(w.OwnSizeBytes)})
	}
	if b.Copy != nil {
		rows = append(rows, []string{"Archive:", archived(*b.Copy)})
		if back := cameBack(*b.Copy); back != "-" {
			rows = append(rows, []string{"Came back:", back})
		}
	}
	sh.rows(rows)
}

// copyOf is how far the object store has a branch; nil without one.
func copyOf(s wire.Status, n tarn.BranchName) *wire.BranchCopy {
	if s.Storage == nil {
		return nil
	}
	for _, b := range s.Storage.Branches {
		if b.Branch == n.String() {
			return &b
		}
	}
	return nil
}

// origin says what a branch was made from.
func origin(st wire.BranchStatus) string {
	switch {
	case st.SourceSnapshot != "":
		return "snapshot " + last(st.SourceSnapshot)
	case st.SourceBranch == "":
		return "nothing: it is a root branch"
	case st.SourceBranchTime != "":
		return last(st.SourceBranch) + " at " + st.SourceBranchTime
	case st.SourceBranchLSN != "":
		return last(st.SourceBranch) + " at LSN " + st.SourceBranchLSN
	}
	return last(st.SourceBranch)
}

// size prints bytes for people.
func size(n int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	v, i := float64(n), 0
	for v >= 1000 && i < len(units)-1 {
		v, i = v/1000, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}

// ownBranch reads the name of a branch that exists: a lone word is always the
// branch's.
func ownBranch(ctx context.Context, sh *shell, arg string) (*client.Client, tarn.BranchName, error) {
	c, err := sh.client()
	if err != nil {
		return nil, tarn.BranchName{}, err
	}
	n, err := sh.newBranchNamed(ctx, c, arg)
	return c, n, err
}

// ownID reads the name of a thing in n's project, with or without the project.
func ownID(n tarn.BranchName, arg, flag string) (string, error) {
	id := last(arg)
	if strings.Contains(arg, "/") && arg != n.Project+"/"+id {
		return "", tarn.Invalid("%s %s: want a name in the branch's own project, %s", flag, arg, n.Project)
	}
	return tarn.ParseID("branch", id)
}
