package warehouse

import (
	"context"
	"strings"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/catalog"
	"github.com/tarndb/tarn/internal/warehouse/engine"
)

// command reads the beginning of a statement and does what it says.
type command struct {
	*scene
	cursor
	statement *Statement
	event     catalog.Event // of an audit; Action "" = only when it is refused
}

// cursor is a place in a statement.
type cursor struct {
	sql    string
	tokens []lexeme
	i      int // the next token
}

func (c *command) do(ctx context.Context) error {
	if strings.ContainsAny(c.statement.SQL, "\x00"+pastMark+catalogMark) {
		return tarn.Invalid("the statement holds a control character")
	}
	all, err := statements(c.statement.SQL)
	if err != nil {
		return err
	}
	if len(all) != 1 {
		return tarn.Invalid("[PARSE_SYNTAX_ERROR] want one statement, got %d", len(all)).WithHint("send them one by one, as tarn sql -f does")
	}
	c.sql = all[0]
	if c.tokens, err = lex(c.sql); err != nil {
		return err
	}
	kind := "OTHER"
	for !c.end() && c.next().sign("(") {
		c.i++
	}
	if !c.end() && c.next().kind == lexWord {
		kind = strings.ToUpper(c.next().text)
	}
	c.i = 0
	c.statement.setKind(kind)
	switch kind {
	case "SELECT", "WITH", "FROM", "VALUES", "SUMMARIZE", "PIVOT", "UNPIVOT", "TABLE":
		return c.read(ctx, c.sql, "")
	case "EXPLAIN":
		c.i++
		prefix := "EXPLAIN "
		if c.take("analyze") {
			prefix = "EXPLAIN ANALYZE "
		}
		return c.read(ctx, c.tail(), prefix)
	case "SHOW":
		return c.show(ctx)
	case "DESCRIBE", "DESC":
		return c.describe(ctx)
	case "CREATE":
		return c.create(ctx)
	case "INSERT":
		return c.insert(ctx)
	case "DELETE", "UPDATE", "MERGE":
		return (&editor{command: c}).do(ctx, kind)
	case "DROP":
		return c.drop(ctx)
	case "GRANT", "REVOKE":
		return c.grant(ctx)
	}
	return tarn.Invalid("[UNSUPPORTED_STATEMENT] %s is not known here%s", kind, where(c.sql, 0)).WithHint("docs/sql.md lists the statements that are")
}

// read runs a SELECT and keeps its rows.
func (c *command) read(ctx context.Context, sql, prefix string) error {
	return c.query(ctx, c.statement.ID, sql, prefix, c.statement.Params, func(rows *engine.Rows) error { return c.statement.keep(rows) })
}

func (c *cursor) end() bool { return c.i >= len(c.tokens) }

func (c *cursor) next() lexeme {
	if c.end() {
		return lexeme{kind: lexSign, from: len(c.sql), to: len(c.sql)}
	}
	return c.tokens[c.i]
}

// tail is the text from the next token on.
func (c *cursor) tail() string { return c.sql[c.next().from:] }

// take takes words when they come next.
func (c *cursor) take(words ...string) bool {
	for k, w := range words {
		if c.i+k >= len(c.tokens) || !c.tokens[c.i+k].is(w) {
			return false
		}
	}
	c.i += len(words)
	return true
}

// want refuses what comes next.
func (c *cursor) want(what string) error {
	got := "the statement ends"
	if !c.end() {
		got = c.next().text + " stands"
	}
	return badAt(c.sql, c.next().from, got+" where "+what+" is wanted")
}

// done refuses anything more.
func (c *cursor) done() error {
	if !c.end() {
		return c.want("the end of the statement")
	}
	return nil
}

// parts reads a dotted name.
func (c *cursor) parts() ([]string, error) {
	p, next := chain(c.tokens, c.i)
	if len(p) == 0 {
		return nil, c.want("a name")
	}
	c.i = next
	return p, nil
}

// table reads the name of a table.
func (c *command) table() (tarn.TableName, error) {
	p, err := c.parts()
	if err != nil {
		return tarn.TableName{}, err
	}
	return c.full(p)
}
