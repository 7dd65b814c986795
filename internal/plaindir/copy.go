package plaindir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
)

// sayEvery is how often a long copy says how far it is.
const sayEvery = 5 * time.Second

// copier makes one directory like another that may be in use; the package doc
// says why the order of what it does matters. Names are relative to both.
type copier struct {
	src, dst *os.Root
	owner    bool // we may give files to whom they belong to
	noClone  atomic.Bool
	files    atomic.Int64
	bytes    atomic.Int64 // copied; a clone counts nothing
}

// copyTree makes dst, which must not exist, a copy of src, durable but for its
// own name. Where it fails it leaves a part.
func (s *Store) copyTree(ctx context.Context, src, dst string, from Activity, id tarn.TimelineID) (err error) {
	total, err := diskUsage(src)
	if err != nil {
		return err
	}
	if !s.reflink {
		if err := checkSpace(s.dir, total); err != nil {
			return err
		}
	}
	st, err := os.Stat(src)
	if err != nil {
		return err
	}
	if err := os.Mkdir(dst, 0o700); err != nil {
		return err
	}
	c := &copier{owner: os.Geteuid() == 0}
	c.noClone.Store(!s.reflink)
	if c.src, err = os.OpenRoot(src); err != nil {
		return err
	}
	defer c.src.Close()
	if c.dst, err = os.OpenRoot(dst); err != nil {
		return err
	}
	defer c.dst.Close()
	if err := c.first(ctx, s.o.First, from); err != nil {
		return err
	}
	quiet := s.sayProgress(c, total, id)
	g, group := errgroup.WithContext(ctx)
	g.SetLimit(workers() + 1)
	g.Go(func() error { return c.dir(group, g, ".", s.o.First.Path) })
	err = g.Wait()
	quiet()
	if err != nil {
		return err
	}
	// The directory's own mode and owner last: nobody else comes in before.
	if err := c.own(".", st); err != nil {
		return err
	}
	return c.sync(ctx)
}

// sync makes everything copied durable. File by file and not the file system as
// a whole: that would also wait for what others write there. The first sync
// commits nearly all of them; those after it find little to do.
func (c *copier) sync(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(workers() + 1)
	g.Go(func() error {
		return fs.WalkDir(c.dst.FS(), ".", func(name string, d fs.DirEntry, err error) error {
			if err != nil || ctx.Err() != nil {
				return errors.Join(err, context.Cause(ctx))
			}
			if d.IsDir() || d.Type().IsRegular() {
				g.Go(func() error { return c.syncOne(name) })
			}
			return nil
		})
	})
	return g.Wait()
}

func (c *copier) syncOne(name string) error {
	f, err := c.dst.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func workers() int { return max(2, min(runtime.NumCPU(), 8)) }

// sayProgress logs how far a long copy is, until quiet is called.
func (s *Store) sayProgress(c *copier, total int64, id tarn.TimelineID) (quiet func()) {
	began := time.Now()
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() {
		tick := time.NewTicker(sayEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				s.log.Info("directory being copied", "timeline", string(id), "took", time.Since(began),
					"count", fmt.Sprintf("%d of %d MiB", c.bytes.Load()>>20, total>>20))
			}
		}
	})
	return func() {
		cancel()
		work.Wait()
	}
}

// first copies the file that must come before everything else, pg_control.
func (c *copier) first(ctx context.Context, f First, from Activity) error {
	if f.Path == "" {
		return nil
	}
	if _, err := c.src.Lstat(f.Path); errors.Is(err, fs.ErrNotExist) && from == AtRest {
		return nil // not a data directory yet
	}
	for dir := path.Dir(f.Path); dir != "."; dir = path.Dir(dir) {
		if path.Dir(dir) != "." {
			return fmt.Errorf("copy %s first: it is too deep", f.Path)
		}
		if err := c.mkdir(dir); err != nil {
			return err
		}
	}
	// It may be read while it is written, but not again and again.
	var torn error
	for range 10 {
		err := c.file(ctx, f.Path)
		if err != nil {
			return err
		}
		b, err := c.dst.ReadFile(f.Path)
		if err != nil {
			return err
		}
		if torn = f.Check(b, from); torn == nil {
			return nil
		}
		if err := c.dst.Remove(f.Path); err != nil {
			return err
		}
	}
	return fmt.Errorf("copy %s: %w", f.Path, torn)
}

// dir copies what is in a directory that was made; files go to the group. What
// goes meanwhile is left out.
func (c *copier) dir(ctx context.Context, g *errgroup.Group, dir, done string) error {
	d, err := c.src.Open(dir)
	if err != nil {
		return gone(err)
	}
	entries, err := d.ReadDir(-1)
	if err = errors.Join(err, d.Close()); err != nil {
		return gone(err)
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		switch {
		case name == done || skipped(name):
		case e.IsDir():
			if err := c.mkdir(name); err != nil {
				return err
			}
			if emptied(name) {
				continue
			}
			if err := c.dir(ctx, g, name, done); err != nil {
				return err
			}
		case e.Type() == fs.ModeSymlink:
			if err := c.symlink(name); err != nil {
				return err
			}
		case e.Type().IsRegular():
			g.Go(func() error { return c.file(ctx, name) })
		}
	}
	return nil
}

func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (c *copier) mkdir(name string) error {
	st, err := c.src.Lstat(name)
	if err != nil {
		return gone(err)
	}
	if err := c.dst.Mkdir(name, st.Mode().Perm()); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil // the first file's
		}
		return err
	}
	return c.own(name, st)
}

func (c *copier) symlink(name string) error {
	to, err := c.src.Readlink(name)
	if err != nil {
		return gone(err)
	}
	return c.dst.Symlink(to, name)
}

// file copies a regular file.
func (c *copier) file(ctx context.Context, name string) (err error) {
	// O_NONBLOCK: what was a file a moment ago must not make us wait.
	in, err := c.src.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return gone(err)
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return err
	}
	out, err := c.dst.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, out.Close()); err != nil {
			err = fmt.Errorf("copy %s: %w", name, err)
		}
	}()
	if err := c.fill(ctx, in, out); err != nil {
		return err
	}
	c.files.Add(1)
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && c.owner {
		if err := out.Chown(int(sys.Uid), int(sys.Gid)); err != nil {
			return err
		}
	}
	if perm := st.Mode().Perm(); perm != 0o600 {
		return out.Chmod(perm)
	}
	return nil
}

// fill clones or copies what is in a file.
func (c *copier) fill(ctx context.Context, in, out *os.File) error {
	if !c.noClone.Load() {
		err := unix.IoctlFileClone(int(out.Fd()), int(in.Fd()))
		if err == nil || !cannotClone(err) {
			return err
		}
	}
	if err := copyData(ctx, in, out); err != nil {
		return err
	}
	st, err := out.Stat()
	if err == nil {
		c.bytes.Add(st.Size())
	}
	return err
}

// own gives what was copied the mode and the owner of the original.
func (c *copier) own(name string, st fs.FileInfo) error {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && c.owner {
		if err := c.dst.Lchown(name, int(sys.Uid), int(sys.Gid)); err != nil {
			return err
		}
	}
	if name != "." {
		return nil // Mkdir has set the mode, less than the umask takes
	}
	return c.dst.Chmod(name, st.Mode().Perm())
}
