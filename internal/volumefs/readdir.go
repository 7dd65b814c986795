package volumefs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/tarndb/tarn/internal/layer"
)

// A directory's stream begins with "." and "..", which the volume does not
// list: their positions are 1 and 2, and a name's is its cookie plus dots.
const dots = 2

// leastEntry is the size of the smallest entry in a listing: header and one
// padded name.
const leastEntry = 32

func (f *filesystem) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.errs.status("read directory", list(f.v, in, leastEntry, out.AddDirEntry))
}

// ReadDirPlus lists with attributes. Whatever reads a directory of Postgres
// opens or stats most of its files next.
func (f *filesystem) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	f.lookups.gate.RLock()
	defer f.lookups.gate.RUnlock()
	const attributes = 128 // bytes more
	err := list(f.v, in, leastEntry+attributes, func(e fuse.DirEntry) bool {
		entry := out.AddDirLookupEntry(e)
		if entry == nil {
			return false
		}
		if e.Off <= dots {
			return true
		}
		// Removed meanwhile: listed without attributes or a reference.
		if a, err := f.v.Attr(layer.Ino(e.Ino)); err == nil {
			f.lookups.add(a.Ino)
			fillEntry(&a, entry)
		}
		return true
	})
	return f.errs.status("read directory", err)
}

// list passes what follows in.Offset to add until add has no more room; size
// is the least that an entry takes.
func list(v Volume, in *fuse.ReadIn, size int, add func(fuse.DirEntry) bool) error {
	from := in.Offset
	for i, name := range [dots]string{".", ".."} {
		position := uint64(i + 1)
		if from >= position {
			continue
		}
		if !add(fuse.DirEntry{Name: name, Ino: fuse.FUSE_UNKNOWN_INO, Mode: syscall.S_IFDIR, Off: position}) {
			return nil
		}
		from = position
	}
	entries, err := v.ReadDir(layer.Ino(in.NodeId), from-dots, int(in.Size)/size+1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !add(fuse.DirEntry{Name: e.Name, Ino: uint64(e.Ino), Mode: e.Mode, Off: e.Cookie + dots}) {
			break
		}
	}
	return nil
}
