package tarn

import "time"

// BranchState is the published state of a branch.
//
//	INIT ──▶ READY ◀──▶ DELETED ──▶ gone
//	           │ ▲
//	           ▼ │
//	        RESETTING
type BranchState string

// The states a branch passes through.
const (
	BranchInit      BranchState = "INIT"
	BranchReady     BranchState = "READY"
	BranchResetting BranchState = "RESETTING"
	BranchDeleted   BranchState = "DELETED"
)

// BranchSpec is what is asked of a branch. At most one of SourceTime and
// SourceLSN is set; neither means the source's head now. With SourceSnapshot
// there is no source branch, time or LSN.
type BranchSpec struct {
	Name           BranchName
	Source         string // id of the source branch in the same project; "" = default branch
	SourceTime     time.Time
	SourceLSN      LSN
	SourceSnapshot string    // id of a snapshot in the same project; "" = none
	ExpireTime     time.Time // zero = never
	Protected      bool
}

// RestoreSpec is what a branch shall hold again: what it held at a time or an
// LSN, or what a snapshot holds; exactly one is set.
type RestoreSpec struct {
	Time     time.Time
	LSN      LSN
	Snapshot string // id of a snapshot in the same project
	KeepAs   string // id of the branch that goes on with what is replaced; "" = one is made up
}

// Branch is a branch as observed.
type Branch struct {
	BranchSpec
	UID           string
	Default       bool
	State         BranchState
	Timeline      TimelineID
	StateChanged  time.Time
	LineBegan     time.Time // when the branch was put on its timeline: made, restored or reset
	Earlier       string    // id of the branch that has this one's past before LineBegan; "" = none
	CreateTime    time.Time
	UpdateTime    time.Time
	PurgeTime     time.Time // when a deleted one can no longer be brought back; zero = it is not deleted, or goes now
	LogicalBytes  int64     // size of the branch's files; 0 = not measured yet
	StatusMessage string    // why it stands where it stands; may be empty
}
