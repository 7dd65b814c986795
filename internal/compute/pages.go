package compute

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
	"github.com/tarndb/tarn/internal/pagestore"
	"github.com/tarndb/tarn/internal/volumefs"
)

// The page store copies within a volume by itself.
var _ volumefs.CopyRanger = (*pagestore.Volume)(nil)

// pages is the page store as storage.
type pages struct {
	*pagestore.Store
	rings volumefs.Rings
	// scratch is where an engine's scratch files are, by its name.
	scratch func(name string) string
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
	return pages{s, o.Rings, m.scratch}, nil
}

func (p pages) OpenVolume(ctx context.Context, id tarn.TimelineID) (volume, error) {
	v, err := p.Store.OpenVolume(ctx, id)
	if err != nil {
		return nil, err
	}
	return pageVolume{v, p}, nil
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
	of pages
}

// apart keeps an engine's spill files out of the timeline.
func (p pages) apart(v *pagestore.Volume, mount string, files []volumefs.ApartFile) (*volumefs.Apart, error) {
	return volumefs.NewApart(v, filepath.Join(p.scratch(filepath.Base(mount)), "spill"), SpillFiles, files)
}

func (v pageVolume) Show(ctx context.Context, dir string, log *slog.Logger) (shown, error) {
	a, err := v.of.apart(v.Volume, dir, nil)
	if err != nil {
		return nil, err
	}
	m, err := volumefs.Mount(ctx, dir, a, volumefs.Options{Log: log, Rings: v.of.rings})
	if err != nil {
		a.Close()
		return nil, err
	}
	return &pageMount{Directory: m, volume: v.Volume, apart: a}, nil
}

// pageMount is a mounted volume of the page store.
type pageMount struct {
	*volumefs.Directory
	volume *pagestore.Volume
	apart  *volumefs.Apart
	handed *volumefs.Handover // after HandOver
}

// handedPages is what the next program must know of a mount.
type handedPages struct {
	volumefs.Handover
	Apart []volumefs.ApartFile `json:"apart,omitempty"`
}

// heldHere leaves out what is kept apart from the volume.
func heldHere(all []layer.Ino) []layer.Ino {
	return slices.DeleteFunc(all, volumefs.IsApart)
}

func (m *pageMount) HandOver(ctx context.Context) (json.RawMessage, error) {
	h, err := m.Directory.HandOver(ctx)
	if err != nil {
		return nil, err
	}
	m.handed = &h
	held, _ := h.Held()
	m.volume.Hold(heldHere(held))
	m.apart.Close()
	return json.Marshal(handedPages{h, m.apart.Files()})
}

func (m *pageMount) Unmount(ctx context.Context) error {
	if m.handed == nil {
		if err := m.Directory.Unmount(ctx); err != nil {
			return err
		}
		m.apart.Close()
		return nil
	}
	return errors.Join(m.handed.Close(), volumefs.UnmountStale(m.Dir()))
}

func (p pages) Resume(ctx context.Context, id tarn.TimelineID, dir string, b json.RawMessage, log *slog.Logger) (volume, shown, error) {
	var h handedPages
	if err := json.Unmarshal(b, &h); err != nil {
		return nil, nil, fmt.Errorf("read what is handed over of timeline %s: %w", id, err)
	}
	held, known := h.Held()
	if !known {
		return nil, nil, errors.Join(tarn.Unavailable("resume timeline %s: which files are held is not known", id), h.Close())
	}
	v, err := p.ReopenVolume(ctx, id, heldHere(held))
	if err != nil {
		return nil, nil, errors.Join(err, h.Close())
	}
	a, err := p.apart(v, dir, h.Apart)
	if err != nil {
		return nil, nil, errors.Join(err, h.Close(), v.Close())
	}
	m, err := volumefs.Adopt(ctx, dir, h.Handover, a, volumefs.Options{Log: log})
	if err != nil {
		a.Close()
		return nil, nil, errors.Join(err, v.Close())
	}
	return pageVolume{v, p}, &pageMount{Directory: m, volume: v, apart: a}, nil
}

// Pin is the head: the store keeps what stood at every seq.
func (v pageVolume) Pin(context.Context) (tarn.Seq, bool, error) { return v.Head(), true, nil }
