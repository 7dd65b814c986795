package volumefs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// deviceAt is the device number of what is at path. It is never asked of the
// server of a mount there: the kernel knows it.
func deviceAt(path string) (uint64, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT|unix.AT_SYMLINK_NOFOLLOW, 0, &st)
	if err != nil {
		return 0, &fs.PathError{Op: "statx", Path: path, Err: err}
	}
	return unix.Mkdev(st.Dev_major, st.Dev_minor), nil
}

// Abort ends every request of the mounts of ours at dir and below: whoever waits
// for one gets an error, and every later one fails. It is for mounts whose server
// is dead, or was killed and does not end because one of its own threads waits
// for an answer that it would have given. The mounts stay, dead.
func Abort(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if real, err := filepath.EvalSymlinks(filepath.Dir(dir)); err == nil {
		dir = filepath.Join(real, filepath.Base(dir))
	}
	mounts, err := mountsBelow(dir)
	if err != nil {
		return fmt.Errorf("abort mounts in %s: %w", dir, err)
	}
	var errs []error
	for _, m := range mounts {
		if err := m.abort(); err != nil {
			errs = append(errs, fmt.Errorf("abort mount %s: %w", m.dir, err))
		}
	}
	return errors.Join(errs...)
}

// mounted is a mount as the kernel lists it.
type mounted struct {
	dir   string
	minor int // of its device: the number of the connection
}

// mountsBelow lists our mounts at dir and below.
//
//	36 35 0:52 / /data/mnt/ep-1 rw,nosuid,… shared:1 - fuse.tarn tarn rw,…
func mountsBelow(dir string) ([]mounted, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var all []mounted
	for line := range strings.Lines(string(b)) {
		place, kind, ok := strings.Cut(line, " - ")
		f := strings.Fields(place)
		if !ok || len(f) < 5 || !strings.HasPrefix(kind, fsType+" ") {
			continue
		}
		at := unescape(f[4])
		if at != dir && !strings.HasPrefix(at, dir+"/") {
			continue
		}
		_, number, _ := strings.Cut(f[2], ":")
		minor, err := strconv.Atoi(number)
		if err != nil {
			return nil, fmt.Errorf("read /proc/self/mountinfo: device %q: %w", f[2], err)
		}
		all = append(all, mounted{dir: at, minor: minor})
	}
	return all, nil
}

// unescape reads \040 and the like, as spaces stand in mountinfo.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// abort asks the kernel through its control files. Where they are not mounted, as
// in many containers, an attempt to unmount by force does the same, and removes
// the mount only if nobody uses it.
func (m mounted) abort() error {
	err := os.WriteFile(fmt.Sprintf("/sys/fs/fuse/connections/%d/abort", m.minor), []byte("1"), 0)
	if err == nil || !errors.Is(err, fs.ErrNotExist) || os.Geteuid() != 0 {
		return err
	}
	err = unix.Unmount(m.dir, unix.UMOUNT_NOFOLLOW|unix.MNT_FORCE)
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	return err
}
