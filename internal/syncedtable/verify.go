package syncedtable

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/delta"
)

// Verification is what a comparison of both sides found.
type Verification struct {
	Version    int64 // of the source, as the position says
	SourceRows int64 // that Postgres can store
	TargetRows int64
	Rejected   int64 // rows of the source that Postgres cannot store; their keys are not compared
	Older      int64 // rows of the source with an older timeseries key
	Buckets    int   // compared
	Different  int   // buckets whose checksums differ
	Keys       []KeyDifference
}

// Equal tells that both sides hold the same rows.
func (v Verification) Equal() bool { return v.Different == 0 && len(v.Keys) == 0 }

// KeyDifference names a key whose rows differ.
type KeyDifference struct {
	Key  string // JSON object of the key's columns
	What string // "missing in Postgres", "not in the source" or "different"
}

const (
	verifyBuckets = 4096
	maxKeys       = 100 // named; the rest is counted by bucket
)

// bucket sums the rows whose key falls to it. Sums and not exclusive ors: two
// equal rows do not cancel out.
type bucket struct {
	rows int64
	sum  uint64
}

// side is one side of a comparison: its buckets, then the rows of those buckets
// that differ.
type side struct {
	seed    maphash.Seed
	buckets [verifyBuckets]bucket
	wanted  *[verifyBuckets]bool // nil = the first pass
	rows    map[string]uint64    // key as encoded → hash of the row
	rejects map[string]bool      // keys that cannot be stored
	rowsAll int64
}

func (s *side) take(key, row []byte) {
	h := maphash.Bytes(s.seed, key)
	b := h % verifyBuckets
	r := maphash.Bytes(s.seed, row)
	if s.wanted != nil {
		if s.wanted[b] {
			s.rows[string(key)] = r
		}
		return
	}
	s.rowsAll++
	s.buckets[b].rows++
	s.buckets[b].sum += r
}

// Verify compares the source at the position's version with the Postgres table,
// by a checksum for each of many buckets of keys and then, in the buckets that
// differ, by key. Nothing is changed and nothing is kept from being written.
func (k *Keeper) Verify(ctx context.Context, n tarn.TableName) (Verification, error) {
	t, err := k.Get(ctx, n)
	if err != nil {
		return Verification{}, err
	}
	v, err := k.newWorker(t, func(error) {}).verify(ctx)
	if err != nil {
		return v, fmt.Errorf("verify synced table %s: %w", n, err)
	}
	return v, nil
}

func (w *worker) verify(ctx context.Context) (v Verification, err error) {
	table, snap, err := w.k.source(ctx, w.row.SyncedTableSpec.Source)
	if err != nil {
		return v, err
	}
	conn, err := w.connect(ctx)
	if err != nil {
		return v, err
	}
	defer closeConn(conn)
	defer w.keepAwake(ctx)()
	// One snapshot of Postgres for the position and for both passes.
	err = pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		t, err := findTarget(ctx, conn, w.row.Name)
		if err != nil {
			return err
		}
		var pos position
		if t.oid != 0 {
			if pos, err = readPosition(ctx, tx, w.row.UID); err != nil {
				return err
			}
		}
		if pos.generation == 0 {
			return tarn.Conflict("it has not been loaded yet")
		}
		v.Version = pos.version
		if snap.ID() != pos.sourceID {
			return tarn.Conflict("the source was made anew since version %d", pos.version).WithHint("tarn sync refresh " + w.row.Name.String())
		}
		if snap.Version() != pos.version {
			if snap, err = table.At(ctx, pos.version); err != nil {
				return refused(w.row.SyncedTableSpec.Source, err)
			}
		}
		return w.compare(ctx, tx, snap, &v)
	})
	return v, err
}

func (w *worker) compare(ctx context.Context, tx pgx.Tx, snap *delta.Snapshot, v *Verification) error {
	l, err := layoutOf(snap.Schema(), w.row.PrimaryKey, w.row.TimeseriesKey, w.row.TypeOverrides)
	if err != nil {
		return err
	}
	seed := maphash.MakeSeed()
	source, target := &side{seed: seed}, &side{seed: seed}
	source.rejects = map[string]bool{}
	if err := w.sumSource(ctx, snap, l, source, v); err != nil {
		return err
	}
	if err := w.sumTarget(ctx, tx, l, target, source.rejects); err != nil {
		return err
	}
	v.SourceRows, v.TargetRows, v.Buckets = source.rowsAll, target.rowsAll, verifyBuckets
	var differ [verifyBuckets]bool
	for i := range differ {
		if source.buckets[i] != target.buckets[i] {
			differ[i] = true
			v.Different++
		}
	}
	if v.Different == 0 {
		return nil
	}
	for _, s := range []*side{source, target} {
		s.wanted, s.rows = &differ, map[string]uint64{}
	}
	again := *v
	if err := w.sumSource(ctx, snap, l, source, &again); err != nil {
		return err
	}
	if err := w.sumTarget(ctx, tx, l, target, source.rejects); err != nil {
		return err
	}
	return w.nameKeys(ctx, tx, l, source.rows, target.rows, v)
}

// sumSource takes in the source's rows. With a timeseries key only the newest
// of each key count, for which all keys are held in memory.
func (w *worker) sumSource(ctx context.Context, snap *delta.Snapshot, l layout, s *side, v *Verification) error {
	v.Rejected, v.Older = 0, 0
	newest := map[string][2][]byte{} // key → timeseries key, row
	var key, row []byte
	for rec, err := range snap.Scan(ctx, delta.ScanOptions{BatchRows: batchRowsOf(snap)}) {
		if err != nil {
			return refused(w.row.SyncedTableSpec.Source, err)
		}
		for i := range int(rec.NumRows()) {
			if key, err = l.appendKey(key[:0], rec, i); err != nil {
				v.Rejected++
				continue
			}
			if row, err = l.appendPlain(row[:0], rec, i); err != nil {
				v.Rejected++
				s.rejects[string(key)] = true
				continue
			}
			if l.ts < 0 {
				s.take(key, row)
				continue
			}
			at := orderOf(row, l.ts)
			have, ok := newest[string(key)]
			if ok {
				v.Older++
			}
			if c := bytes.Compare(at, have[0]); !ok || c > 0 || c == 0 && bytes.Compare(row, have[1]) > 0 {
				newest[string(key)] = [2][]byte{at, bytes.Clone(row)}
			}
		}
		rec.Release()
	}
	for k, r := range newest {
		s.take([]byte(k), r[1])
	}
	return nil
}

// appendPlain encodes a row in l.order, as COPY TO would, with JSON brought
// into one form.
func (l layout) appendPlain(d []byte, rec arrow.RecordBatch, row int) ([]byte, error) {
	var field []byte
	for _, i := range l.order {
		var err error
		if field, err = l.appendColumn(field[:0], rec, row, i); err != nil {
			return d, err
		}
		d = l.appendCompared(d, i, field)
	}
	return d, nil
}

// appendCompared writes a field so that equal values are equal bytes.
func (l layout) appendCompared(d []byte, i int, field []byte) []byte {
	if l.cols[i].form.sql != "jsonb" || len(field) < 5 {
		return append(d, field...)
	}
	text := canonicalJSON(field[5:]) // length and version
	d = binary.BigEndian.AppendUint32(d, uint32(len(text)))
	return append(d, text...)
}

// canonicalJSON brings JSON into one form: keys sorted, of equal ones the last,
// numbers without exponent and trailing zeros. What is no JSON stays.
func canonicalJSON(text []byte) []byte {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any // of any shape: it is only written again
	if err := d.Decode(&v); err != nil {
		return text
	}
	out, err := json.Marshal(canonicalValue(v))
	if err != nil {
		return text
	}
	return out
}

func canonicalValue(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			v[k] = canonicalValue(e)
		}
	case []any:
		for i, e := range v {
			v[i] = canonicalValue(e)
		}
	case json.Number:
		return "#" + canonicalNumber(string(v))
	}
	return v
}

// canonicalNumber gives a number as digits and a power of ten.
func canonicalNumber(s string) string {
	sign := ""
	if strings.HasPrefix(s, "-") {
		sign, s = "-", s[1:]
	}
	exp := 0
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		fmt.Sscanf(s[i+1:], "%d", &exp)
		s = s[:i]
	}
	if whole, frac, ok := strings.Cut(s, "."); ok {
		s, exp = whole+frac, exp-len(frac)
	}
	s = strings.TrimLeft(s, "0")
	if s == "" {
		return "0"
	}
	short := strings.TrimRight(s, "0")
	return fmt.Sprintf("%s%se%d", sign, short, exp+len(s)-len(short))
}

// sumTarget takes in the rows of the Postgres table.
func (w *worker) sumTarget(ctx context.Context, tx pgx.Tx, l layout, s *side, rejects map[string]bool) error {
	place := pgx.Identifier{w.row.Name.Schema, w.row.Name.Table}.Sanitize()
	r, pw := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := s.readCopy(r, l, rejects)
		r.CloseWithError(err)
		done <- err
	}()
	_, err := tx.Conn().PgConn().CopyTo(ctx, pw, "COPY (SELECT "+l.list(l.order, "")+" FROM "+place+") TO STDOUT (FORMAT binary)")
	pw.CloseWithError(err)
	if readErr := <-done; err == nil {
		err = readErr
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", place, err)
	}
	return nil
}

func (s *side) readCopy(r io.Reader, l layout, rejects map[string]bool) error {
	in := &copyReader{r: r}
	head := in.next(len(copyHeader))
	if in.err != nil || !bytes.HasPrefix(head, []byte(copyHeader[:11])) {
		return fmt.Errorf("no header of COPY: %w", in.err)
	}
	var key, row []byte
	for {
		n := in.next(2)
		if in.err != nil {
			return in.err
		}
		if n[0] == 0xff {
			_, err := io.Copy(io.Discard, r)
			return err
		}
		key, row = key[:0], row[:0]
		for at, i := range l.order {
			size := in.next(4)
			if in.err != nil {
				return in.err
			}
			body := in.next(fieldSize(size))
			if in.err != nil {
				return in.err
			}
			field := append(bytes.Clone(size), body...)
			if at < l.keys {
				key = append(key, field...)
			}
			row = l.appendCompared(row, i, field)
		}
		if !rejects[string(key)] {
			s.take(key, row)
		}
	}
}

// copyReader gives pieces of a stream; one is good until the one after the next.
type copyReader struct {
	r    io.Reader
	bufs [2][]byte
	turn int
	err  error
}

func (c *copyReader) next(n int) []byte {
	c.turn ^= 1
	b := &c.bufs[c.turn]
	*b = slices.Grow((*b)[:0], n)[:n]
	if c.err == nil {
		_, c.err = io.ReadFull(c.r, *b)
	}
	return *b
}

// orderOf is the timeseries key of a row in l.order, made comparable; nil = NULL.
func orderOf(row []byte, ts int) []byte {
	at := 0
	for range ts {
		at += 4 + fieldSize(row[at:])
	}
	n := fieldSize(row[at:])
	if n == 0 {
		return nil
	}
	v := bytes.Clone(row[at+4 : at+4+n])
	v[0] ^= 0x80 // signed
	return v
}

// nameKeys finds the keys that differ; Postgres says how they read.
func (w *worker) nameKeys(ctx context.Context, tx pgx.Tx, l layout, source, target map[string]uint64, v *Verification) error {
	found := map[string]string{}
	for k, h := range source {
		switch have, ok := target[k]; {
		case !ok:
			found[k] = "missing in Postgres"
		case have != h:
			found[k] = "different"
		}
	}
	for k := range target {
		if _, ok := source[k]; !ok {
			found[k] = "not in the source"
		}
	}
	keys := slices.Sorted(maps.Keys(found))
	keys = keys[:min(len(keys), maxKeys)]
	cols := make([]string, l.keys)
	for i, at := range l.keyOrder() {
		cols[i] = fmt.Sprintf("%s, %s", quoteLiteral(l.cols[at].delta), "$"+fmt.Sprint(i+1)+"::"+l.cols[at].form.sql)
	}
	for _, k := range keys {
		params, formats := fieldsOf(k), make([]int16, l.keys)
		for i := range formats {
			formats[i] = 1
		}
		res := tx.Conn().PgConn().ExecParams(ctx, "SELECT jsonb_build_object("+strings.Join(cols, ", ")+")::text", params, nil, formats, nil).Read()
		if res.Err != nil || len(res.Rows) != 1 {
			return fmt.Errorf("read a key: %w", res.Err)
		}
		v.Keys = append(v.Keys, KeyDifference{Key: string(res.Rows[0][0]), What: found[k]})
	}
	return nil
}

// fieldsOf splits encoded fields.
func fieldsOf(k string) (out [][]byte) {
	for d := []byte(k); len(d) > 0; {
		n := fieldSize(d)
		out = append(out, d[4:4+n])
		d = d[4+n:]
	}
	return out
}
