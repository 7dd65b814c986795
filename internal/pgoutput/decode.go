package pgoutput

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/tarndb/tarn"
)

// CorruptError says where a message stopped making sense.
type CorruptError struct {
	Type   byte // first byte of the message; 0 when there is none
	Offset int  // of the byte that could not be read
	Want   string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("decode pgoutput message %q: offset %d: want %s", e.Type, e.Offset, e.Want)
}

// Decoder decodes messages one after another and reuses its structs. It is
// for one goroutine. The zero value is ready.
type Decoder struct {
	begin    Begin
	commit   Commit
	insert   Insert
	update   Update
	delete   Delete
	truncate Truncate
	logical  Logical
}

// Decode reads one message. The result is good until the next call and until
// b changes; a *Relation is the caller's to keep.
func (d *Decoder) Decode(b []byte) (Message, error) {
	r := reader{b: b}
	m := d.message(&r)
	if r.want != "" {
		e := &CorruptError{Offset: r.at, Want: r.want}
		if len(b) > 0 {
			e.Type = b[0]
		}
		return nil, e
	}
	return m, nil
}

// Split takes the transaction id out of a change in a stream block: what is
// left is the message as it is outside of one. It writes to b.
func Split(b []byte) (xid uint32, m []byte, err error) {
	if len(b) < 5 {
		e := &CorruptError{Offset: len(b), Want: "a change with its xid"}
		if len(b) > 0 {
			e.Type = b[0]
		}
		return 0, nil, e
	}
	xid = binary.BigEndian.Uint32(b[1:])
	b[4] = b[0]
	return xid, b[4:], nil
}

func (d *Decoder) message(r *reader) Message {
	var m Message
	switch r.byte("a message type") {
	case 'B':
		d.begin = Begin{FinalLSN: r.lsn(), CommitTime: r.time(), XID: r.uint32("xid")}
		m = &d.begin
	case 'C':
		if r.byte("flags") != 0 {
			r.at--
			r.fail("commit flags 0")
		}
		d.commit = Commit{CommitLSN: r.lsn(), EndLSN: r.lsn(), CommitTime: r.time()}
		m = &d.commit
	case 'O':
		m = &Origin{CommitLSN: r.lsn(), Name: r.string("origin name")}
	case 'R':
		m = r.relation()
	case 'Y':
		m = &Type{OID: r.uint32("type oid"), Namespace: r.string("namespace"), Name: r.string("type name")}
	case 'I':
		d.insert.Relation = r.uint32("relation oid")
		if r.byte("'N'") != 'N' {
			r.at--
			r.fail("'N'")
		}
		d.insert.New = r.tuple(d.insert.New)
		m = &d.insert
	case 'U':
		m = d.decodeUpdate(r)
	case 'D':
		d.delete.Relation = r.uint32("relation oid")
		d.delete.OldKind = OldKind(r.byte("'K' or 'O'"))
		if d.delete.OldKind != OldKey && d.delete.OldKind != OldFull {
			r.at--
			r.fail("'K' or 'O'")
		}
		d.delete.Old = r.tuple(d.delete.Old)
		m = &d.delete
	case 'T':
		m = d.decodeTruncate(r)
	case 'M':
		d.logical.Transactional = r.byte("flags")&1 != 0
		d.logical.LSN = r.lsn()
		d.logical.Prefix = r.string("prefix")
		d.logical.Content = r.bytes(r.uint32("content length"), "content")
		m = &d.logical
	case 'S':
		m = &StreamStart{XID: r.uint32("xid"), First: r.byte("first") != 0}
	case 'E':
		m = &StreamStop{}
	case 'c':
		c := &StreamCommit{XID: r.uint32("xid")}
		if r.byte("flags") != 0 {
			r.at--
			r.fail("commit flags 0")
		}
		c.CommitLSN, c.EndLSN, c.CommitTime = r.lsn(), r.lsn(), r.time()
		m = c
	case 'A':
		m = &StreamAbort{XID: r.uint32("xid"), Sub: r.uint32("xid of the subtransaction")}
	default:
		r.at = 0
		r.fail("a message type of protocol 2")
	}
	if r.want == "" && r.at != len(r.b) {
		r.fail("end of message")
	}
	return m
}

func (d *Decoder) decodeUpdate(r *reader) Message {
	u := &d.update
	u.Relation = r.uint32("relation oid")
	u.OldKind, u.Old = OldNone, u.Old[:0]
	k := r.byte("'K', 'O' or 'N'")
	if k == 'K' || k == 'O' {
		u.OldKind = OldKind(k)
		u.Old = r.tuple(u.Old)
		k = r.byte("'N'")
	}
	if k != 'N' {
		r.at--
		r.fail("'N'")
	}
	u.New = r.tuple(u.New)
	return u
}

func (d *Decoder) decodeTruncate(r *reader) Message {
	t := &d.truncate
	n := r.uint32("relation count")
	o := r.byte("options")
	t.Cascade, t.RestartIdentity = o&1 != 0, o&2 != 0
	t.Relations = t.Relations[:0]
	if uint64(n)*4 > uint64(len(r.b)-r.at) {
		r.fail(fmt.Sprintf("%d relation oids", n))
		return t
	}
	for range n {
		t.Relations = append(t.Relations, r.uint32("relation oid"))
	}
	return t
}

// reader walks a message; after the first failure everything reads as zero.
type reader struct {
	b    []byte
	at   int
	want string // what was missing; "" = all well
}

func (r *reader) fail(want string) {
	if r.want == "" {
		r.want = want
	}
}

func (r *reader) take(n int, want string) []byte {
	if r.want != "" || n > len(r.b)-r.at {
		r.fail(want)
		return nil
	}
	p := r.b[r.at : r.at+n]
	r.at += n
	return p
}

func (r *reader) byte(want string) byte {
	if p := r.take(1, want); p != nil {
		return p[0]
	}
	return 0
}

func (r *reader) uint16(want string) uint16 {
	if p := r.take(2, want); p != nil {
		return binary.BigEndian.Uint16(p)
	}
	return 0
}

func (r *reader) uint32(want string) uint32 {
	if p := r.take(4, want); p != nil {
		return binary.BigEndian.Uint32(p)
	}
	return 0
}

func (r *reader) uint64(want string) uint64 {
	if p := r.take(8, want); p != nil {
		return binary.BigEndian.Uint64(p)
	}
	return 0
}

func (r *reader) lsn() tarn.LSN { return tarn.LSN(r.uint64("an LSN")) }

// epochUnixMicro is 2000-01-01 UTC, Postgres's epoch, in µs of Unix time.
const epochUnixMicro = 946684800 * 1000000

func (r *reader) time() time.Time {
	return time.UnixMicro(int64(r.uint64("a time")) + epochUnixMicro).UTC()
}

func (r *reader) string(want string) string {
	if r.want != "" {
		return ""
	}
	n := bytes.IndexByte(r.b[r.at:], 0)
	if n < 0 {
		r.fail(want + " ended by a zero byte")
		return ""
	}
	s := string(r.b[r.at : r.at+n])
	r.at += n + 1
	return s
}

func (r *reader) bytes(n uint32, want string) []byte {
	if r.want == "" && uint64(n) > uint64(len(r.b)-r.at) {
		r.fail(fmt.Sprintf("%d bytes of %s", n, want))
	}
	if r.want != "" {
		return nil
	}
	return r.take(int(n), want)
}

func (r *reader) relation() *Relation {
	rel := &Relation{ID: r.uint32("relation oid"), Namespace: r.string("namespace"), Name: r.string("relation name")}
	rel.Identity = Identity(r.byte("replica identity"))
	switch rel.Identity {
	case IdentityDefault, IdentityNothing, IdentityFull, IdentityIndex:
	default:
		r.at--
		r.fail("a replica identity d, n, f or i")
	}
	n := int(r.uint16("column count"))
	// The smallest column takes 10 bytes: a wrong count cannot make us allocate.
	if n*10 > len(r.b)-r.at {
		r.fail(fmt.Sprintf("%d columns", n))
		return rel
	}
	rel.Columns = make([]RelationColumn, n)
	for i := range rel.Columns {
		rel.Columns[i] = RelationColumn{
			Key:     r.byte("column flags")&1 != 0,
			Name:    r.string("column name"),
			TypeOID: r.uint32("type oid"),
			TypeMod: int32(r.uint32("type modifier")),
		}
	}
	return rel
}

func (r *reader) tuple(t Tuple) Tuple {
	n := int(r.uint16("column count"))
	t = t[:0]
	if n > len(r.b)-r.at { // a column takes at least its kind byte
		r.fail(fmt.Sprintf("%d columns", n))
		return t
	}
	for range n {
		c := Column{Kind: ColumnKind(r.byte("column kind"))}
		switch c.Kind {
		case ColumnNull, ColumnUnchanged:
		case ColumnText, ColumnBinary:
			c.Value = r.bytes(r.uint32("value length"), "value")
			if c.Value == nil && r.want == "" {
				c.Value = []byte{}
			}
		default:
			r.at--
			r.fail("a column kind n, u, t or b")
		}
		if r.want != "" {
			return t
		}
		t = append(t, c)
	}
	return t
}
