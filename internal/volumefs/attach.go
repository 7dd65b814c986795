package volumefs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
)

const devicePath = "/dev/fuse"

// attach mounts dir and returns the descriptor on which its requests arrive.
//
// The library could do this, but leaves the descriptor open across exec when
// it mounts directly: each Postgres we start would hold it, and after our death
// wait for ever for answers instead of failing with ENOTCONN.
func attach(ctx context.Context, dir, name string) (int, error) {
	if os.Geteuid() == 0 {
		return attachDirect(dir, name)
	}
	return attachAsUser(ctx, dir, name)
}

func options(allowOther string) string {
	return fmt.Sprintf("default_permissions,max_read=%d%s", maxRequest, allowOther)
}

// attachDirect mounts as root, for every user: Postgres runs as another one.
func attachDirect(dir, name string) (int, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return -1, err
	}
	fd, err := unix.Open(devicePath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, noDevice(err)
	}
	data := fmt.Sprintf("fd=%d,rootmode=%o,user_id=0,group_id=0,%s", fd, st.Mode&unix.S_IFMT, options(",allow_other"))
	if err := unix.Mount(name, dir, fsType, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOATIME, data); err != nil {
		unix.Close(fd)
		if errors.Is(err, unix.EPERM) {
			return -1, tarn.Unavailable("mount: %w", err).
				WithHint("give the container the right to mount: --cap-add SYS_ADMIN --device /dev/fuse")
		}
		return -1, fmt.Errorf("mount: %w", err)
	}
	return fd, nil
}

// attachAsUser lets fusermount3 mount, for ourselves only. It opens the device
// and sends the descriptor over the socket that is its descriptor 3.
func attachAsUser(ctx context.Context, dir, name string) (int, error) {
	// fusermount3 opens the device with our rights.
	if err := unix.Access(devicePath, unix.R_OK|unix.W_OK); err != nil {
		return -1, noDevice(err)
	}
	program, err := fusermount()
	if err != nil {
		return -1, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	ours := os.NewFile(uintptr(pair[0]), "fusermount")
	defer ours.Close()
	theirs := os.NewFile(uintptr(pair[1]), "fusermount")
	cmd := exec.CommandContext(ctx, program, "-o", options("")+",fsname="+name+",subtype="+subtype, "--", dir)
	cmd.Env = []string{"_FUSE_COMMFD=3"}
	cmd.ExtraFiles = []*os.File{theirs}
	out, err := cmd.CombinedOutput()
	theirs.Close()
	if err != nil {
		return -1, fmt.Errorf("%s: %w: %s", program, err, bytes.TrimSpace(out))
	}
	b, oob := make([]byte, 8), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(pair[0], b, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("receive the device from %s: %w", program, err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return -1, fmt.Errorf("receive the device from %s: %d messages: %w", program, len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1, fmt.Errorf("receive the device from %s: %d descriptors: %w", program, len(fds), err)
	}
	return fds[0], nil
}

func fusermount() (string, error) {
	for _, name := range [...]string{"fusermount3", "/bin/fusermount3", "fusermount"} {
		if p, err := exec.LookPath(name); err == nil {
			return p, nil
		}
	}
	return "", tarn.Unavailable("mount as user %d: fusermount3 is not installed", os.Getuid()).
		WithHint("apt install fuse3 (or your system's package of that name), or run as root")
}

func noDevice(err error) error {
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		return tarn.Unavailable("open %s: %w", devicePath, err).
			WithHint("let users open it (chmod 666 /dev/fuse, as most systems have it), or run as root")
	}
	return tarn.Unavailable("open %s: %w", devicePath, err).
		WithHint("load FUSE (modprobe fuse), or start the container with --device /dev/fuse --cap-add SYS_ADMIN")
}

// How a mount is removed.
type detachMode uint8

const (
	detachUnused detachMode = iota // EBUSY while anybody uses it
	detachLazy                     // takes the name away at once
	detachForce                    // ends its requests with an error too
)

// detach removes the mount at dir; EINVAL when there is none.
func detach(ctx context.Context, dir string, mode detachMode) error {
	if os.Geteuid() == 0 {
		return unix.Unmount(dir, map[detachMode]int{
			detachUnused: unix.UMOUNT_NOFOLLOW,
			detachLazy:   unix.UMOUNT_NOFOLLOW | unix.MNT_DETACH,
			detachForce:  unix.UMOUNT_NOFOLLOW | unix.MNT_DETACH | unix.MNT_FORCE,
		}[mode])
	}
	if mode == detachForce {
		if err := Abort(dir); err != nil {
			return err
		}
	}
	program, err := fusermount()
	if err != nil {
		return err
	}
	args := []string{"-u", "--", dir}
	if mode != detachUnused {
		args = []string{"-u", "-z", "--", dir}
	}
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	switch said := string(bytes.TrimSpace(out)); {
	case err == nil:
		return nil
	case strings.Contains(said, "busy"):
		return syscall.EBUSY
	case strings.Contains(said, "not found in"), strings.Contains(said, "Invalid argument"):
		return syscall.EINVAL
	default:
		return fmt.Errorf("%s: %w: %s", program, err, said)
	}
}
