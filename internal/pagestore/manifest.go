package pagestore

import (
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"slices"
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
	Deleted  bool          // a ghost: stays for its children only
	History  time.Duration // how far back points can be forked; negative = as the store says
	Closed   closed
	Layers   []layerFile
	Counted  counted
	Foreign  []layer.FileID // maps of ancestors that own maps point at
	Swept    swept
	Rewound  tarn.Seq // of the last rewinding, 0 = never: at it and behind, no map before it counts
	Dead     int64    // about so many bytes were garbage at the last clean close
	Loose    int64    // about so many bytes of pages stood out of order then
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

// layerFile is one file of a timeline.
type layerFile struct {
	Kind       layer.FileKind
	Number     uint32
	First      tarn.Seq // of a segment, 0 = not known; of a map its seq
	Last       tarn.Seq // seq after its last record, 0 = not known; of a map its seq
	Bytes      int64    // of a segment that was still written, less than it has
	Generation uint32   // of a map: the one that has all tables, 0 = an ancestor's
}

// counted is up to which number the files of each kind stand in Layers or are
// gone. Segments with higher numbers belong to the timeline too.
type counted struct{ Log, Map, Image uint32 }

// swept is what the last collection decided: before Head only its marks, and
// the points where others began, can be seen.
type swept struct {
	Head  tarn.Seq // 0 = never
	Time  time.Time
	Marks []tarn.Mark // that stayed, with a seq before Head
}

const (
	manifestMagic   = "TARNMAN\x00"
	manifestVersion = 2
	manifestFixed1  = 112 // bytes before the marks in version 1
	manifestFixed   = 160 // bytes before the lists
	manifestMark    = 24
	manifestLayer   = 40
	manifestForeign = 24
	manifestName    = "MANIFEST"
	looseUnit       = 1 << 20
)

var le = binary.LittleEndian

func (m *manifest) encode() ([]byte, error) {
	b := make([]byte, manifestFixed, manifestFixed+manifestMark*(len(m.Closed.Marks)+len(m.Swept.Marks))+
		manifestLayer*len(m.Layers)+manifestForeign*len(m.Foreign)+4)
	copy(b, manifestMagic)
	le.PutUint32(b[8:], manifestVersion)
	if m.Deleted {
		b[13] = 1
	}
	le.PutUint16(b[14:], uint16(min((m.Loose+looseUnit/2)/looseUnit, 1<<16-1)))
	le.PutUint64(b[16:], m.Epoch)
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
	le.PutUint64(b[96:], uint64(m.History))
	le.PutUint64(b[104:], uint64(m.Swept.Head))
	le.PutUint64(b[112:], nanos(m.Swept.Time))
	le.PutUint32(b[120:], m.Counted.Log)
	le.PutUint32(b[124:], m.Counted.Map)
	le.PutUint32(b[128:], m.Counted.Image)
	le.PutUint32(b[132:], uint32(len(m.Swept.Marks)))
	le.PutUint32(b[136:], uint32(len(m.Layers)))
	le.PutUint32(b[140:], uint32(len(m.Foreign)))
	le.PutUint64(b[144:], uint64(m.Dead))
	le.PutUint64(b[152:], uint64(m.Rewound))
	for _, marks := range [...][]tarn.Mark{m.Closed.Marks, m.Swept.Marks} {
		for _, k := range marks {
			b = le.AppendUint64(b, uint64(k.Seq))
			b = le.AppendUint64(b, uint64(k.LSN))
			b = le.AppendUint64(b, nanos(k.Time))
		}
	}
	for _, l := range m.Layers {
		b = append(b, byte(l.Kind), 0, 0, 0)
		b = le.AppendUint32(b, l.Number)
		b = le.AppendUint64(b, uint64(l.First))
		b = le.AppendUint64(b, uint64(l.Last))
		b = le.AppendUint64(b, uint64(l.Bytes))
		b = le.AppendUint32(b, l.Generation)
		b = le.AppendUint32(b, 0)
	}
	for _, f := range m.Foreign {
		b = append(b, make([]byte, 16)...)
		if err := putID(b[len(b)-16:], f.Timeline); err != nil {
			return nil, err
		}
		b = le.AppendUint32(b, f.Number)
		b = le.AppendUint32(b, 0)
	}
	return le.AppendUint32(b, layer.Checksum(b)), nil
}

// decodeManifest reads a manifest of this version or of version 1, which knew
// no layers: all segments were the timeline's.
func decodeManifest(path string, b []byte) (*manifest, error) {
	corrupt := func(at int64, expected, format string, args ...any) error {
		return &layer.CorruptError{File: path, Offset: at, Expected: expected, Found: fmt.Sprintf(format, args...)}
	}
	if len(b) < manifestFixed1+4 || string(b[:8]) != manifestMagic {
		return nil, corrupt(0, "a manifest", "%d bytes beginning %q", len(b), b[:min(8, len(b))])
	}
	body := b[:len(b)-4]
	if got, want := layer.Checksum(body), le.Uint32(b[len(body):]); got != want {
		return nil, corrupt(int64(len(body)), fmt.Sprintf("checksum %08x", got), "%08x", want)
	}
	version, fixed := le.Uint32(b[8:]), manifestFixed
	if version == 1 {
		fixed = manifestFixed1
	} else if version != manifestVersion {
		return nil, corrupt(8, fmt.Sprintf("version 1 to %d", manifestVersion), "%d", version)
	}
	if len(body) < fixed {
		return nil, corrupt(0, fmt.Sprintf("a manifest of %d bytes or more", fixed), "%d", len(body))
	}
	m := &manifest{
		Epoch:    le.Uint64(b[16:]),
		Timeline: getID(b[24:40]),
		Created:  unixTime(le.Uint64(b[64:])),
		Deleted:  b[13] == 1,
		History:  -1,
		Closed:   closed{Head: tarn.Seq(le.Uint64(b[72:])), Bytes: int64(le.Uint64(b[80:])), Segment: le.Uint32(b[88:])},
	}
	if b[12] == 1 {
		m.Parent = tarn.Point{Timeline: getID(b[40:56]), Seq: tarn.Seq(le.Uint64(b[56:]))}
	}
	marks, kept, layers, foreign := uint64(le.Uint32(b[92:])), uint64(0), uint64(0), uint64(0)
	if version > 1 {
		m.History = time.Duration(le.Uint64(b[96:]))
		m.Swept.Head, m.Swept.Time = tarn.Seq(le.Uint64(b[104:])), unixTime(le.Uint64(b[112:]))
		m.Counted = counted{Log: le.Uint32(b[120:]), Map: le.Uint32(b[124:]), Image: le.Uint32(b[128:])}
		m.Dead = int64(le.Uint64(b[144:]))
		m.Loose = int64(le.Uint16(b[14:])) * looseUnit
		m.Rewound = tarn.Seq(le.Uint64(b[152:]))
		kept, layers, foreign = uint64(le.Uint32(b[132:])), uint64(le.Uint32(b[136:])), uint64(le.Uint32(b[140:]))
	}
	e := body[fixed:]
	if uint64(len(e)) != manifestMark*(marks+kept)+manifestLayer*layers+manifestForeign*foreign {
		return nil, corrupt(92, fmt.Sprintf("lists of %d bytes", len(e)), "%d and %d marks, %d layers, %d foreign maps", marks, kept, layers, foreign)
	}
	list := func(n uint64) (out []tarn.Mark) {
		for ; n > 0; n, e = n-1, e[manifestMark:] {
			out = append(out, tarn.Mark{Seq: tarn.Seq(le.Uint64(e)), LSN: tarn.LSN(le.Uint64(e[8:])), Time: unixTime(le.Uint64(e[16:]))})
		}
		return out
	}
	m.Closed.Marks, m.Swept.Marks = list(marks), list(kept)
	for ; layers > 0; layers, e = layers-1, e[manifestLayer:] {
		m.Layers = append(m.Layers, layerFile{Kind: layer.FileKind(e[0]), Number: le.Uint32(e[4:]), First: tarn.Seq(le.Uint64(e[8:])),
			Last: tarn.Seq(le.Uint64(e[16:])), Bytes: int64(le.Uint64(e[24:])), Generation: le.Uint32(e[32:])})
	}
	for ; foreign > 0; foreign, e = foreign-1, e[manifestForeign:] {
		m.Foreign = append(m.Foreign, layer.FileID{Timeline: getID(e[:16]), Kind: layer.FileMap, Number: le.Uint32(e[16:])})
	}
	return m, nil
}

// maps gives the timeline's maps, the oldest first.
func (m *manifest) maps() []layerFile { return m.of(layer.FileMap) }

// images gives the timeline's images.
func (m *manifest) images() []layerFile { return m.of(layer.FileImage) }

func (m *manifest) of(k layer.FileKind) (out []layerFile) {
	for _, l := range m.Layers {
		if l.Kind == k {
			out = append(out, l)
		}
	}
	slices.SortFunc(out, func(a, b layerFile) int { return cmp.Compare(a.Number, b.Number) })
	return out
}

// has reports whether a file is listed.
func (m *manifest) has(k layer.FileKind, number uint32) bool {
	return slices.ContainsFunc(m.Layers, func(l layerFile) bool { return l.Kind == k && l.Number == number })
}

// shown gives those of marks that a collection left.
func (m *manifest) shown(marks []tarn.Mark) []tarn.Mark {
	return slices.DeleteFunc(slices.Clone(marks), func(k tarn.Mark) bool {
		return k.Seq < m.Swept.Head && !slices.Contains(m.Swept.Marks, k)
	})
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
