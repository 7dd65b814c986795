package pagestore

import (
	"context"
	"errors"
	"testing"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/blob/memory"
	"github.com/tarndb/tarn/internal/layer"
)

// A fork is not listed in the bucket before the bucket has where it began, also
// when its parent is just being closed and cannot be uploaded.
func TestForkWaitsForItsParent(t *testing.T) {
	ctx, b := context.Background(), memory.New()
	s, err := Open(ctx, t.TempDir(), remoteOptions(b))
	must(t, err)
	defer func() { must(t, s.Close()) }()
	must(t, s.Create(ctx, lineA, layer.NewFile{}))
	v := takeVolume(t, s, lineA)
	must(t, s.Upload(ctx, lineA))
	writePages(t, v, plainFile(t, v, "f"), 0, 4, 1)
	must(t, err)
	_, err = s.Fork(ctx, lineA, lineB)
	must(t, err)

	v.closed.Store(true) // as while Close goes on
	if err := s.Upload(ctx, lineB); tarn.KindOf(err) != tarn.KindUnavailable {
		t.Errorf("upload of a fork whose parent is being closed: %v", err)
	}
	if _, err := b.Head(ctx, manifestKey(lineB)); !errors.Is(err, blob.ErrNotExist) {
		t.Errorf("the fork is listed before its parent: %v", err)
	}
	v.closed.Store(false)
	must(t, s.Upload(ctx, lineB))
	if _, err := b.Head(ctx, manifestKey(lineB)); err != nil {
		t.Error(err)
	}
	must(t, v.Close())
}

// What a timeline was while it was being made is never listed: the first upload
// fixes its seq when it is whole.
func TestHalfMadeIsNotListed(t *testing.T) {
	ctx, b := context.Background(), memory.New()
	o := remoteOptions(b)
	making := func() {}
	o.Remote.Follow = func(context.Context, tarn.TimelineID) error {
		making()
		making = func() {}
		return nil
	}
	s, err := Open(ctx, t.TempDir(), o)
	must(t, err)
	defer func() { must(t, s.Close()) }()
	must(t, s.Create(ctx, lineA, layer.NewFile{}))
	v := takeVolume(t, s, lineA)
	ino := plainFile(t, v, "f")
	making = func() { writePages(t, v, ino, 0, 4, 1) } // goes on while the upload waits
	must(t, s.Upload(ctx, lineA))
	if _, m := s.timelines[lineA].remote.now(); m.Man.Closed.Head != v.Head() {
		t.Errorf("the bucket lists it up to seq %d, and it was whole at %d", m.Man.Closed.Head, v.Head())
	}
	must(t, v.Close())
}
