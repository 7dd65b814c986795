package pagestore

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"reflect"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
)

// openDir opens a store of real files that is closed with the test.
func openDir(t *testing.T, dir string, o ...Options) *Store {
	t.Helper()
	s, err := Open(context.Background(), dir, append(o, Options{SegmentBytes: 64 << 10})[0])
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

func openVolume(t *testing.T, s *Store, id tarn.TimelineID) *Volume {
	t.Helper()
	v, err := s.OpenVolume(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// makeFile makes a file of so many pages, page i filled with i+1.
func makeFile(t *testing.T, v *Volume, name string, pages int) layer.Ino {
	t.Helper()
	a, err := v.Create(layer.RootIno, name, layer.NewFile{Mode: unix.S_IFREG | 0o600})
	if err != nil {
		t.Fatal(err)
	}
	for i := range pages {
		p := bytes.Repeat([]byte{byte(i + 1)}, layer.PageSize)
		if _, err := v.WriteAt(a.Ino, p, uint64(i)*layer.PageSize); err != nil {
			t.Fatal(err)
		}
	}
	return a.Ino
}

func TestOneHolder(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	s := openDir(t, dir)
	if _, err := Open(ctx, dir, Options{}); tarn.KindOf(err) != tarn.KindConflict || tarn.HintOf(err) == "" {
		t.Errorf("a second store on the directory: %v", err)
	}
	id := timelineNumber(1)
	if err := s.Create(ctx, id, worldRoot); err != nil {
		t.Fatal(err)
	}
	if err := s.Create(ctx, id, worldRoot); tarn.KindOf(err) != tarn.KindConflict {
		t.Errorf("create twice: %v", err)
	}
	v := openVolume(t, s, id)
	if _, err := s.OpenVolume(ctx, id); tarn.KindOf(err) != tarn.KindConflict {
		t.Errorf("open twice: %v", err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Errorf("close twice: %v", err)
	}
	if _, err := v.Create(layer.RootIno, "x", layer.NewFile{Mode: unix.S_IFREG}); !errors.Is(err, syscall.EIO) {
		t.Errorf("create in a closed volume: %v", err)
	}
	openVolume(t, s, id)
	if _, err := s.OpenVolume(ctx, timelineNumber(2)); tarn.KindOf(err) != tarn.KindNotFound {
		t.Errorf("open what does not exist: %v", err)
	}
	if _, err := s.Stat(ctx, "../../etc"); tarn.KindOf(err) != tarn.KindNotFound {
		t.Errorf("status of no id: %v", err)
	}
	if err := s.Create(ctx, "../../etc", worldRoot); tarn.KindOf(err) != tarn.KindInvalid {
		t.Errorf("create with a bad id: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.OpenVolume(ctx, id); tarn.KindOf(err) != tarn.KindUnavailable {
		t.Errorf("open in a closed store: %v", err)
	}
}

// TestReopenReadsMap checks that a volume opens from its map alone: the log may
// be unreadable when it is opened again, or forked.
func TestReopenReadsMap(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	s := openDir(t, dir, Options{SegmentBytes: 64 << 10, MapBytes: 1})
	id := timelineNumber(1)
	if err := s.Create(ctx, id, worldRoot); err != nil {
		t.Fatal(err)
	}
	v := openVolume(t, s, id)
	makeFile(t, v, "f", 20)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	logs, err := filepath.Glob(filepath.Join(dir, "timelines", string(id), "log-*"))
	if err != nil || len(logs) != 3 {
		t.Fatalf("segments %v, %v", logs, err)
	}
	log := logs[0]
	all := map[string][]byte{}
	for _, path := range logs {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all[path] = b
		if err := os.WriteFile(path, make([]byte, len(b)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	good := all[log]
	v = openVolume(t, s, id)
	if a, err := v.Lookup(layer.RootIno, "f"); err != nil || a.Size != 20*layer.PageSize {
		t.Errorf("reopened: %+v, %v", a, err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Fork(ctx, id, timelineNumber(2)); err != nil {
		t.Fatal(err)
	}
	c := openVolume(t, s, timelineNumber(2))
	a, err := c.Lookup(layer.RootIno, "f")
	if err != nil {
		t.Errorf("child: %v", err)
	}
	// The pages themselves are gone, and that is not passed over.
	p := make([]byte, 3*layer.PageSize)
	if _, err := c.ReadAt(a.Ino, p, 0); !errors.Is(err, syscall.EIO) || !errors.Is(err, layer.ErrCorrupt) {
		t.Errorf("read of zeroed pages: %v", err)
	}
	if err := os.WriteFile(log, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ReadAt(a.Ino, p, 0); err != nil || p[0] != 1 || p[2*layer.PageSize] != 3 {
		t.Errorf("read of good pages: %v", err)
	}
}

// TestStatReadsNothing checks that a store opened anew knows head and marks of
// what was closed without its log.
func TestStatReadsNothing(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	s := openDir(t, dir)
	id := timelineNumber(1)
	if err := s.Create(ctx, id, worldRoot); err != nil {
		t.Fatal(err)
	}
	v := openVolume(t, s, id)
	makeFile(t, v, "f", 3)
	mark := tarn.Mark{Seq: v.Head(), LSN: 77, Time: time.Unix(1000, 5).UTC()}
	if err := v.Mark(ctx, mark); err != nil {
		t.Fatal(err)
	}
	if err := v.Mark(ctx, tarn.Mark{Seq: v.Head() + 1}); tarn.KindOf(err) != tarn.KindInvalid {
		t.Errorf("a mark ahead of the log: %v", err)
	}
	head := v.Head()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(dir, "timelines", string(id), fileName(layer.FileLog, 1))
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(log, make([]byte, len(b)), 0o600); err != nil {
		t.Fatal(err)
	}
	s = openDir(t, dir)
	st, err := s.Stat(ctx, id)
	if err != nil || st.Head != head || !reflect.DeepEqual(st.Marks, []tarn.Mark{mark}) || st.Bytes != int64(len(b)) {
		t.Errorf("status %+v, %v", st, err)
	}
	if _, err := s.OpenVolume(ctx, id); !errors.Is(err, layer.ErrCorrupt) {
		t.Errorf("open of a zeroed log: %v", err)
	}
}

// TestDamage damages every kind of place in a log of three segments: none goes
// unseen but in what was never called durable.
func TestDamage(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	s := openDir(t, dir)
	id := timelineNumber(1)
	if err := s.Create(ctx, id, worldRoot); err != nil {
		t.Fatal(err)
	}
	v := openVolume(t, s, id)
	makeFile(t, v, "f", 14)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	logs, err := filepath.Glob(filepath.Join(dir, "timelines", string(id), "log-*"))
	if err != nil || len(logs) != 3 {
		t.Fatalf("segments %v, %v", logs, err)
	}
	manifest := filepath.Join(dir, "timelines", string(id), manifestName)
	// A page is found damaged when it is read, everything else at once.
	read := func(s *Store) error {
		v, err := s.OpenVolume(ctx, id)
		if err != nil {
			return err
		}
		p := make([]byte, 14*layer.PageSize)
		_, err = v.ReadAt(layer.RootIno+1, p, 0)
		bad := 0
		for i := range uint64(14) {
			if _, err := v.ReadAt(layer.RootIno+1, p[:layer.PageSize], i*layer.PageSize); err != nil {
				bad++
			} else if p[0] != byte(i+1) {
				return fmt.Errorf("page %d begins with %d", i, p[0])
			}
		}
		if err != nil && (bad != 1 || !errors.Is(err, syscall.EIO)) {
			return fmt.Errorf("%d bad pages: %v", bad, err)
		}
		return err
	}
	try := func(what string, damage func(path string) error) {
		t.Helper()
		for _, path := range logs {
			good, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := damage(path); err != nil {
				t.Fatal(err)
			}
			s := openDir(t, dir)
			err = read(s)
			var c *layer.CorruptError
			if !errors.As(err, &c) || c.File != path && c.File != manifest || c.Expected == "" || c.Found == "" {
				t.Errorf("%s in %s: %v", what, filepath.Base(path), err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, good, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	flip := func(at int64) func(string) error {
		return func(path string) error {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			b[at] ^= 1
			return os.WriteFile(path, b, 0o600)
		}
	}
	try("flipped bit of the header", flip(40))
	try("flipped bit of the magic", flip(1))
	try("flipped bit of a head", flip(layer.BlockSize+70))
	try("flipped bit of a page", flip(2*layer.BlockSize+5000))
	try("cut", func(path string) error { return os.Truncate(path, 3*layer.BlockSize) })
	try("emptied", func(path string) error { return os.Truncate(path, 0) })
	try("missing", os.Remove)

	good, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	if err := flip(30)(manifest); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(ctx, dir, Options{}); !errors.Is(err, layer.ErrCorrupt) {
		t.Errorf("damaged manifest: %v", err)
	}
	if err := os.WriteFile(manifest, good, 0o600); err != nil {
		t.Fatal(err)
	}
	openVolume(t, openDir(t, dir), id)
}

func TestManifest(t *testing.T) {
	m := &manifest{Epoch: 3, Timeline: timelineNumber(7), History: -1, Parent: tarn.Point{Timeline: timelineNumber(6), Seq: 55},
		Created: time.Unix(1, 2).UTC(), Closed: closed{Head: 99, Segment: 2, Bytes: 8192,
			Marks: []tarn.Mark{{Seq: 60, LSN: 61, Time: time.Unix(62, 63).UTC()}, {Seq: 70}}}}
	b, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeManifest("MANIFEST", b)
	if err != nil || !reflect.DeepEqual(got, m) {
		t.Fatalf("%+v, %v", got, err)
	}
	// Version 1 is still read, as one without layers.
	const golden = "5441524e4d414e00010000000100000003000000000000000000000000000000000000000000000700000000000000000000000000000006" +
		"370000000000000002ca9a3b0000000063000000000000000020000000000000020000000200000000000000000000000000000000000000" +
		"3c000000000000003d000000000000003fec7c6f0e000000460000000000000000000000000000000000000000000000"
	old, err := hex.DecodeString(golden)
	if err != nil {
		t.Fatal(err)
	}
	got, err = decodeManifest("MANIFEST", le.AppendUint32(old, layer.Checksum(old)))
	if err != nil || !reflect.DeepEqual(got, m) {
		t.Fatalf("version 1: %+v, %v", got, err)
	}
	m.Deleted, m.History, m.Counted = true, time.Hour, counted{Log: 3, Map: 4, Image: 5}
	m.Layers = []layerFile{{layer.FileLog, 3, 55, 66, 1 << 27, 0}, {layer.FileMap, 4, 66, 66, 4096, 4}}
	m.Foreign = []layer.FileID{{Timeline: timelineNumber(6), Kind: layer.FileMap, Number: 9}}
	m.Swept = swept{Head: 77, Time: time.Unix(5, 0).UTC(), Marks: []tarn.Mark{{Seq: 56, LSN: 1}}}
	if b, err = m.encode(); err != nil {
		t.Fatal(err)
	}
	got, err = decodeManifest("MANIFEST", b)
	if err != nil || !reflect.DeepEqual(got, m) {
		t.Fatalf("%+v, %v", got, err)
	}
	const golden2 = "5441524e4d414e0002000000010100000300000000000000000000000000000000000000000000070000000000000000000000000000000637000000" +
		"0000000002ca9a3b0000000063000000000000000020000000000000020000000200000000a0b830460300004d0000000000000000f2052a01000000" +
		"030000000400000005000000010000000200000001000000000000000000000000000000000000003c000000000000003d000000000000003fec7c6f" +
		"0e0000004600000000000000000000000000000000000000000000003800000000000000010000000000000000000000000000000100000003000000" +
		"370000000000000042000000000000000000000800000000000000000000000002000000040000004200000000000000420000000000000000100000" +
		"000000000400000000000000000000000000000000000000000000060900000000000000"
	if have := hex.EncodeToString(b[:len(b)-4]); have != golden2 {
		t.Errorf("manifest is\n%s, was\n%s", have, golden2)
	}
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 4
		if _, err := decodeManifest("MANIFEST", bad); !errors.Is(err, layer.ErrCorrupt) {
			t.Fatalf("damage of byte %d: %v", i, err)
		}
		if _, err := decodeManifest("MANIFEST", b[:i]); !errors.Is(err, layer.ErrCorrupt) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
}

// TestStaleEpoch checks that a manifest is replaced only by who read it.
func TestStaleEpoch(t *testing.T) {
	s := openDir(t, t.TempDir())
	if err := s.Create(context.Background(), timelineNumber(1), worldRoot); err != nil {
		t.Fatal(err)
	}
	first, err := s.manifests.load(timelineNumber(1))
	if err != nil {
		t.Fatal(err)
	}
	next := *first
	if err := s.manifests.replace(&next, first.Epoch); err != nil || next.Epoch != first.Epoch+1 {
		t.Fatalf("epoch %d: %v", next.Epoch, err)
	}
	late := *first
	if err := s.manifests.replace(&late, first.Epoch); tarn.KindOf(err) != tarn.KindConflict {
		t.Fatalf("replaced by who read an older one: %v", err)
	}
}

// TestWriteAllocatesNothing keeps the path of a page write free of garbage.
func TestWriteAllocatesNothing(t *testing.T) {
	s, err := Open(context.Background(), t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := s.Create(context.Background(), timelineNumber(1), worldRoot); err != nil {
		t.Fatal(err)
	}
	v := openVolume(t, s, timelineNumber(1))
	ino := makeFile(t, v, "f", 1)
	page := make([]byte, layer.PageSize)
	rand.New(rand.NewSource(1)).Read(page)
	if n := testing.AllocsPerRun(500, func() { v.WriteAt(ino, page, 0) }); n > 0 {
		t.Errorf("a page write allocates %.1f times", n)
	}
	if n := testing.AllocsPerRun(100, func() { v.Attr(ino); v.ReadAt(ino, page, 0) }); n > 0 {
		t.Errorf("reading a page and attributes allocates %.1f times", n)
	}
}

// TestManyForks makes more forks than keep the index they were pinned with.
func TestManyForks(t *testing.T) {
	ctx := context.Background()
	s := openDir(t, t.TempDir())
	if err := s.Create(ctx, timelineNumber(1), worldRoot); err != nil {
		t.Fatal(err)
	}
	v := openVolume(t, s, timelineNumber(1))
	makeFile(t, v, "f", 3)
	const last = 3 * handedIndexes
	for n := 2; n < last; n++ {
		from := timelineNumber(1)
		if n%2 == 0 {
			from = timelineNumber(n - 1)
		}
		if _, err := s.Fork(ctx, from, timelineNumber(n)); err != nil {
			t.Fatal(err)
		}
	}
	s.mu.Lock()
	handed := 0
	for _, l := range s.timelines {
		if l.index != nil {
			handed++
		}
	}
	s.mu.Unlock()
	if handed == 0 || handed > handedIndexes {
		t.Errorf("%d indexes are kept", handed)
	}
	for n := 2; n < last; n++ {
		c := openVolume(t, s, timelineNumber(n))
		a, err := c.Lookup(layer.RootIno, "f")
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, layer.PageSize)
		if _, err := c.ReadAt(a.Ino, p, 2*layer.PageSize); err != nil || p[9] != 3 {
			t.Fatalf("timeline %d: %d, %v", n, p[9], err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	// What is closed and was opened keeps nothing in memory.
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.timelines {
		if l.index != nil || l.volume != nil {
			t.Errorf("timeline %s is idle and has an index", l.id)
		}
	}
	if n := len(s.cache.all()); n != 0 {
		t.Errorf("%d indexes are in memory", n)
	}
}

func TestThin(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	var marks []tarn.Mark
	for i := range 5000 { // every 5 minutes for 17 days
		marks = thin(append(marks, tarn.Mark{Seq: tarn.Seq(i), Time: start.Add(time.Duration(i) * 5 * time.Minute)}))
	}
	if len(marks) < 288+16*24 || len(marks) > 288+17*24+64 {
		t.Errorf("%d marks are kept", len(marks))
	}
	for i := 1; i < len(marks); i++ {
		if d := marks[i].Time.Sub(marks[i-1].Time); d <= 0 || d > time.Hour {
			t.Errorf("mark %d stands %s behind the one before", i, d)
		}
	}
}
