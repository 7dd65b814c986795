package api

import (
	"context"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/control"
)

// snapshotDoor answers …/projects/{project}/snapshots.
type snapshotDoor struct {
	control *control.Control
	ops     *operationDoor
}

func (d *snapshotDoor) create(ctx context.Context, q *query) (any, error) {
	p, err := q.project()
	if err != nil {
		return nil, err
	}
	var in wire.Snapshot
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	id, err := tarn.ParseID("snapshot", q.text("snapshot_id"))
	if err != nil {
		return nil, badField("snapshot_id", "%s", err)
	}
	if in.Spec == nil {
		in.Spec = &wire.SnapshotSpec{}
	}
	s, err := readSnapshotSpec(p.Snapshot(id), *in.Spec, time.Now())
	if err != nil {
		return nil, err
	}
	op, err := d.control.Snapshots.Create(ctx, q.who, s)
	err = existing(err, alreadyExists, func() error {
		_, err := d.control.Snapshots.Get(ctx, s.Name)
		return err
	})
	return d.ops.answer(ctx, op, err)
}

// readSnapshotSpec reads what is asked of a new snapshot. The published
// source_branch is required; we take its absence as the default branch.
func readSnapshotSpec(n tarn.SnapshotName, in wire.SnapshotSpec, now time.Time) (tarn.SnapshotSpec, error) {
	s := tarn.SnapshotSpec{Name: n}
	if in.SourceBranch != "" {
		src, err := tarn.ParseBranchName(in.SourceBranch)
		if err != nil {
			return s, badField("spec.source_branch", "%s", err)
		}
		if src.Project != n.Project {
			return s, badField("spec.source_branch", "%s is of another project", in.SourceBranch)
		}
		s.Source = src.Branch
	}
	var err error
	if s.SourceTime, s.SourceLSN, err = readPoint("spec.", in.SourceBranchTime, in.SourceBranchLSN); err != nil {
		return s, err
	}
	expire, err := readExpiry(expiry{in.NoExpiry, in.TTL, in.ExpireTime}, now, 0)
	if err == nil && expire != nil {
		s.ExpireTime = *expire
	}
	return s, err
}

func (d *snapshotDoor) list(ctx context.Context, q *query) (any, error) {
	p, err := q.project()
	if err != nil {
		return nil, err
	}
	pg, err := q.page("page_size")
	if err != nil {
		return nil, err
	}
	all, next, err := d.control.Snapshots.List(ctx, p, pg)
	if err != nil {
		return nil, err
	}
	out := wire.ListSnapshots{Snapshots: []wire.Snapshot{}, NextPageToken: next}
	for _, s := range all {
		out.Snapshots = append(out.Snapshots, snapshotOf(s))
	}
	return out, nil
}

func (d *snapshotDoor) get(ctx context.Context, q *query) (any, error) {
	n, err := q.snapshot()
	if err != nil {
		return nil, err
	}
	s, err := d.control.Snapshots.Get(ctx, n)
	if err != nil {
		return nil, err
	}
	return snapshotOf(s), nil
}

func (d *snapshotDoor) delete(ctx context.Context, q *query) (any, error) {
	n, err := q.snapshot()
	if err != nil {
		return nil, err
	}
	op, err := d.control.Snapshots.Delete(ctx, n)
	return d.ops.answer(ctx, op, err)
}

// snapshotOf writes a snapshot. The published text calls one that may be used
// AVAILABLE.
func snapshotOf(s tarn.Snapshot) wire.Snapshot {
	st := &wire.SnapshotStatus{
		SourceBranch: s.Name.Parent().Branch(s.Source).String(), ExpireTime: wire.Time(s.ExpireTime), NoExpiry: s.ExpireTime.IsZero(),
		SourceBranchTime: wire.Time(s.PointTime), CurrentState: string(s.State), StatusDetail: s.StatusMessage,
	}
	if s.State == tarn.BranchReady {
		st.CurrentState = "AVAILABLE"
	}
	if s.PointLSN != 0 {
		st.SourceBranchLSN = s.PointLSN.String()
	}
	return wire.Snapshot{Name: s.Name.String(), SnapshotID: s.Name.Snapshot, UID: s.UID, CreateTime: wire.Time(s.CreateTime), Status: st}
}
