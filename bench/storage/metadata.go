package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/bench/report"
	"github.com/tarndb/tarn/internal/layer"
	"github.com/tarndb/tarn/internal/pagestore"
)

const (
	// fileBytes is the length of one synthetic file, Postgres's own limit.
	fileBytes = 1 << 30
	// stride is how far apart the pages lie that are really there: one of every
	// 64, so that the index has all its parts and the disk is not filled.
	stride = 64 * layer.PageSize
	forks  = 15 // of one measurement; the median counts
)

// metadataCases measure how long the page store takes to make a branch of a
// volume of some size that is open and written. The peer makes a copy of a
// directory with the same files by reflink on XFS. Neither waits for the other's
// durability: ours syncs its manifest, cp syncs nothing.
func (b *bench) metadataCases() []report.Case {
	var all []report.Case
	for _, gb := range []int{1, 10, 100} {
		m := &metadata{bench: b, gb: gb}
		all = append(all, report.Case{Name: fmt.Sprintf("branch-metadata-%dGB", gb), Unit: "ms", PeerName: "cp --reflink on xfs",
			Direction: report.LessIsBetter, Ours: m.fork, Peer: m.reflink})
	}
	return all
}

// metadata is one size. What it measures is made when it is first asked.
type metadata struct {
	bench *bench
	gb    int

	store  *pagestore.Store
	volume *pagestore.Volume
	file   layer.Ino
	xfs    string // where the peer's file system is mounted
}

const big = tarn.TimelineID("000000000000000000000000000000b1")

func (m *metadata) dir() string { return filepath.Join(m.bench.dir, fmt.Sprintf("metadata-%d", m.gb)) }

// fork gives the median of some forks, each after a write.
func (m *metadata) fork(ctx context.Context) (float64, error) {
	if m.store == nil {
		if err := m.fill(ctx); err != nil {
			return 0, fmt.Errorf("write a volume of %d GB: %w", m.gb, err)
		}
	}
	var took []float64
	page := make([]byte, layer.PageSize)
	for i := range forks {
		page[0]++
		if _, err := m.volume.WriteAt(m.file, page, uint64(i)*stride); err != nil {
			return 0, err
		}
		child := newTimeline()
		began := time.Now()
		if _, err := m.store.Fork(ctx, big, child); err != nil {
			return 0, err
		}
		took = append(took, time.Since(began).Seconds()*1000)
		if err := m.store.Delete(ctx, child); err != nil {
			return 0, err
		}
	}
	return report.Median(took), nil
}

func (m *metadata) fill(ctx context.Context) (err error) {
	if err := os.MkdirAll(m.dir(), 0o755); err != nil {
		return err
	}
	if m.store, err = pagestore.Open(ctx, filepath.Join(m.dir(), "store"), pagestore.Options{}); err != nil {
		return err
	}
	m.bench.closers = append(m.bench.closers, func(context.Context) error { return m.store.Close() })
	if err := m.store.Create(ctx, big, layer.NewFile{Mode: unix.S_IFDIR | 0o700}); err != nil {
		return err
	}
	if m.volume, err = m.store.OpenVolume(ctx, big); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "writing a sparse volume of %d GB\n", m.gb)
	page := make([]byte, layer.PageSize)
	for i := range m.gb {
		a, err := m.volume.Create(layer.RootIno, fmt.Sprintf("16384.%d", i), layer.NewFile{Mode: unix.S_IFREG | 0o600})
		if err != nil {
			return err
		}
		for off := uint64(0); off < fileBytes; off += stride {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			page[0], page[1], page[2] = byte(i)|1, byte(off>>20), byte(off>>28)
			if _, err := m.volume.WriteAt(a.Ino, page, off); err != nil {
				return err
			}
		}
		m.file = a.Ino
	}
	return nil
}

// reflink gives the time of one copy of the peer's directory.
func (m *metadata) reflink(ctx context.Context) (float64, error) {
	if m.xfs == "" {
		if err := m.makeXFS(ctx); err != nil {
			return 0, err
		}
	}
	copied := filepath.Join(m.xfs, "copy")
	began := time.Now()
	if out, err := exec.CommandContext(ctx, "cp", "-r", "--reflink=always", filepath.Join(m.xfs, "data"), copied).CombinedOutput(); err != nil {
		return 0, fmt.Errorf("cp: %w: %s", err, out)
	}
	took := time.Since(began)
	return took.Seconds() * 1000, os.RemoveAll(copied)
}

// makeXFS mounts a file system in a sparse file and makes files of the same
// length, each of as few extents as XFS likes: the best case for a reflink.
func (m *metadata) makeXFS(ctx context.Context) error {
	if _, err := exec.LookPath("mkfs.xfs"); err != nil || os.Getuid() != 0 {
		return report.Skipped("the peer, XFS, needs root and mkfs.xfs (Debian package xfsprogs)")
	}
	image, dir := m.dir()+".img", m.dir()+"-xfs"
	f, err := os.Create(image)
	if err != nil {
		return err
	}
	size := int64(m.gb)<<30*11/10 + 2<<30 // nearly all of it a hole
	if err := errors.Join(f.Truncate(size), f.Close(), os.Mkdir(dir, 0o755)); err != nil {
		return err
	}
	for _, args := range [][]string{{"mkfs.xfs", "-q", "-m", "reflink=1", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
			return report.Skipped(fmt.Sprintf("%s: %v: %s", args[0], err, out))
		}
	}
	m.xfs = dir
	m.bench.closers = append(m.bench.closers, func(context.Context) error {
		return errors.Join(unix.Unmount(dir, 0), os.Remove(image))
	})
	if err := os.Mkdir(filepath.Join(dir, "data"), 0o755); err != nil {
		return err
	}
	for i := range m.gb {
		f, err := os.Create(filepath.Join(dir, "data", fmt.Sprintf("16384.%d", i)))
		if err != nil {
			return err
		}
		if err := unix.Fallocate(int(f.Fd()), 0, 0, fileBytes); err != nil {
			return errors.Join(err, f.Close())
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return nil
}
