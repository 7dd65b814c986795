package volumefs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/tarndb/tarn/internal/layer"
	"github.com/tarndb/tarn/internal/volumefs"
)

// slow is a volume on a disk that does not answer until the gate opens.
type slow struct {
	*memory
	gate    chan struct{}
	waiting sync.WaitGroup
}

func (s *slow) ReadAt(ino layer.Ino, p []byte, off uint64) (int, error) {
	s.waiting.Done()
	<-s.gate
	return s.memory.ReadAt(ino, p, off)
}

func (s *slow) Sync() error {
	s.waiting.Done()
	<-s.gate
	return s.memory.Sync()
}

// However many wait for the disk, what memory can answer is answered.
func TestWaitingRequestsLeaveReaders(t *testing.T) {
	requireMount(t)
	const each = 20
	v := &slow{memory: newMemory(uint32(os.Geteuid()), uint32(os.Getegid())), gate: make(chan struct{})}
	dir := place(t)
	// The files are made before they are mounted, so that no page is cached.
	for i := range each {
		a := must[layer.Attr](t)(v.Create(layer.RootIno, fmt.Sprint(i), layer.NewFile{Mode: 0o100644}))
		must[int](t)(v.WriteAt(a.Ino, []byte("written before"), 0))
	}
	mount(t, dir, v, volumefs.Options{})
	v.waiting.Add(2 * each)
	var ask sync.WaitGroup
	for i := range each {
		path := filepath.Join(dir, fmt.Sprint(i))
		ask.Go(func() {
			if b, err := os.ReadFile(path); err != nil || string(b) != "written before" {
				t.Errorf("%q %v", b, err)
			}
		})
		ask.Go(func() {
			f, err := os.Open(path)
			if err == nil {
				err = f.Sync()
				f.Close()
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	v.waiting.Wait() // all of them stand in the volume
	f := create(t, filepath.Join(dir, "new"), []byte("x"))
	ok(t, f.Close())
	ok(t, os.Remove(filepath.Join(dir, "new")))
	close(v.gate)
	ask.Wait()
}
