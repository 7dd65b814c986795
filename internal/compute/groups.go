package compute

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/postgres/cgroup"
)

// groups are the control groups of a fleet's computes, where the computer lets
// us have any.
type groups struct {
	tree *cgroup.Tree // nil = none
	why  string       // there are none
}

// openGroups finds a place for control groups. Where there is none, which is
// said once, computes have a fixed size: the largest that their endpoints allow.
//
// Our own group may be another one each time, and with it the place; groups.json
// says where the last one was. A file that did not reach the disk does not
// matter: groups are gone after a reboot.
func (m *machine) openGroups() {
	sum := sha256.Sum256([]byte(m.o.Dir))
	var err error
	m.groups.tree, err = cgroup.Open(cgroup.Options{Name: "tarn-" + hex.EncodeToString(sum[:6])})
	if err == nil {
		var b []byte
		if b, err = json.Marshal(m.groups.tree.Dirs()); err == nil {
			err = os.WriteFile(m.groupsFile(), b, 0o644)
		}
	}
	if err != nil {
		m.groups.tree, m.groups.why = nil, err.Error()
		m.log.Warn("computes have a fixed size, the largest of their endpoints'", "err", err)
	}
}

func (m *machine) groupsFile() string { return m.path("groups.json") }

// leftGroups is where the groups of the last node are.
func (m *machine) leftGroups() (dirs []string) {
	b, err := os.ReadFile(m.groupsFile())
	if err != nil {
		return nil // there were none
	}
	if err := json.Unmarshal(b, &dirs); err != nil {
		m.log.Warn("control groups of before not known", "path", m.groupsFile(), "err", err)
	}
	return dirs
}

// sweepGroups ends what is left in control groups, but for what was handed over.
func (m *machine) sweepGroups(dirs []string) {
	ctx, cancel := context.WithTimeout(context.Background(), cleanPatience)
	defer cancel()
	if err := cgroup.Sweep(ctx, dirs, m.handedOver); err != nil {
		m.log.Warn("control groups not cleared away", "err", err)
	}
}

// group makes a compute's group, or opens it; nil where there are none.
func (g *groups) group(name string) (*cgroup.Group, error) {
	if g.tree == nil {
		return nil, nil
	}
	return g.tree.Group(name)
}

// base is the size in CU that a compute always has.
func (g *groups) base(s tarn.ComputeSpec) float64 {
	if g.tree == nil {
		return s.MaxCU
	}
	return s.MinCU
}

func (g *groups) close() {
	if g.tree != nil {
		g.tree.Close()
	}
}
