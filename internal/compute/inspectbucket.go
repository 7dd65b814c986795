package compute

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
	"github.com/tarndb/tarn/internal/pagestore"
)

// bucketed is storage that verifies what it has in an object store.
type bucketed interface {
	CheckRemote(ctx context.Context, o pagestore.RemoteCheck, report func(pagestore.Finding)) (pagestore.RemoteChecked, error)
}

// bucketCheck is the part of a check that concerns the object store: pages, then
// WAL.
type bucketCheck struct {
	*checking
	of    *machine
	store bucketed
	spec  tarn.StoreCheckSpec
}

func (c *bucketCheck) run(ctx context.Context) (err error) {
	out := tarn.BucketCheck{URL: c.of.o.Remote.Store.URL()}
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.s.Bucket = &out
	}()
	if err := c.pages(ctx, &out); err != nil {
		return err
	}
	return c.wal(ctx, &out)
}

func (c *bucketCheck) now(doing string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.s.Doing = doing
}

func (c *bucketCheck) pages(ctx context.Context, out *tarn.BucketCheck) error {
	c.now("pages in " + out.URL)
	damaged := map[string]bool{}
	for _, f := range c.state().Findings {
		damaged[f.File] = true
	}
	dir := c.of.path("tmp", "_check") // no engine is called so
	err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o700))
	if err != nil {
		return fmt.Errorf("make space for a check: %w", err)
	}
	o := pagestore.RemoteCheck{Dir: dir, Damaged: func(path string) bool { return damaged[path] }}
	if c.spec.Repair {
		o.Repair = pagestore.RepairObjects
	}
	sum, err := c.store.CheckRemote(ctx, o, func(f pagestore.Finding) { c.find(c.inBucket(f.Timeline, f.Err)) })
	out.Manifests, out.Objects, out.Bytes, out.Points, out.Pages, out.Repaired = sum.Manifests, sum.Objects, sum.Bytes, sum.Seen.Points, sum.Seen.Pages, sum.Repaired
	return errors.Join(err, os.RemoveAll(dir))
}

func (c *bucketCheck) inBucket(id tarn.TimelineID, err error) tarn.StoreFinding {
	f := tarn.StoreFinding{Timeline: id, Message: err.Error(), Hint: "the copy on this computer is read before this one: put it there again with tarn store check --repair"}
	if c.spec.Repair {
		f.Hint = "there is no whole copy of it on this computer: put the object back from another version or a copy of the bucket"
	}
	if bad, ok := errors.AsType[*layer.CorruptError](err); ok {
		f.File, f.Offset = bad.File, bad.Offset
	}
	return f
}

func (c *bucketCheck) wal(ctx context.Context, out *tarn.BucketCheck) error {
	r := c.of.o.Remote.WAL
	if r == nil {
		return nil
	}
	c.now("WAL in " + out.URL)
	ids, err := r.Timelines(ctx)
	for try := 1; err != nil && try < 3 && ctx.Err() == nil; try++ {
		ids, err = r.Timelines(ctx)
	}
	if err != nil {
		return fmt.Errorf("check WAL in %s: %w", out.URL, err)
	}
	for _, id := range ids {
		sum, err := r.Check(ctx, id, segmentBytes)
		if err != nil {
			return fmt.Errorf("check WAL in %s: %w", out.URL, err)
		}
		out.WAL, out.WALBytes = out.WAL+sum.Objects, out.WALBytes+sum.Bytes
		for _, bad := range sum.Broken {
			f := c.inBucket(id, bad)
			f.Hint = "moments after it cannot be restored from the object store. WAL that is on this computer too is written again when the branch's compute starts next"
			c.find(f)
		}
	}
	return nil
}
