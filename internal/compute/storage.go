package compute

import (
	"context"
	"encoding/json"
	"log/slog"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
)

// storage keeps the timelines of a fleet, and what was visible at their points.
// There are two kinds: the page store, shown to Postgres through FUSE (pages),
// and plain directories. It is as wide as it is because both do all of it.
//
// Errors are as package tarn has them; a timeline that does not exist is
// KindNotFound.
type storage interface {
	// Create makes an empty timeline with a root directory.
	Create(ctx context.Context, id tarn.TimelineID, root layer.NewFile) error
	// Fork makes child begin with everything that parent holds now. The parent
	// may be open, shown and written meanwhile: what the child then holds is
	// what a Postgres killed now would leave, but for WAL, which it needs up to
	// an LSN that was read after Fork returned.
	Fork(ctx context.Context, parent, child tarn.TimelineID) (tarn.Point, error)
	// ForkAt makes child begin with what stood at a marked point.
	ForkAt(ctx context.Context, parent tarn.Point, child tarn.TimelineID) error
	// ReadFileAt reads a file as it was at a marked point.
	ReadFileAt(ctx context.Context, p tarn.Point, name string) ([]byte, error)
	// Delete removes a timeline that is not open: KindConflict when it is. What
	// others that began in it share with it stays for them.
	Delete(ctx context.Context, id tarn.TimelineID) error
	// Stat tells of one timeline and all the marks that it can be forked at.
	Stat(ctx context.Context, id tarn.TimelineID) (tarn.TimelineStatus, error)
	Timelines(ctx context.Context) ([]tarn.TimelineStatus, error)
	// OpenVolume makes the timeline's head writable; KindConflict while it is.
	OpenVolume(ctx context.Context, id tarn.TimelineID) (volume, error)
	// Resume opens the volume of a directory that was handed over at dir and goes
	// on showing it. When it cannot, the directory is dead.
	Resume(ctx context.Context, id tarn.TimelineID, dir string, h json.RawMessage, log *slog.Logger) (volume, shown, error)
	// PageWrites says what a crash makes of a page that is being written.
	PageWrites() pageWrites
	Close() error
}

// pageWrites says what a crash leaves of a page that was being written.
type pageWrites uint8

const (
	wholePages pageWrites = iota // the old or the new one
	tornPages                    // or a mixture: Postgres must write full pages to WAL, and guard them by checksums
)

// volume is the writable head of a timeline.
type volume interface {
	// Show makes it a directory for Postgres at dir, until the end of what it
	// returns.
	Show(ctx context.Context, dir string, log *slog.Logger) (shown, error)
	// Head is behind everything written so far.
	Head() tarn.Seq
	// Pin gives a point for a mark, while Postgres may write; ok is false when
	// there is none to mark now. It holds nothing that was written after Pin
	// returned: the LSN and the time of the mark, read after it, cover every
	// page.
	Pin(ctx context.Context) (seq tarn.Seq, ok bool, err error)
	// Mark makes m, which names a pinned point or the head, durable. A point that
	// the storage did not keep is not marked.
	Mark(ctx context.Context, m tarn.Mark) error
	// ReadFile reads a file, also while it is shown: through the volume, never
	// through the directory. Names are relative, with slashes.
	ReadFile(name string) ([]byte, error)
	editable
	// Close makes everything durable. It may be tried again when it fails.
	Close() error
}

// editable is a volume while it is not shown. What is done to it must not go
// through a mount of ours: see pageVolume.
type editable interface {
	// WriteFile replaces a file, whole after a crash, or makes it.
	WriteFile(name string, b []byte, f layer.NewFile) error
	// Symlink makes a symbolic link to f.Target, in place of what has the name.
	Symlink(name string, f layer.NewFile) error
	Readlink(name string) (string, error)
	// Remove removes what has the name, if anything, a directory with all that is
	// in it; EmptyDir removes that alone.
	Remove(name string) error
	EmptyDir(name string) error
}

// shown is a volume that is a directory.
type shown interface {
	// Unmount ends it; what still works in it is cut off.
	Unmount(ctx context.Context) error
	// HandOver leaves the directory as it is to the next program of this process,
	// which needs what is returned for Resume. Whoever uses it meanwhile waits.
	// The volume is used no more. Unmount is still possible. KindConflict: it
	// cannot be left, and is as it was.
	HandOver(ctx context.Context) (json.RawMessage, error)
	// Done is closed when it has ended, asked or not.
	Done() <-chan struct{}
}
