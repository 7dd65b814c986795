package api

import (
	"context"
	"strings"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/control"
)

// pastDoor answers what no published API has of a branch's past: which of it
// can be had again, restore and reset.
type pastDoor struct {
	control *control.Control
	ops     *operationDoor
}

func (d *pastDoor) window(ctx context.Context, q *query) (any, error) {
	n, err := q.branch()
	if err != nil {
		return nil, err
	}
	b, err := d.control.GetBranch(ctx, n)
	if err != nil {
		return nil, err
	}
	w, err := d.control.Pasts.Window(ctx, n)
	if err != nil {
		return nil, err
	}
	st, err := d.control.Pasts.Timeline(ctx, n)
	if err != nil {
		return nil, err
	}
	out := wire.Window{
		Branch: n.String(), FromTime: wire.Time(w.From.Time), FromLSN: w.From.LSN.String(), ToTime: wire.Time(w.To.Time), ToLSN: w.To.LSN.String(),
		HistoryRetentionDuration: wire.Duration(w.History), WholeLife: w.Whole, OwnSizeBytes: st.Bytes,
	}
	if b.Earlier != "" {
		out.EarlierBranch = n.Parent().Branch(b.Earlier).String()
	}
	return out, nil
}

// act does POST …/branches/{branch}:restore and :reset.
func (d *pastDoor) act(ctx context.Context, q *query) (any, error) {
	p, err := q.project()
	if err != nil {
		return nil, err
	}
	id, verb, _ := strings.Cut(q.r.PathValue("verb"), ":")
	if id, err = tarn.ParseID("branch", id); err != nil {
		return nil, nothing(err)
	}
	n := p.Branch(id)
	switch verb {
	case "restore":
		var in wire.RestoreBranch
		if err := q.decode(&in); err != nil {
			return nil, err
		}
		s, err := readRestore(n, in)
		if err != nil {
			return nil, err
		}
		op, err := d.control.Pasts.Restore(ctx, q.who, n, s)
		return d.ops.answer(ctx, op, err)
	case "reset":
		var in wire.ResetBranch
		if err := q.decode(&in); err != nil {
			return nil, err
		}
		op, err := d.control.Pasts.Reset(ctx, q.who, n, in.KeepAs)
		return d.ops.answer(ctx, op, err)
	}
	return nil, tarn.NotFound("a branch can do :restore and :reset, not %q", verb)
}

func readRestore(n tarn.BranchName, in wire.RestoreBranch) (tarn.RestoreSpec, error) {
	s := tarn.RestoreSpec{KeepAs: in.KeepAs}
	var err error
	if s.Time, s.LSN, err = readPoint("", in.SourceBranchTime, in.SourceBranchLSN); err != nil {
		return s, err
	}
	if in.SourceSnapshot == "" {
		return s, nil
	}
	if in.SourceBranchTime != "" || in.SourceBranchLSN != "" {
		return s, badField("source_snapshot", "give one of source_snapshot, source_branch_time and source_branch_lsn")
	}
	s.Snapshot, err = readSnapshotName("source_snapshot", in.SourceSnapshot, n.Parent())
	return s, err
}
