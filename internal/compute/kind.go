package compute

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/volumefs"
)

// VolumeKind says what volumes are on a computer.
type VolumeKind string

// The kinds there are.
const (
	AnyVolumes  VolumeKind = ""          // what the data directory has, else what the computer can
	FUSEVolumes VolumeKind = "fuse"      // the page store, mounted
	Directories VolumeKind = "directory" // plain directories, copied for a fork
)

// Volumes is what a data directory remembers of its volumes. The zero value is
// one that has none yet.
type Volumes struct {
	Kind    VolumeKind `json:"kind"`
	Reflink bool       `json:"reflink,omitempty"` // plain directories are copied by reflink
}

func volumesFile(dir string) string { return filepath.Join(dir, "volumes.json") }

// ReadVolumes tells what volumes a data directory has.
func ReadVolumes(dir string) (Volumes, error) {
	var v Volumes
	b, err := os.ReadFile(volumesFile(dir))
	if errors.Is(err, fs.ErrNotExist) {
		// Made before there was another kind.
		if entries, err := os.ReadDir(filepath.Join(dir, "store", "timelines")); err == nil && len(entries) > 0 {
			v.Kind = FUSEVolumes
		}
		return v, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &v)
	}
	if err == nil && v.Kind != FUSEVolumes && v.Kind != Directories {
		err = fmt.Errorf("expected kind %q or %q, found %q", FUSEVolumes, Directories, v.Kind)
	}
	if err != nil {
		return v, fmt.Errorf("read %s: %w", volumesFile(dir), err)
	}
	return v, nil
}

// remember writes down what volumes a data directory has.
//
//  1. Write and sync a new file.      crash: the old one stands, or none
//  2. Rename it, sync the directory.
func (v Volumes) remember(dir string) error {
	old, err := ReadVolumes(dir)
	if err != nil {
		return err
	}
	if _, err := os.Stat(volumesFile(dir)); err == nil && old == v {
		return nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	path := volumesFile(dir)
	if err := writeSynced(path+".new", append(b, '\n')); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := errors.Join(os.Rename(path+".new", path), syncDir(dir)); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// ChooseVolumes decides on the kind of volumes in a data directory, which exists.
// It keeps the kind it has; asking for the other is refused. Where there is none
// yet and none is asked for, plain directories are for a computer without FUSE;
// why then says what FUSE lacks.
func ChooseVolumes(ctx context.Context, dir string, asked VolumeKind) (kind VolumeKind, why error, err error) {
	has, err := ReadVolumes(dir)
	if err != nil {
		return "", nil, err
	}
	switch {
	case asked != AnyVolumes && asked != FUSEVolumes && asked != Directories:
		return "", nil, tarn.Invalid("volumes of kind %q: want %q or %q", asked, FUSEVolumes, Directories)
	case has.Kind == "" && asked == AnyVolumes:
		if why := volumefs.Probe(ctx, dir); why != nil {
			if ctx.Err() != nil {
				return "", nil, context.Cause(ctx)
			}
			return Directories, why, nil
		}
		return FUSEVolumes, nil, nil
	case has.Kind == "" || has.Kind == asked:
		return asked, nil, nil
	case asked == AnyVolumes:
		return has.Kind, nil, nil
	}
	is, other := "in the page store, which needs FUSE", "as plain directories"
	if has.Kind == Directories {
		is, other = "as plain directories", "in the page store"
	}
	return "", nil, tarn.Invalid("the data directory %s keeps its branches %s, not %s", dir, is, other).
		WithHint(fmt.Sprintf("start it with --volumes %s; to change the kind, start a new one with --data DIR --volumes %s and move the databases with pg_dump", has.Kind, asked))
}

// openStorage opens the storage of a data directory and remembers its kind
// before anything is in it.
func (m *machine) openStorage(ctx context.Context) (storage, error) {
	kind, why, err := ChooseVolumes(ctx, m.o.Dir, m.o.Volumes)
	if err != nil {
		return nil, err
	}
	v := Volumes{Kind: kind}
	if kind == FUSEVolumes {
		if err := v.remember(m.o.Dir); err != nil {
			return nil, err
		}
		return m.openPages(ctx, m.path("store"))
	}
	if why != nil {
		m.log.Warn("no FUSE: volumes are plain directories", "err", why)
	}
	s, err := m.openDirectories(ctx, m.path("plain"))
	if err != nil {
		return nil, err
	}
	v.Reflink = s.Reflink()
	if err := v.remember(m.o.Dir); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	m.log.Log(ctx, slog.LevelInfo, "volumes are plain directories", "path", m.path("plain"))
	return s, nil
}
