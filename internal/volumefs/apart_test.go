package volumefs_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/tarndb/tarn/internal/layer"
	"github.com/tarndb/tarn/internal/volumefs"
)

// apartRule keeps x-* of directories in the root apart.
var apartRule = volumefs.ApartRule{
	Name: func(name string) bool { return strings.HasPrefix(name, "x-") },
	Directory: func(_ volumefs.Volume, dir layer.Ino) (bool, error) {
		return dir != layer.RootIno, nil
	},
}

// Through a mount, files that are kept apart are files like others, and the
// volume has nothing of them; their directory can be renamed and emptied.
func TestApart(t *testing.T) {
	requireMount(t)
	v := newMemory(uint32(os.Geteuid()), uint32(os.Getegid()))
	kept := filepath.Join(t.TempDir(), "apart")
	a, err := volumefs.NewApart(v, kept, apartRule, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	mount(t, dir, a, volumefs.Options{})
	t.Cleanup(a.Close)
	in := func(elem ...string) string { return filepath.Join(append([]string{dir}, elem...)...) }
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(os.Mkdir(in("d"), 0o755))
	check(os.WriteFile(in("d", "state"), []byte("kept"), 0o600))
	check(os.WriteFile(in("x-root"), []byte("of the volume: another directory"), 0o600))
	f, err := os.OpenFile(in("d", "x-1"), os.O_CREATE|os.O_EXCL|os.O_RDWR|os.O_APPEND, 0o600)
	check(err)
	for range 1000 {
		_, err := f.WriteString("0123456789")
		check(err)
	}
	if b, err := os.ReadFile(in("d", "x-1")); err != nil || len(b) != 10000 || string(b[9990:]) != "0123456789" {
		t.Errorf("read %d bytes, %v", len(b), err)
	}
	for _, n := range v.writes {
		if n == 10 {
			t.Fatal("the volume was written")
		}
	}
	for i := range 200 { // more than descriptors stay open
		check(os.WriteFile(in("d", "x-many"+string(rune('a'+i/20))+string(rune('a'+i%20))), []byte{byte(i)}, 0o600))
	}
	check(os.Truncate(in("d", "x-1"), 5))
	if st, err := os.Stat(in("d", "x-1")); err != nil || st.Size() != 5 {
		t.Errorf("truncated: %v, %v", st, err)
	}
	if _, err := os.OpenFile(in("d", "x-1"), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600); !errors.Is(err, syscall.EEXIST) {
		t.Errorf("made twice: %v", err)
	}
	if err := os.Rename(in("d", "x-1"), in("d", "y")); !errors.Is(err, syscall.EPERM) {
		t.Errorf("renamed: %v", err)
	}
	if err := os.Remove(in("d")); !errors.Is(err, syscall.ENOTEMPTY) {
		t.Errorf("removed with files in it: %v", err)
	}
	check(os.Rename(in("d"), in("e")))
	names, err := os.ReadDir(in("e"))
	if err != nil || len(names) != 202 || !slices.ContainsFunc(names, func(e os.DirEntry) bool { return e.Name() == "x-1" }) {
		t.Errorf("%d names, %v", len(names), err)
	}
	check(os.Remove(in("e", "x-1")))
	if n, err := f.WriteString("x"); n != 1 || err != nil { // open without a name
		t.Error(n, err)
	}
	check(f.Close())
	check(os.RemoveAll(in("e")))
	if _, err := v.Lookup(layer.RootIno, "e"); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("directory is there: %v", err)
	}
}

// Whoever goes on with a mount finds the files that were apart; other files in
// the directory are of a time before.
func TestApartIsHandedOver(t *testing.T) {
	v := newMemory(0, 0)
	d, err := v.Create(layer.RootIno, "d", layer.NewFile{Mode: syscall.S_IFDIR | 0o755})
	if err != nil {
		t.Fatal(err)
	}
	kept := filepath.Join(t.TempDir(), "apart")
	a, err := volumefs.NewApart(v, kept, apartRule, nil)
	if err != nil {
		t.Fatal(err)
	}
	at, err := a.Create(d.Ino, "x-1", layer.NewFile{Mode: syscall.S_IFREG | 0o600})
	if err != nil || !volumefs.IsApart(at.Ino) {
		t.Fatal(at, err)
	}
	if _, err := a.WriteAt(at.Ino, []byte("hello"), 3); err != nil {
		t.Fatal(err)
	}
	a.Close()
	if err := os.WriteFile(filepath.Join(kept, "left"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a, err = volumefs.NewApart(v, kept, apartRule, a.Files())
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 20)
	if n, err := a.ReadAt(at.Ino, b, 0); err != nil || string(b[:n]) != "\x00\x00\x00hello" {
		t.Errorf("%q, %v", b[:n], err)
	}
	if again, err := a.Lookup(d.Ino, "x-1"); err != nil || again.Ino != at.Ino {
		t.Errorf("%+v, %v", again, err)
	}
	if other, err := a.Create(d.Ino, "x-2", layer.NewFile{Mode: syscall.S_IFREG | 0o600}); err != nil || other.Ino <= at.Ino {
		t.Errorf("%+v, %v", other, err)
	}
	if err := a.Unlink(d.Ino, "x-1"); err != nil {
		t.Fatal(err)
	}
	a.Forget(at.Ino)
	if names, err := os.ReadDir(kept); err != nil || len(names) != 1 {
		t.Errorf("%d files left, %v", len(names), err)
	}
	a.Close()
}
