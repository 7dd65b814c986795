package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// disk is what Tarn's data lies on. As root it is a file system of its own, in
// a sparse file of bounded size, so that it can be filled.
type disk struct {
	dir     string // where data may go
	image   string // "" = a plain directory
	mounted string
	plain   string // why it is a plain directory that cannot be filled
}

func openDisk(ctx context.Context, dir string, megabytes int64) (*disk, error) {
	d := &disk{dir: filepath.Join(dir, "data")}
	if err := os.Mkdir(d.dir, 0o755); err != nil {
		return nil, err
	}
	if os.Getuid() != 0 {
		d.plain = "only root mounts file systems"
		return d, nil
	}
	if err := d.mount(ctx, filepath.Join(dir, "disk.img"), megabytes); err != nil {
		d.plain = err.Error() // a container without loop devices
		return d, d.close()
	}
	return d, os.Chmod(d.dir, 0o755)
}

func (d *disk) mount(ctx context.Context, image string, megabytes int64) error {
	d.image = image
	f, err := os.Create(d.image)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(megabytes<<20), f.Close()); err != nil {
		return err
	}
	// Discarded blocks go back to the file system the image lies on.
	for _, args := range [][]string{
		{"mkfs.ext4", "-q", "-F", "-m", "0", d.image},
		{"mount", "-o", "loop,discard", d.image, d.dir},
	} {
		if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", args[0], err, out)
		}
	}
	d.mounted = d.dir
	return nil
}

// canFill says whether it may be filled without harm to others.
func (d *disk) canFill() bool { return d.mounted != "" }

func (d *disk) filler() string { return filepath.Join(d.dir, "filler") }

// fill leaves about this many bytes free.
func (d *disk) fill(leave int64) error {
	free, _, err := d.space()
	if err != nil || free <= leave {
		return err
	}
	f, err := os.Create(d.filler())
	if err != nil {
		return err
	}
	return errors.Join(syscall.Fallocate(int(f.Fd()), 0, 0, free-leave), f.Close())
}

func (d *disk) drain() error {
	if err := os.Remove(d.filler()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (d *disk) space() (free, total int64, err error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(d.dir, &s); err != nil {
		return 0, 0, err
	}
	return int64(s.Bavail) * s.Bsize, int64(s.Blocks) * s.Bsize, nil
}

func (d *disk) close() error {
	var errs []error
	if d.mounted != "" {
		if err := syscall.Unmount(d.mounted, 0); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w; in use by %q", d.mounted, err, d.users()), syscall.Unmount(d.mounted, syscall.MNT_DETACH))
		}
		d.mounted = ""
	}
	if d.image != "" {
		if err := os.Remove(d.image); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// users lists processes that have a file or their working directory on it.
func (d *disk) users() (all []string) {
	links, _ := filepath.Glob("/proc/[0-9]*/cwd")
	open, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, l := range append(links, open...) {
		to, err := os.Readlink(l)
		if err != nil || !strings.HasPrefix(to, d.dir) {
			continue
		}
		who, _ := os.ReadFile(filepath.Join("/proc", strings.Split(l, "/")[2], "cmdline")) // it may have ended
		all = append(all, fmt.Sprintf("%s: %s -> %s", strings.ReplaceAll(string(who), "\x00", " "), l, to))
	}
	return all
}
