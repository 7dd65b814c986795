package tarn

import "time"

// BranchState is the published state of a branch.
//
//	INIT ──▶ READY ──▶ DELETED
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
// SourceLSN is set; neither means the source's head now.
type BranchSpec struct {
	Name       BranchName
	Source     string // id of the source branch in the same project; "" = default branch
	SourceTime time.Time
	SourceLSN  LSN
	ExpireTime time.Time // zero = never
	Protected  bool
}

// Branch is a branch as observed.
type Branch struct {
	BranchSpec
	UID           string
	Default       bool
	State         BranchState
	Timeline      TimelineID
	StateChanged  time.Time
	CreateTime    time.Time
	UpdateTime    time.Time
	LogicalBytes  int64  // size of the branch's files; 0 = not measured yet
	StatusMessage string // why it stands where it stands; may be empty
}
