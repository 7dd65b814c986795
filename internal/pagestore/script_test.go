package pagestore

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
)

// TestScripts runs testdata/script: what one types against a store, and what
// it answers. Timelines have names there; lines without one are about main.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/script", func(t *testing.T, path string) {
		s := &script{fs: newCrashFS(), ids: map[string]tarn.TimelineID{}, open: map[string]*Volume{}}
		if err := s.start(); err != nil {
			t.Fatal(err)
		}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			out, err := s.run(d)
			if err != nil {
				return out + "error: " + s.named(err.Error()) + "\n"
			}
			return out
		})
		if err := s.store.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

type script struct {
	fs    *crashFS
	store *Store
	ids   map[string]tarn.TimelineID
	open  map[string]*Volume
}

func (s *script) start() (err error) {
	s.open = map[string]*Volume{}
	s.store, err = open(context.Background(), s.fs, "store", Options{SegmentBytes: 64 << 10})
	return err
}

// id names a timeline, new or not.
func (s *script) id(name string) tarn.TimelineID {
	if _, ok := s.ids[name]; !ok {
		s.ids[name] = timelineNumber(len(s.ids) + 1)
	}
	return s.ids[name]
}

// named puts the timelines' names back into a text.
func (s *script) named(text string) string {
	for name, id := range s.ids {
		text = strings.ReplaceAll(text, string(id), name)
	}
	return text
}

// volume gives the open volume of a timeline, opening it.
func (s *script) volume(name string) (*Volume, error) {
	if v := s.open[name]; v != nil {
		return v, nil
	}
	v, err := s.store.OpenVolume(context.Background(), s.id(name))
	if err == nil {
		s.open[name] = v
	}
	return v, err
}

func arg(d *datadriven.TestData, key, otherwise string) string {
	if a, ok := d.Arg(key); ok && len(a.Vals) > 0 {
		return a.Vals[0]
	}
	return otherwise
}

func number(d *datadriven.TestData, key string, otherwise int) int {
	var n int
	if _, err := fmt.Sscan(arg(d, key, fmt.Sprint(otherwise)), &n); err != nil {
		d.Fatalf(nil, "%s: %v", key, err)
	}
	return n
}

func (s *script) run(d *datadriven.TestData) (string, error) {
	ctx := context.Background()
	on := arg(d, "on", "main")
	first := ""
	if len(d.CmdArgs) > 0 {
		first = d.CmdArgs[0].Key
	}
	switch d.Cmd {
	case "create":
		return "", s.store.Create(ctx, s.id(first), worldRoot)
	case "fork":
		at, err := s.store.Fork(ctx, s.id(first), s.id(arg(d, "as", "")))
		if err != nil {
			return "", err
		}
		return s.named(at.String()) + "\n", nil
	case "fork-at":
		p := tarn.Point{Timeline: s.id(first), Seq: tarn.Seq(number(d, "seq", 0))}
		return "", s.store.ForkAt(ctx, p, s.id(arg(d, "as", "")))
	case "delete":
		return "", s.store.Delete(ctx, s.id(first))
	case "timelines":
		all, err := s.store.Timelines(ctx)
		var b strings.Builder
		for _, st := range all {
			fmt.Fprintf(&b, "%s parent=%s head=%d bytes=%d", s.named(string(st.ID)), s.named(st.Parent.String()), st.Head, st.Bytes)
			for _, m := range st.Marks {
				fmt.Fprintf(&b, " mark=%d,%s,%d", m.Seq, m.LSN, m.Time.Unix())
			}
			b.WriteString("\n")
		}
		return b.String(), err
	case "dirs":
		dirs, err := s.fs.ReadDir("store/timelines")
		var b strings.Builder
		for _, f := range dirs {
			b.WriteString(s.named(f.Name) + "\n")
		}
		return b.String(), err
	case "restart":
		if err := s.store.Close(); err != nil {
			return "", err
		}
		return "", s.start()
	case "crash":
		s.fs.crash(nil, 0)
		return "", s.start()
	}
	v, err := s.volume(on)
	if err != nil {
		return "", err
	}
	return s.onVolume(d, v, on, first)
}

func (s *script) onVolume(d *datadriven.TestData, v *Volume, on, path string) (string, error) {
	switch d.Cmd {
	case "close":
		delete(s.open, on)
		return "", v.Close()
	case "sync":
		return "", v.Sync()
	case "head":
		return fmt.Sprintln(v.Head()), nil
	case "mark":
		return "", v.Mark(context.Background(), tarn.Mark{Seq: v.Head(), LSN: tarn.LSN(number(d, "lsn", 0)), Time: time.Unix(int64(number(d, "time", 1)), 0)})
	case "tree":
		got, err := viewOf(v)
		var b strings.Builder
		for _, p := range slices.Sorted(maps.Keys(got)) {
			fmt.Fprintf(&b, "/%s %s\n", strings.TrimPrefix(p, "/"), got[p])
		}
		return b.String(), err
	}
	parent, name, err := s.split(v, path)
	if err != nil {
		return "", err
	}
	switch d.Cmd {
	case "make", "mkdir", "symlink":
		f := layer.NewFile{Mode: unix.S_IFREG | 0o600, UID: 101, GID: 104}
		if d.Cmd == "mkdir" {
			f.Mode = unix.S_IFDIR | 0o700
		} else if d.Cmd == "symlink" {
			f.Mode, f.Target = unix.S_IFLNK|0o777, arg(d, "to", "")
		}
		a, err := v.Create(parent, name, f)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("ino %d\n", a.Ino), nil
	case "unlink":
		return "", v.Unlink(parent, name)
	case "rmdir":
		return "", v.Rmdir(parent, name)
	case "rename":
		toDir, toName, err := s.split(v, arg(d, "to", ""))
		if err != nil {
			return "", err
		}
		return "", v.Rename(parent, name, toDir, toName)
	}
	var a layer.Attr
	if ino := number(d, "ino", 0); ino != 0 {
		a, err = v.Attr(layer.Ino(ino))
	} else {
		a, err = v.Lookup(parent, name)
	}
	if err != nil {
		return "", err
	}
	return s.onFile(d, v, a)
}

func (s *script) onFile(d *datadriven.TestData, v *Volume, a layer.Attr) (string, error) {
	off, n := number(d, "off", 0), number(d, "len", layer.PageSize)
	if p := number(d, "page", -1); p >= 0 {
		off = p * layer.PageSize
	}
	switch d.Cmd {
	case "write":
		data := []byte(strings.Repeat(arg(d, "fill", "x"), n))
		if arg(d, "fill", "x") == "0" {
			clear(data)
		}
		_, err := v.WriteAt(a.Ino, data, uint64(off))
		return "", err
	case "read":
		p := make([]byte, n)
		got, err := v.ReadAt(a.Ino, p, uint64(off))
		return runs(p[:got]) + "\n", err
	case "truncate":
		_, err := v.SetAttr(a.Ino, layer.SetAttr{Has: layer.SetSize, Size: uint64(number(d, "size", 0))})
		return "", err
	case "allocate":
		return "", v.Allocate(a.Ino, uint64(off), uint64(n))
	case "link":
		parent, name, err := s.split(v, arg(d, "as", ""))
		if err != nil {
			return "", err
		}
		_, err = v.Link(a.Ino, parent, name)
		return "", err
	case "stat":
		return fmt.Sprintf("ino=%d mode=%o nlink=%d size=%d\n", a.Ino, a.Mode, a.Nlink, a.Size), nil
	case "forget":
		v.Forget(a.Ino)
		return "", nil
	}
	return "", fmt.Errorf("no command %q", d.Cmd)
}

// split finds the directory of a path.
func (s *script) split(v *Volume, path string) (layer.Ino, string, error) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	dir := layer.RootIno
	for _, p := range parts[:len(parts)-1] {
		a, err := v.Lookup(dir, p)
		if err != nil {
			return 0, "", err
		}
		dir = a.Ino
	}
	return dir, parts[len(parts)-1], nil
}

// runs tells bytes as runs of the same one.
func runs(p []byte) string {
	var out []string
	for len(p) > 0 {
		n := 1
		for n < len(p) && p[n] == p[0] {
			n++
		}
		what := string(p[0])
		if p[0] == 0 {
			what = "zero"
		}
		out = append(out, fmt.Sprintf("%s×%d", what, n))
		p = p[n:]
	}
	if out == nil {
		return "nothing"
	}
	return strings.Join(out, " ")
}
