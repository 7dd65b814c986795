package tarn

import "time"

// SnapshotName names a snapshot; it prints as "projects/p/snapshots/s".
type SnapshotName struct{ Project, Snapshot string }

func (n SnapshotName) String() string { return "projects/" + n.Project + "/snapshots/" + n.Snapshot }

// Parent is the project the snapshot belongs to.
func (n SnapshotName) Parent() ProjectName { return ProjectName{n.Project} }

// Snapshot names one of the project's snapshots.
func (n ProjectName) Snapshot(id string) SnapshotName { return SnapshotName{n.Project, id} }

// ParseSnapshotName reads "projects/p/snapshots/s".
func ParseSnapshotName(s string) (SnapshotName, error) {
	v, err := parseResource(s, "projects", "snapshots")
	if err != nil {
		return SnapshotName{}, err
	}
	return SnapshotName{v[0], v[1]}, nil
}

// SnapshotSpec is what is asked of a snapshot: a point of a branch that is kept
// until the snapshot is deleted, also when the branch is gone or the point is
// longer ago than the project's history. At most one of SourceTime and
// SourceLSN is set; neither means the branch's head now.
type SnapshotSpec struct {
	Name       SnapshotName
	Source     string // id of the branch; "" = default branch
	SourceTime time.Time
	SourceLSN  LSN
	ExpireTime time.Time // zero = never
}

// Snapshot is a snapshot as observed. Its State passes INIT, READY, DELETED
// like a branch's.
type Snapshot struct {
	SnapshotSpec
	UID           string
	State         BranchState
	Timeline      TimelineID // holds the point; never written
	PointTime     time.Time  // of what it holds, known when it is READY
	PointLSN      LSN
	CreateTime    time.Time
	UpdateTime    time.Time
	StatusMessage string // why it stands where it stands; may be empty
}
