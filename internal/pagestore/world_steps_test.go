package pagestore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
)

var worldNames = []string{"a", "b", "c", "longer name with spaces"}

// anyIno picks an inode there is, or sometimes one there is not.
func (l *line) anyIno(p pick, want func(modelFile) bool) layer.Ino {
	var inos []layer.Ino
	for ino, f := range l.now.files {
		if want(f) {
			inos = append(inos, ino)
		}
	}
	slices.Sort(inos)
	if len(inos) == 0 {
		return 999
	}
	return inos[p(len(inos))]
}

func isDir(f modelFile) bool     { return f.dir() }
func isRegular(f modelFile) bool { return f.mode&unix.S_IFMT == unix.S_IFREG }
func anything(modelFile) bool    { return true }

// step does one random thing.
func (w *world) step(p pick) error {
	if len(w.lines) == 0 { // the power cut met the deletion of the last
		return w.createLine()
	}
	l := w.lines[p(len(w.lines))]
	if l.vol == nil {
		if err := w.open(l); err != nil {
			if w.fs.dark {
				return nil
			}
			return err
		}
	}
	switch k := p(100); {
	case k < 40:
		return w.stepWrite(l, p)
	case k < 70:
		return w.stepNames(l, p)
	case k < 76:
		return w.stepSize(l, p)
	case k < 79:
		return w.stepCopy(l, p)
	case k < 84:
		return w.stepSync(l)
	case k < 88:
		return w.stepMark(l, p)
	case k < 92:
		return w.stepFork(l, p)
	case k < 95:
		return w.stepClose(l)
	case k < 96:
		return w.stepDelete(l)
	case k < 98:
		return w.stepForget(l, p)
	case k < 98+1:
		switch p(3) {
		case 0:
			return w.stepMap(l)
		case 1:
			return w.stepCompact(l, p)
		}
		return w.stepCollect(p)
	}
	if w.fs.dark {
		return nil
	}
	return w.check(l)
}

func (w *world) stepWrite(l *line, p pick) error {
	ino := l.anyIno(p, isRegular)
	if ino == 999 {
		return nil
	}
	off := p(6) * layer.PageSize
	if p(4) == 0 {
		off += p(4) * chunkPages * layer.PageSize
	}
	size := (1 + p(4)) * layer.PageSize
	if p(3) == 0 {
		off += p(layer.PageSize)
		size = 1 + p(2*layer.PageSize)
	}
	data := make([]byte, size)
	switch p(4) {
	case 0: // zeros
	case 1: // zeros in part
		fill(data[size/2:], p(250)+1)
	default:
		fill(data, p(250)+1)
	}
	var parts []*model
	for end := layer.PageSize - off%layer.PageSize; end < size; end += layer.PageSize {
		part := l.now.named()
		if _, ok := part.files[ino]; ok {
			part.write(ino, data[:end], off)
		}
		parts = append(parts, part)
	}
	return w.mutate(l, "write", func(m *model) error { m.write(ino, data, off); return nil }, func() error {
		n, err := l.vol.WriteAt(ino, data, uint64(off))
		if err == nil && n != len(data) {
			return fmt.Errorf("wrote %d of %d bytes", n, len(data))
		}
		return err
	}, parts...)
}

func fill(b []byte, seed int) {
	for i := range b {
		b[i] = byte(seed + i*7 + i>>8)
	}
}

func (w *world) stepNames(l *line, p pick) error {
	dir, name := l.anyIno(p, isDir), worldNames[p(len(worldNames))]
	switch p(6) {
	case 0, 1:
		f := layer.NewFile{Mode: unix.S_IFREG | 0o600, UID: uint32(p(3)), GID: 7}
		switch p(5) {
		case 0:
			f.Mode = unix.S_IFDIR | 0o755
		case 1:
			f.Mode, f.Target = unix.S_IFLNK|0o777, "some/where"
		}
		return w.mutate(l, "create "+name, func(m *model) error { return m.create(dir, name, f) }, func() error {
			_, err := l.vol.Create(dir, name, f)
			return err
		})
	case 2:
		return w.mutate(l, "unlink "+name, func(m *model) error { return m.unlink(dir, name) }, func() error { return l.vol.Unlink(dir, name) })
	case 3:
		return w.mutate(l, "rmdir "+name, func(m *model) error { return m.rmdir(dir, name) }, func() error { return l.vol.Rmdir(dir, name) })
	case 4:
		ino := l.anyIno(p, anything)
		return w.mutate(l, "link "+name, func(m *model) error { return m.link(ino, dir, name) }, func() error {
			_, err := l.vol.Link(ino, dir, name)
			return err
		})
	}
	to, name2 := l.anyIno(p, isDir), worldNames[p(len(worldNames))]
	return w.mutate(l, "rename "+name+" to "+name2, func(m *model) error { return m.rename(dir, name, to, name2) },
		func() error { return l.vol.Rename(dir, name, to, name2) })
}

func (w *world) stepSize(l *line, p pick) error {
	ino := l.anyIno(p, isRegular)
	if ino == 999 {
		return nil
	}
	size := p(8) * layer.PageSize
	if p(4) == 0 {
		size += p(4) * chunkPages * layer.PageSize
	}
	if p(2) == 0 {
		size += p(layer.PageSize)
	}
	if p(3) == 0 {
		return w.mutate(l, "allocate", func(m *model) error {
			if size > len(m.files[ino].data) {
				m.truncate(ino, size)
			}
			return nil
		}, func() error { return l.vol.Allocate(ino, uint64(size)/2, uint64(size-size/2)) })
	}
	s := layer.SetAttr{Has: layer.SetSize, Size: uint64(size)}
	if p(3) == 0 {
		s.Has |= layer.SetMode | layer.SetUID | layer.SetGID
		s.Mode, s.UID, s.GID = uint32(p(512)), uint32(p(9)), uint32(p(9))
	}
	return w.mutate(l, "setattr", func(m *model) error {
		m.truncate(ino, size)
		m.change(ino, func(f *modelFile) {
			if s.Has&layer.SetMode != 0 {
				f.mode, f.uid, f.gid = f.mode&unix.S_IFMT|s.Mode, s.UID, s.GID
			}
		})
		return nil
	}, func() error { _, err := l.vol.SetAttr(ino, s); return err }, l.now.named())
}

func (w *world) stepCopy(l *line, p pick) error {
	src, dst := l.anyIno(p, isRegular), l.anyIno(p, isRegular)
	if src == 999 {
		return nil
	}
	at := func() int {
		off := p(7) * layer.PageSize
		if p(4) == 0 {
			off += p(3) * chunkPages * layer.PageSize
		}
		if p(4) == 0 {
			off += p(layer.PageSize)
		}
		return off
	}
	from, to, n := at(), at(), 1+at()
	data := l.now.files[src].data
	data = data[min(from, len(data)):min(from+n, len(data))]
	// It is done in pieces that end with a page of one of the two.
	var parts []*model
	for _, off := range []int{from, to} {
		for end := layer.PageSize - off%layer.PageSize; end < len(data); end += layer.PageSize {
			part := l.now.named()
			if _, ok := part.files[dst]; ok {
				part.write(dst, data[:end], to)
			}
			parts = append(parts, part)
		}
	}
	return w.mutate(l, "copy", func(m *model) error {
		if src == dst && from < to+n && to < from+n {
			return syscall.EINVAL
		}
		if len(data) > 0 {
			m.write(dst, data, to)
		}
		return nil
	}, func() error {
		got, err := l.vol.CopyRange(src, uint64(from), dst, uint64(to), uint64(n))
		if err == nil && int(got) != len(data) {
			return fmt.Errorf("copied %d of %d bytes", got, len(data))
		}
		return err
	}, parts...)
}

func (w *world) stepSync(l *line) error {
	head := l.vol.Head()
	err := l.vol.Sync()
	switch {
	case w.fs.dark:
		return nil
	case err != nil:
		return err
	}
	l.synced = head
	return nil
}

func (w *world) stepMark(l *line, p pick) error {
	head := l.vol.Head()
	k := tarn.Mark{Seq: head - tarn.Seq(p(int(min(head, 5)))), LSN: tarn.LSN(p(1 << 20)), Time: time.Unix(int64(1+p(1<<20)), 0).UTC()}
	err := l.vol.Mark(context.Background(), k)
	if tarn.KindOf(err) == tarn.KindConflict && k.Seq < tarn.Seq(l.vol.swept.Load()) {
		return nil
	}
	l.history = append(l.history, moment{seq: head + 1, state: l.now.named()})
	switch {
	case w.fs.dark:
		return nil
	case err != nil:
		return err
	}
	l.marks = thin(append(l.marks, k))
	l.synced = head + 1
	return nil
}

func (w *world) stepFork(l *line, p pick) error {
	if len(w.lines) >= 6 {
		return nil
	}
	ctx := context.Background()
	child := &line{id: w.newID()}
	var err error
	if p(2) == 0 {
		child.parent, err = w.store.Fork(ctx, l.id, child.id)
		if err == nil && child.parent != (tarn.Point{Timeline: l.id, Seq: l.vol.Head()}) {
			return fmt.Errorf("fork of %s at %d gave %s", l.id, l.vol.Head(), child.parent)
		}
		child.now = l.now.named()
	} else {
		m := l.history[p(len(l.history))]
		child.parent, child.now = tarn.Point{Timeline: l.id, Seq: m.seq}, m.state.clone()
		// An operation that logged nothing leaves two moments at one seq; the
		// later is as good as the earlier.
		err = w.store.ForkAt(ctx, child.parent, child.id)
		if tarn.KindOf(err) == tarn.KindInvalid && w.collected(child.parent) {
			return nil
		}
	}
	if w.fs.dark {
		return nil // survive decides
	}
	if err != nil {
		return err
	}
	child.synced = child.parent.Seq
	child.history = []moment{{seq: child.parent.Seq, state: child.now.named()}}
	l.synced = max(l.synced, child.parent.Seq)
	w.lines = append(w.lines, child)
	if p(3) == 0 {
		return nil // opened at some other time
	}
	if err := w.open(child); err != nil {
		if w.fs.dark {
			return nil
		}
		return err
	}
	return w.check(child)
}

// collected reports whether a point may be gone.
func (w *world) collected(p tarn.Point) bool {
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	t := w.store.owner(p)
	return p.Seq < t.man.Swept.Head && !slices.ContainsFunc(t.man.Swept.Marks, func(k tarn.Mark) bool { return k.Seq == p.Seq }) &&
		!slices.Contains(w.store.beginnings(t), p.Seq)
}

func (w *world) stepClose(l *line) error {
	head := l.vol.Head()
	err := l.vol.Close()
	if w.fs.dark {
		return nil
	}
	if err != nil {
		return err
	}
	l.vol, l.synced, l.now = nil, head, l.now.named()
	st, err := w.store.Stat(context.Background(), l.id)
	if err == nil && st.Head != head {
		return fmt.Errorf("timeline %s closed at %d, status says %d", l.id, head, st.Head)
	}
	return err
}

func (w *world) stepDelete(l *line) error {
	ctx := context.Background()
	err := w.store.Delete(ctx, l.id)
	if w.fs.dark {
		return nil
	}
	if tarn.KindOf(err) != tarn.KindConflict {
		return fmt.Errorf("delete of %s while open: %v", l.id, err)
	}
	if err := w.stepClose(l); err != nil || w.fs.dark {
		return err
	}
	err = w.store.Delete(ctx, l.id)
	switch {
	case w.fs.dark:
		return w.forgetLine(l) // either way is right
	case err != nil:
		return fmt.Errorf("delete of %s: %v", l.id, err)
	}
	if _, err := w.store.Stat(ctx, l.id); tarn.KindOf(err) != tarn.KindNotFound {
		return fmt.Errorf("status of deleted %s: %v", l.id, err)
	}
	if _, err := w.store.OpenVolume(ctx, l.id); tarn.KindOf(err) != tarn.KindNotFound {
		return fmt.Errorf("open deleted %s: %v", l.id, err)
	}
	if _, err := w.store.Fork(ctx, l.id, w.newID()); tarn.KindOf(err) != tarn.KindNotFound {
		return fmt.Errorf("fork deleted %s: %v", l.id, err)
	}
	if err := w.store.Delete(ctx, l.id); tarn.KindOf(err) != tarn.KindNotFound {
		return fmt.Errorf("delete %s twice: %v", l.id, err)
	}
	return w.forgetLine(l)
}

// checkDirs checks that there are directories of the lines and of those they
// descend from, and no others.
func (w *world) checkDirs() error {
	want := map[string]bool{}
	for _, l := range w.lines {
		want[string(l.id)] = true
		for p := l.parent; p.Timeline != "" && !want[string(p.Timeline)]; {
			want[string(p.Timeline)] = true
			next, ok := w.dead[p.Timeline]
			if !ok {
				break // it is a line itself
			}
			p = next
		}
	}
	dirs, err := w.fs.ReadDir("store/timelines")
	if err != nil {
		return err
	}
	for _, d := range dirs {
		if !want[d.Name] {
			return fmt.Errorf("directory %s is there and should not", d.Name)
		}
		delete(want, d.Name)
	}
	if len(want) > 0 {
		return fmt.Errorf("directories %v are missing", want)
	}
	return nil
}

func (w *world) forgetLine(l *line) error {
	w.dead[l.id] = l.parent
	w.lines = slices.DeleteFunc(w.lines, func(o *line) bool { return o == l })
	if len(w.lines) > 0 || w.fs.dark {
		return nil
	}
	return w.createLine()
}

func (w *world) createLine() error {
	id := w.newID()
	err := w.store.Create(context.Background(), id, worldRoot)
	if err != nil && !w.fs.dark {
		return err
	} else if err != nil {
		return nil
	}
	m := newModel(worldRoot)
	w.lines = append(w.lines, &line{id: id, now: m, history: []moment{{seq: 1, state: m.named()}}, synced: 1})
	return nil
}

// stepCollect collects the timelines, ghosts too, and checks that every mark
// that is left still shows what it did.
func (w *world) stepCollect(p pick) error {
	ctx := context.Background()
	w.store.mu.Lock()
	var all []*timeline
	for _, t := range w.store.timelines {
		all = append(all, t)
	}
	w.store.mu.Unlock()
	slices.SortFunc(all, func(a, b *timeline) int { return strings.Compare(string(a.id), string(b.id)) })
	for _, l := range w.lines {
		l.thinned = true
	}
	for _, t := range all {
		if p(3) == 0 {
			continue
		}
		_, err := w.store.collect(ctx, t)
		w.dropTables()
		if w.fs.dark {
			return nil
		}
		if err != nil {
			return err
		}
	}
	for _, l := range w.lines {
		if l.vol != nil {
			l.synced = max(l.synced, tarn.Seq(l.vol.log.synced.Load()))
		}
		st, err := w.store.Stat(ctx, l.id)
		if err != nil {
			if w.fs.dark {
				return nil
			}
			return err
		}
		if n := len(l.marks); n > 0 && !slices.Contains(st.Marks, l.marks[n-1]) {
			return fmt.Errorf("timeline %s lost its newest mark: %v of %v", l.id, st.Marks, l.marks)
		}
		for _, k := range st.Marks {
			if !slices.Contains(l.marks, k) {
				return fmt.Errorf("timeline %s has mark %v, had %v", l.id, k, l.marks)
			}
		}
		l.marks, l.thinned = st.Marks, false
		if err := w.checkMarks(l); err != nil || w.fs.dark {
			return err
		}
	}
	return w.checkStore()
}

// checkMarks forks a line at its marks.
func (w *world) checkMarks(l *line) error {
	ctx := context.Background()
	for _, k := range l.marks {
		i := slices.IndexFunc(l.history, func(m moment) bool { return m.seq == k.Seq })
		if i < 0 {
			continue // inside an operation, or before a crash
		}
		// An operation that logged nothing leaves two moments at one seq.
		child := &line{id: w.newID(), parent: tarn.Point{Timeline: l.id, Seq: k.Seq}, now: l.history[i].state.clone()}
		if err := w.store.ForkAt(ctx, child.parent, child.id); err != nil {
			if w.fs.dark {
				return nil
			}
			return fmt.Errorf("fork %s at its mark %d: %w", l.id, k.Seq, err)
		}
		err := w.open(child)
		if err == nil {
			err = w.check(child)
		}
		if err == nil {
			err = child.vol.Close()
		}
		if err == nil {
			err = w.store.Delete(ctx, child.id)
		}
		w.dead[child.id] = child.parent
		if w.fs.dark {
			return nil
		}
		if err != nil {
			return fmt.Errorf("mark %d of %s: %w", k.Seq, l.id, err)
		}
	}
	return nil
}

// stepMap writes a map of an open line, and drops page tables from memory.
func (w *world) stepMap(l *line) error {
	head := l.vol.Head()
	err := w.store.mapVolume(context.Background(), l.vol)
	w.dropTables()
	if w.fs.dark {
		return nil
	}
	l.synced = head
	return err
}

// dropTables drops every page table that a map has too.
func (w *world) dropTables() {
	for _, ix := range w.store.cache.all() {
		for n := range ix.inodes.all() {
			n.write.Lock()
			if t := n.pages.Load(); t != nil {
				for i := range t.slots {
					if t.slots[i].where.Load()&dirtyBit == 0 {
						t.slots[i].chunk.Store(nil)
					}
				}
			}
			n.write.Unlock()
		}
	}
}

func (w *world) stepForget(l *line, p pick) error {
	ino := l.anyIno(p, anything)
	l.vol.Forget(ino)
	if f := l.now.files[ino]; f.nlink == 0 {
		l.now = l.now.clone()
		delete(l.now.files, ino)
		if _, err := l.vol.Attr(ino); !errors.Is(err, syscall.ENOENT) {
			return fmt.Errorf("attributes of forgotten inode %d: %v", ino, err)
		}
	}
	return nil
}
