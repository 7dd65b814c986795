package compute

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/pagestore"
	"github.com/tarndb/tarn/internal/volumefs"
)

// The page store copies within a volume by itself.
var _ volumefs.CopyRanger = (*pagestore.Volume)(nil)

// pages is the page store as storage.
type pages struct {
	*pagestore.Store
	rings volumefs.Rings
}

func (m *machine) openPages(ctx context.Context, dir string) (storage, error) {
	o := m.o
	r := pagestore.Remote{Store: o.Remote.Store, Node: o.Remote.Node, LocalBytes: o.Remote.Local, SealEvery: o.Remote.SealEvery, Lease: o.Remote.Lease}
	if o.Remote.WAL != nil {
		r.Follow = m.rest.follow
	}
	s, err := pagestore.Open(ctx, dir, pagestore.Options{Log: o.Log, Remote: r})
	if err != nil {
		return nil, err
	}
	return pages{s, o.Rings}, nil
}

func (p pages) OpenVolume(ctx context.Context, id tarn.TimelineID) (volume, error) {
	v, err := p.Store.OpenVolume(ctx, id)
	if err != nil {
		return nil, err
	}
	return pageVolume{v, p.rings}, nil
}

// PageWrites: a page is one record with a checksum.
func (pages) PageWrites() pageWrites { return wholePages }

// ReadFileAt reads through a child that lives only for that; a crash leaves it
// without a record, and Open clears it away.
func (p pages) ReadFileAt(ctx context.Context, at tarn.Point, name string) (b []byte, err error) {
	id, err := newTimelineID()
	if err != nil {
		return nil, err
	}
	if err := p.ForkAt(ctx, at, id); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.Delete(context.WithoutCancel(ctx), id)) }()
	v, err := p.OpenVolume(ctx, id)
	if err != nil {
		return nil, err
	}
	b, err = v.ReadFile(name)
	return b, errors.Join(err, v.Close())
}

// pageVolume is a volume of the page store, mounted through FUSE.
type pageVolume struct {
	*pagestore.Volume
	rings volumefs.Rings
}

func (v pageVolume) Show(ctx context.Context, dir string, log *slog.Logger) (shown, error) {
	m, err := volumefs.Mount(ctx, dir, v.Volume, volumefs.Options{Log: log, Rings: v.rings})
	if err != nil {
		return nil, err
	}
	return &pageMount{Directory: m, volume: v.Volume}, nil
}

// pageMount is a mounted volume of the page store.
type pageMount struct {
	*volumefs.Directory
	volume *pagestore.Volume
	handed *volumefs.Handover // after HandOver
}

func (m *pageMount) HandOver(ctx context.Context) (json.RawMessage, error) {
	h, err := m.Directory.HandOver(ctx)
	if err != nil {
		return nil, err
	}
	m.handed = &h
	held, _ := h.Held()
	m.volume.Hold(held)
	return json.Marshal(h)
}

func (m *pageMount) Unmount(ctx context.Context) error {
	if m.handed == nil {
		return m.Directory.Unmount(ctx)
	}
	return errors.Join(m.handed.Close(), volumefs.UnmountStale(m.Dir()))
}

func (p pages) Resume(ctx context.Context, id tarn.TimelineID, dir string, b json.RawMessage, log *slog.Logger) (volume, shown, error) {
	var h volumefs.Handover
	if err := json.Unmarshal(b, &h); err != nil {
		return nil, nil, fmt.Errorf("read what is handed over of timeline %s: %w", id, err)
	}
	held, known := h.Held()
	if !known {
		return nil, nil, errors.Join(tarn.Unavailable("resume timeline %s: which files are held is not known", id), h.Close())
	}
	v, err := p.ReopenVolume(ctx, id, held)
	if err != nil {
		return nil, nil, errors.Join(err, h.Close())
	}
	m, err := volumefs.Adopt(ctx, dir, h, v, volumefs.Options{Log: log})
	if err != nil {
		return nil, nil, errors.Join(err, v.Close())
	}
	return pageVolume{v, p.rings}, &pageMount{Directory: m, volume: v}, nil
}

// Pin is the head: the store keeps what stood at every seq.
func (v pageVolume) Pin(context.Context) (tarn.Seq, bool, error) { return v.Head(), true, nil }
