package feed

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/delta"
	"github.com/tarndb/tarn/internal/pgoutput"
	"github.com/tarndb/tarn/internal/pgvalue"
)

// Metadata of a Delta column that came from Postgres.
const (
	metaType = "tarn.pgType" // Postgres type, as format_type prints it
	metaName = "tarn.pgName" // Postgres name, when Delta's is another
)

// changeKind is the value of _pg_change_type.
type changeKind string

const (
	changeInsert     changeKind = "insert"
	changePreimage   changeKind = "update_preimage"
	changePostimage  changeKind = "update_postimage"
	changeDelete     changeKind = "delete"
	changeTruncate   changeKind = "truncate"
	changeTypeColumn            = "_pg_change_type"
	sortByColumn                = "_sort_by"
)

// systemColumn numbers the columns that every history table has after the
// source's.
type systemColumn int

const (
	notSystem systemColumn = iota
	systemChangeType
	systemLSN
	systemXID
	systemTimestamp
	systemSortBy
	systemCommitLSN
)

// systemFields are the Delta columns of the system columns 1, 2, ….
func systemFields() []delta.Field {
	return []delta.Field{
		{Name: changeTypeColumn, Type: "string", Nullable: true},
		{Name: "_pg_lsn", Type: "long", Nullable: true},
		{Name: "_pg_xid", Type: "long", Nullable: true},
		{Name: "_timestamp", Type: "timestamp", Nullable: true},
		{Name: sortByColumn, Type: "string", Nullable: true},
		{Name: "_pg_commit_lsn", Type: "long", Nullable: true},
	}
}

func systemOf(f delta.Field) systemColumn {
	if _, ours := f.Metadata[metaType]; ours {
		return notSystem
	}
	for i, s := range systemFields() {
		if s.Name == f.Name && s.Type == f.Type {
			return systemColumn(i + 1)
		}
	}
	return notSystem
}

// position places a row in the history.
//
//	_sort_by = epoch (8 hex digits) commit end LSN (16) ordinal (8)
//
// The epoch is the second in which the slot was made: a new slot sorts after
// every older one. The ordinal counts the rows of one transaction.
type position struct {
	epoch     uint32
	lsn       tarn.LSN // of the change
	xid       uint64   // 0 = unknown
	time      time.Time
	commitEnd tarn.LSN
	ordinal   uint32
}

func (p position) sortBy() string {
	return fmt.Sprintf("%08x%016x%08x", p.epoch, uint64(p.commitEnd), p.ordinal)
}

// fieldFor finds the newest Delta column of a Postgres column that holds its
// type; -1 = none.
func fieldFor(s delta.Schema, pgName string, p pgvalue.Type) int {
	for i, f := range slices.Backward(s.Fields) {
		if _, ours := f.Metadata[metaType]; !ours {
			continue
		}
		name := f.Name
		if n, ok := f.Metadata[metaName].(string); ok {
			name = n
		}
		if name == pgName && pgvalue.Holds(f.Type, p) {
			return i
		}
	}
	return -1
}

// fieldsOf gives the Delta columns of a Postgres column, the newest first: it
// has several when its type has changed.
func fieldsOf(s delta.Schema, pgName string) []string {
	var names []string
	for _, f := range slices.Backward(s.Fields) {
		if _, ours := f.Metadata[metaType]; !ours {
			continue
		}
		name, renamed := f.Metadata[metaName].(string)
		if name == pgName || !renamed && f.Name == pgName {
			names = append(names, f.Name)
		}
	}
	return names
}

// newField makes a Delta column for a Postgres column. Delta compares names
// without case and forbids some characters in them.
func newField(s delta.Schema, pgName string, p pgvalue.Type) delta.Field {
	name := strings.Map(func(r rune) rune {
		if strings.ContainsRune(" ,;{}()\n\t=", r) {
			return '_'
		}
		return r
	}, pgName)
	taken := func(n string) bool {
		for _, f := range s.Fields {
			if strings.EqualFold(f.Name, n) {
				return true
			}
		}
		for _, f := range systemFields() {
			if strings.EqualFold(f.Name, n) {
				return true
			}
		}
		return false
	}
	unique := name
	for i := 2; taken(unique); i++ {
		unique = fmt.Sprintf("%s_%d", name, i)
	}
	f := delta.Field{Name: unique, Type: p.Delta, Nullable: true, Metadata: map[string]any{metaType: p.Name}}
	if unique != pgName {
		f.Metadata[metaName] = pgName
	}
	return f
}

// historySchema is the schema of a new history table.
func historySchema(ctx context.Context, ty *pgvalue.Types, rel *pgoutput.Relation) (delta.Schema, error) {
	var s delta.Schema
	for _, c := range rel.Columns {
		p, err := ty.Resolve(ctx, c.TypeOID, c.TypeMod)
		if err != nil {
			return delta.Schema{}, err
		}
		s.Fields = append(s.Fields, newField(s, c.Name, p))
	}
	s.Fields = append(s.Fields, systemFields()...)
	return s, nil
}
