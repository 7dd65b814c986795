package cgroup

import (
	"errors"
	"os"
	"path/filepath"
)

// left is a group, or what one controller of v1 has of it, that an earlier
// process left. Nothing can be done with it but clear it away.
type left string

var errLeft = errors.New("it is only to be cleared away")

func (l left) add(int) error         { return errLeft }
func (l left) limit(Limits) error    { return errLeft }
func (l left) usage() (Usage, error) { return Usage{}, errLeft }
func (l left) reclaim() error        { return errLeft }
func (l left) frozen() (bool, error) { return false, errLeft }
func (l left) pids() ([]int, error)  { return readPIDs(filepath.Join(string(l), "cgroup.procs")) }
func (l left) remove() error         { return removeDir(string(l)) }

// freeze thaws, in whichever way the group knows.
func (l left) freeze(want bool) error {
	if want {
		return errLeft
	}
	for file, thawed := range map[string]string{"freezer.state": "THAWED", "cgroup.freeze": "0"} {
		path := filepath.Join(string(l), file)
		if _, err := os.Stat(path); err != nil {
			continue
		}
		if err := os.WriteFile(path, []byte(thawed), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}
