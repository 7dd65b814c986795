package ingest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tarndb/tarn"
)

// maxSegments is how many segments may stand before late rows must be read.
const maxSegments = 256

// XID is a transaction's number in 64 bits: the wrap-around counted.
type XID uint64

// Position is a place in a table's order: the text of the checkpoint column,
// then of the key columns.
type Position []string

// Segment is a stretch of a table's order that was read in one snapshot, or as
// if: it ends at To and begins where the one before ends. The first one also
// holds the rows whose checkpoint is NULL, and only those when its To is nil.
//
// A row version in it that transaction x wrote was read if and only if
//
//	x < Xmin  or  x is in Seen
//
// because a transaction becomes visible as a whole: had the snapshot not shown
// this row, it would have shown none of x. (A subtransaction has an x of its own,
// visible as a whole, too; a snapshot cannot be asked about it, since it lists
// main transactions only.)
type Segment struct {
	To   Position
	Xmin XID   // every transaction below it was over when the segment was read
	Seen []XID // transactions from Xmin on of which rows were read; ascending
}

// Cursor is all that a reader remembers of a table. Reading forward, behind the
// last segment, adds a segment. Reading late rows, those that the rule of
// Segment calls unread, makes the segments one again when none is left:
// everything that the present snapshot shows has then been read.
//
//	forward ──more than maxSegments, or the end is reached──▶ late ──none left──▶ forward
//
// Late rows are read one transaction after the other, so that a batch may end in
// the middle: Done are those read to their end, Open the one in the middle and
// OpenKey the key reached in it. Nothing is read forward meanwhile, so the rows
// of a transaction before the cursor are a fixed set.
//
// Postgres gives out 2^32 numbers before they repeat: a row that has lain still
// for a whole turn may be read again; none is left out. The Python package
// tarn-lakebase keeps the same state; either can go on where the other stopped.
type Cursor struct {
	Round    int64 // batches so far
	Segments []Segment
	Done     []XID
	Open     XID // 0 = none
	OpenKey  []string
	Line     string // whose transactions these are: system identifier and WAL timeline; "" = unknown
	LSN      tarn.LSN
}

// NewCursor has read nothing.
func NewCursor() Cursor { return Cursor{Segments: []Segment{{}}} }

// Position is how far the cursor is; nil at the beginning.
func (c Cursor) Position() Position { return c.Segments[len(c.Segments)-1].To }

// LastCheckpoint is the highest checkpoint value read; ok is false at the
// beginning.
func (c Cursor) LastCheckpoint() (v string, ok bool) {
	if p := c.Position(); p != nil {
		return p[0], true
	}
	return "", false
}

// draining reports that a batch ended among late rows.
func (c Cursor) draining() bool { return c.Open != 0 || len(c.Done) > 0 }

// readRow is what of a row moves a cursor.
type readRow struct {
	xid XID
	at  Position // its checkpoint is "" when it is NULL
}

// late is the cursor when these late rows, of at most limit, have been read in
// the snapshot.
func (c Cursor) late(rows []readRow, now snapshot, limit int) Cursor {
	var xids []XID
	for _, r := range rows {
		if len(xids) == 0 || xids[len(xids)-1] != r.xid {
			xids = append(xids, r.xid)
		}
	}
	if len(rows) < limit {
		seen := append(slices.Clone(c.Done), xids...)
		if c.Open != 0 {
			seen = append(seen, c.Open)
		}
		for _, s := range c.Segments {
			seen = append(seen, s.Seen...)
		}
		c.Segments = []Segment{{To: c.Position(), Xmin: now.xmin, Seen: since(now.xmin, seen)}}
		c.Done, c.Open, c.OpenKey = nil, 0, nil
		return c
	}
	done := slices.Clone(c.Done)
	if c.Open != 0 && xids[0] != c.Open {
		done = append(done, c.Open)
	}
	c.Done = append(done, xids[:len(xids)-1]...)
	c.Open, c.OpenKey = xids[len(xids)-1], rows[len(rows)-1].at[1:]
	return c
}

// forward is the cursor when these rows behind it have been read.
func (c Cursor) forward(rows []readRow, now snapshot) Cursor {
	if len(rows) == 0 {
		return c
	}
	xids := make([]XID, len(rows))
	for i, r := range rows {
		xids[i] = r.xid
	}
	c.Segments = append(slices.Clone(c.Segments), Segment{To: rows[len(rows)-1].at, Xmin: now.xmin, Seen: since(now.xmin, xids)})
	return c
}

// since gives those from xmin on, ascending, each once.
func since(xmin XID, xids []XID) []XID {
	xids = slices.DeleteFunc(xids, func(x XID) bool { return x < xmin })
	slices.Sort(xids)
	return slices.Compact(xids)
}

// newest is the highest transaction that the cursor knows of.
func (c Cursor) newest() XID {
	n := max(c.Open, slices.Max(append(c.Done, 0)))
	for _, s := range c.Segments {
		n = max(n, s.Xmin, slices.Max(append(slices.Clone(s.Seen), 0)))
	}
	return n
}

// check refuses a cursor that cannot be of the past of what now shows: after a
// restore, or on another server, Postgres gives numbers out again that the cursor
// calls read, and rows would be lost.
func (c Cursor) check(now snapshot) error {
	why := ""
	switch {
	case c.Line != "" && now.line != "" && c.Line != now.line:
		why = fmt.Sprintf("it was made on line %s of the WAL, the database is on %s", c.Line, now.line)
	case now.xmax < c.newest():
		why = fmt.Sprintf("it knows transaction %d, the database gives out %d next", c.newest(), now.xmax)
	case now.lsn != 0 && now.lsn < c.LSN:
		why = fmt.Sprintf("it was made at %s, the database is at %s", c.LSN, now.lsn)
	default:
		return nil
	}
	return tarn.Conflict("the checkpoint is not of this database's past: %s (it was restored, branched or replaced)", why).
		WithHint("read the table from its beginning with --reset")
}

// idle reports that no transaction ended since the cursor had read all there was.
func (c Cursor) idle(now snapshot) bool {
	return !c.draining() && len(c.Segments) == 1 && c.Segments[0].Xmin == now.xmax
}

// snapshot is pg_current_snapshot(): everything below xmin is over, nothing
// from xmax on has begun.
type snapshot struct {
	xmin, xmax XID
	line       string
	lsn        tarn.LSN
}

func parseSnapshot(text string) (snapshot, error) {
	part := strings.Split(text, ":")
	if len(part) != 3 {
		return snapshot{}, fmt.Errorf("read snapshot %q: want xmin:xmax:list", text)
	}
	xmin, err1 := strconv.ParseUint(part[0], 10, 64)
	xmax, err2 := strconv.ParseUint(part[1], 10, 64)
	if err1 != nil || err2 != nil {
		return snapshot{}, fmt.Errorf("read snapshot %q: a bound is no number", text)
	}
	return snapshot{xmin: XID(xmin), xmax: XID(xmax)}, nil
}

// cursorVersion is the version of a cursor's JSON.
const cursorVersion = 1

// cursorJSON is a cursor in a checkpoint table. Transactions are strings, since
// not every reader of JSON has 64-bit numbers.
type cursorJSON struct {
	V        int           `json:"v"`
	Round    int64         `json:"round"`
	Segments []segmentJSON `json:"segments"`
	Late     *lateJSON     `json:"late,omitempty"`
	Line     string        `json:"line,omitempty"`
	LSN      uint64        `json:"lsn,string,omitempty"`
}

type segmentJSON struct {
	To   Position `json:"to"`
	Xmin XID      `json:"xmin,string"`
	Seen []string `json:"seen"`
}

type lateJSON struct {
	Done []string `json:"done"`
	XID  string   `json:"xid,omitempty"`
	Key  []string `json:"key,omitempty"`
}

// MarshalJSON gives the form that is kept.
func (c Cursor) MarshalJSON() ([]byte, error) {
	out := cursorJSON{V: cursorVersion, Round: c.Round, Line: c.Line, LSN: uint64(c.LSN)}
	for _, s := range c.Segments {
		out.Segments = append(out.Segments, segmentJSON{s.To, s.Xmin, texts(s.Seen)})
	}
	if c.draining() {
		out.Late = &lateJSON{Done: texts(c.Done)}
		if c.Open != 0 {
			out.Late.XID, out.Late.Key = strconv.FormatUint(uint64(c.Open), 10), c.OpenKey
		}
	}
	return json.Marshal(out)
}

// UnmarshalJSON reads it, and refuses one that makes no sense.
func (c *Cursor) UnmarshalJSON(b []byte) error {
	var in cursorJSON
	if err := json.Unmarshal(b, &in); err != nil {
		return err
	}
	if in.V != cursorVersion || len(in.Segments) == 0 {
		return tarn.Invalid("checkpoint of version %d with %d segments; this program reads version %d with at least one", in.V, len(in.Segments), cursorVersion)
	}
	out := Cursor{Round: in.Round, Line: in.Line, LSN: tarn.LSN(in.LSN)}
	for i, s := range in.Segments {
		if i > 0 && s.To == nil {
			return tarn.Invalid("segment %d of a checkpoint has no end", i)
		}
		seen, err := xids(s.Seen)
		if err != nil {
			return err
		}
		out.Segments = append(out.Segments, Segment{s.To, s.Xmin, seen})
	}
	if in.Late != nil {
		done, err := xids(in.Late.Done)
		if err != nil {
			return err
		}
		out.Done, out.OpenKey = done, in.Late.Key
		if in.Late.XID != "" {
			open, err := xids([]string{in.Late.XID})
			if err != nil {
				return err
			}
			out.Open = open[0]
		}
	}
	*c = out
	return nil
}

func texts(xids []XID) []string {
	out := make([]string, len(xids))
	for i, x := range xids {
		out[i] = strconv.FormatUint(uint64(x), 10)
	}
	return out
}

func xids(text []string) ([]XID, error) {
	var out []XID
	for _, t := range text {
		x, err := strconv.ParseUint(t, 10, 64)
		if err != nil {
			return nil, tarn.Invalid("checkpoint: %q is no transaction", t)
		}
		out = append(out, XID(x))
	}
	return out, nil
}
