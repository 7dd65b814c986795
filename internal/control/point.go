package control

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// askPatience is how long a request waits for what only the node knows.
const askPatience = 5 * time.Second

// Window tells what of a branch's past can be had again. The past before the
// branch was restored is that of branch b.Earlier.
func (c *Pasts) Window(ctx context.Context, n tarn.BranchName) (tarn.Window, error) {
	b, err := controldb.GetBranch(ctx, c.cfg.DB, n)
	if err != nil {
		return tarn.Window{}, err
	}
	if b.State == tarn.BranchInit {
		return tarn.Window{}, tarn.Unavailable("branch %q of project %q is still being made", n.Branch, n.Project)
	}
	return askWindow(ctx, c.cfg.Node, b.Timeline)
}

// Timeline tells of the timeline that a branch is on.
func (c *Pasts) Timeline(ctx context.Context, n tarn.BranchName) (tarn.TimelineStatus, error) {
	b, err := controldb.GetBranch(ctx, c.cfg.DB, n)
	if err != nil {
		return tarn.TimelineStatus{}, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, askPatience, errNodeSilent)
	defer cancel()
	return c.cfg.Node.Timeline(ctx, b.Timeline)
}

// CameBack tells how far a branch came back from the object store; 0 = it never
// was away.
func (c *Pasts) CameBack(ctx context.Context, n tarn.BranchName) (tarn.LSN, error) {
	t, err := c.Timeline(ctx, n)
	if err != nil || t.Copy == nil {
		return 0, err
	}
	return t.Copy.BackLSN, nil
}

// BranchCopy is how far the object store has a branch.
type BranchCopy struct {
	Branch tarn.BranchName
	tarn.CopyState
}

// Copies tells how far the object store has every branch that has an endpoint,
// by name.
func (c *Pasts) Copies(ctx context.Context) ([]BranchCopy, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, askPatience, errNodeSilent)
	defer cancel()
	all, err := c.cfg.Node.Timelines(ctx)
	if err != nil {
		return nil, err
	}
	states := make(map[tarn.TimelineID]*tarn.CopyState, len(all))
	for _, st := range all {
		states[st.ID] = st.Copy
	}
	endpoints, err := controldb.AllEndpoints(ctx, c.cfg.DB, "")
	if err != nil {
		return nil, err
	}
	var out []BranchCopy
	for _, e := range endpoints {
		n := e.Name.Parent()
		b, err := controldb.GetBranch(ctx, c.cfg.DB, n)
		if tarn.KindOf(err) == tarn.KindNotFound || err == nil && b.State == tarn.BranchInit {
			continue // going, or still coming
		}
		if err != nil {
			return nil, err
		}
		state, ok := states[b.Timeline]
		switch {
		case !ok:
			state = &tarn.CopyState{Problem: fmt.Sprintf("the node does not have its timeline %s", b.Timeline)}
		case state == nil:
			continue // the node has no object store
		}
		out = append(out, BranchCopy{n, *state})
	}
	slices.SortFunc(out, func(a, b BranchCopy) int { return cmp.Compare(a.Branch.String(), b.Branch.String()) })
	return slices.CompactFunc(out, func(a, b BranchCopy) bool { return a.Branch == b.Branch }), nil
}

var errNodeSilent = tarn.Unavailable("the node did not answer within %s", askPatience)

func askWindow(ctx context.Context, node Timelines, id tarn.TimelineID) (tarn.Window, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, askPatience, errNodeSilent)
	defer cancel()
	return node.Window(ctx, id)
}

// lineAt finds the branch that has what b held at a time or LSN: b itself, or
// one that goes on with what b was before a restore. It refuses a point that no
// branch has. When the node does not answer, the operation will find out.
func lineAt(ctx context.Context, cfg Config, b tarn.Branch, at time.Time, lsn tarn.LSN) (tarn.Branch, error) {
	if at.IsZero() && lsn == 0 {
		return b, nil
	}
	first := b.Name
	for {
		refusal := error(nil)
		if at.IsZero() || !at.Before(b.LineBegan) || b.Earlier == "" {
			w, err := askWindow(ctx, cfg.Node, b.Timeline)
			if err != nil {
				cfg.Log.Warn("window not known", "project", b.Name.Project, "branch", b.Name.Branch, "err", err)
				return b, nil
			}
			if refusal = w.Check(at, lsn); refusal == nil {
				return b, nil
			}
			if b.Name != first {
				refusal = fmt.Errorf("before its restore it was what is branch %q now: %w", b.Name.Branch, refusal)
			}
			if lsn == 0 || lsn >= w.From.LSN || b.Earlier == "" {
				return b, refusal
			}
		}
		earlier, err := controldb.GetBranch(ctx, cfg.DB, b.Name.Parent().Branch(b.Earlier))
		if tarn.KindOf(err) == tarn.KindNotFound && refusal != nil {
			err = refusal
		}
		if err != nil {
			return b, err
		}
		b = earlier
	}
}
