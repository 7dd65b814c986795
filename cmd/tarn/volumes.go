package main

import (
	"context"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/compute"
)

// autoVolumes leaves the kind of volumes to the data directory and the computer.
const autoVolumes = "auto"

// volumes is the kind of volumes that was asked for.
func (c *serverConfig) volumes() (compute.VolumeKind, error) {
	switch c.Volumes {
	case autoVolumes, "":
		return compute.AnyVolumes, nil
	case string(compute.FUSEVolumes), string(compute.Directories):
		return compute.VolumeKind(c.Volumes), nil
	}
	return "", tarn.Invalid("--volumes %q: want auto, fuse or directory", c.Volumes)
}

// newDirectories says what is lost when this start is the first on a data
// directory and its volumes are going to be plain directories; "" otherwise.
func (c *serverConfig) newDirectories(ctx context.Context) string {
	has, err := compute.ReadVolumes(c.Data)
	asked, wrong := c.volumes()
	if err != nil || wrong != nil || has.Kind != "" {
		return ""
	}
	kind, why, err := compute.ChooseVolumes(ctx, c.Data, asked)
	if err != nil || kind != compute.Directories {
		return ""
	}
	note := "note: branches are kept as plain directories"
	if why != nil {
		note += ", because FUSE does not work here (" + why.Error() + ")"
	}
	return note + `.
      What that costs: a branch is a copy of its directory (on xfs and btrfs a quick clone that shares space; elsewhere it
      takes time and space like the data itself); a branch at a past time also replays WAL from the nearest copy kept; and
      Postgres writes full pages to its WAL. A data directory keeps its kind.`
}

// volumesInUse describes the volumes of the data directory, for `tarn status`.
func (c *serverConfig) volumesInUse() string {
	switch v, err := compute.ReadVolumes(c.Data); {
	case err != nil:
		return ""
	case v.Kind == compute.Directories && v.Reflink:
		return "directory (reflink)"
	case v.Kind == compute.Directories:
		return "directory (copy)"
	default:
		return string(v.Kind)
	}
}
