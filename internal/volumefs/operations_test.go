package volumefs_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn/internal/layer"
	"github.com/tarndb/tarn/internal/volumefs"
)

// operation is one line of docs/files.md: a call, what it answers, and the
// proof. do returns what the call returned; it fails the test when the call
// did something else than it should.
type operation struct {
	call  string
	errno syscall.Errno // 0 = supported
	note  string        // "" = as on any file system
	root  bool          // only root may try
	do    func(t *testing.T, dir string) error
}

// operations lists every operation of a file system, in groups.
var operations = []struct {
	group string
	list  []operation
}{
	{"Files", []operation{
		{call: "open, O_CREAT, O_EXCL, O_TRUNC", do: opOpen},
		{call: "read, pread, readv, preadv", do: opRead},
		{call: "write, pwrite, writev, pwritev", note: "an aligned page of 8 KiB is written whole or not at all, whatever fails", do: opWrite},
		{call: "O_APPEND", do: opAppend},
		{call: "O_DIRECT", note: "past the kernel's page cache", do: opDirect},
		{call: "O_SYNC, O_DSYNC", do: opSync},
		{call: "O_TMPFILE", errno: syscall.EOPNOTSUPP, do: opTmpfile},
		{call: "offsets up to 32 TiB; EFBIG beyond", do: opFarOffsets},
		{call: "truncate, ftruncate", do: opTruncate},
		{call: "fsync, fdatasync", note: "everything done before in the whole volume is durable", do: opFsync},
		{call: "syncfs, sync", note: "does nothing: FUSE does not pass it on; any fsync does what it promises", do: opSyncfs},
		{call: "sync_file_range", note: "does nothing, as it may", do: opSyncFileRange},
		{call: "mmap, MAP_SHARED and MAP_PRIVATE, msync", note: "what is stored through a map is written in pieces of 4 KiB: not whole after a crash", do: opMmap},
		{call: "posix_fadvise, readahead", do: opAdvise},
		{call: "flock", note: "kept by the kernel", do: opFlock},
		{call: "fcntl locks, open file description locks", note: "kept by the kernel", do: opFcntl},
	}},
	{"Space", []operation{
		{call: "fallocate, posix_fallocate", note: "the file grows; the space is taken when a page is written", do: opFallocate(0)},
		{call: "fallocate FALLOC_FL_KEEP_SIZE", errno: syscall.EOPNOTSUPP, do: opFallocate(unix.FALLOC_FL_KEEP_SIZE)},
		{call: "fallocate FALLOC_FL_PUNCH_HOLE", errno: syscall.EOPNOTSUPP, note: "pages of zeros take no space anyway", do: opFallocate(unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE)},
		{call: "fallocate FALLOC_FL_ZERO_RANGE", errno: syscall.EOPNOTSUPP, do: opFallocate(unix.FALLOC_FL_ZERO_RANGE)},
		{call: "fallocate FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE", errno: syscall.EOPNOTSUPP, do: opFallocate(unix.FALLOC_FL_COLLAPSE_RANGE)},
		{call: "lseek SEEK_DATA, SEEK_HOLE", note: "a file is all data up to its end", do: opSeekHole},
		{call: "copy_file_range", note: "between files of one volume; pages are shared, not copied, where both offsets are multiples of 8 KiB", do: opCopy},
		{call: "FICLONE, FICLONERANGE", errno: syscall.EOPNOTSUPP, note: "FUSE does not pass it on; copy_file_range does the same", do: opClone},
		{call: "statfs", note: "the space of the store", do: opStatfs},
	}},
	{"Names", []operation{
		{call: "link", do: opLink},
		{call: "unlink", note: "an open file lives on until it is closed", do: opUnlink},
		{call: "rename", note: "replaces what has the name, open or not", do: opRename},
		{call: "renameat2 RENAME_NOREPLACE", do: opNoReplace},
		{call: "renameat2 RENAME_EXCHANGE, RENAME_WHITEOUT", errno: syscall.EINVAL, do: opExchange},
		{call: "symlink, readlink", do: opSymlink},
		{call: "mkdir, rmdir", do: opMkdir},
		{call: "readdir, seekdir, telldir", note: "positions stay good while names come and go", do: opReaddir},
		{call: "fsync of a directory", do: opFsyncDir},
		{call: "names of up to 255 bytes, any but / and 0; ENAMETOOLONG beyond", do: opNames},
		{call: "mkfifo, mknod of pipes and devices", errno: syscall.EOPNOTSUPP, do: opFifo},
		{call: "bind of a unix socket", errno: syscall.EOPNOTSUPP, do: opSocket},
	}},
	{"Attributes", []operation{
		{call: "stat, fstat, statx", note: "atime and ctime are the mtime", do: opStat},
		{call: "chmod, fchmod", do: opChmod},
		{call: "chown, fchown", root: true, do: opChown},
		{call: "utimensat, futimens", note: "sets the mtime; the atime is not kept", do: opUtimens},
		{call: "access, open by other users", note: "by mode and owner, when root mounted it; else only who mounted it gets in", root: true, do: opOthers},
		{call: "setxattr, getxattr, listxattr, removexattr", errno: syscall.EOPNOTSUPP, do: opXattr},
		{call: "access control lists", errno: syscall.EOPNOTSUPP, do: opACL},
		{call: "FS_IOC_SETFLAGS and other ioctls", errno: syscall.ENOTTY, do: opIoctl},
	}},
}

const filesPage = "../../docs/files.md"

var update = flag.Bool("update", false, "write "+filesPage)

// Every operation answers as the table says, on each way to the server, and
// docs/files.md says the same.
func TestOperations(t *testing.T) {
	requireMount(t)
	for _, way := range []volumefs.Rings{volumefs.RingsNever, volumefs.RingsOffered} {
		v := &copying{memory: newMemory(uint32(os.Geteuid()), uint32(os.Getegid()))}
		dir := place(t)
		m := mount(t, dir, v, volumefs.Options{Rings: way})
		t.Run(fmt.Sprintf("rings=%v", m.OnRings()), func(t *testing.T) { tryOperations(t, dir) })
	}
}

func tryOperations(t *testing.T, dir string) {
	i := 0
	for _, g := range operations {
		for _, o := range g.list {
			i++
			t.Run(o.call, func(t *testing.T) {
				if o.root && os.Geteuid() != 0 {
					t.Skip("only root may")
				}
				own := filepath.Join(dir, fmt.Sprint(i))
				ok(t, os.Mkdir(own, 0o755))
				err := o.do(t, own)
				if o.errno == 0 {
					ok(t, err)
					return
				}
				want(t, err, o.errno)
			})
		}
	}
}

func TestFilesPage(t *testing.T) {
	if _, err := os.Stat(filepath.Dir(filesPage)); err != nil {
		t.Skip("run away from the sources")
	}
	var b strings.Builder
	b.WriteString("# What files on a branch can do\n\n" +
		"A branch's data directory is a FUSE mount. This is every operation of a file system and what it answers there;\n" +
		"the page is written and checked by `go test ./internal/volumefs` (`-run FilesPage -update` writes it).\n")
	for _, g := range operations {
		b.WriteString("\n## " + g.group + "\n\n| operation | | |\n|---|---|---|\n")
		for _, o := range g.list {
			answer := "yes"
			if o.errno != 0 {
				answer = unix.ErrnoName(o.errno)
				if o.errno == unix.EOPNOTSUPP {
					answer = "EOPNOTSUPP" // the name of two
				}
			}
			fmt.Fprintf(&b, "| %s | %s | %s |\n", o.call, answer, o.note)
		}
	}
	if *update {
		ok(t, os.WriteFile(filesPage, []byte(b.String()), 0o644))
	}
	if got := must[[]byte](t)(os.ReadFile(filesPage)); string(got) != b.String() {
		t.Errorf("docs/files.md is not what the table says: go test ./internal/volumefs -run FilesPage -update")
	}
}

// descriptor opens a file of dir with some content, without Go's own buffers
// and rules.
func descriptor(t *testing.T, dir string, flags int, content string) int {
	t.Helper()
	p := filepath.Join(dir, "f")
	ok(t, os.WriteFile(p, []byte(content), 0o600))
	fd := must[int](t)(unix.Open(p, flags|unix.O_CLOEXEC, 0))
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func same[T comparable](t *testing.T, got, expected T) {
	t.Helper()
	if got != expected {
		t.Errorf("%v, want %v", got, expected)
	}
}

func opOpen(t *testing.T, dir string) error {
	p := filepath.Join(dir, "f")
	fd, err := unix.Open(p, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Open(p, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
	want(t, err, unix.EEXIST)
	must[int](t)(unix.Write(fd, []byte("x")))
	again, err := unix.Open(p, unix.O_RDWR|unix.O_TRUNC, 0)
	if err != nil {
		return err
	}
	content(t, p, nil)
	return unix.Close(again)
}

func opRead(t *testing.T, dir string) error {
	fd := descriptor(t, dir, unix.O_RDONLY, "abcdefgh")
	b, c := make([]byte, 3), make([]byte, 4)
	same(t, must[int](t)(unix.Readv(fd, [][]byte{b, c})), 7)
	same(t, string(b)+string(c), "abcdefg")
	same(t, must[int](t)(unix.Read(fd, b)), 1)
	same(t, must[int](t)(unix.Preadv(fd, [][]byte{b, c}, 6)), 2)
	n, err := unix.Pread(fd, b, 100)
	same(t, n, 0)
	return err
}

func opWrite(t *testing.T, dir string) error {
	fd := descriptor(t, dir, unix.O_RDWR, "")
	same(t, must[int](t)(unix.Writev(fd, [][]byte{[]byte("ab"), []byte("cde")})), 5)
	same(t, must[int](t)(unix.Write(fd, []byte("f"))), 1)
	n, err := unix.Pwritev(fd, [][]byte{[]byte("12"), []byte("3")}, 8)
	same(t, n, 3)
	content(t, filepath.Join(dir, "f"), []byte("abcdef\x00\x00123"))
	return err
}

func opAppend(t *testing.T, dir string) error {
	fd := descriptor(t, dir, unix.O_WRONLY|unix.O_APPEND, "one ")
	other := must[int](t)(unix.Open(filepath.Join(dir, "f"), unix.O_WRONLY|unix.O_APPEND, 0))
	defer unix.Close(other)
	must[int](t)(unix.Write(other, []byte("two ")))
	_, err := unix.Write(fd, []byte("three"))
	content(t, filepath.Join(dir, "f"), []byte("one two three"))
	return err
}

func opDirect(t *testing.T, dir string) error {
	fd := descriptor(t, dir, unix.O_RDWR|unix.O_DIRECT, "old")
	m := must[[]byte](t)(unix.Mmap(-1, 0, 2*layer.PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS))
	defer unix.Munmap(m)
	copy(m, noise(layer.PageSize))
	if _, err := unix.Pwrite(fd, m[:layer.PageSize], layer.PageSize); err != nil {
		return err
	}
	n, err := unix.Pread(fd, m[layer.PageSize:], layer.PageSize)
	same(t, n, layer.PageSize)
	same(t, bytes.Equal(m[:layer.PageSize], m[layer.PageSize:]), true)
	return err
}

func opSync(t *testing.T, dir string) error {
	fd := descriptor(t, dir, unix.O_RDWR|unix.O_SYNC, "")
	_, err := unix.Write(fd, []byte("x"))
	return err
}

func opTmpfile(_ *testing.T, dir string) error {
	_, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR, 0o600)
	return err
}

func opFarOffsets(t *testing.T, dir string) error {
	fd := descriptor(t, dir, unix.O_RDWR, "")
	// The store's own limit is tested with it; sparse memory is not ours here.
	_, err := unix.Pwrite(fd, []byte("x"), 64<<20)
	same(t, must[int64](t)(unix.Seek(fd, 0, io.SeekEnd)), 64<<20+1)
	_, far := unix.Pwrite(fd, []byte("x"), 1<<62)
	if far == nil {
		t.Error("wrote at 4 EiB")
	}
	return err
}

func opTruncate(t *testing.T, dir string) error {
	fd := descriptor(t, dir, unix.O_RDWR, "abcdef")
	if err := unix.Ftruncate(fd, 3); err != nil {
		return err
	}
	err := unix.Truncate(filepath.Join(dir, "f"), 5)
	content(t, filepath.Join(dir, "f"), []byte("abc\x00\x00"))
	return err
}

func opFsync(t *testing.T, dir string) error {
	fd := descriptor(t, dir, unix.O_RDWR, "x")
	return errors.Join(unix.Fsync(fd), unix.Fdatasync(fd))
}

func opSyncfs(t *testing.T, dir string) error {
	return unix.Syncfs(descriptor(t, dir, unix.O_RDWR, "x"))
}

func opSyncFileRange(t *testing.T, dir string) error {
	return unix.SyncFileRange(descriptor(t, dir, unix.O_RDWR, "x"), 0, 1, unix.SYNC_FILE_RANGE_WRITE)
}

func opMmap(t *testing.T, dir string) error {
	fd := descriptor(t, dir, unix.O_RDWR, strings.Repeat("a", layer.PageSize))
	shared, err := unix.Mmap(fd, 0, layer.PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	defer unix.Munmap(shared)
	private, err := unix.Mmap(fd, 0, layer.PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	defer unix.Munmap(private)
	copy(shared[10:], "shared")
	copy(private[4096+10:], "private")
	if err := unix.Msync(shared, unix.MS_SYNC); err != nil {
		return err
	}
	b := make([]byte, layer.PageSize)
	must[int](t)(unix.Pread(fd, b, 0))
	same(t, string(b[10:16]), "shared")
	same(t, string(private[10:16]), "shared")
	same(t, bytes.Contains(b, []byte("private")), false)
	return nil
}

func opAdvise(t *testing.T, dir string) error {
	fd := descriptor(t, dir, unix.O_RDWR, "x")
	return errors.Join(unix.Fadvise(fd, 0, 0, unix.FADV_SEQUENTIAL), unix.Fadvise(fd, 0, 0, unix.FADV_WILLNEED), unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED))
}

func opFlock(t *testing.T, dir string) error {
	a, b := descriptor(t, dir, unix.O_RDWR, "x"), descriptor(t, dir, unix.O_RDWR, "x")
	err := unix.Flock(a, unix.LOCK_EX)
	want(t, unix.Flock(b, unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
	return err
}

func opFcntl(t *testing.T, dir string) error {
	const setOFD = 37 // F_OFD_SETLK
	a, b := descriptor(t, dir, unix.O_RDWR, "x"), descriptor(t, dir, unix.O_RDWR, "x")
	lock := unix.Flock_t{Type: unix.F_WRLCK, Len: 1}
	err := errors.Join(unix.FcntlFlock(uintptr(a), unix.F_SETLK, &lock), unix.FcntlFlock(uintptr(a), unix.F_SETLK, &unix.Flock_t{Type: unix.F_UNLCK, Len: 1}),
		unix.FcntlFlock(uintptr(a), setOFD, &lock))
	want(t, unix.FcntlFlock(uintptr(b), setOFD, &unix.Flock_t{Type: unix.F_WRLCK, Len: 1}), unix.EAGAIN)
	return err
}

func opFallocate(mode uint32) func(t *testing.T, dir string) error {
	return func(t *testing.T, dir string) error {
		fd := descriptor(t, dir, unix.O_RDWR, strings.Repeat("a", 4*4096))
		err := unix.Fallocate(fd, mode, 4096, 8*4096)
		size := int64(9 * 4096)
		if err != nil {
			size = 4 * 4096
		}
		same(t, must[int64](t)(unix.Seek(fd, 0, io.SeekEnd)), size)
		b := make([]byte, 4*4096)
		must[int](t)(unix.Pread(fd, b, 0))
		same(t, string(b), strings.Repeat("a", 4*4096))
		return err
	}
}

func opSeekHole(t *testing.T, dir string) error {
	fd := descriptor(t, dir, unix.O_RDWR, "x")
	ok(t, unix.Ftruncate(fd, 1<<20))
	same(t, must[int64](t)(unix.Seek(fd, 4096, unix.SEEK_DATA)), 4096)
	n, err := unix.Seek(fd, 0, unix.SEEK_HOLE)
	same(t, n, 1<<20)
	return err
}

func opCopy(t *testing.T, dir string) error {
	data := noise(3 * layer.PageSize)
	src, dst := create(t, filepath.Join(dir, "src"), data), create(t, filepath.Join(dir, "dst"), nil)
	var from, to int64
	for from < int64(len(data)) {
		if _, err := unix.CopyFileRange(int(src.Fd()), &from, int(dst.Fd()), &to, len(data), 0); err != nil {
			return err
		}
	}
	content(t, filepath.Join(dir, "dst"), data)
	return nil
}

func opClone(t *testing.T, dir string) error {
	src, dst := create(t, filepath.Join(dir, "src"), []byte("x")), create(t, filepath.Join(dir, "dst"), nil)
	return unix.IoctlFileClone(int(dst.Fd()), int(src.Fd()))
}

func opStatfs(t *testing.T, dir string) error {
	var st unix.Statfs_t
	err := unix.Statfs(dir, &st)
	same(t, st.Blocks*uint64(st.Bsize), 1<<30)
	same(t, st.Type, unix.FUSE_SUPER_MAGIC)
	return err
}

func opLink(t *testing.T, dir string) error {
	descriptor(t, dir, unix.O_RDWR, "x")
	if err := os.Link(filepath.Join(dir, "f"), filepath.Join(dir, "g")); err != nil {
		return err
	}
	var st unix.Stat_t
	ok(t, unix.Stat(filepath.Join(dir, "f"), &st))
	same(t, st.Nlink, 2)
	want(t, os.Link(dir, filepath.Join(dir, "d")), unix.EPERM)
	return nil
}

func opUnlink(t *testing.T, dir string) error {
	fd := descriptor(t, dir, unix.O_RDWR, "still")
	if err := unix.Unlink(filepath.Join(dir, "f")); err != nil {
		return err
	}
	want(t, unix.Unlink(filepath.Join(dir, "f")), unix.ENOENT)
	want(t, unix.Unlink(dir), unix.EISDIR)
	b := make([]byte, 5)
	_, err := unix.Pread(fd, b, 0)
	same(t, string(b), "still")
	return err
}

func opRename(t *testing.T, dir string) error {
	fd := descriptor(t, dir, unix.O_RDWR, "old")
	ok(t, os.WriteFile(filepath.Join(dir, "g"), []byte("new"), 0o600))
	if err := unix.Rename(filepath.Join(dir, "g"), filepath.Join(dir, "f")); err != nil {
		return err
	}
	content(t, filepath.Join(dir, "f"), []byte("new"))
	b := make([]byte, 3)
	_, err := unix.Pread(fd, b, 0)
	same(t, string(b), "old")
	return err
}

func opNoReplace(t *testing.T, dir string) error {
	descriptor(t, dir, unix.O_RDWR, "x")
	f, g := filepath.Join(dir, "f"), filepath.Join(dir, "g")
	if err := unix.Renameat2(unix.AT_FDCWD, f, unix.AT_FDCWD, g, unix.RENAME_NOREPLACE); err != nil {
		return err
	}
	descriptor(t, dir, unix.O_RDWR, "x")
	want(t, unix.Renameat2(unix.AT_FDCWD, f, unix.AT_FDCWD, g, unix.RENAME_NOREPLACE), unix.EEXIST)
	return nil
}

func opExchange(t *testing.T, dir string) error {
	descriptor(t, dir, unix.O_RDWR, "x")
	f, g := filepath.Join(dir, "f"), filepath.Join(dir, "g")
	if os.Geteuid() == 0 {
		want(t, unix.Renameat2(unix.AT_FDCWD, f, unix.AT_FDCWD, g, unix.RENAME_WHITEOUT), unix.EINVAL)
	}
	ok(t, os.WriteFile(g, nil, 0o600))
	return unix.Renameat2(unix.AT_FDCWD, f, unix.AT_FDCWD, g, unix.RENAME_EXCHANGE)
}

func opSymlink(t *testing.T, dir string) error {
	if err := os.Symlink("no such place", filepath.Join(dir, "l")); err != nil {
		return err
	}
	target, err := os.Readlink(filepath.Join(dir, "l"))
	same(t, target, "no such place")
	return err
}

func opMkdir(t *testing.T, dir string) error {
	d := filepath.Join(dir, "d")
	if err := unix.Mkdir(d, 0o700); err != nil {
		return err
	}
	ok(t, os.WriteFile(filepath.Join(d, "f"), nil, 0o600))
	want(t, unix.Rmdir(d), unix.ENOTEMPTY)
	want(t, unix.Rmdir(filepath.Join(d, "f")), unix.ENOTDIR)
	ok(t, os.Remove(filepath.Join(d, "f")))
	return unix.Rmdir(d)
}

func opReaddir(t *testing.T, dir string) error {
	for i := range 300 {
		ok(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%03d", i)), nil, 0o600))
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	seen := 0
	for {
		names, err := d.Readdirnames(10)
		seen += len(names)
		for _, name := range names {
			ok(t, os.Remove(filepath.Join(dir, name)))
		}
		if err != nil {
			break
		}
	}
	same(t, seen, 300)
	return nil
}

func opFsyncDir(_ *testing.T, dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func opNames(t *testing.T, dir string) error {
	odd := filepath.Join(dir, "a\nb\\\xff\" ä")
	if err := os.WriteFile(odd, []byte("x"), 0o600); err != nil {
		return err
	}
	content(t, odd, []byte("x"))
	err := os.WriteFile(filepath.Join(dir, strings.Repeat("n", 255)), nil, 0o600)
	want(t, os.WriteFile(filepath.Join(dir, strings.Repeat("n", 256)), nil, 0o600), unix.ENAMETOOLONG)
	return err
}

func opFifo(_ *testing.T, dir string) error { return unix.Mkfifo(filepath.Join(dir, "p"), 0o600) }

func opSocket(t *testing.T, dir string) error {
	fd := must[int](t)(unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0))
	defer unix.Close(fd)
	return unix.Bind(fd, &unix.SockaddrUnix{Name: filepath.Join(dir, "s")})
}

func opStat(t *testing.T, dir string) error {
	fd := descriptor(t, dir, unix.O_RDWR, "12345")
	var st unix.Stat_t
	ok(t, unix.Fstat(fd, &st))
	same(t, st.Size, 5)
	same(t, st.Mtim, st.Ctim)
	var sx unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &sx)
	same(t, sx.Size, 5)
	return err
}

func opChmod(t *testing.T, dir string) error {
	fd := descriptor(t, dir, unix.O_RDWR, "")
	err := unix.Fchmod(fd, 0o640)
	var st unix.Stat_t
	ok(t, unix.Fstat(fd, &st))
	same(t, st.Mode&0o7777, 0o640)
	return err
}

func opChown(t *testing.T, dir string) error {
	fd := descriptor(t, dir, unix.O_RDWR, "")
	err := unix.Fchown(fd, 12, 34)
	var st unix.Stat_t
	ok(t, unix.Fstat(fd, &st))
	same(t, st.Uid, 12)
	same(t, st.Gid, 34)
	return err
}

func opUtimens(t *testing.T, dir string) error {
	descriptor(t, dir, unix.O_RDWR, "")
	p := filepath.Join(dir, "f")
	when := unix.NsecToTimespec(time.Date(2001, 2, 3, 4, 5, 6, 7, time.UTC).UnixNano())
	err := unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, when}, 0)
	var st unix.Stat_t
	ok(t, unix.Stat(p, &st))
	same(t, st.Mtim, when)
	ok(t, unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_OMIT}}, 0))
	ok(t, unix.Stat(p, &st))
	same(t, st.Mtim, when)
	return err
}

// opOthers asks as another user, which one thread of ours becomes.
func opOthers(t *testing.T, dir string) error {
	const nobody = 65534
	ok(t, os.WriteFile(filepath.Join(dir, "open"), []byte("x"), 0o644))
	ok(t, os.WriteFile(filepath.Join(dir, "shut"), []byte("x"), 0o600))
	result := make(chan [3]error)
	go func() {
		runtime.LockOSThread() // not unlocked: the thread ends with us
		var errs [3]error
		if _, _, errno := unix.RawSyscall(unix.SYS_SETFSUID, nobody, 0, 0); errno != 0 {
			errs[0] = errno
		}
		for i, path := range []string{"open", "shut", "new"} {
			flags := unix.O_RDONLY
			if path == "new" {
				flags = unix.O_CREAT | unix.O_RDWR
			}
			fd, err := unix.Open(filepath.Join(dir, path), flags, 0o600)
			if err == nil {
				err = unix.Close(fd)
			}
			errs[i] = errors.Join(errs[i], err)
		}
		result <- errs
	}()
	errs := <-result
	want(t, errs[1], unix.EACCES)
	want(t, errs[2], unix.EACCES)
	return errs[0]
}

func opXattr(t *testing.T, dir string) error {
	descriptor(t, dir, unix.O_RDWR, "")
	p := filepath.Join(dir, "f")
	_, err := unix.Getxattr(p, "user.a", nil)
	want(t, err, unix.EOPNOTSUPP)
	want(t, unix.Removexattr(p, "user.a"), unix.EOPNOTSUPP)
	_, err = unix.Listxattr(p, nil)
	want(t, err, unix.EOPNOTSUPP)
	return unix.Setxattr(p, "user.a", []byte("b"), 0)
}

func opACL(t *testing.T, dir string) error {
	descriptor(t, dir, unix.O_RDWR, "")
	acl := []byte{2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 4, 0, 4, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255}
	return unix.Setxattr(filepath.Join(dir, "f"), "system.posix_acl_access", acl, 0)
}

func opIoctl(t *testing.T, dir string) error {
	fd := descriptor(t, dir, unix.O_RDWR, "")
	return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, 0x80)
}
