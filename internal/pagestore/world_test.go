package pagestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand"
	"reflect"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
)

// world drives a store on a crashable file system and a model of it side by
// side, and compares them.
type world struct {
	fs     *crashFS
	store  *Store
	lines  []*line
	dead   map[tarn.TimelineID]tarn.Point // parents of deleted lines
	ids    int
	opts   Options
	images int // seen after compactions
}

// line is a timeline of the model.
type line struct {
	id      tarn.TimelineID
	parent  tarn.Point
	vol     *Volume // nil while closed
	now     *model
	history []moment // by seq; the first is where the timeline begins
	synced  tarn.Seq // everything before this must survive
	thinned bool     // a collection was cut off: marks may be gone
	marks   []tarn.Mark
}

// moment is the state at a seq, and the states a crash may leave between it
// and the moment before.
type moment struct {
	seq   tarn.Seq
	state *model
	parts []*model
}

// unknownSeq is the seq of an operation that the power cut interrupted.
const unknownSeq = tarn.Seq(1) << 62

// pick chooses one of n.
type pick func(n int) int

var worldRoot = layer.NewFile{Mode: 0o700, UID: 101, GID: 104}

func newWorld() (*world, error) {
	w := &world{fs: newCrashFS(), dead: map[tarn.TimelineID]tarn.Point{}, opts: Options{SegmentBytes: 64 << 10, MapBytes: 48 << 10, CacheBytes: 1, CollectBytesPerSecond: 1 << 40}}
	if err := w.openStore(); err != nil {
		return nil, err
	}
	if err := w.createLine(); err != nil {
		return nil, err
	}
	return w, w.open(w.lines[0])
}

func (w *world) openStore() (err error) {
	w.store, err = open(context.Background(), w.fs, "store", w.opts)
	return err
}

func (w *world) newID() tarn.TimelineID {
	w.ids++
	return tarn.TimelineID(fmt.Sprintf("%032x", w.ids))
}

func (w *world) open(l *line) (err error) {
	if l.vol, err = w.store.OpenVolume(context.Background(), l.id); err != nil {
		return fmt.Errorf("open %s: %w", l.id, err)
	}
	return nil
}

// check compares a line that is open with the model, whole.
func (w *world) check(l *line) error {
	got, err := viewOf(l.vol)
	if err != nil {
		return fmt.Errorf("look at %s: %w", l.id, err)
	}
	if d := differ(got, l.now.view()); d != "" {
		return fmt.Errorf("timeline %s at seq %d differs:\n%s", l.id, l.vol.Head(), d)
	}
	for ino, f := range l.now.files { // the ones without a name too
		if f.nlink == 0 && !f.dir() && f.mode&unix.S_IFMT == unix.S_IFREG {
			data, err := readAll(l.vol, ino)
			if err != nil || !bytes.Equal(data, f.data) {
				return fmt.Errorf("timeline %s: inode %d, unlinked, has %d bytes, not %d, or others: %v", l.id, ino, len(data), len(f.data), err)
			}
		}
	}
	st, err := w.store.Stat(context.Background(), l.id)
	if err != nil {
		return err
	}
	if st.Head != l.vol.Head() || st.Parent != l.parent || !(len(st.Marks) == 0 && len(l.marks) == 0 || reflect.DeepEqual(st.Marks, l.marks)) {
		return fmt.Errorf("timeline %s: status %+v, want head %d, parent %s, marks %v", l.id, st, l.vol.Head(), l.parent, l.marks)
	}
	return nil
}

// checkAll opens, compares and leaves open every line.
func (w *world) checkAll() error {
	for _, l := range w.lines {
		if l.vol == nil {
			if err := w.open(l); err != nil {
				return err
			}
		}
		if err := w.check(l); err != nil {
			return err
		}
	}
	if err := w.checkStore(); err != nil {
		return err
	}
	return w.checkDirs()
}

// checkStore runs the store's own check.
func (w *world) checkStore() error {
	var found []error
	sum, err := w.store.Check(context.Background(), func(f Finding) { found = append(found, fmt.Errorf("timeline %s: %w", f.Timeline, f.Err)) })
	if w.fs.dark {
		return nil
	}
	if err == nil {
		err = errors.Join(found...)
	}
	if err == nil && sum.Timelines < len(w.lines) {
		err = fmt.Errorf("only %+v checked of %d lines", sum, len(w.lines))
	}
	return err
}

// crash loses what was not synced and finds out which past each line is in.
func (w *world) crash(rnd *rand.Rand, keep float64) error {
	w.fs.crash(rnd, keep)
	if err := w.openStore(); err != nil {
		return fmt.Errorf("open after a crash: %w", err)
	}
	if err := w.dropUnknown(); err != nil {
		return fmt.Errorf("after a crash (keep %.2f): %w", keep, err)
	}
	for _, l := range w.lines {
		l.vol = nil
		if err := w.survive(l); err != nil {
			return fmt.Errorf("after a crash (keep %.2f): %w", keep, err)
		}
	}
	if err := w.checkStore(); err != nil {
		return fmt.Errorf("after a crash (keep %.2f): %w", keep, err)
	}
	return nil
}

// dropUnknown deletes the timelines whose making or deletion the crash
// interrupted: they may be there or not.
func (w *world) dropUnknown() error {
	ctx := context.Background()
	all, err := w.store.Timelines(ctx)
	if err != nil {
		return err
	}
	for _, st := range all {
		if !slices.ContainsFunc(w.lines, func(l *line) bool { return l.id == st.ID }) {
			if err := w.store.Delete(ctx, st.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// survive opens a line after a crash and takes over the state it has, when
// that is one of its past.
func (w *world) survive(l *line) error {
	if err := w.open(l); err != nil {
		return err
	}
	head := l.vol.Head()
	if head < l.synced {
		return fmt.Errorf("timeline %s has seq %d, but %d was synced", l.id, head, l.synced)
	}
	got, err := viewOf(l.vol)
	if err != nil {
		return err
	}
	for i, m := range l.history {
		if m.seq < head {
			continue
		}
		candidates := m.parts
		if m.seq == head || m.seq == unknownSeq {
			candidates = append(slices.Clone(m.parts), m.state)
		}
		var d string
		for _, c := range candidates {
			if d = differ(got, c.view()); d == "" {
				l.history = append(l.history[:i:i], moment{seq: head, state: c})
				l.now, l.synced = c.clone(), head
				l.marks = slices.DeleteFunc(l.marks, func(k tarn.Mark) bool { return k.Seq > head })
				return w.surviveMarks(l)
			}
		}
		return fmt.Errorf("timeline %s at seq %d (synced %d, next moment %d) is in no state of its past:\n%s", l.id, head, l.synced, m.seq, d)
	}
	return fmt.Errorf("timeline %s has seq %d, beyond everything written", l.id, head)
}

// surviveMarks takes over the marks; they are synced when written, so only the
// one being written may be missing, and it may be there.
func (w *world) surviveMarks(l *line) error {
	st, err := w.store.Stat(context.Background(), l.id)
	if err != nil {
		return err
	}
	if l.thinned {
		l.marks = slices.DeleteFunc(l.marks, func(k tarn.Mark) bool { return !slices.Contains(st.Marks, k) })
		l.thinned = false
	}
	if len(st.Marks) < len(l.marks) || !slices.Equal(st.Marks[:len(l.marks)], l.marks) || len(st.Marks) > len(l.marks)+1 {
		return fmt.Errorf("timeline %s has marks %v, had %v", l.id, st.Marks, l.marks)
	}
	l.marks = st.Marks
	return nil
}

// mutate runs one operation on model and volume and compares the errors. parts
// are the states between.
func (w *world) mutate(l *line, what string, onModel func(*model) error, onVolume func() error, parts ...*model) error {
	after := l.now.clone()
	want := onModel(after)
	got := onVolume()
	if w.fs.dark {
		l.history = append(l.history, moment{unknownSeq, after.named(), append(parts, l.now.named())})
		return nil
	}
	if !errors.Is(got, want) || (want == nil) != (got == nil) {
		return fmt.Errorf("%s on %s: %v, the model says %v", what, l.id, got, want)
	}
	l.now = after
	l.history = append(l.history, moment{l.vol.Head(), after.named(), parts})
	return nil
}
