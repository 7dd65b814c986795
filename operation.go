package tarn

import "time"

// Operation is a long-running request. It is done or not, and survives a
// restart; its Name ends in "operations/{id}".
type Operation struct {
	Name       string // e.g. projects/p/branches/b/operations/3f…
	Verb       string // create, update, delete, undelete, restore, reset
	Target     string // resource name it works on
	Done       bool
	ErrorKind  Kind   // meaningful when Error is not empty
	Error      string // why it ended without success
	CreateTime time.Time
	UpdateTime time.Time
}
