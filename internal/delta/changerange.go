package delta

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
)

// maxKeptActions bounds what a changeRange remembers of its commits. Beyond it
// they are read again when their turn comes.
const maxKeptActions = 50_000

// rangeCommit is one version of a range.
type rangeCommit struct {
	version  int64
	time     time.Time
	object   blob.Object
	metadata *metadataAction // when the commit brought one
	kept     []action        // nil = not kept
}

// changeRange is the commits from one version to another, with the schemas and
// properties in force.
type changeRange struct {
	table   *Table
	end     *Snapshot       // at the last version
	start   *metadataAction // in force before the first version; of the first when it is 0
	commits []rangeCommit
}

// openRange reads the log from one version to another; to 0 = the latest.
// ErrNoVersion when the log does not reach back to from, or ends before to.
func (t *Table) openRange(ctx context.Context, from, to int64) (*changeRange, error) {
	if from < 0 || to < 0 || to > 0 && to < from {
		return nil, tarn.Invalid("versions %d to %d are no range", from, to)
	}
	t.mu.Lock()
	had := t.newest // may be the version just before the range
	t.mu.Unlock()
	end, err := t.Latest(ctx)
	if err != nil {
		return nil, err
	}
	switch {
	case to == 0 && from > end.version, to > end.version:
		return nil, fmt.Errorf("the table ends at version %d: %w", end.version, ErrNoVersion)
	case to > 0 && to < end.version:
		if end, err = t.At(ctx, to); err != nil {
			return nil, err
		}
	}
	r := &changeRange{table: t, end: end, start: end.state.metadata}
	objects, err := t.listCommits(ctx, from, end.version)
	if err != nil {
		return nil, err
	}
	if err := r.read(ctx, from, objects); err != nil {
		return nil, err
	}
	return r, r.findStart(ctx, from, had)
}

// listCommits lists the commits of the versions, every one of which must be there.
func (t *place) listCommits(ctx context.Context, from, to int64) ([]blob.Object, error) {
	folder := t.key(logFolder)
	var out []blob.Object
	after := folder // "…/<from>" sorts before "…/<from>.json"
	if from > 0 {
		after = fmt.Sprintf("%s%020d", folder, from)
	}
	for o, err := range t.store.List(ctx, folder, after) {
		if err != nil {
			return nil, fmt.Errorf("list log: %w", err)
		}
		name := strings.TrimPrefix(o.Key, folder)
		n := parseLogName(name)
		if name > "9~" || n.kind != logOther && n.version > to {
			break
		}
		if n.kind != logCommit {
			continue
		}
		if want := from + int64(len(out)); n.version != want {
			return nil, fmt.Errorf("version %d is cleaned up: %w", want, ErrNoVersion)
		}
		out = append(out, o)
	}
	if int64(len(out)) != to-from+1 {
		return nil, fmt.Errorf("version %d is cleaned up: %w", from+int64(len(out)), ErrNoVersion)
	}
	return out, nil
}

// read takes in the commits.
func (r *changeRange) read(ctx context.Context, from int64, objects []blob.Object) error {
	total := 0
	for i, o := range objects {
		c := rangeCommit{version: from + int64(i), object: o, time: o.ModTime.UTC()}
		var kept []action
		count := 0
		err := r.table.readJSONActions(ctx, o, func(a action) error {
			count++
			switch {
			case a.Metadata != nil:
				c.metadata = a.Metadata
			case a.Protocol != nil:
				if err := a.Protocol.checkReadable(); err != nil {
					return err
				}
			case a.CommitInfo != nil && a.CommitInfo.InCommitTimestamp != nil && r.end.truth("delta.enableInCommitTimestamps"):
				c.time = time.UnixMilli(*a.CommitInfo.InCommitTimestamp).UTC()
			}
			if total+count <= maxKeptActions {
				kept = append(kept, a)
			}
			return nil
		})
		if err != nil {
			if errors.Is(err, blob.ErrNotExist) {
				return fmt.Errorf("version %d is cleaned up: %w", c.version, ErrNoVersion)
			}
			return err
		}
		if total += count; total <= maxKeptActions {
			c.kept = kept
		}
		r.commits = append(r.commits, c)
	}
	return nil
}

// actions gives those of the i-th commit, which are of no more use to the range.
func (r *changeRange) actions(ctx context.Context, i int) ([]action, error) {
	c := &r.commits[i]
	if c.kept != nil {
		out := c.kept
		c.kept = nil
		return out, nil
	}
	actions, found, err := r.table.readCommit(ctx, c.version)
	if err == nil && !found {
		err = fmt.Errorf("version %d is cleaned up: %w", c.version, ErrNoVersion)
	}
	return actions, err
}

// findStart finds the metadata in force before the range. Without a metaData
// action in the range it is that of the end.
func (r *changeRange) findStart(ctx context.Context, from int64, had *Snapshot) error {
	changed := false
	for _, c := range r.commits {
		changed = changed || c.metadata != nil
	}
	switch {
	case !changed:
		return nil
	case from == 0:
		if r.start = r.commits[0].metadata; r.start == nil {
			return &DamagedError{Path: r.commits[0].object.Key, Reason: "no metaData"}
		}
		return nil
	case had != nil && had.version == from-1 && had.ID() == r.end.ID():
		r.start = had.state.metadata
		return nil
	}
	s, err := r.table.At(ctx, from-1)
	switch {
	case err == nil:
		r.start = s.state.metadata
	case errors.Is(err, ErrNoVersion) && r.commits[0].metadata != nil:
		r.start = r.commits[0].metadata
	default:
		return err
	}
	return nil
}

// refusal tells why the range's changes cannot be given; nil when they can.
func (r *changeRange) refusal() error {
	if v, off := r.feedOff(); off {
		return fmt.Errorf("version %d: %w", v, ErrNoChangeFeed)
	}
	e, err := r.schemaChange()
	if err != nil {
		return err
	}
	if e != nil {
		return e
	}
	return nil
}

// feedOff gives the first version at which the feed was off. A version that
// switches it on counts as on, as it does for Spark.
func (r *changeRange) feedOff() (int64, bool) {
	m := r.start
	for _, c := range r.commits {
		if c.metadata != nil {
			m = c.metadata
		}
		if !strings.EqualFold(propertyOf(m.Configuration, "delta.enableChangeDataFeed"), "true") {
			return c.version, true
		}
	}
	return 0, false
}

// schemaChange finds the first schema of the range whose rows are not rows of
// the end's schema; nil when there is none.
func (r *changeRange) schemaChange() (*SchemaChangedError, error) {
	end := r.end.schema
	before := r.start
	check := func(version int64, m *metadataAction) (*SchemaChangedError, error) {
		if m.SchemaString == r.end.state.metadata.SchemaString && m.ID == r.end.ID() {
			return nil, nil
		}
		old, err := schemaOfMetadata(m)
		if err != nil {
			return nil, err
		}
		reason := ""
		if m.ID != r.end.ID() {
			reason = "the table was made anew"
		} else {
			reason = narrower(old, end, "")
		}
		if reason == "" {
			return nil, nil
		}
		return &SchemaChangedError{Version: version, Reason: reason, Old: schemaOf(old), New: schemaOf(end)}, nil
	}
	for _, c := range r.commits {
		if c.metadata == nil {
			continue
		}
		if e, err := check(c.version, before); e != nil || err != nil {
			return e, err
		}
		before = c.metadata
	}
	return check(r.end.version, before)
}

// schemaOfMetadata parses the schema of a metaData action.
func schemaOfMetadata(m *metadataAction) (*dataType, error) {
	text := m.SchemaString
	if text == "" {
		text = `{"type":"struct"}`
	}
	t, err := typeOfJSON([]byte(text), 0)
	if err != nil {
		return nil, err
	}
	mode, err := mappingOf(m.Configuration)
	if err != nil {
		return nil, err
	}
	return t, t.resolve(mode)
}

// narrower says what keeps a value of old from being one of wider; "" when
// nothing does. path names the columns in the answer.
func narrower(old, wider *dataType, path string) string {
	if old.kind != wider.kind && !(old.kind == kindPrimitive && wider.kind == kindDecimal) {
		return fmt.Sprintf("%s was %s and is %s", path, old.text(), wider.text())
	}
	switch old.kind {
	case kindArray:
		return narrower(old.elem, wider.elem, path+".element")
	case kindMap:
		if why := narrower(old.key, wider.key, path+".key"); why != "" {
			return why
		}
		return narrower(old.elem, wider.elem, path+".value")
	case kindStruct:
		for _, f := range old.fields {
			name := strings.TrimPrefix(path+"."+f.name, ".")
			i := wider.fieldIndex(f.name)
			if i < 0 || wider.fields[i].physical != f.physical {
				return fmt.Sprintf("column %s was dropped or renamed", name)
			}
			if why := narrower(f.typ, wider.fields[i].typ, name); why != "" {
				return why
			}
		}
		return ""
	}
	if !widensTo(old, wider) {
		return fmt.Sprintf("column %s was %s and is %s", path, old.text(), wider.text())
	}
	return ""
}

// widensTo tells whether every value of a plain type has a value of the other.
func widensTo(old, wider *dataType) bool {
	if old.text() == wider.text() {
		return true
	}
	a, err1 := old.arrow()
	b, err2 := wider.arrow()
	if err1 != nil || err2 != nil {
		return false
	}
	rank := map[string]int{"byte": 1, "short": 2, "integer": 3, "long": 4}
	switch {
	case rank[old.name] > 0 && rank[wider.name] > 0:
		return rank[old.name] < rank[wider.name]
	case old.kind == kindDecimal && wider.kind == kindDecimal:
		return old.scale <= wider.scale && old.precision-old.scale <= wider.precision-wider.scale
	case rank[old.name] > 0 && wider.kind == kindDecimal:
		digits := []int32{0, 3, 5, 10, 20}[rank[old.name]]
		return wider.precision-wider.scale >= digits
	case rank[old.name] > 0 && wider.name == "double":
		return rank[old.name] <= 3
	case old.name == "date" && wider.name == "timestamp_ntz":
		return true
	case old.name == "float" && wider.name == "double":
		return true
	}
	return a.ID() == b.ID() && old.kind == kindPrimitive && old.name == wider.name
}

func (t *dataType) fieldIndex(name string) int {
	for i, f := range t.fields {
		if f.name == name {
			return i
		}
	}
	return -1
}

// ChangeSummary tells what Changes would give for a range.
type ChangeSummary struct {
	From, To int64
	Feed     bool  // the change data feed was on over the whole range
	FeedOff  int64 // first version it was off at, when it was

	OldSchema, NewSchema *Schema // before the range (at version 0: of it), and at its end
	SchemaChanged        bool
	Additive             bool   // every old row is a row of the new schema: columns added, types widened
	SchemaChange         string // why it is not, in words

	Rows  int64 // estimated: updates count twice, as before and after
	Bytes int64 // of the files to read
	Files int
}

// checkedFiles is how many files of a range ChangesAvailable looks for.
const checkedFiles = 256

// ChangesAvailable looks at the log of a range without reading rows; to 0 = the
// latest. ErrNoVersion when the log is cleaned up or ends before, or when one of
// the oldest files that the range needs is vacuumed.
func (t *Table) ChangesAvailable(ctx context.Context, from, to int64) (ChangeSummary, error) {
	s, err := t.changesAvailable(ctx, from, to)
	if err != nil {
		return ChangeSummary{}, fmt.Errorf("changes of %s from version %d: %w", t.name(), from, err)
	}
	return s, nil
}

func (t *Table) changesAvailable(ctx context.Context, from, to int64) (ChangeSummary, error) {
	r, err := t.openRange(ctx, from, to)
	if err != nil {
		return ChangeSummary{}, err
	}
	s := ChangeSummary{From: from, To: r.end.version, NewSchema: r.end.Schema(), Additive: true}
	old, err := schemaOfMetadata(r.start)
	if err != nil {
		return s, err
	}
	s.OldSchema = schemaOf(old)
	s.SchemaChanged = r.start.ID != r.end.ID() || old.text() != r.end.schema.text()
	change, err := r.schemaChange()
	if err != nil {
		return s, err
	}
	if change != nil {
		s.Additive, s.SchemaChanged, s.SchemaChange = false, true, change.Error()
	}
	off := false
	s.FeedOff, off = r.feedOff()
	s.Feed = !off
	perRow := bytesPerRow(r.end)
	var files []string
	for i := range r.commits {
		actions, err := r.actions(ctx, i)
		if err != nil {
			return s, err
		}
		files = append(files, s.add(actions, perRow)...)
	}
	return s, t.present(ctx, files[:min(len(files), checkedFiles)])
}

// add takes in a commit and gives the paths of the files it needs. perRow is
// about how many bytes a row takes.
func (s *ChangeSummary) add(actions []action, perRow float64) []string {
	var paths []string
	rowsIn := func(size int64) int64 { return int64(float64(size) / perRow) }
	need := func(path string, size int64) {
		s.Files++
		s.Bytes += size
		paths = append(paths, path)
	}
	for _, a := range actions {
		if a.CDC != nil {
			need(a.CDC.Path, a.CDC.Size)
			s.Rows += rowsIn(a.CDC.Size)
		}
	}
	if len(paths) > 0 || skipsFiles(actions) {
		return paths
	}
	for _, p := range pairFiles(actions) {
		switch {
		case p.add != nil && p.remove != nil:
			need(p.add.Path, p.add.Size)
			s.Rows += cardinality(p.add.DV) - cardinality(p.remove.DV)
		case p.add != nil:
			need(p.add.Path, p.add.Size)
			s.Rows += p.add.activeRows()
		default:
			size := int64(0)
			if p.remove.Size != nil {
				size = *p.remove.Size
			}
			need(p.remove.Path, size)
			s.Rows += max(rowsIn(size)-cardinality(p.remove.DV), 0)
		}
	}
	return paths
}

func cardinality(d *dvDescriptor) int64 {
	if d == nil {
		return 0
	}
	return d.Cardinality
}

// bytesPerRow is about how many bytes a row takes in the data files.
func bytesPerRow(s *Snapshot) float64 {
	var rows, bytes int64
	for _, a := range s.state.files {
		if n, ok := a.statRows(); ok && n > 0 {
			rows, bytes = rows+n, bytes+a.Size
		}
		if bytes > 1<<30 {
			break // enough to know
		}
	}
	if rows == 0 || bytes == 0 {
		return 100
	}
	return float64(bytes) / float64(rows)
}

// present makes sure that the files are there.
func (t *place) present(ctx context.Context, paths []string) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for _, p := range paths {
		g.Go(func() error {
			key, err := t.dataKey(p)
			if err != nil {
				return err
			}
			if _, err := t.store.Head(ctx, key); err != nil {
				return vacuumed(fmt.Errorf("look for %s: %w", key, err))
			}
			return nil
		})
	}
	return g.Wait()
}
