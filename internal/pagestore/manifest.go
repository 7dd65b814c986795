package pagestore

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
)

// manifest is what makes a timeline readable: FORMAT.md draws its bytes. It is
// replaced as a whole.
type manifest struct {
	Epoch    uint64 // grows by one with every replacement
	Timeline tarn.TimelineID
	Parent   tarn.Point // zero for a timeline that began empty
	Created  time.Time
	Deleted  bool // a ghost: stays for its children only
	Closed   closed
}

// closed says where the log ended at the last clean close. It is true of the
// log as long as the log's last segment is still that one and still so long;
// afterwards it remains a floor below which everything must be whole.
type closed struct {
	Head    tarn.Seq // 0 = never closed
	Segment uint32   // the last; 0 = none
	Bytes   int64    // its length
	Marks   []tarn.Mark
}

const (
	manifestMagic   = "TARNMAN\x00"
	manifestVersion = 1
	manifestFixed   = 112 // bytes before the marks
	manifestMark    = 24
	manifestName    = "MANIFEST"
)

var le = binary.LittleEndian

func (m *manifest) encode() ([]byte, error) {
	b := make([]byte, manifestFixed+manifestMark*len(m.Closed.Marks))
	copy(b, manifestMagic)
	le.PutUint32(b[8:], manifestVersion)
	le.PutUint64(b[16:], m.Epoch)
	if m.Deleted {
		b[13] = 1
	}
	if err := putID(b[24:40], m.Timeline); err != nil {
		return nil, err
	}
	if m.Parent.Timeline != "" {
		b[12] = 1
		if err := putID(b[40:56], m.Parent.Timeline); err != nil {
			return nil, err
		}
		le.PutUint64(b[56:], uint64(m.Parent.Seq))
	}
	le.PutUint64(b[64:], nanos(m.Created))
	le.PutUint64(b[72:], uint64(m.Closed.Head))
	le.PutUint64(b[80:], uint64(m.Closed.Bytes))
	le.PutUint32(b[88:], m.Closed.Segment)
	le.PutUint32(b[92:], uint32(len(m.Closed.Marks)))
	for i, k := range m.Closed.Marks {
		e := b[manifestFixed+i*manifestMark:]
		le.PutUint64(e, uint64(k.Seq))
		le.PutUint64(e[8:], uint64(k.LSN))
		le.PutUint64(e[16:], nanos(k.Time))
	}
	return le.AppendUint32(b, layer.Checksum(b)), nil
}

func decodeManifest(path string, b []byte) (*manifest, error) {
	corrupt := func(at int64, expected, format string, args ...any) error {
		return &layer.CorruptError{File: path, Offset: at, Expected: expected, Found: fmt.Sprintf(format, args...)}
	}
	if len(b) < manifestFixed+4 || string(b[:8]) != manifestMagic {
		return nil, corrupt(0, "a manifest", "%d bytes beginning %q", len(b), b[:min(8, len(b))])
	}
	body := b[:len(b)-4]
	if got, want := layer.Checksum(body), le.Uint32(b[len(body):]); got != want {
		return nil, corrupt(int64(len(body)), fmt.Sprintf("checksum %08x", got), "%08x", want)
	}
	if v := le.Uint32(b[8:]); v != manifestVersion {
		return nil, corrupt(8, fmt.Sprintf("version %d", manifestVersion), "%d", v)
	}
	marks := int(le.Uint32(b[92:]))
	if len(body) != manifestFixed+manifestMark*marks {
		return nil, corrupt(92, fmt.Sprintf("%d marks", (len(body)-manifestFixed)/manifestMark), "%d", marks)
	}
	m := &manifest{
		Epoch:    le.Uint64(b[16:]),
		Timeline: getID(b[24:40]),
		Created:  unixTime(le.Uint64(b[64:])),
		Deleted:  b[13] == 1,
		Closed:   closed{Head: tarn.Seq(le.Uint64(b[72:])), Bytes: int64(le.Uint64(b[80:])), Segment: le.Uint32(b[88:])},
	}
	if b[12] == 1 {
		m.Parent = tarn.Point{Timeline: getID(b[40:56]), Seq: tarn.Seq(le.Uint64(b[56:]))}
	}
	for e := body[manifestFixed:]; len(e) > 0; e = e[manifestMark:] {
		m.Closed.Marks = append(m.Closed.Marks, tarn.Mark{
			Seq: tarn.Seq(le.Uint64(e)), LSN: tarn.LSN(le.Uint64(e[8:])), Time: unixTime(le.Uint64(e[16:]))})
	}
	return m, nil
}

func putID(b []byte, id tarn.TimelineID) error {
	if _, err := tarn.ParseTimelineID(string(id)); err != nil {
		return err
	}
	_, err := hex.Decode(b, []byte(id))
	return err
}

func getID(b []byte) tarn.TimelineID { return tarn.TimelineID(hex.EncodeToString(b)) }

// unixTime and nanos convert times as they stand on disk; 0 is the zero time.
func unixTime(ns uint64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(ns)).UTC()
}

func nanos(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.UnixNano())
}

// manifests reads and replaces the manifests of a store. A replacement names
// the epoch it read, as a conditional put on an object store will name the
// version it read (If-Match): whoever comes second is refused.
type manifests struct {
	files fileSystem
	dir   string // holds one directory per timeline
}

func (m manifests) path(id tarn.TimelineID) string {
	return filepath.Join(m.dir, string(id), manifestName)
}

// load reads a timeline's manifest; fs.ErrNotExist when it has none.
func (m manifests) load(id tarn.TimelineID) (*manifest, error) {
	b, err := readFile(m.files, m.path(id))
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	man, err := decodeManifest(m.path(id), b)
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	if man.Timeline != id {
		return nil, fmt.Errorf("read manifest: %w", &layer.CorruptError{File: m.path(id), Offset: 24, Expected: string(id), Found: string(man.Timeline)})
	}
	return man, nil
}

// put writes the first manifest of a timeline.
func (m manifests) put(man *manifest) error {
	man.Epoch = 1
	return m.write(man)
}

// replace writes next in place of the manifest with epoch ifEpoch.
func (m manifests) replace(next *manifest, ifEpoch uint64) error {
	have, err := m.load(next.Timeline)
	if err != nil {
		return err
	}
	if have.Epoch != ifEpoch {
		return tarn.Conflict("replace manifest of timeline %s: it has epoch %d, not %d", next.Timeline, have.Epoch, ifEpoch)
	}
	next.Epoch = ifEpoch + 1
	return m.write(next)
}

func (m manifests) write(man *manifest) error {
	b, err := man.encode()
	if err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	if err := writeFile(m.files, m.path(man.Timeline), b); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	return nil
}
