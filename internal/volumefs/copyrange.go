package volumefs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/tarndb/tarn/internal/layer"
)

// CopyRanger is a Volume that can copy within itself without moving data.
// What does not implement it still answers copy_file_range(2): the kernel then
// reads and writes.
type CopyRanger interface {
	// CopyRange copies n bytes, less only at the end of src, and returns how
	// many. dst grows when it must. Each whole page of dst is old or new after
	// a crash. The ranges of one file do not overlap.
	CopyRange(src layer.Ino, srcOff uint64, dst layer.Ino, dstOff, n uint64) (uint64, error)
}

// maxCopy bounds one copy, so that its answer fits and its caller can be
// interrupted now and then. It is a multiple of a page.
const maxCopy = 1 << 30

// CopyFileRange serves copy_file_range(2) alone: the kernel passes FICLONE on
// to no FUSE file system.
func (f *filesystem) CopyFileRange(_ <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	v, ok := f.v.(CopyRanger)
	if !ok {
		return 0, fuse.ENOSYS
	}
	if in.Flags != 0 {
		return 0, fuse.EINVAL
	}
	n := min(in.Len, maxCopy)
	if in.NodeId == in.NodeIdOut && in.OffIn < in.OffOut+n && in.OffOut < in.OffIn+n {
		return 0, fuse.Status(syscall.EINVAL)
	}
	done, err := v.CopyRange(layer.Ino(in.NodeId), in.OffIn, layer.Ino(in.NodeIdOut), in.OffOut, n)
	if err != nil {
		return 0, f.errs.status("copy", err)
	}
	return uint32(done), fuse.OK
}
