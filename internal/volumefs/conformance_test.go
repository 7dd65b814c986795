package volumefs_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn/internal/layer"
)

// conformance lists what a mounted directory must do for whoever may use it.
// Each test works in an empty directory of its own; v is what is mounted.
var conformance = []struct {
	name string
	test func(t *testing.T, dir string, v *memory)
}{
	{"create, write, read", testReadWrite},
	{"exclusive create", testExclusive},
	{"missing names", testMissing},
	{"rename over an open file", testRenameOverOpen},
	{"rename a directory", testRenameDirectory},
	{"rename refused", testRenameRefused},
	{"unlink while open", testUnlinkWhileOpen},
	{"hard link", testHardLink},
	{"symbolic link", testSymlink},
	{"directories", testDirectories},
	{"read directory under unlink", testReadDirUnderUnlink},
	{"read directory from the middle", testSeekDir},
	{"allocate", testAllocate},
	{"truncate", testTruncate},
	{"mode and times", testAttributes},
	{"sync", testSync},
	{"statfs", testStatfs},
	{"append", testAppend},
	{"memory map", testMmap},
	{"writes longer than a request", testLargeWrites},
	{"page writes arrive whole", testPageWrites},
	{"concurrent writers", testConcurrentWriters},
	{"same as a native directory", testAgainstNative},
	{"what is not supported", testUnsupported},
	{"errors", testErrors},
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, err error, errno syscall.Errno) {
	t.Helper()
	if !errors.Is(err, errno) {
		t.Errorf("error %v, want %v", err, errno)
	}
}

func create(t *testing.T, path string, content []byte) *os.File {
	t.Helper()
	f := must[*os.File](t)(os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600))
	t.Cleanup(func() { f.Close() })
	must[int](t)(f.Write(content))
	return f
}

func content(t *testing.T, path string, expected []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, expected) {
		t.Errorf("%s: %d bytes, error %v; want %d bytes", path, len(got), err, len(expected))
	}
}

func noise(n int) []byte {
	r := rand.NewChaCha8([32]byte{1})
	b := make([]byte, n)
	r.Read(b)
	return b
}

func testReadWrite(t *testing.T, dir string, _ *memory) {
	p := filepath.Join(dir, "f")
	data := noise(100_000)
	f := create(t, p, data)
	content(t, p, data)
	// Inside, across the end, beyond it.
	for _, off := range []int64{3, 8191, 99_999, 200_000} {
		must[int](t)(f.WriteAt([]byte("tarn"), off))
		if n := off + 4; int64(len(data)) < n {
			data = append(data, make([]byte, n-int64(len(data)))...)
		}
		copy(data[off:], "tarn")
	}
	content(t, p, data)
	st := must[os.FileInfo](t)(f.Stat())
	if st.Size() != int64(len(data)) || st.Mode() != 0o600 {
		t.Errorf("size %d, mode %v", st.Size(), st.Mode())
	}
	if end := must[int64](t)(f.Seek(0, io.SeekEnd)); end != int64(len(data)) {
		t.Errorf("end at %d", end)
	}
	// Through a new descriptor, past the kernel's cache.
	ok(t, f.Sync())
	ok(t, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
	content(t, p, data)
}

func testExclusive(t *testing.T, dir string, _ *memory) {
	p := filepath.Join(dir, "f")
	create(t, p, []byte("first"))
	_, err := os.OpenFile(p, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	want(t, err, unix.EEXIST)
	content(t, p, []byte("first"))
}

func testMissing(t *testing.T, dir string, _ *memory) {
	p := filepath.Join(dir, "f")
	for range 3 { // the kernel remembers that it is missing …
		_, err := os.Stat(p)
		want(t, err, unix.ENOENT)
	}
	create(t, p, nil) // … until it is made
	must[os.FileInfo](t)(os.Stat(p))
	ok(t, os.Remove(p))
	_, err := os.Stat(p)
	want(t, err, unix.ENOENT)
	want(t, os.Remove(p), unix.ENOENT)
	_, err = os.Stat(filepath.Join(dir, string(bytes.Repeat([]byte("n"), 256))))
	want(t, err, unix.ENAMETOOLONG)
	create(t, filepath.Join(dir, string(bytes.Repeat([]byte("n"), 255))), nil)
}

func testRenameOverOpen(t *testing.T, dir string, v *memory) {
	p := filepath.Join(dir, "f")
	old := create(t, p, []byte("old"))
	create(t, p+".new", []byte("new")).Close()
	ok(t, os.Rename(p+".new", p))
	content(t, p, []byte("new"))
	got := make([]byte, 3)
	must[int](t)(old.ReadAt(got, 0))
	if string(got) != "old" {
		t.Errorf("the open file reads %q", got)
	}
	must[int](t)(old.WriteAt([]byte("OLD"), 0))
	content(t, p, []byte("new"))
	_, err := os.Stat(p + ".new")
	want(t, err, unix.ENOENT)
	ino := inode(t, old)
	ok(t, old.Close())
	await(t, "the replaced file is forgotten", func() bool { return !v.holds(ino) })
}

func testRenameDirectory(t *testing.T, dir string, _ *memory) {
	ok(t, os.MkdirAll(filepath.Join(dir, "a", "b"), 0o700))
	create(t, filepath.Join(dir, "a", "b", "f"), []byte("x"))
	ok(t, os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "c")))
	content(t, filepath.Join(dir, "c", "b", "f"), []byte("x"))
	ok(t, os.Mkdir(filepath.Join(dir, "d"), 0o700))
	ok(t, os.Rename(filepath.Join(dir, "c", "b", "f"), filepath.Join(dir, "d", "g")))
	content(t, filepath.Join(dir, "d", "g"), []byte("x"))
	want(t, os.Rename(filepath.Join(dir, "c"), filepath.Join(dir, "d")), unix.EEXIST) // not empty, as Go says it
}

func testRenameRefused(t *testing.T, dir string, _ *memory) {
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	create(t, a, []byte("a"))
	want(t, os.Rename(filepath.Join(dir, "none"), b), unix.ENOENT)
	ok(t, unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_NOREPLACE))
	create(t, a, []byte("again"))
	want(t, unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_NOREPLACE), unix.EEXIST)
	want(t, unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE), unix.EINVAL)
	content(t, b, []byte("a"))
}

func testUnlinkWhileOpen(t *testing.T, dir string, v *memory) {
	p := filepath.Join(dir, "f")
	f := create(t, p, []byte("still"))
	ok(t, os.Remove(p))
	create(t, p, []byte("another")) // the name is free
	must[int](t)(f.WriteAt([]byte(" here"), 5))
	got := make([]byte, 10)
	must[int](t)(f.ReadAt(got, 0))
	if string(got) != "still here" {
		t.Errorf("read %q", got)
	}
	var st unix.Stat_t
	ok(t, unix.Fstat(int(f.Fd()), &st))
	if st.Nlink != 0 {
		t.Errorf("%d links", st.Nlink)
	}
	ok(t, f.Close())
	await(t, "the unlinked file is forgotten", func() bool { return !v.holds(layer.Ino(st.Ino)) })
}

func inode(t *testing.T, f *os.File) layer.Ino {
	t.Helper()
	var st unix.Stat_t
	ok(t, unix.Fstat(int(f.Fd()), &st))
	return layer.Ino(st.Ino)
}

// await waits for what the kernel does in its own time.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	late := time.NewTimer(10 * time.Second)
	defer late.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-late.C:
			t.Errorf("not within 10 s: %s", what)
			return
		}
	}
}

func testHardLink(t *testing.T, dir string, _ *memory) {
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	f := create(t, a, []byte("one"))
	ok(t, os.Link(a, b))
	must[int](t)(f.WriteAt([]byte("two"), 0))
	content(t, b, []byte("two"))
	var sa, sb unix.Stat_t
	ok(t, unix.Stat(a, &sa))
	ok(t, unix.Stat(b, &sb))
	if sa.Ino != sb.Ino || sa.Nlink != 2 || sb.Nlink != 2 {
		t.Errorf("inodes %d and %d, links %d and %d", sa.Ino, sb.Ino, sa.Nlink, sb.Nlink)
	}
	want(t, os.Link(a, b), unix.EEXIST)
	ok(t, os.Remove(a))
	content(t, b, []byte("two"))
	ok(t, unix.Stat(b, &sb))
	if sb.Nlink != 1 {
		t.Errorf("%d links after one was removed", sb.Nlink)
	}
}

func testSymlink(t *testing.T, dir string, _ *memory) {
	outside := t.TempDir()
	ok(t, os.WriteFile(filepath.Join(outside, "f"), []byte("outside"), 0o600))
	link := filepath.Join(dir, "pg_wal")
	ok(t, os.Symlink(outside, link))
	for range 2 { // asked, then cached
		if got := must[string](t)(os.Readlink(link)); got != outside {
			t.Errorf("link to %s", got)
		}
	}
	content(t, filepath.Join(link, "f"), []byte("outside"))
	st := must[os.FileInfo](t)(os.Lstat(link))
	if st.Mode()&os.ModeSymlink == 0 || st.Size() != int64(len(outside)) {
		t.Errorf("mode %v, size %d", st.Mode(), st.Size())
	}
	ok(t, os.Remove(link))
	ok(t, os.Symlink("elsewhere", link))
	if got := must[string](t)(os.Readlink(link)); got != "elsewhere" {
		t.Errorf("link to %s after it was replaced", got)
	}
}

func testDirectories(t *testing.T, dir string, v *memory) {
	sub := filepath.Join(dir, "sub")
	ok(t, os.Mkdir(sub, 0o700))
	d := must[*os.File](t)(os.Open(sub))
	ino := inode(t, d)
	ok(t, d.Close())
	want(t, os.Mkdir(sub, 0o700), unix.EEXIST)
	create(t, filepath.Join(sub, "f"), nil).Close()
	want(t, unix.Rmdir(sub), unix.ENOTEMPTY)
	want(t, unix.Unlink(sub), unix.EISDIR)
	want(t, unix.Rmdir(filepath.Join(sub, "f")), unix.ENOTDIR)
	ok(t, os.RemoveAll(sub))
	_, err := os.Stat(sub)
	want(t, err, unix.ENOENT)
	await(t, "a removed directory is forgotten", func() bool { return !v.holds(ino) })
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	f := must[*os.File](t)(os.Open(dir))
	defer f.Close()
	got := must[[]string](t)(f.Readdirnames(-1))
	slices.Sort(got)
	return got
}

func testReadDirUnderUnlink(t *testing.T, dir string, _ *memory) {
	const n = 2000
	var expected []string
	for i := range n {
		s := fmt.Sprintf("%05d", i)
		expected = append(expected, s)
		f := must[*os.File](t)(os.Create(filepath.Join(dir, s)))
		ok(t, f.Close())
	}
	if got := names(t, dir); !slices.Equal(got, expected) {
		t.Errorf("%d names, want %d", len(got), n)
	}
	// What is there from beginning to end is seen once, however much vanishes
	// meanwhile.
	d := must[*os.File](t)(os.Open(dir))
	defer d.Close()
	seen := map[string]int{}
	for {
		batch, err := d.Readdirnames(100)
		for i, s := range batch {
			seen[s]++
			if i%2 == 0 {
				ok(t, os.Remove(filepath.Join(dir, s)))
			}
		}
		if err == io.EOF {
			break
		}
		ok(t, err)
	}
	for _, s := range expected {
		if seen[s] != 1 {
			t.Fatalf("%s seen %d times", s, seen[s])
		}
	}
	left := names(t, dir)
	if len(left) != n/2 {
		t.Errorf("%d names left, want %d", len(left), n/2)
	}
	for _, e := range must[[]os.DirEntry](t)(os.ReadDir(dir)) {
		if e.IsDir() || e.Type() != 0 {
			t.Errorf("%s has type %v", e.Name(), e.Type())
		}
	}
}

func testSeekDir(t *testing.T, dir string, _ *memory) {
	for i := range 500 {
		ok(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%03d", i)), nil, 0o600))
	}
	fd := must[int](t)(unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0))
	defer unix.Close(fd)
	buf := make([]byte, 4096)
	read := func() []string {
		n := must[int](t)(unix.Getdents(fd, buf))
		_, _, got := unix.ParseDirent(buf[:n], -1, nil)
		return got
	}
	first := read()
	position := must[int64](t)(unix.Seek(fd, 0, io.SeekCurrent))
	second := read()
	for range 2 {
		must[int64](t)(unix.Seek(fd, position, io.SeekStart))
		if again := read(); !slices.Equal(again, second) {
			t.Errorf("from position %d: %d names, before %d", position, len(again), len(second))
		}
	}
	must[int64](t)(unix.Seek(fd, 0, io.SeekStart))
	if again := read(); !slices.Equal(again, first) {
		t.Error("rewound, other names")
	}
	var raw []string
	must[int64](t)(unix.Seek(fd, 0, io.SeekStart))
	n := must[int](t)(unix.Getdents(fd, buf))
	for rest := buf[:n]; len(rest) > 19; rest = rest[int(rest[16])|int(rest[17])<<8:] {
		s, _, _ := bytes.Cut(rest[19:], []byte{0})
		raw = append(raw, string(s))
	}
	if !slices.Equal(raw[:2], []string{".", ".."}) {
		t.Errorf("the first names are %q", raw[:2])
	}
}

func testAllocate(t *testing.T, dir string, _ *memory) {
	p := filepath.Join(dir, "f")
	f := create(t, p, []byte("data"))
	ok(t, unix.Fallocate(int(f.Fd()), 0, 0, 65536))
	content(t, p, append([]byte("data"), make([]byte, 65532)...))
	ok(t, unix.Fallocate(int(f.Fd()), 0, 0, 8192)) // inside: nothing changes
	if st := must[os.FileInfo](t)(f.Stat()); st.Size() != 65536 {
		t.Errorf("size %d", st.Size())
	}
	want(t, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 8192), unix.EOPNOTSUPP)
}

func testTruncate(t *testing.T, dir string, _ *memory) {
	p := filepath.Join(dir, "f")
	data := noise(50_000)
	f := create(t, p, data)
	ok(t, f.Truncate(10_001))
	content(t, p, data[:10_001])
	ok(t, f.Truncate(30_000)) // what was cut off is gone
	content(t, p, append(slices.Clone(data[:10_001]), make([]byte, 19_999)...))
	ok(t, os.Truncate(p, 0))
	content(t, p, nil)
	must[int](t)(f.WriteAt([]byte("x"), 3))
	content(t, p, []byte("\x00\x00\x00x"))
	g := must[*os.File](t)(os.OpenFile(p, os.O_RDWR|os.O_TRUNC, 0))
	defer g.Close()
	content(t, p, nil)
}

func testAttributes(t *testing.T, dir string, _ *memory) {
	p := filepath.Join(dir, "f")
	f := create(t, p, []byte("x"))
	ok(t, f.Chmod(0o640))
	when := time.Date(2020, 2, 3, 4, 5, 6, 789_000_000, time.UTC)
	ok(t, os.Chtimes(p, time.Time{}, when))
	st := must[os.FileInfo](t)(os.Stat(p))
	if st.Mode() != 0o640 || !st.ModTime().Equal(when) {
		t.Errorf("mode %v, modified %v", st.Mode(), st.ModTime())
	}
	must[int](t)(f.WriteAt([]byte("y"), 0))
	if st := must[os.FileInfo](t)(os.Stat(p)); st.ModTime().Equal(when) {
		t.Error("a write does not change the modification time")
	}
	sys := st.Sys().(*syscall.Stat_t)
	if int(sys.Uid) != os.Geteuid() || int(sys.Gid) != os.Getegid() {
		t.Errorf("owner %d:%d", sys.Uid, sys.Gid)
	}
	ok(t, os.Chmod(dir, 0o750))
	if st := must[os.FileInfo](t)(os.Stat(dir)); st.Mode().Perm() != 0o750 {
		t.Errorf("directory has mode %v", st.Mode())
	}
	old := syscall.Umask(0o077)
	ok(t, os.Mkdir(filepath.Join(dir, "d"), 0o777))
	syscall.Umask(old)
	if st := must[os.FileInfo](t)(os.Stat(filepath.Join(dir, "d"))); st.Mode().Perm() != 0o700 {
		t.Errorf("umask is not respected: %v", st.Mode())
	}
}

func testSync(t *testing.T, dir string, v *memory) {
	f := create(t, filepath.Join(dir, "f"), []byte("x"))
	v.noted()
	ok(t, f.Sync())
	ok(t, unix.Fdatasync(int(f.Fd())))
	d := must[*os.File](t)(os.Open(dir))
	defer d.Close()
	ok(t, d.Sync())
	if _, syncs := v.noted(); syncs != 3 {
		t.Errorf("%d syncs reached the volume, want 3", syncs)
	}
}

func testStatfs(t *testing.T, dir string, _ *memory) {
	var st unix.Statfs_t
	ok(t, unix.Statfs(dir, &st))
	if total, free := st.Blocks*uint64(st.Bsize), st.Bavail*uint64(st.Bsize); total != 1<<30 || free != 1<<29 || st.Namelen != 255 {
		t.Errorf("%d of %d bytes free, names of %d", free, total, st.Namelen)
	}
}

func testAppend(t *testing.T, dir string, _ *memory) {
	p := filepath.Join(dir, "f")
	a := must[*os.File](t)(os.OpenFile(p, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600))
	defer a.Close()
	b := must[*os.File](t)(os.OpenFile(p, os.O_WRONLY|os.O_APPEND, 0))
	defer b.Close()
	var expected []byte
	for i := range 100 {
		line := fmt.Appendf(nil, "line %d\n", i)
		f := a
		if i%2 == 1 {
			f = b
		}
		must[int](t)(f.Write(line))
		expected = append(expected, line...)
	}
	content(t, p, expected)
}

func testMmap(t *testing.T, dir string, _ *memory) {
	p := filepath.Join(dir, "f")
	data := noise(3 * layer.PageSize)
	f := create(t, p, data)
	m := must[[]byte](t)(unix.Mmap(int(f.Fd()), 0, len(data), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED))
	defer unix.Munmap(m)
	if !bytes.Equal(m, data) {
		t.Error("the map shows other bytes than were written")
	}
	must[int](t)(f.WriteAt([]byte("written"), 100))
	if !bytes.Equal(m[100:107], []byte("written")) {
		t.Error("the map does not follow a write")
	}
	copy(m[9000:], "mapped")
	ok(t, unix.Msync(m, unix.MS_SYNC))
	got := make([]byte, 6)
	must[int](t)(f.ReadAt(got, 9000))
	if string(got) != "mapped" {
		t.Errorf("a store through the map reads %q", got)
	}
}

func testLargeWrites(t *testing.T, dir string, v *memory) {
	p := filepath.Join(dir, "f")
	data := noise(3<<20 + 12_345)
	v.noted()
	f := create(t, p, data)
	writes, _ := v.noted()
	content(t, p, data)
	for i, n := range writes {
		if n%layer.PageSize != 0 && i < len(writes)-1 {
			t.Errorf("write %d of %d has %d bytes: a page was cut", i, len(writes), n)
		}
	}
	ok(t, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
	content(t, p, data)
	// The same in pieces, as Postgres writes several pages at once.
	var pieces [][]byte
	for c := range slices.Chunk(data[:2<<20], layer.PageSize) {
		pieces = append(pieces, c)
	}
	v.noted()
	if n := must[int](t)(unix.Pwritev(int(f.Fd()), pieces, 0)); n != 2<<20 {
		t.Errorf("wrote %d bytes", n)
	}
	writes, _ = v.noted()
	for _, n := range writes {
		if n%layer.PageSize != 0 {
			t.Errorf("a write of %d bytes: a page was cut", n)
		}
	}
	content(t, p, data)
}

func testPageWrites(t *testing.T, dir string, v *memory) {
	f := create(t, filepath.Join(dir, "f"), nil)
	page := noise(layer.PageSize)
	v.noted()
	const n = 300
	for i := range n {
		// In no order, over holes, over old pages and with pages in the
		// kernel's cache.
		off := int64(i*7919%n) * layer.PageSize
		must[int](t)(f.WriteAt(page, off))
		if i%3 == 0 {
			must[int](t)(f.ReadAt(page[:100], off))
		}
	}
	writes, _ := v.noted()
	if len(writes) != n || slices.Max(writes) != layer.PageSize || slices.Min(writes) != layer.PageSize {
		t.Errorf("%d writes of %d to %d bytes, want %d of %d", len(writes), slices.Min(writes), slices.Max(writes), n, layer.PageSize)
	}
}

func testConcurrentWriters(t *testing.T, dir string, _ *memory) {
	const writers, pages = 8, 50
	p := filepath.Join(dir, "shared")
	shared := create(t, p, nil)
	errs := make([]error, writers)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			errs[w] = func() error {
				page := bytes.Repeat([]byte{byte('a' + w)}, layer.PageSize)
				own := filepath.Join(dir, fmt.Sprint("own", w))
				for i := range pages {
					if _, err := shared.WriteAt(page, int64(i*writers+w)*layer.PageSize); err != nil {
						return err
					}
					if err := os.WriteFile(own+".tmp", page[:i], 0o600); err != nil {
						return err
					}
					if err := os.Rename(own+".tmp", own); err != nil {
						return err
					}
					if got, err := os.ReadFile(own); err != nil || len(got) != i {
						return fmt.Errorf("%d of %d bytes: %w", len(got), i, err)
					}
				}
				return os.Remove(own)
			}()
		})
	}
	wg.Wait()
	ok(t, errors.Join(errs...))
	got := must[[]byte](t)(os.ReadFile(p))
	for i := range writers * pages {
		if !bytes.Equal(got[i*layer.PageSize:(i+1)*layer.PageSize], bytes.Repeat([]byte{byte('a' + i%writers)}, layer.PageSize)) {
			t.Fatalf("page %d is not what its writer wrote", i)
		}
	}
	if left := names(t, dir); !slices.Equal(left, []string{"shared"}) {
		t.Errorf("left: %v", left)
	}
}

// testAgainstNative does the same random reads, writes and truncations here and
// in a native file.
func testAgainstNative(t *testing.T, dir string, _ *memory) {
	r := rand.New(rand.NewPCG(7, 7))
	native := create(t, filepath.Join(t.TempDir(), "f"), nil)
	mounted := create(t, filepath.Join(dir, "f"), nil)
	data := noise(40_000)
	for i := range 2000 {
		off, n := int64(r.IntN(300_000)), r.IntN(len(data))
		switch r.IntN(6) {
		case 0:
			ok(t, errors.Join(native.Truncate(off), mounted.Truncate(off)))
		case 1, 2, 3:
			if r.IntN(2) == 0 {
				off, n = off/layer.PageSize*layer.PageSize, layer.PageSize
			}
			_, err1 := native.WriteAt(data[:n], off)
			_, err2 := mounted.WriteAt(data[:n], off)
			ok(t, errors.Join(err1, err2))
		case 4:
			ok(t, unix.Fadvise(int(mounted.Fd()), 0, 0, unix.FADV_DONTNEED))
		}
		a, b := make([]byte, n), make([]byte, n)
		n1, err1 := native.ReadAt(a, off)
		n2, err2 := mounted.ReadAt(b, off)
		if n1 != n2 || err1 != err2 || !bytes.Equal(a, b) {
			t.Fatalf("step %d: read %d at %d: natively %d (%v), here %d (%v)", i, n, off, n1, err1, n2, err2)
		}
	}
}

func testUnsupported(t *testing.T, dir string, _ *memory) {
	p := filepath.Join(dir, "f")
	f := create(t, p, []byte("x"))
	for range 2 {
		want(t, unix.Setxattr(p, "user.a", []byte("b"), 0), unix.EOPNOTSUPP)
		_, err := unix.Getxattr(p, "user.a", nil)
		want(t, err, unix.EOPNOTSUPP)
		_, err = unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR, 0o600)
		want(t, err, unix.EOPNOTSUPP)
		want(t, unix.IoctlFileClone(int(f.Fd()), int(f.Fd())), unix.EOPNOTSUPP)
	}
	err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600)
	want(t, err, unix.EOPNOTSUPP)
	// Without an operation of its own the kernel copies.
	g := create(t, filepath.Join(dir, "g"), nil)
	if n := must[int](t)(unix.CopyFileRange(int(f.Fd()), new(int64), int(g.Fd()), new(int64), 1, 0)); n != 1 {
		t.Errorf("copied %d bytes", n)
	}
	content(t, filepath.Join(dir, "g"), []byte("x"))
	// Locks are the kernel's own.
	ok(t, unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB))
	must[int64](t)(unix.Seek(int(f.Fd()), 0, unix.SEEK_DATA))
}

func testErrors(t *testing.T, dir string, v *memory) {
	f := create(t, filepath.Join(dir, "f"), []byte("x"))
	for errno, err := range map[syscall.Errno]error{
		unix.ENOSPC: fmt.Errorf("append to the log: %w", unix.ENOSPC),
		unix.EIO:    errors.New("a page is damaged"),
	} {
		v.failWith(err)
		_, werr := f.WriteAt([]byte("y"), 0)
		want(t, werr, errno)
		want(t, f.Sync(), errno)
		v.failWith(nil)
	}
	must[int](t)(f.WriteAt([]byte("z"), 0))
	ok(t, f.Sync())
}
