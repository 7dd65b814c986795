// Package pgoutput decodes the messages of Postgres's logical replication
// plugin "pgoutput", protocol versions 1 and 2. It knows the bytes of one message and
// nothing of the stream they come in, of types or of where changes go.
//
// A decoded message and every byte slice in it belong to the Decoder and to
// the buffer they came from: they are good until the next Decode. Relation is
// the exception, because its users keep it.
package pgoutput

import (
	"time"

	"github.com/tarndb/tarn"
)

// Message is one decoded message: *Begin, *Commit, *Origin, *Relation, *Type,
// *Insert, *Update, *Delete, *Truncate, *Logical, or, in protocol 2,
// *StreamStart, *StreamStop, *StreamCommit or *StreamAbort.
type Message interface{ message() }

// Begin opens a transaction. Transactions never interleave in protocol 1.
//
//	'B' final LSN (8) commit time (8, µs since 2000) xid (4)
type Begin struct {
	FinalLSN   tarn.LSN // start of the commit record
	CommitTime time.Time
	XID        uint32
}

// Commit closes the transaction.
//
//	'C' flags (1, zero) commit LSN (8) end LSN (8) commit time (8)
type Commit struct {
	CommitLSN  tarn.LSN // start of the commit record: equals Begin.FinalLSN
	EndLSN     tarn.LSN // one past the commit record: where to resume
	CommitTime time.Time
}

// Origin names the replication origin of the transaction.
//
//	'O' commit LSN at the origin (8) name (string)
type Origin struct {
	CommitLSN tarn.LSN
	Name      string
}

// Identity is a table's replica identity setting.
type Identity byte

// What the old row of an update or delete holds.
const (
	IdentityDefault Identity = 'd' // the primary key's columns
	IdentityNothing Identity = 'n' // nothing
	IdentityFull    Identity = 'f' // every column
	IdentityIndex   Identity = 'i' // a unique index's columns
)

// Relation describes a table; it comes before the table's first change and
// again after every change of its definition.
//
//	'R' oid (4) namespace (string) name (string) identity (1) columns (2)
//	    each: flags (1; 1 = part of the key) name (string) type oid (4) typmod (4)
type Relation struct {
	ID        uint32
	Namespace string // "" is pg_catalog
	Name      string
	Identity  Identity
	Columns   []RelationColumn
}

// RelationColumn is one published column, in attribute order.
type RelationColumn struct {
	Key     bool // part of the replica identity; all are under IdentityFull
	Name    string
	TypeOID uint32
	TypeMod int32 // -1 = none
}

// Type names a type that is not built in.
//
//	'Y' oid (4) namespace (string) name (string)
type Type struct {
	OID       uint32
	Namespace string
	Name      string // of the base type when OID is a domain
}

// Insert is a new row.
//
//	'I' relation (4) 'N' tuple
type Insert struct {
	Relation uint32
	New      Tuple
}

// OldKind says what an old tuple holds.
type OldKind byte

// The three ways an old row comes.
const (
	OldNone OldKind = 0   // the key did not change and identity is not full
	OldKey  OldKind = 'K' // key columns; all others are null, which says nothing
	OldFull OldKind = 'O' // the whole old row
)

// Update is a changed row.
//
//	'U' relation (4) [ 'K' | 'O' tuple ] 'N' tuple
type Update struct {
	Relation uint32
	OldKind  OldKind
	Old      Tuple
	New      Tuple
}

// Delete is a removed row.
//
//	'D' relation (4) ( 'K' | 'O' ) tuple
type Delete struct {
	Relation uint32
	OldKind  OldKind
	Old      Tuple
}

// Truncate empties tables.
//
//	'T' count (4) options (1; 1 = cascade, 2 = restart identity) relation (4) …
type Truncate struct {
	Relations       []uint32
	Cascade         bool
	RestartIdentity bool
}

// Logical is what pg_logical_emit_message wrote.
//
//	'M' flags (1; 1 = transactional) LSN (8) prefix (string) length (4) content
type Logical struct {
	Transactional bool
	LSN           tarn.LSN
	Prefix        string
	Content       []byte
}

// ColumnKind says how a column's value comes.
type ColumnKind byte

// The kinds of a column value.
const (
	ColumnNull      ColumnKind = 'n'
	ColumnUnchanged ColumnKind = 'u' // TOASTed and not touched: the value is not in the message
	ColumnText      ColumnKind = 't'
	ColumnBinary    ColumnKind = 'b'
)

// Column is one value of a row. Value is nil for null and unchanged.
type Column struct {
	Kind  ColumnKind
	Value []byte
}

// Tuple is a row: one value per column of its relation.
//
//	count (2) each: kind (1) [ length (4) bytes ]
type Tuple []Column

// StreamStart opens a block of changes of one transaction that has not ended.
// Inside of a block each change is preceded by its own transaction's id, which
// Split takes out.
//
//	'S' xid (4) first (1)
type StreamStart struct {
	XID   uint32 // of the top-level transaction
	First bool   // of its blocks
}

// StreamStop closes the block.
//
//	'E'
type StreamStop struct{}

// StreamCommit ends a transaction that came in blocks.
//
//	'c' xid (4) flags (1, zero) commit LSN (8) end LSN (8) commit time (8)
type StreamCommit struct {
	XID        uint32
	CommitLSN  tarn.LSN
	EndLSN     tarn.LSN
	CommitTime time.Time
}

// StreamAbort takes back what a transaction, or one of its subtransactions, has
// sent. Of a subtransaction's own subtransactions each is named in turn.
//
//	'A' xid (4) xid of the subtransaction, or the same (4)
type StreamAbort struct {
	XID uint32
	Sub uint32
}

func (*StreamStart) message()  {}
func (*StreamStop) message()   {}
func (*StreamCommit) message() {}
func (*StreamAbort) message()  {}
func (*Begin) message()        {}
func (*Commit) message()       {}
func (*Origin) message()       {}
func (*Relation) message()     {}
func (*Type) message()         {}
func (*Insert) message()       {}
func (*Update) message()       {}
func (*Delete) message()       {}
func (*Truncate) message()     {}
func (*Logical) message()      {}
