package plaindir

import (
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// chunk is how much is copied between two looks at the context.
const chunk = 8 << 20

// cannotClone tells whether a file system, or a pair of them, has no reflinks.
func cannotClone(err error) bool {
	for _, no := range [...]unix.Errno{unix.EOPNOTSUPP, unix.EXDEV, unix.EINVAL, unix.ENOTTY, unix.ENOSYS, unix.EPERM} {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
}

// copyData makes out what in is now, holes included. in may be written, grow or
// be cut meanwhile: every byte of out is one that in had at some time during the
// call.
func copyData(ctx context.Context, in, out *os.File) error {
	src, dst := int(in.Fd()), int(out.Fd())
	inKernel := true
	for off := int64(0); ; {
		from, err := unix.Seek(src, off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // only a hole is left, or nothing
		}
		if err != nil {
			return err
		}
		to, err := unix.Seek(src, from, unix.SEEK_HOLE)
		if errors.Is(err, unix.ENXIO) {
			break // cut meanwhile
		}
		if err != nil {
			return err
		}
		for off = from; off < to; {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			n, err := copyRange(src, dst, off, int(min(to-off, chunk)), &inKernel)
			if err != nil {
				return err
			}
			if n == 0 {
				break // cut meanwhile
			}
			off += int64(n)
		}
		if off < to {
			break
		}
	}
	var was, is unix.Stat_t
	if err := errors.Join(unix.Fstat(src, &was), unix.Fstat(dst, &is)); err != nil {
		return err
	}
	if was.Size > is.Size {
		if err := unix.Ftruncate(dst, was.Size); err != nil {
			return err
		}
	}
	if is.Size >= 1<<20 {
		// So that the sync at the end finds little to write. It is a hint: what
		// goes wrong comes up there.
		_ = unix.SyncFileRange(dst, 0, 0, unix.SYNC_FILE_RANGE_WRITE)
	}
	return nil
}

// copyRange copies at most n bytes at off to the same place. 0 is the end of the
// file.
func copyRange(src, dst int, off int64, n int, inKernel *bool) (int, error) {
	for *inKernel {
		from, to := off, off
		done, err := unix.CopyFileRange(src, &from, dst, &to, n, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case cannotClone(err):
			*inKernel = false // another file system; or a kernel that cannot here
		default:
			return done, err
		}
	}
	b := make([]byte, min(n, 1<<20))
	n, err := pread(src, b, off)
	if err != nil || n == 0 {
		return 0, err
	}
	for done := 0; done < n; {
		k, err := unix.Pwrite(dst, b[done:n], off+int64(done))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return done, err
		}
		if k == 0 {
			return done, io.ErrShortWrite
		}
		done += k
	}
	return n, nil
}

func pread(fd int, b []byte, off int64) (int, error) {
	for {
		n, err := unix.Pread(fd, b, off)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
