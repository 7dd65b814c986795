package ingest

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// query collects the arguments of a statement. Every value is one; what is not
// is a quoted identifier or a type that Postgres itself named.
type query struct {
	source *source
	args   [][]byte
}

// arg gives the placeholder of a value, as text of the given type.
func (q *query) arg(value, typ string) string {
	q.args = append(q.args, []byte(value))
	return "$" + strconv.Itoa(len(q.args)) + "::text::" + typ
}

func (q *query) xid(x XID) string { return q.arg(strconv.FormatUint(uint64(x), 10), "bigint") }

func (q *query) xids(xs []XID) string { return q.arg("{"+strings.Join(texts(xs), ",")+"}", "bigint[]") }

func ident(c column) string { return "t." + pgx.Identifier{c.name}.Sanitize() }

func idents(cs []column) string {
	out := make([]string, len(cs))
	for i, c := range cs {
		out[i] = ident(c)
	}
	return strings.Join(out, ", ")
}

// row is "(a, b)" of columns, at the same of a position.
func row(cs []column) string { return "(" + idents(cs) + ")" }

func (q *query) at(values []string, cs []column) string {
	out := make([]string, len(cs))
	for i, c := range cs {
		out[i] = q.arg(values[i], c.sql)
	}
	return "(" + strings.Join(out, ", ") + ")"
}

// writer is who wrote a row version, in 64 bits. xmin has the lower 32; the upper
// ones are those of the snapshot's end, or one less. Numbers below 3 mark rows
// older than every transaction.
func (q *query) writer(now snapshot) string {
	if q.source.tracked {
		return "t." + pgx.Identifier{xidColumn}.Sanitize() + "::text::bigint"
	}
	low, high := q.xid(now.xmax&0xffffffff), q.xid(now.xmax&^0xffffffff)
	return fmt.Sprintf(`CASE WHEN t.xmin::text::bigint < 3 THEN 0 WHEN t.xmin::text::bigint < %s THEN %s + t.xmin::text::bigint
ELSE greatest(%s - 4294967296 + t.xmin::text::bigint, 0) END`, low, high, high)
}

// begin is who wrote the row, its position, its columns.
func (q *query) begin(now snapshot) string {
	return fmt.Sprintf("SELECT w.x, %s, %s FROM %s AS t, LATERAL (SELECT %s AS x) AS w", idents(q.source.order()), idents(q.source.columns), q.source.table, q.writer(now))
}

// forward reads the rows behind the cursor, in order.
func (q *query) forward(c Cursor, now snapshot, limit int) string {
	order := q.source.order()
	text := q.begin(now) + " WHERE "
	if p := c.Position(); p != nil {
		text += row(order) + " > " + q.at(p, order)
	} else {
		text += ident(q.source.checkpoint) + " IS NOT NULL"
	}
	return text + " ORDER BY " + idents(order) + " LIMIT " + q.arg(strconv.Itoa(limit), "bigint")
}

// late reads the rows before the cursor that were not read, one transaction after
// the other.
func (q *query) late(c Cursor, now snapshot, limit int) string {
	order, null := q.source.order(), ident(q.source.checkpoint)+" IS NULL"
	text := q.begin(now)
	from := c.Segments[0].Xmin
	for _, s := range c.Segments {
		from = min(from, s.Xmin)
	}
	var where []string
	if q.source.tracked { // in a form that an index serves
		where = append(where, "t."+pgx.Identifier{xidColumn}.Sanitize()+" >= "+q.arg(strconv.FormatUint(uint64(from), 10), "xid8"))
	} else {
		where = append(where, "w.x >= "+q.xid(from))
	}
	if p := c.Position(); p != nil {
		where = append(where, fmt.Sprintf("(%s OR %s <= %s)", null, row(order), q.at(p, order)))
	} else {
		where = append(where, null)
	}
	where = append(where, "NOT "+q.read(c, null))
	if len(c.Done) > 0 {
		where = append(where, "w.x <> ALL ("+q.xids(c.Done)+")")
	}
	first := "w.x"
	if c.Open != 0 {
		mine := "w.x = " + q.xid(c.Open)
		where = append(where, fmt.Sprintf("NOT (%s AND %s <= %s)", mine, row(q.source.key), q.at(c.OpenKey, q.source.key)))
		first = mine + " DESC, w.x"
	}
	return text + " WHERE " + strings.Join(where, " AND ") + " ORDER BY " + first + ", " + idents(q.source.key) + " LIMIT " + q.arg(strconv.Itoa(limit), "bigint")
}

// read is the rule of Segment for a row that lies before the cursor.
func (q *query) read(c Cursor, null string) string {
	order := q.source.order()
	var b strings.Builder
	b.WriteString("CASE")
	for i, s := range c.Segments {
		within := null
		if s.To != nil {
			within = row(order) + " <= " + q.at(s.To, order)
			if i == 0 {
				within = null + " OR " + within
			}
		}
		fmt.Fprintf(&b, " WHEN %s THEN w.x < %s", within, q.xid(s.Xmin))
		if len(s.Seen) > 0 {
			b.WriteString(" OR w.x = ANY (" + q.xids(s.Seen) + ")")
		}
	}
	b.WriteString(" ELSE true END")
	return b.String()
}
