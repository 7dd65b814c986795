package compute

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
	"github.com/tarndb/tarn/internal/plaindir"
	"github.com/tarndb/tarn/internal/postgres"
)

// directories is plain directories as storage, for machines without FUSE.
type directories struct{ *plaindir.Store }

func (m *machine) openDirectories(ctx context.Context, dir string) (*directories, error) {
	s, err := plaindir.Open(ctx, dir, plaindir.Options{
		First:     plaindir.First{Path: controlFile, Check: checkControl},
		BaseEvery: m.o.BaseEvery,
		Log:       m.log,
	})
	if err != nil {
		return nil, err
	}
	return &directories{s}, nil
}

// checkControl refuses a pg_control that cannot begin a copy: half written, or
// "shut down" while Postgres works there. With the latter a start would not
// replay the WAL of what it wrote meanwhile.
func checkControl(b []byte, from plaindir.Activity) error {
	c, err := postgres.ParseControl(b)
	if err != nil {
		return err
	}
	if from == plaindir.Running && c.State == postgres.StateShutDown {
		return tarn.Unavailable("its Postgres is starting or stopping")
	}
	return nil
}

func (d directories) Create(ctx context.Context, id tarn.TimelineID, root layer.NewFile) error {
	return d.Store.Create(ctx, id, plaindir.Root{Mode: fs.FileMode(root.Mode).Perm(), UID: int(root.UID), GID: int(root.GID)})
}

func (d directories) OpenVolume(ctx context.Context, id tarn.TimelineID) (volume, error) {
	v, err := d.Store.OpenVolume(ctx, id)
	if err != nil {
		return nil, err
	}
	return directoryVolume{v}, nil
}

// PageWrites: a kernel writes pages of its own size, and a disk sectors.
func (directories) PageWrites() pageWrites { return tornPages }

type directoryVolume struct{ *plaindir.Volume }

func (v directoryVolume) Show(ctx context.Context, dir string, _ *slog.Logger) (shown, error) {
	if err := v.Volume.Show(ctx, dir); err != nil {
		return nil, err
	}
	return directoryShown{v.Volume, v.Hidden()}, nil
}

type directoryShown struct {
	volume *plaindir.Volume
	done   <-chan struct{}
}

// Unmount kills what still works in the directory: unlike with a mount, nothing
// else would keep it from writing there.
func (s directoryShown) Unmount(context.Context) error {
	if err := postgres.KillOrphans(s.volume.Dir(), ""); err != nil {
		return fmt.Errorf("take %s away: %w", s.volume.Dir(), err)
	}
	return s.volume.Hide()
}

// HandOver leaves the directory and the Postgres in it to the next program; all
// that it must know is where the link is.
func (s directoryShown) HandOver(context.Context) (json.RawMessage, error) {
	if err := s.volume.Leave(); err != nil {
		return nil, err
	}
	return json.RawMessage("{}"), nil
}

// Resume opens the volume of a directory that was handed over at dir.
func (d directories) Resume(ctx context.Context, id tarn.TimelineID, dir string, _ json.RawMessage, _ *slog.Logger) (volume, shown, error) {
	v, err := d.Store.OpenVolume(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	if err := v.Resume(ctx, dir); err != nil {
		return nil, nil, errors.Join(err, v.Close())
	}
	return directoryVolume{v}, directoryShown{v, v.Hidden()}, nil
}

func (s directoryShown) Done() <-chan struct{} { return s.done }
