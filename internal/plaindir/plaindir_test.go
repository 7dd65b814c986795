package plaindir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func openStore(t *testing.T, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func id(n int) tarn.TimelineID { return tarn.TimelineID(fmt.Sprintf("%032x", n)) }

// create makes a timeline with the files given.
func create(t *testing.T, s *Store, n int, files map[string]string) {
	t.Helper()
	if err := s.Create(t.Context(), id(n), Root{Mode: 0o700, UID: os.Geteuid(), GID: os.Getegid()}); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		write(t, s.path(id(n), "data", name), text)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// tree is what is in a directory: contents of files, targets of links, "/" for
// directories.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	got := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		switch {
		case d.IsDir():
			got[name] = "/"
		case d.Type() == fs.ModeSymlink:
			got[name], err = os.Readlink(path)
		default:
			var b []byte
			b, err = os.ReadFile(path)
			got[name] = string(b)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func open(t *testing.T, s *Store, n int) *Volume {
	t.Helper()
	v, err := s.OpenVolume(t.Context(), id(n))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A fork has all of its parent but what says that a Postgres runs there, what
// every start makes anew, and temporary files; then both go their own way.
func TestForkCopiesWhatCounts(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{First: First{Path: "global/pg_control", Check: func([]byte, Activity) error { return nil }}})
	create(t, s, 1, map[string]string{
		"global/pg_control": "control", "global/1262": "", "PG_VERSION": "18\n", "base/5/16384": strings.Repeat("x", 100_000),
		"base/5/16384_fsm": "fsm", "base/5/16384_init": "init", "base/5/t3_16390": "temporary", "base/5/t3_16390_fsm": "temporary",
		"base/5/pg_internal.init": "cache", "base/pgsql_tmp/pgsql_tmp1.0": "sort", "postmaster.pid": "1", "postmaster.opts": "x",
		"pg_replslot/feed/state": "slot", "pg_notify/0000": "n", "pg_subtrans/0000": "n", "pg_xact/0000": "commits", "pg_stat_tmp/x": "x",
		"base/5/tables": "not temporary",
	})
	data := s.path(id(1), "data")
	ok(t, os.Symlink("/elsewhere/pg_wal", filepath.Join(data, "pg_wal")))
	ok(t, os.Chmod(filepath.Join(data, "PG_VERSION"), 0o640))
	if _, err := s.Fork(t.Context(), id(1), id(2)); err != nil {
		t.Fatal(err)
	}
	child := s.path(id(2), "data")
	want := map[string]string{
		"global": "/", "global/pg_control": "control", "global/1262": "", "PG_VERSION": "18\n", "base": "/", "base/5": "/",
		"base/5/16384": strings.Repeat("x", 100_000), "base/5/16384_fsm": "fsm", "base/5/16384_init": "init", "base/5/tables": "not temporary",
		"pg_replslot": "/", "pg_notify": "/", "pg_subtrans": "/", "pg_stat_tmp": "/", "pg_xact": "/", "pg_xact/0000": "commits",
		"pg_wal": "/elsewhere/pg_wal",
	}
	got := tree(t, child)
	for name, text := range want {
		if had, there := got[name]; !there || had != text {
			t.Errorf("the fork has %s as %.20q, want %.20q", name, had, text)
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("the fork also has %v", got)
	}
	for name, perm := range map[string]fs.FileMode{"PG_VERSION": 0o640, ".": 0o700, "base/5": 0o700, "base/5/16384": 0o600} {
		if st, err := os.Stat(filepath.Join(child, name)); err != nil || st.Mode().Perm() != perm {
			t.Errorf("%s has mode %v, %v", name, st.Mode(), err)
		}
	}
	write(t, filepath.Join(child, "PG_VERSION"), "changed")
	if b, err := os.ReadFile(filepath.Join(data, "PG_VERSION")); err != nil || string(b) != "18\n" {
		t.Errorf("the parent has %q, %v", b, err)
	}
	st, err := s.Stat(t.Context(), id(2))
	if err != nil || st.Parent.Timeline != id(1) || st.Bytes < 100_000 {
		t.Errorf("the fork is %+v, %v", st, err)
	}
	// A parent may go.
	ok(t, s.Delete(t.Context(), id(1)))
	if _, err := s.Stat(t.Context(), id(1)); tarn.KindOf(err) != tarn.KindNotFound {
		t.Errorf("look at a deleted timeline: %v", err)
	}
	if _, err := os.Stat(s.path(id(1))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a deleted timeline left its directory: %v", err)
	}
}

// Holes stay holes, and every byte is where it was.
func TestCopyDataKeepsHoles(t *testing.T) {
	dir := t.TempDir()
	in, err := os.Create(filepath.Join(dir, "in"))
	ok(t, err)
	defer in.Close()
	piece := bytes.Repeat([]byte("0123456789abcdef"), 1<<12) // 64 KiB
	for _, off := range []int64{1 << 20, 9 << 20, 40<<20 + 4096} {
		if _, err := in.WriteAt(piece, off); err != nil {
			t.Fatal(err)
		}
	}
	ok(t, in.Truncate(64<<20+100))
	ok(t, in.Sync())
	out, err := os.Create(filepath.Join(dir, "out"))
	ok(t, err)
	defer out.Close()
	ok(t, copyData(t.Context(), in, out))
	a, err := os.ReadFile(in.Name())
	ok(t, err)
	b, err := os.ReadFile(out.Name())
	ok(t, err)
	if !bytes.Equal(a, b) {
		t.Errorf("the copy differs: %d and %d bytes", len(a), len(b))
	}
	used, err := diskUsage(out.Name())
	if err != nil || used > 1<<20 {
		t.Errorf("a copy of 192 KiB of data takes %d bytes, %v", used, err)
	}
}

// While a directory is copied files grow, are cut, come and go; the copy fails
// for none of that, and what nobody touched is whole.
func TestCopyWhileWritten(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{BaseEvery: 1, History: 21 * time.Hour})
	files := map[string]string{"global/pg_control": "c"}
	for n := range 300 {
		files[fmt.Sprintf("base/%d/%d", n%5, n)] = strings.Repeat(fmt.Sprint(n), 3000)
	}
	create(t, s, 1, files)
	v := open(t, s, 1)
	ok(t, v.Show(t.Context(), filepath.Join(t.TempDir(), "link")))
	data := v.Dir()
	ctx, stop := context.WithCancel(t.Context())
	written := make(chan error, 1)
	go func() {
		var err error
		for n := 0; ctx.Err() == nil && err == nil; n++ {
			db := filepath.Join(data, "base", fmt.Sprintf("new%d", n%3))
			name := filepath.Join(db, fmt.Sprint(n))
			err = errors.Join(os.MkdirAll(db, 0o700), os.WriteFile(name, make([]byte, n%9*8192), 0o600), os.Truncate(name, 4096))
			if n%4 == 0 {
				err = errors.Join(err, os.RemoveAll(db))
			}
			err = errors.Join(err, os.WriteFile(filepath.Join(data, "base", "0", "0"), make([]byte, n%50*8192), 0o600))
		}
		written <- err
	}()
	for n := range 10 {
		if _, err := s.Fork(t.Context(), id(1), id(2+n)); err != nil {
			t.Error(err)
		}
	}
	stop()
	ok(t, <-written)
	for n := range 10 {
		got := tree(t, s.path(id(2+n), "data"))
		for name, text := range files {
			if name != "base/0/0" && got[name] != text {
				t.Errorf("fork %d has %s of %d bytes, want %d", n, name, len(got[name]), len(text))
			}
		}
	}
	ok(t, v.Close())
}

// What a copy must begin with is read again while it is half written, and a
// state that cannot begin a copy ends it.
func TestFirstIsChecked(t *testing.T) {
	var asked []Activity
	torn := 3
	check := func(b []byte, from Activity) error {
		asked = append(asked, from)
		if torn--; torn >= 0 || string(b) != "whole" {
			return errors.New("torn")
		}
		return nil
	}
	s := openStore(t, t.TempDir(), Options{First: First{Path: "global/pg_control", Check: check}})
	create(t, s, 1, map[string]string{"global/pg_control": "whole"})
	if _, err := s.Fork(t.Context(), id(1), id(2)); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(asked, []Activity{AtRest, AtRest, AtRest, AtRest}) {
		t.Errorf("checked with %v", asked)
	}
	torn, asked = 1000, nil
	v := open(t, s, 1)
	ok(t, v.Show(t.Context(), filepath.Join(t.TempDir(), "link")))
	if _, err := s.Fork(t.Context(), id(1), id(3)); err == nil || !strings.Contains(err.Error(), "torn") {
		t.Errorf("a fork without a good beginning: %v", err)
	}
	if len(asked) == 0 || asked[0] != Running {
		t.Errorf("checked with %v", asked)
	}
	ok(t, v.Close())
	if _, err := s.Stat(t.Context(), id(3)); tarn.KindOf(err) != tarn.KindNotFound {
		t.Errorf("the failed fork: %v", err)
	}
	checkOnly(t, s, "LOCK", string(id(1)), string(id(2)))
}

func checkOnly(t *testing.T, s *Store, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(s.dir)
	ok(t, err)
	for _, e := range entries {
		if !slices.Contains(names, e.Name()) {
			t.Errorf("left: %s", e.Name())
		}
	}
}

// The life of a timeline's marks: its beginning, bases while it runs, its end.
func TestMarks(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{BaseEvery: 1, History: 21 * time.Hour})
	create(t, s, 1, map[string]string{"f": "begin"})
	v := open(t, s, 1)
	now := time.Now().UTC()
	begin := tarn.Mark{Seq: v.Head(), LSN: 100, Time: now.Add(-20 * time.Hour)}
	ok(t, v.Mark(t.Context(), begin))
	checkMarks(t, s, true, begin)

	link := filepath.Join(t.TempDir(), "link")
	ok(t, v.Show(t.Context(), link))
	checkMarks(t, s, false, begin) // its base was kept
	write(t, filepath.Join(link, "f"), "run")
	// A fork's mark of a point that nobody pinned is not kept.
	ok(t, v.Mark(t.Context(), tarn.Mark{Seq: v.Head(), LSN: 150, Time: now}))
	checkMarks(t, s, false, begin)
	ran := tarn.Mark{Seq: pin(t, v), LSN: 200, Time: now.Add(-9 * time.Hour)}
	ok(t, v.Mark(t.Context(), ran))
	checkMarks(t, s, false, begin, ran)
	write(t, filepath.Join(link, "f"), "run on")
	unmarked := pin(t, v)
	write(t, filepath.Join(link, "f"), "end")
	ok(t, v.Hide())
	if _, err := os.Lstat(link); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a hidden volume left its link: %v", err)
	}
	select {
	case <-v.Hidden():
	default:
		t.Error("it is hidden, and Hidden is open")
	}
	end := tarn.Mark{Seq: v.Head(), LSN: 300, Time: now}
	ok(t, v.Mark(t.Context(), end))
	ok(t, v.Close())
	late := end
	late.Seq = unmarked
	checkMarks(t, s, true, begin, ran, late, end)

	for n, want := range map[tarn.Mark]string{begin: "begin", ran: "run", late: "run on", end: "end"} {
		b, err := s.ReadFileAt(t.Context(), tarn.Point{Timeline: id(1), Seq: n.Seq}, "f")
		if err != nil || string(b) != want {
			t.Errorf("at %d: %q, %v, want %q", n.Seq, b, err, want)
		}
		child := id(100 + int(n.Seq))
		ok(t, s.ForkAt(t.Context(), tarn.Point{Timeline: id(1), Seq: n.Seq}, child))
		if b, err := os.ReadFile(s.path(child, "data", "f")); err != nil || string(b) != want {
			t.Errorf("fork at %d: %q, %v, want %q", n.Seq, b, err, want)
		}
	}
	if err := s.ForkAt(t.Context(), tarn.Point{Timeline: id(1), Seq: end.Seq + 7}, id(50)); tarn.KindOf(err) != tarn.KindInvalid {
		t.Errorf("fork at a point nobody kept: %v", err)
	}
	// All of it outlives the process.
	ok(t, s.Close())
	s = openStore(t, dir, Options{BaseEvery: 1, History: 21 * time.Hour})
	checkMarks(t, s, true, begin, ran, late, end)
	ok(t, s.SetHistory(t.Context(), id(1), 0))
	checkMarks(t, s, true, late, end)
	if got := tree(t, s.path(id(1), "bases")); len(got) != 2 || got[seqName(late.Seq)+"/f"] != "run on" {
		t.Errorf("bases left: %v", got)
	}
	// Left and resumed, it is shown all the while.
	v = open(t, s, 1)
	ok(t, v.Show(t.Context(), link))
	if err := v.Resume(t.Context(), link); tarn.KindOf(err) != tarn.KindConflict {
		t.Errorf("resume what is shown: %v", err)
	}
	head := v.Head()
	ok(t, v.Leave())
	ok(t, v.Close())
	v = open(t, s, 1)
	if err := v.Resume(t.Context(), filepath.Join(dir, "nowhere")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("resume nowhere: %v", err)
	}
	ok(t, v.Resume(t.Context(), link))
	if v.Head() != head {
		t.Errorf("resumed at %d, left at %d", v.Head(), head)
	}
	ok(t, v.Close())
	if _, err := os.Lstat(link); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a closed volume left its link: %v", err)
	}
	// Shown again, the end is no point any more, but the older base is.
	v = open(t, s, 1)
	ok(t, v.Show(t.Context(), link))
	checkMarks(t, s, false, late)
	ok(t, v.Close())
	checkMarks(t, s, false, late)
}

// pin waits for a base of a running directory.
func pin(t *testing.T, v *Volume) tarn.Seq {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		seq, ok, err := v.Pin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			return seq
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("no base is made")
		}
	}
}

// checkMarks checks the points there are, and whether the last stands at the
// head, as the fleet computes it: only marks behind it.
func checkMarks(t *testing.T, s *Store, atHead bool, want ...tarn.Mark) {
	t.Helper()
	st, err := s.Stat(t.Context(), id(1))
	ok(t, err)
	if !slices.Equal(st.Marks, want) {
		t.Errorf("marks %v, want %v", st.Marks, want)
	}
	last := want[len(want)-1].Seq
	if got := uint64(st.Head-last) == 1; got != atHead {
		t.Errorf("head %d, last mark %d; want it at the head: %v", st.Head, last, atHead)
	}
}

// What a crash leaves half made or half deleted is gone after Open, and nothing
// else.
func TestOpenClearsAway(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	create(t, s, 1, map[string]string{"f": "x"})
	v := open(t, s, 1)
	ok(t, v.Mark(t.Context(), tarn.Mark{Seq: v.Head(), LSN: 1, Time: time.Now().UTC()}))
	ok(t, v.Show(t.Context(), filepath.Join(t.TempDir(), "link")))
	ok(t, v.Close())
	ok(t, s.Close())
	for _, name := range []string{string(id(2)) + making, string(id(3)) + deleted, string(id(1)) + "/bases/7", string(id(1)) + "/bases/8.making", string(id(1)) + "/bases/01"} {
		write(t, filepath.Join(dir, name, "data", "f"), "litter")
	}
	write(t, filepath.Join(dir, string(id(1)), manifestName+".new"), "half")
	s = openStore(t, dir, Options{})
	checkOnly(t, s, "LOCK", string(id(1)))
	if got := tree(t, s.path(id(1), "bases")); len(got) != 2 || got["1/f"] != "x" {
		t.Errorf("bases %v", got)
	}
	if _, err := Open(t.Context(), dir, Options{}); tarn.KindOf(err) != tarn.KindConflict {
		t.Errorf("a second store on the directory: %v", err)
	}
	// A manifest that lies is not believed.
	ok(t, s.Close())
	path := filepath.Join(dir, string(id(1)), manifestName)
	b, err := os.ReadFile(path)
	ok(t, err)
	for what, bad := range map[string][]byte{
		"another head": bytes.Replace(b, []byte(`"head":`), []byte(`"head":1`), 1),
		"later format": bytes.Replace(b, []byte("TARNDIR 1 "), []byte("TARNDIR 2 "), 1),
		"half":         b[:len(b)/2],
		"nothing":      nil,
	} {
		ok(t, os.WriteFile(path, bad, 0o600))
		if _, err := Open(t.Context(), dir, Options{}); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("a manifest with %s: %v", what, err)
		}
	}
}

// A copy that is given up leaves nothing, and the timeline can be made again.
func TestCancelledFork(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	files := make(map[string]string)
	for n := range 500 {
		files[fmt.Sprint("base/1/", n)] = strings.Repeat("y", 20_000)
	}
	create(t, s, 1, files)
	why := errors.New("no more wanted")
	for n := range 5 {
		ctx, cancel := context.WithCancelCause(t.Context())
		timer := time.AfterFunc(time.Duration(n)*time.Millisecond, func() { cancel(why) })
		_, err := s.Fork(ctx, id(1), id(2))
		timer.Stop()
		cancel(nil)
		if err == nil { // it was quicker
			ok(t, s.Delete(t.Context(), id(2)))
		} else if !errors.Is(err, why) {
			t.Errorf("given up: %v", err)
		}
		checkOnly(t, s, "LOCK", string(id(1)))
	}
	if _, err := s.Fork(t.Context(), id(1), id(2)); err != nil {
		t.Error(err)
	}
}

// A base that is dropped while somebody copies it stays until the copy is made.
func TestDroppedWhileCopied(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	create(t, s, 1, map[string]string{"f": "begin"})
	v := open(t, s, 1)
	m := tarn.Mark{Seq: v.Head(), LSN: 1, Time: time.Now().UTC()}
	ok(t, v.Mark(t.Context(), m))
	ok(t, v.Show(t.Context(), filepath.Join(t.TempDir(), "link")))
	dir, release, err := s.holdPoint(t.Context(), tarn.Point{Timeline: id(1), Seq: m.Seq})
	ok(t, err)
	man := s.manifest(v.of).with()
	dropped := takeOut(man, func(mark) bool { return true })
	ok(t, s.replace(v.of, man))
	s.dropBases(v.of, dropped)
	if b, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || string(b) != "begin" {
		t.Errorf("the base under copy: %q, %v", b, err)
	}
	if _, _, err := s.holdPoint(t.Context(), tarn.Point{Timeline: id(1), Seq: m.Seq}); tarn.KindOf(err) != tarn.KindInvalid {
		t.Errorf("a dropped base: %v", err)
	}
	release()
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the dropped base is still there: %v", err)
	}
	ok(t, v.Close())
}

// A copy for which there is no room is refused before it fills the disk.
func TestNoRoom(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=16m"); err != nil {
		t.Skipf("no tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	s := openStore(t, dir, Options{BaseEvery: 1, History: 21 * time.Hour})
	create(t, s, 1, map[string]string{"big": strings.Repeat("z", 9<<20)})
	_, err := s.Fork(t.Context(), id(1), id(2))
	if !errors.Is(err, unix.ENOSPC) || tarn.KindOf(err) != tarn.KindUnavailable || tarn.HintOf(err) == "" {
		t.Errorf("a fork without room: %v", err)
	}
	checkOnly(t, s, "LOCK", string(id(1)))
	// A base is a luxury: without room the timeline runs all the same.
	v := open(t, s, 1)
	ok(t, v.Mark(t.Context(), tarn.Mark{Seq: v.Head(), LSN: 1, Time: time.Now().UTC()}))
	ok(t, v.Show(t.Context(), filepath.Join(t.TempDir(), "link")))
	if _, pinned, err := v.Pin(t.Context()); pinned || err != nil {
		t.Errorf("a base without room: %v, %v", pinned, err)
	}
	st, err := s.Stat(t.Context(), id(1))
	if err != nil || len(st.Marks) != 0 {
		t.Errorf("%+v, %v", st, err)
	}
	ok(t, v.Close())
}

func TestSurplus(t *testing.T) {
	now := time.Now()
	at := func(ages ...time.Duration) []mark {
		var all []mark
		for n, age := range ages {
			all = append(all, mark{Mark: tarn.Mark{Seq: tarn.Seq(n + 1), Time: now.Add(-age)}, Base: true})
		}
		return all
	}
	const h = time.Hour
	const week = 7 * 24 * h
	clones := pace{5 * time.Minute, true}
	copies := pace{6 * h, false}
	for _, c := range []struct {
		p    pace
		have []mark
		drop []tarn.Seq
	}{
		{clones, nil, nil},
		{clones, at(h), nil},
		{clones, at(50*h, 49*h), nil}, // the oldest and the newest stay
		{clones, at(50*h, 49*h, 48*h), []tarn.Seq{2}},
		{clones, at(72*h, 48*h, 24*h, 3*h, 150*time.Minute, 2*h, h, 30*time.Minute, 28*time.Minute, 25*time.Minute), []tarn.Seq{5, 9}},
		{copies, at(12*h, 6*h, 0), []tarn.Seq{2}},
		{copies, at(168*h, 84*h, 6*h, 0), []tarn.Seq{3}},
		{copies, at(252*h, 167*h, 83*h, 0), nil},
		{copies, at(252*h, 168*h, 84*h, 0), []tarn.Seq{1}},
		{clones, at(400*h, 300*h, 200*h, 100*h, 0), []tarn.Seq{1, 2}},
	} {
		var got []tarn.Seq
		drop := c.p.surplus(c.have, now, week)
		for _, k := range c.have {
			if drop[k.Seq] {
				got = append(got, k.Seq)
			}
		}
		if !slices.Equal(got, c.drop) {
			t.Errorf("of %v: drops %v, want %v", c.have, got, c.drop)
		}
	}
	// As time goes on the copies stay few, and one of them is as old as the
	// window but not much older.
	var have []mark
	for n := range 400 {
		now := now.Add(time.Duration(n) * 6 * h)
		have = append(have, mark{Mark: tarn.Mark{Seq: tarn.Seq(n + 1), Time: now}, Base: true})
		drop := copies.surplus(have, now, week)
		have = slices.DeleteFunc(have, func(k mark) bool { return drop[k.Seq] })
		if len(have) > 5 || now.Sub(have[0].Time) > 11*24*h {
			t.Fatalf("after %d: %d copies, the oldest %s old", n, len(have), now.Sub(have[0].Time))
		}
	}
}

func FuzzManifest(f *testing.F) {
	m := &manifest{Timeline: id(1), Parent: tarn.Point{Timeline: id(2), Seq: 3}, Created: time.Unix(1, 0).UTC(), Head: 9,
		Marks: []mark{{Mark: tarn.Mark{Seq: 4, LSN: 5, Time: time.Unix(6, 0).UTC()}, Base: true}}}
	b, err := m.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("TARNDIR 1 00000000\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeManifest(b, id(1))
		if err != nil {
			return
		}
		again, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		if back, err := decodeManifest(again, id(1)); err != nil || back.Head != m.Head || len(back.Marks) != len(m.Marks) {
			t.Errorf("%q is read back as %+v, %v", again, back, err)
		}
	})
}
