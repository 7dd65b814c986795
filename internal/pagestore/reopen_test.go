package pagestore_test

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
	"github.com/tarndb/tarn/internal/pagestore"
)

// A volume that is opened again under a living mount has the files that are
// held without a name, in this process and in the next, and no others.
func TestReopenKeepsHeldFiles(t *testing.T) {
	t.Run("log", func(t *testing.T) { testReopen(t, pagestore.Options{}) })
	t.Run("map", func(t *testing.T) { testReopen(t, pagestore.Options{MapBytes: 64 << 10}) })
}

func testReopen(t *testing.T, o pagestore.Options) {
	const id = tarn.TimelineID("00000000000000000000000000000001")
	dir := filepath.Join(t.TempDir(), "store")
	open := func() *pagestore.Store {
		s, err := pagestore.Open(t.Context(), dir, o)
		check(t, err)
		t.Cleanup(func() { s.Close() })
		return s
	}
	s := open()
	check(t, s.Create(t.Context(), id, layer.NewFile{Mode: syscall.S_IFDIR | 0o755}))
	v, err := s.OpenVolume(t.Context(), id)
	check(t, err)
	page := bytes.Repeat([]byte("held"), layer.PageSize/4)
	unnamed := func(name string) layer.Ino {
		a, err := v.Create(layer.RootIno, name, layer.NewFile{Mode: syscall.S_IFREG | 0o600})
		check(t, err)
		_, err = v.WriteAt(a.Ino, page, 0)
		check(t, err)
		check(t, v.Unlink(layer.RootIno, name))
		_, err = v.WriteAt(a.Ino, page, layer.PageSize) // behind the unlink
		check(t, err)
		return a.Ino
	}
	held, gone := unnamed("held"), unnamed("gone")
	for i := range uint64(20) { // more than is worth a map, if maps are small
		a, err := v.Create(layer.RootIno, fmt.Sprint(i), layer.NewFile{Mode: syscall.S_IFREG | 0o600})
		check(t, err)
		_, err = v.WriteAt(a.Ino, page, 0)
		check(t, err)
	}
	v.Hold([]layer.Ino{layer.RootIno, held})
	check(t, v.Close())
	for _, next := range [...]func() *pagestore.Store{
		func() *pagestore.Store { return s },
		func() *pagestore.Store { check(t, s.Close()); s = open(); return s },
	} {
		v, err = next().ReopenVolume(t.Context(), id, []layer.Ino{layer.RootIno, held})
		check(t, err)
		b := make([]byte, 2*layer.PageSize)
		if n, err := v.ReadAt(held, b, 0); err != nil || n != len(b) || !bytes.Equal(b, append(page, page...)) {
			t.Errorf("held file: %d bytes, %v", n, err)
		}
		if _, err := v.Attr(gone); !errors.Is(err, syscall.ENOENT) {
			t.Errorf("a file nobody holds: %v", err)
		}
		page = bytes.Repeat([]byte("more"), layer.PageSize/4)
		_, err = v.WriteAt(held, append(page, page...), 0)
		check(t, err)
		v.Hold([]layer.Ino{held})
		check(t, v.Close())
	}
	v, err = s.ReopenVolume(t.Context(), id, []layer.Ino{held})
	check(t, err)
	v.Forget(held)
	if _, err := v.Attr(held); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("a forgotten file: %v", err)
	}
	check(t, v.Close())
	v, err = s.OpenVolume(t.Context(), id)
	check(t, err)
	if _, err := v.Attr(held); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("a file without a name in a new volume: %v", err)
	}
	check(t, v.Close())
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
