// Package cgroup puts processes into control groups of the kernel: what they
// may use of CPU and memory, what they do use, and whether they run at all. It
// speaks both versions of the interface, v1 (a hierarchy for each controller)
// and v2 (one for all). It knows nothing of Postgres, and decides nothing: how
// large a group should be is its caller's.
//
// Sources: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/*.rst of the
// kernel.
package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/tarndb/tarn"
)

// Options say where the groups are. The zero value is this computer.
type Options struct {
	Name string // of the directory that holds the groups, below our own group; required
	Root string // where the kernel's files are; "" = /sys/fs/cgroup
	Self string // the file that says which groups we are in; "" = /proc/self/cgroup
}

// Tree is a directory of groups, one for each compute.
type Tree struct {
	root string
	v    version
}

// version is one of the two interfaces.
type version interface {
	// dirs are the directories of the tree itself: one, or one for each
	// controller, of which the first always exists.
	dirs() []string
	// weigh has all groups together claim so many CPUs.
	weigh(cpus float64) error
	// open makes a group, or opens the one there is.
	open(name string) (control, error)
}

// control is one group.
type control interface {
	add(pid int) error
	limit(l Limits) error
	usage() (Usage, error)
	freeze(want bool) error
	frozen() (bool, error) // whether every process of it has stopped
	reclaim() error
	remove() error
	pids() ([]int, error)
}

// Open looks for a place for groups and tries it: makes one, limits it and
// removes it again. KindUnavailable: there is none, and the error says what is
// missing.
func Open(o Options) (*Tree, error) {
	if o.Root == "" {
		o.Root = "/sys/fs/cgroup"
	}
	if o.Self == "" {
		o.Self = "/proc/self/cgroup"
	}
	t, err := open(o)
	if err != nil {
		return nil, tarn.Unavailable("use control groups in %s: %w", o.Root, err)
	}
	return t, nil
}

func open(o Options) (*Tree, error) {
	self, err := ownGroups(o.Self)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, find := range [...]func(Options, map[string]string) (version, error){findUnified, findHierarchies} {
		v, err := find(o, self)
		if err == nil {
			t := &Tree{root: o.Root, v: v}
			if err = t.try(); err == nil {
				return t, nil
			}
			t.Close()
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// ownGroups reads /proc/self/cgroup: the path of our group by controller, under
// "" for v2.
func ownGroups(file string) (map[string]string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	own := map[string]string{}
	for line := range strings.Lines(string(b)) {
		// hierarchy id : controllers, with commas : path
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		for _, c := range strings.Split(f[1], ",") {
			own[c] = path.Clean("/" + f[2])
		}
	}
	return own, nil
}

// try makes a group and takes it away again. The tree stays, with its weight.
func (t *Tree) try() error {
	g, err := t.Group("_try")
	if err != nil {
		return err
	}
	err = g.Limit(Limits{MemoryBytes: 64 << 20, CPUs: 1})
	if err == nil {
		_, err = g.Usage()
	}
	if err == nil {
		err = t.v.weigh(float64(runtime.NumCPU())) // a group by itself, which weighs as one process too
	}
	return errors.Join(err, g.c.remove())
}

// Group makes a group, or opens the one there is.
func (t *Tree) Group(name string) (*Group, error) {
	if name == "" || strings.ContainsAny(name, "/\x00") || name[0] == '.' {
		return nil, tarn.Invalid("control group %q: not a name", name)
	}
	c, err := t.v.open(name)
	if err != nil {
		return nil, fmt.Errorf("make control group %s: %w", name, err)
	}
	return &Group{name: name, c: c}, nil
}

// Dirs are the tree's directories, for Sweep by a process that comes later: its
// own group, and so its tree, may be another.
func (t *Tree) Dirs() []string { return t.v.dirs() }

// Sweep clears the groups in a tree's directories away, but for those to keep:
// it thaws and kills what is in them, and removes them, and the directories when
// nothing is left in them. Directories that are gone are not an error.
func Sweep(ctx context.Context, dirs []string, keep func(name string) bool) error {
	groups, err := leftIn(dirs, keep)
	errs := []error{err, thaw(groups)}
	for _, g := range groups {
		errs = append(errs, g.Clear(ctx))
	}
	for _, dir := range dirs {
		_ = os.Remove(dir) // still in use, or gone: as well
	}
	return errors.Join(errs...)
}

// ThawAll lets everything in a tree's directories run again: what is frozen in
// one hierarchy of v1 does not die, whoever kills it.
func ThawAll(dirs []string) error {
	groups, err := leftIn(dirs, func(string) bool { return false })
	return errors.Join(err, thaw(groups))
}

func thaw(groups []*Group) error {
	var errs []error
	for _, g := range groups {
		errs = append(errs, g.c.freeze(false))
	}
	return errors.Join(errs...)
}

func leftIn(dirs []string, keep func(name string) bool) (groups []*Group, err error) {
	for _, dir := range dirs {
		entries, rerr := os.ReadDir(dir)
		if rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
		for _, e := range entries {
			if e.IsDir() && !keep(e.Name()) {
				path := filepath.Join(dir, e.Name())
				groups = append(groups, &Group{name: path, c: left(path)})
			}
		}
	}
	return groups, err
}

// Close removes the tree's own directories; those with groups stay.
func (t *Tree) Close() {
	for _, dir := range t.v.dirs() {
		_ = os.Remove(dir) // still in use, or gone: as well
	}
}

func exists(elem ...string) bool {
	_, err := os.Stat(filepath.Join(elem...))
	return err == nil
}
