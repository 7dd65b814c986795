package plaindir

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tarndb/tarn"
)

// manifest is what is known of a timeline beside its files; FORMAT.md has it. It
// is replaced, never changed.
type manifest struct {
	Timeline tarn.TimelineID `json:"timeline"`
	Parent   tarn.Point      `json:"parent,omitzero"`
	Created  time.Time       `json:"created"`
	Head     tarn.Seq        `json:"head"`
	History  *time.Duration  `json:"history,omitempty"` // nil = as the store says
	Marks    []mark          `json:"marks,omitempty"`
}

type mark struct {
	tarn.Mark
	Base bool `json:"base,omitempty"`
}

const (
	manifestName  = "manifest"
	manifestMagic = "TARNDIR"
	formatVersion = 1
)

// atHead tells whether data still is what it was at seq: only marks came after.
func (m *manifest) atHead(seq tarn.Seq) bool {
	behind := 0
	for _, k := range m.Marks {
		if k.Seq > seq {
			return false
		}
		if k.Seq == seq {
			behind++
		}
	}
	return uint64(m.Head-seq) == uint64(behind)
}

// hasBase tells whether bases/<seq> is kept.
func (m *manifest) hasBase(seq tarn.Seq) bool {
	return slices.ContainsFunc(m.Marks, func(k mark) bool { return k.Base && k.Seq == seq })
}

// bases are the marks with one, by seq.
func (m *manifest) bases() []mark {
	return slices.DeleteFunc(slices.Clone(m.Marks), func(k mark) bool { return !k.Base })
}

// reachable are the marks it can be forked at.
func (m *manifest) reachable() []tarn.Mark {
	all := make([]tarn.Mark, 0, len(m.Marks))
	for _, k := range m.Marks {
		if k.Base || m.atHead(k.Seq) {
			all = append(all, k.Mark)
		}
	}
	return all
}

// with is a copy to change.
func (m *manifest) with() *manifest {
	c := *m
	c.Marks = slices.Clone(m.Marks)
	return &c
}

func (m *manifest) encode() ([]byte, error) {
	b, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	b = append(b, '\n')
	return append(fmt.Appendf(nil, "%s %d %08x\n", manifestMagic, formatVersion, crc32.Checksum(b, castagnoli())), b...), nil
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// decodeManifest reads the manifest of a timeline.
func decodeManifest(b []byte, id tarn.TimelineID) (*manifest, error) {
	head, body, ok := strings.Cut(string(b), "\n")
	var version int
	var sum uint32
	if _, err := fmt.Sscanf(head, manifestMagic+" %d %x", &version, &sum); err != nil || !ok {
		return nil, fmt.Errorf("line 1: expected %s, a version and a checksum, found %.40q", manifestMagic, head)
	}
	if version != formatVersion {
		return nil, fmt.Errorf("line 1: expected version %d, found %d", formatVersion, version)
	}
	if got := crc32.Checksum([]byte(body), castagnoli()); got != sum {
		return nil, fmt.Errorf("line 2: expected checksum %08x, found %08x", sum, got)
	}
	m := new(manifest)
	if err := json.Unmarshal([]byte(body), m); err != nil {
		return nil, fmt.Errorf("line 2: %w", err)
	}
	if m.Timeline != id {
		return nil, fmt.Errorf("line 2: expected timeline %s, found %q", id, m.Timeline)
	}
	if m.Head == 0 {
		return nil, fmt.Errorf("line 2: expected a head of at least 1, found 0")
	}
	return m, nil
}

func readManifest(dir string, id tarn.TimelineID) (*manifest, error) {
	path := filepath.Join(dir, manifestName)
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	m, err := decodeManifest(b, id)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return m, nil
}

// write replaces the manifest in a timeline's directory.
//
//  1. Write and sync a new file beside it.   crash: the old one stands
//  2. Rename it over the old one.            crash: one of both stands
//  3. Sync the directory.
func (m *manifest) write(dir string) error {
	b, err := m.encode()
	if err != nil {
		return err
	}
	path := filepath.Join(dir, manifestName)
	f, err := os.Create(path + ".new")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path+".new"))
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
