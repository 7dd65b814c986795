package volumefs

import (
	"log/slog"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn/internal/layer"
)

const (
	// cacheFor is how many seconds the kernel may remember a name, a missing
	// name or an attribute: for ever, since nobody else changes the volume.
	cacheFor = 10 * 365 * 24 * 3600

	// blockSize is what stat and statfs call a block. It stays at the
	// kernel's page: newer kernels take it for the granularity of their page
	// cache.
	blockSize = 4096

	maxName = 255

	// openFlags keep what the page cache holds of a file from one open to the
	// next, and spare the FLUSH of each close: there is nothing to flush.
	openFlags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_NOFLUSH
)

// filesystem answers the kernel's requests from a volume. What it does not
// implement it inherits: ENOSYS, which makes the kernel do without for good
// (ACCESS, POLL, LSEEK with holes, STATX) or tell the caller
// EOPNOTSUPP (TMPFILE, extended attributes).
type filesystem struct {
	fuse.RawFileSystem
	v       Volume
	lookups *lookups
	errs    *errorLog
}

func newFilesystem(v Volume, log *slog.Logger) *filesystem {
	return &filesystem{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		v:             v,
		lookups:       newLookups(v.Forget),
		errs:          &errorLog{log: log, met: map[string]bool{}},
	}
}

func (f *filesystem) String() string { return "tarn" }

func fillAttr(a *layer.Attr, out *fuse.Attr) {
	sec, nsec := uint64(a.Mtime/1e9), uint32(a.Mtime%1e9)
	*out = fuse.Attr{
		Ino:       uint64(a.Ino),
		Size:      a.Size,
		Blocks:    (a.Size + 511) / 512,
		Atime:     sec,
		Mtime:     sec,
		Ctime:     sec,
		Atimensec: nsec,
		Mtimensec: nsec,
		Ctimensec: nsec,
		Mode:      a.Mode,
		Nlink:     a.Nlink,
		Owner:     fuse.Owner{Uid: a.UID, Gid: a.GID},
		Blksize:   blockSize,
	}
}

func fillEntry(a *layer.Attr, out *fuse.EntryOut) {
	out.NodeId = uint64(a.Ino)
	out.Generation = 1 // inode numbers are never used again
	out.EntryValid = cacheFor
	out.AttrValid = cacheFor
	fillAttr(a, &out.Attr)
}

// hand gives the kernel a reference to the file that find returns.
func (f *filesystem) hand(op string, out *fuse.EntryOut, find func() (layer.Attr, error)) fuse.Status {
	f.lookups.gate.RLock()
	defer f.lookups.gate.RUnlock()
	a, err := find()
	if err != nil {
		return f.errs.status(op, err)
	}
	f.lookups.add(a.Ino)
	fillEntry(&a, out)
	return fuse.OK
}

func (f *filesystem) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if len(name) > maxName {
		return fuse.Status(syscall.ENAMETOOLONG)
	}
	st := f.hand("lookup", out, func() (layer.Attr, error) { return f.v.Lookup(layer.Ino(h.NodeId), name) })
	if st == fuse.ENOENT {
		// Node 0 means "known to be missing", which the kernel remembers.
		out.NodeId, out.EntryValid = 0, cacheFor
		return fuse.OK
	}
	return st
}

func (f *filesystem) Forget(node, n uint64) { f.lookups.drop(layer.Ino(node), n) }

func (f *filesystem) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	a, err := f.v.Attr(layer.Ino(in.NodeId))
	if err != nil {
		return f.errs.status("attr", err)
	}
	out.AttrValid = cacheFor
	fillAttr(&a, &out.Attr)
	return fuse.OK
}

func (f *filesystem) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	var s layer.SetAttr
	if v, ok := in.GetMode(); ok {
		s.Has, s.Mode = s.Has|layer.SetMode, v
	}
	if v, ok := in.GetUID(); ok {
		s.Has, s.UID = s.Has|layer.SetUID, v
	}
	if v, ok := in.GetGID(); ok {
		s.Has, s.GID = s.Has|layer.SetGID, v
	}
	if v, ok := in.GetSize(); ok {
		s.Has, s.Size = s.Has|layer.SetSize, v
	}
	if v, ok := in.GetMTime(); ok {
		s.Has, s.Mtime = s.Has|layer.SetMtime, v.UnixNano()
	}
	// Access and change times are not kept: a request for nothing else is
	// answered with what is.
	set := func() (layer.Attr, error) { return f.v.SetAttr(layer.Ino(in.NodeId), s) }
	if s.Has == 0 {
		set = func() (layer.Attr, error) { return f.v.Attr(layer.Ino(in.NodeId)) }
	}
	a, err := set()
	if err != nil {
		return f.errs.status("set attr", err)
	}
	out.AttrValid = cacheFor
	fillAttr(&a, &out.Attr)
	return fuse.OK
}

func (f *filesystem) create(h *fuse.InHeader, name string, mode uint32, target string, out *fuse.EntryOut) fuse.Status {
	if len(name) > maxName {
		return fuse.Status(syscall.ENAMETOOLONG)
	}
	file := layer.NewFile{Mode: mode, UID: h.Uid, GID: h.Gid, Target: target}
	return f.hand("create", out, func() (layer.Attr, error) {
		a, err := f.v.Create(layer.Ino(h.NodeId), name, file)
		return made(f.v, h, layer.Ino(h.NodeId), name, a, err)
	})
}

func (f *filesystem) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	out.OpenFlags = openFlags
	return f.create(&in.InHeader, name, syscall.S_IFREG|in.Mode&0o7777, "", &out.EntryOut)
}

func (f *filesystem) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	if in.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return fuse.ENOTSUP // no devices, pipes or sockets
	}
	return f.create(&in.InHeader, name, in.Mode, "", out)
}

func (f *filesystem) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return f.create(&in.InHeader, name, syscall.S_IFDIR|in.Mode&0o7777, "", out)
}

func (f *filesystem) Symlink(_ <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	return f.create(h, name, syscall.S_IFLNK|0o777, target, out)
}

func (f *filesystem) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	target, err := f.v.Readlink(layer.Ino(h.NodeId))
	return []byte(target), f.errs.status("readlink", err)
}

func (f *filesystem) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	if len(name) > maxName {
		return fuse.Status(syscall.ENAMETOOLONG)
	}
	return f.hand("link", out, func() (layer.Attr, error) {
		a, err := f.v.Link(layer.Ino(in.Oldnodeid), layer.Ino(in.NodeId), name)
		return linked(f.v, in, name, a, err)
	})
}

func (f *filesystem) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return f.errs.status("unlink", unmade(h, f.v.Unlink(layer.Ino(h.NodeId), name)))
}

func (f *filesystem) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return f.errs.status("rmdir", unmade(h, f.v.Rmdir(layer.Ino(h.NodeId), name)))
}

func (f *filesystem) Rename(_ <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	// The kernel itself refuses RENAME_NOREPLACE onto a name that exists, and
	// nobody else can make one meanwhile.
	if in.Flags&^unix.RENAME_NOREPLACE != 0 {
		return fuse.EINVAL
	}
	if len(newName) > maxName {
		return fuse.Status(syscall.ENAMETOOLONG)
	}
	err := f.v.Rename(layer.Ino(in.NodeId), oldName, layer.Ino(in.Newdir), newName)
	return f.errs.status("rename", renamed(f.v, in, newName, err))
}

// Open, OpenDir and Flush are not implemented on purpose: from the first
// ENOSYS on the kernel opens and closes files without a round trip, with the
// page cache kept. A backend opens dozens of files before its first query.
func (f *filesystem) Open(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status {
	return fuse.ENOSYS
}

func (f *filesystem) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status {
	return fuse.ENOSYS
}

func (f *filesystem) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

func (f *filesystem) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	n, err := f.v.ReadAt(layer.Ino(in.NodeId), buf, in.Offset)
	if err != nil {
		return nil, f.errs.status("read", err)
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

// Writev is what the server calls for every WRITE; its data has one piece
// unless a transport splits it.
func (f *filesystem) Writev(cancel <-chan struct{}, in *fuse.WriteIn, data [][]byte) (uint32, fuse.Status) {
	if len(data) == 1 {
		return f.Write(cancel, in, data[0])
	}
	// Pieces need not end where pages do, and a page must arrive whole.
	var whole []byte
	for _, d := range data {
		whole = append(whole, d...)
	}
	return f.Write(cancel, in, whole)
}

func (f *filesystem) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	n, err := f.v.WriteAt(layer.Ino(in.NodeId), data, in.Offset)
	if err != nil {
		return 0, f.errs.status("write", err)
	}
	return uint32(n), fuse.OK
}

func (f *filesystem) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	if in.Mode != 0 {
		return fuse.ENOTSUP // no holes to punch, nothing beyond the end
	}
	return f.errs.status("allocate", f.v.Allocate(layer.Ino(in.NodeId), in.Offset, in.Length))
}

func (f *filesystem) Fsync(<-chan struct{}, *fuse.FsyncIn) fuse.Status {
	return f.errs.status("sync", f.v.Sync())
}

func (f *filesystem) FsyncDir(<-chan struct{}, *fuse.FsyncIn) fuse.Status {
	return f.errs.status("sync", f.v.Sync())
}

func (f *filesystem) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	total, free, err := f.v.Usage()
	if err != nil {
		return f.errs.status("usage", err)
	}
	*out = fuse.StatfsOut{
		Blocks:  total / blockSize,
		Bfree:   free / blockSize,
		Bavail:  free / blockSize,
		Bsize:   blockSize,
		Frsize:  blockSize,
		NameLen: maxName,
	}
	return fuse.OK
}
