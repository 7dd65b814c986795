package volumefs

import (
	"errors"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/tarndb/tarn/internal/layer"
)

// A request is sent again when the server that had read it is gone. It may have
// been done or not. Most can simply be done once more: the kernel lets nobody
// else at a file, or at the names of a directory, before the answer. For the
// same reason a change of names that finds itself done was done by its first
// sending, and is answered as that would have been.

// isResent tells whether the kernel sent a request again.
func isResent(h *fuse.InHeader) bool { return h.Unique>>63 != 0 }

// made is the outcome of making a name.
func made(v Volume, h *fuse.InHeader, parent layer.Ino, name string, a layer.Attr, err error) (layer.Attr, error) {
	if isResent(h) && errors.Is(err, syscall.EEXIST) {
		return v.Lookup(parent, name)
	}
	return a, err
}

// linked is the outcome of giving ino another name.
func linked(v Volume, in *fuse.LinkIn, name string, a layer.Attr, err error) (layer.Attr, error) {
	if isResent(&in.InHeader) && errors.Is(err, syscall.EEXIST) {
		if have, lookupErr := v.Lookup(layer.Ino(in.NodeId), name); lookupErr == nil && have.Ino == layer.Ino(in.Oldnodeid) {
			return have, nil
		}
	}
	return a, err
}

// unmade is the outcome of removing a name.
func unmade(h *fuse.InHeader, err error) error {
	if isResent(h) && errors.Is(err, syscall.ENOENT) {
		return nil
	}
	return err
}

// renamed is the outcome of moving a name.
func renamed(v Volume, in *fuse.RenameIn, newName string, err error) error {
	if isResent(&in.InHeader) && errors.Is(err, syscall.ENOENT) {
		if _, lookupErr := v.Lookup(layer.Ino(in.Newdir), newName); lookupErr == nil {
			return nil
		}
	}
	return err
}
