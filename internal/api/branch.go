package api

import (
	"context"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/control"
)

// branchDoor answers …/projects/{project}/branches.
type branchDoor struct {
	control *control.Control
	ops     *operationDoor
}

// maxTTL is the published longest life of a branch that expires.
const maxTTL = 30 * day

func (d *branchDoor) create(ctx context.Context, q *query) (any, error) {
	p, err := q.project()
	if err != nil {
		return nil, err
	}
	var in wire.Branch
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	id, err := tarn.ParseID("branch", q.text("branch_id"))
	if err != nil {
		return nil, badField("branch_id", "%s", err)
	}
	replace, err := q.flag("replace_existing")
	if err != nil {
		return nil, err
	}
	if in.Spec == nil {
		in.Spec = &wire.BranchSpec{}
	}
	s, err := readBranchSpec(p.Branch(id), *in.Spec, time.Now())
	if err != nil {
		return nil, err
	}
	op, err := d.control.CreateBranch(ctx, q.who, s)
	err = existing(err, alreadyExists, func() error {
		_, err := d.control.GetBranch(ctx, s.Name)
		return err
	})
	if f, ok := err.(*failure); ok && f.code == alreadyExists && replace != nil && *replace {
		op, err = d.control.UpdateBranch(ctx, s.Name, func(b *tarn.Branch) error {
			return changeBranch(b, nil, *in.Spec, time.Now())
		})
	}
	return d.ops.answer(ctx, op, err)
}

// readBranchSpec reads what is asked of a new branch.
func readBranchSpec(n tarn.BranchName, in wire.BranchSpec, now time.Time) (tarn.BranchSpec, error) {
	s := tarn.BranchSpec{Name: n, Protected: in.IsProtected != nil && *in.IsProtected}
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
	if in.SourceSnapshot != "" {
		if in.SourceBranch != "" || in.SourceBranchTime != "" || in.SourceBranchLSN != "" {
			return s, badField("spec.source_snapshot", "give source_snapshot, or source_branch with its time or LSN, not both")
		}
		if s.SourceSnapshot, err = readSnapshotName("spec.source_snapshot", in.SourceSnapshot, n.Parent()); err != nil {
			return s, err
		}
	}
	expire, err := readExpiry(expiry{in.NoExpiry, in.TTL, in.ExpireTime}, now, maxTTL)
	if err == nil && expire != nil {
		s.ExpireTime = *expire
	}
	return s, err
}

// readPoint reads source_branch_time or source_branch_lsn; under is what their
// names begin with in the request.
func readPoint(under, at, position string) (t time.Time, lsn tarn.LSN, err error) {
	switch {
	case at != "" && position != "":
		return t, 0, badField(under+"source_branch_lsn", "give source_branch_lsn or source_branch_time, not both")
	case at != "":
		t, err = wire.ParseTime(under+"source_branch_time", at)
		return t, 0, err
	case position == "":
		return t, 0, nil
	}
	lsn, err = tarn.ParseLSN(position)
	switch {
	case err != nil:
		return t, 0, badField(under+"source_branch_lsn", "%s", err)
	case lsn == 0: // the zero LSN means now, behind the door
		return t, 0, badField(under+"source_branch_lsn", "no branch has been at %s", lsn)
	}
	return t, lsn, nil
}

// readSnapshotName reads the resource name of a snapshot of the project.
func readSnapshotName(field, s string, p tarn.ProjectName) (string, error) {
	n, err := tarn.ParseSnapshotName(s)
	if err != nil {
		return "", badField(field, "%s", err)
	}
	if n.Parent() != p {
		return "", badField(field, "%s is of another project", s)
	}
	return n.Snapshot, nil
}

// expiry is how a spec says when its thing is to be deleted.
type expiry struct {
	never *bool
	ttl   string
	at    string
}

// readExpiry reads the one of expire_time, ttl and no_expiry that is given: the
// zero time is never, nil is not said. longest 0 = no limit.
func readExpiry(in expiry, now time.Time, longest time.Duration) (*time.Time, error) {
	if in.never != nil && !*in.never {
		return nil, badField("spec.no_expiry", "only true can be said; give expire_time or ttl for a branch that expires")
	}
	n := 0
	for _, said := range []bool{in.never != nil, in.ttl != "", in.at != ""} {
		if said {
			n++
		}
	}
	var t time.Time
	switch {
	case n > 1:
		return nil, badField("spec.expiration", "give one of expire_time, ttl and no_expiry")
	case n == 0:
		return nil, nil
	case in.ttl != "":
		d, err := wire.ParseDuration("spec.ttl", in.ttl)
		if err != nil {
			return nil, err
		}
		if d <= 0 {
			return nil, badField("spec.ttl", "got %s, want more than 0s", in.ttl)
		}
		if longest > 0 && d > longest {
			return nil, badField("spec.ttl", "got %s, want more than 0s and at most %s", in.ttl, wire.Duration(longest))
		}
		t = now.Add(d).UTC()
	case in.at != "":
		var err error
		if t, err = wire.ParseTime("spec.expire_time", in.at); err != nil {
			return nil, err
		}
		if !t.After(now) {
			return nil, badField("spec.expire_time", "got %s, want a time that is not past", in.at)
		}
		if longest > 0 && t.Sub(now) > longest {
			return nil, badField("spec.expire_time", "got %s, want a time within the next %d days", in.at, int(longest/day))
		}
	}
	return &t, nil
}

func (d *branchDoor) list(ctx context.Context, q *query) (any, error) {
	p, err := q.project()
	if err != nil {
		return nil, err
	}
	pg, err := q.page("page_size")
	if err != nil {
		return nil, err
	}
	if pg.Deleted, err = q.deleted(); err != nil {
		return nil, err
	}
	bs, next, err := d.control.ListBranches(ctx, p, pg)
	if err != nil {
		return nil, err
	}
	out := wire.ListBranches{Branches: []wire.Branch{}, NextPageToken: next}
	for _, b := range bs {
		out.Branches = append(out.Branches, branchOf(b))
	}
	return out, nil
}

func (d *branchDoor) get(ctx context.Context, q *query) (any, error) {
	n, err := q.branch()
	if err != nil {
		return nil, err
	}
	b, err := d.control.GetBranch(ctx, n)
	if err != nil {
		return nil, err
	}
	return branchOf(b), nil
}

// branchFields are what an update may name; the source's paths are accepted
// and left alone, since Terraform sends the whole spec again.
var branchFields = [...]string{
	"spec.is_protected", "spec.expiration", "spec.expire_time", "spec.ttl", "spec.no_expiry",
	"spec.source_branch", "spec.source_branch_lsn", "spec.source_branch_time", "spec.source_snapshot",
}

func (d *branchDoor) update(ctx context.Context, q *query) (any, error) {
	n, err := q.branch()
	if err != nil {
		return nil, err
	}
	var in wire.Branch
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	m := parseMask(q.text("update_mask"))
	if err := m.check(branchFields[:]...); err != nil {
		return nil, err
	}
	if in.Spec == nil {
		in.Spec = &wire.BranchSpec{}
	}
	op, err := d.control.UpdateBranch(ctx, n, func(b *tarn.Branch) error {
		return changeBranch(b, m, *in.Spec, time.Now())
	})
	return d.ops.answer(ctx, op, err)
}

// changeBranch applies an update to the recorded branch.
func changeBranch(b *tarn.Branch, m mask, s wire.BranchSpec, now time.Time) error {
	if v := choose(m, s.IsProtected, false, "spec.is_protected"); v != nil {
		b.Protected = *v
	}
	expire, err := readExpiry(expiry{s.NoExpiry, s.TTL, s.ExpireTime}, now, maxTTL)
	if err != nil {
		return err
	}
	v := choose(m, expire, time.Time{}, "spec.expiration", "spec.expire_time", "spec.ttl", "spec.no_expiry")
	if v != nil {
		b.ExpireTime = *v
	}
	return nil
}

func (d *branchDoor) delete(ctx context.Context, q *query) (any, error) {
	n, err := q.branch()
	if err != nil {
		return nil, err
	}
	missing, err := q.flag("allow_missing")
	if err != nil {
		return nil, err
	}
	now, err := d.ops.forGood(ctx, q, n)
	if tarn.KindOf(err) == tarn.KindNotFound && missing != nil && *missing {
		return d.ops.done(n.String(), verbDelete, "missing", nil)
	}
	if err != nil {
		return nil, err
	}
	ask := d.control.Trash.DeleteBranch
	if now {
		ask = d.control.DeleteBranch
	}
	op, err := ask(ctx, n)
	return d.ops.answer(ctx, op, err)
}

func (d *branchDoor) undelete(ctx context.Context, q *query) (any, error) {
	n, err := q.branch()
	if err != nil {
		return nil, err
	}
	op, err := d.control.Trash.UndeleteBranch(ctx, n)
	return d.ops.answer(ctx, op, err)
}

func branchOf(b tarn.Branch) wire.Branch {
	st := &wire.BranchStatus{
		BranchID: b.Name.Branch, CurrentState: string(b.State), Default: b.Default,
		ExpireTime: wire.Time(b.ExpireTime), IsProtected: b.Protected,
		SourceBranchTime: wire.Time(b.SourceTime), StateChangeTime: wire.Time(b.StateChanged),
	}
	if b.Source != "" {
		st.SourceBranch = b.Name.Parent().Branch(b.Source).String()
	}
	if b.SourceLSN != 0 {
		st.SourceBranchLSN = b.SourceLSN.String()
	}
	if b.SourceSnapshot != "" {
		st.SourceSnapshot = b.Name.Parent().Snapshot(b.SourceSnapshot).String()
	}
	st.StatusDetail = b.StatusMessage
	if b.LogicalBytes > 0 {
		st.LogicalSizeBytes = &b.LogicalBytes
	}
	if b.State == tarn.BranchInit || b.State == tarn.BranchResetting {
		st.PendingState = string(tarn.BranchReady)
	}
	if !b.PurgeTime.IsZero() {
		st.DeleteTime, st.PurgeTime = wire.Time(b.StateChanged), wire.Time(b.PurgeTime)
	}
	return wire.Branch{
		Name: b.Name.String(), BranchID: b.Name.Branch, UID: b.UID, Parent: b.Name.Parent().String(),
		CreateTime: wire.Time(b.CreateTime), UpdateTime: wire.Time(b.UpdateTime), Status: st,
	}
}
