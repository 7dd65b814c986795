package warehouse

import (
	"strings"

	"github.com/tarndb/tarn"
)

// lexeme is one token of SQL and where it stands. Space and comments are not
// tokens.
type lexeme struct {
	kind     lexKind
	text     string // as written
	from, to int    // bytes
}

type lexKind uint8

const (
	lexWord   lexKind = iota // a name or a keyword
	lexQuoted                // a name in double quotes or backticks
	lexString                // a text in single quotes or between dollars
	lexNumber
	lexSign // anything else, one sign a token
)

// is compares a keyword.
func (l lexeme) is(word string) bool { return l.kind == lexWord && strings.EqualFold(l.text, word) }

func (l lexeme) sign(s string) bool { return l.kind == lexSign && l.text == s }

func (l lexeme) name() bool { return l.kind == lexWord || l.kind == lexQuoted }

// value is a name without its quotes, or what a text says.
func (l lexeme) value() string {
	switch l.kind {
	case lexQuoted, lexString:
		if l.text[0] == '$' {
			tag := l.text[:strings.Index(l.text[1:], "$")+2]
			return strings.TrimSuffix(strings.TrimPrefix(l.text, tag), tag)
		}
		q := l.text[:1]
		return strings.ReplaceAll(l.text[1:len(l.text)-1], q+q, q)
	}
	return l.text
}

func wordByte(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c >= 0x80
}

// lex cuts SQL into tokens. What follows DuckDB's rules, but for backticks, which
// quote names as Spark's do.
func lex(sql string) ([]lexeme, error) {
	var out []lexeme
	for i := 0; i < len(sql); {
		from, c := i, sql[i]
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f':
			i++
			continue
		case strings.HasPrefix(sql[i:], "--"):
			if n := strings.IndexByte(sql[i:], '\n'); n >= 0 {
				i += n + 1
			} else {
				i = len(sql)
			}
			continue
		case strings.HasPrefix(sql[i:], "/*"):
			end := commentEnd(sql, i)
			if end < 0 {
				return nil, badAt(sql, from, "a comment that begins here does not end")
			}
			i = end
			continue
		case c == '\'' || c == '"' || c == '`':
			end := quoteEnd(sql, i, (c == '\'') && escapes(out, sql, i))
			if end < 0 {
				return nil, badAt(sql, from, "a quote that opens here is not closed")
			}
			i = end
			kind := lexQuoted
			if c == '\'' {
				kind = lexString
			}
			out = append(out, lexeme{kind, sql[from:i], from, i})
		case c == '$' && dollarTag(sql[i:]) != "":
			tag := dollarTag(sql[i:])
			n := strings.Index(sql[i+len(tag):], tag)
			if n < 0 {
				return nil, badAt(sql, from, "a text that begins with "+tag+" here does not end")
			}
			i += 2*len(tag) + n
			out = append(out, lexeme{lexString, sql[from:i], from, i})
		case c >= '0' && c <= '9':
			for i < len(sql) && (wordByte(sql[i]) || sql[i] == '.') {
				i++
			}
			out = append(out, lexeme{lexNumber, sql[from:i], from, i})
		case wordByte(c):
			for i < len(sql) && wordByte(sql[i]) {
				i++
			}
			out = append(out, lexeme{lexWord, sql[from:i], from, i})
		default:
			i++
			out = append(out, lexeme{lexSign, sql[from:i], from, i})
		}
	}
	return out, nil
}

// escapes tells whether a text is one in which backslashes mean something: e'…'.
func escapes(out []lexeme, sql string, at int) bool {
	return len(out) > 0 && out[len(out)-1].to == at && out[len(out)-1].is("e") && at > 0
}

func quoteEnd(sql string, from int, backslashes bool) int {
	q := sql[from]
	for i := from + 1; i < len(sql); i++ {
		switch {
		case backslashes && sql[i] == '\\':
			i++
		case sql[i] == q && i+1 < len(sql) && sql[i+1] == q:
			i++
		case sql[i] == q:
			return i + 1
		}
	}
	return -1
}

// commentEnd finds the end of a comment, in which others may be.
func commentEnd(sql string, from int) int {
	depth := 0
	for i := from; i+1 < len(sql); i++ {
		switch sql[i : i+2] {
		case "/*":
			depth++
			i++
		case "*/":
			depth--
			i++
			if depth == 0 {
				return i + 1
			}
		}
	}
	return -1
}

// dollarTag is $tag$ at the beginning of s; "" when there is none.
func dollarTag(s string) string {
	for i := 1; i < len(s); i++ {
		if s[i] == '$' {
			return s[:i+1]
		}
		if !wordByte(s[i]) || i == 1 && s[i] >= '0' && s[i] <= '9' {
			break
		}
	}
	return ""
}

// statements cuts a script at its semicolons; empty statements are left out.
func statements(sql string) ([]string, error) {
	tokens, err := lex(sql)
	if err != nil {
		return nil, err
	}
	var out []string
	from := -1
	for _, t := range tokens {
		switch {
		case t.sign(";") && from >= 0:
			out = append(out, strings.TrimSpace(sql[from:t.from]))
			from = -1
		case !t.sign(";") && from < 0:
			from = t.from
		}
	}
	if from >= 0 {
		out = append(out, strings.TrimSpace(sql[from:]))
	}
	return out, nil
}

// Statements cuts a script at its semicolons.
func Statements(sql string) ([]string, error) { return statements(sql) }

// badAt refuses SQL and shows where.
func badAt(sql string, at int, format string) error {
	return tarn.Invalid("[PARSE_SYNTAX_ERROR] %s%s", format, where(sql, at))
}

// where shows a place in SQL: its line, with a mark below.
func where(sql string, at int) string {
	if at < 0 || at > len(sql) {
		return ""
	}
	begin := strings.LastIndexByte(sql[:at], '\n') + 1
	end := len(sql)
	if n := strings.IndexByte(sql[at:], '\n'); n >= 0 {
		end = at + n
	}
	line := strings.Count(sql[:begin], "\n") + 1
	text, mark := sql[begin:end], at-begin
	if mark > 60 {
		text, mark = "..."+text[mark-40:], 43
	}
	if len(text) > 120 {
		text = text[:117] + "..."
	}
	text = strings.NewReplacer(pastMark, "@", catalogMark, "@").Replace(text)
	return "\n\nLINE " + itoa(line) + ": " + text + "\n" + strings.Repeat(" ", len("LINE : ")+len(itoa(line))+len([]rune(text[:min(mark, len(text))]))) + "^"
}
