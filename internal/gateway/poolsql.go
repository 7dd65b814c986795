package gateway

import (
	"bytes"
	"strings"
)

// sight is what the text of statements says about the session they leave
// behind. It may suspect too much, which costs one question to Postgres; what
// state there really is, Postgres says (see sqlState).
type sight struct {
	listen  bool     // LISTEN: refused
	suspect bool     // may leave settings or objects of the session behind
	pin     bool     // leaves what nobody can list afterwards
	drops   bool     // may take away why a session is pinned
	forgets bool     // DEALLOCATE ALL, DISCARD ALL
	drop    string   // the one statement is DEALLOCATE of this name
	custom  []string // settings with a dot in their name that are set here
}

// look reads SQL text word by word. Strings, comments, quoted names and dollar
// quotes are passed over, so that nothing in them counts.
func look(text []byte) sight {
	var v sight
	l := lexer{b: text}
	for alone := true; ; alone = false {
		t := l.next()
		for t.kind == ';' {
			t = l.next()
		}
		if t.kind == 0 {
			return v
		}
		v.drop = ""
		end := v.statement(&l, t)
		if !alone {
			v.drop = ""
		}
		if end == 0 {
			return v
		}
	}
}

// statement looks at one statement of which the first token was read, and
// returns the token that ended it: ';' or 0.
func (v *sight) statement(l *lexer, t lexeme) byte {
	first := t.text
	if t.kind != 'w' {
		first = ""
	}
	switch first {
	case "set":
		return v.set(l)
	case "listen":
		v.listen = true
	case "load":
		v.pin = true
	case "reset", "do", "call":
		v.suspect = true
	case "discard":
		v.suspect = true
		if t = l.next(); t.text == "all" {
			v.forgets = true
		}
	case "prepare":
		if t = l.next(); t.text != "transaction" {
			v.suspect = true
		}
	case "deallocate":
		if t = l.next(); t.text == "prepare" {
			t = l.next()
		}
		switch {
		case t.kind == 'w' && t.text == "all":
			v.forgets = true
		case t.kind == 'w' || t.kind == 'q':
			v.drop = t.text
		}
		v.drops = true
	case "unlisten", "close", "drop":
		v.drops = true
	}
	for n := 1; t.kind != 0 && t.kind != ';'; n++ {
		if t.kind == 'w' {
			switch {
			case t.text == "hold" && first == "declare":
				v.suspect = true
			case (t.text == "temp" || t.text == "temporary") && (first == "create" && n <= 5 || l.before == "into"):
				v.suspect = true
			case strings.HasPrefix(t.text, "pg_advisory_lock") || strings.HasPrefix(t.text, "pg_try_advisory_lock"):
				v.suspect = true
			case strings.HasPrefix(t.text, "pg_advisory_unlock"):
				v.drops = true
			case t.text == "set_config":
				v.setConfig(l)
			}
		}
		if t.kind != 'w' && t.kind != 'q' || t.text != "into" {
			l.before = t.text
		} else {
			l.before = "into"
		}
		t = l.next()
	}
	return t.kind
}

// set looks at what follows SET.
func (v *sight) set(l *lexer) byte {
	t := l.next()
	if t.kind == 'w' && t.text == "session" {
		t = l.next()
	}
	switch {
	case t.kind == 'w' && (t.text == "local" || t.text == "transaction" || t.text == "constraints"):
	case t.kind == 0 || t.kind == ';':
		return t.kind
	default:
		v.suspect = true
		name := t.text
		for t = l.next(); t.kind == '.'; t = l.next() {
			t = l.next()
			name += "." + t.text
		}
		if strings.Contains(name, ".") {
			v.custom = append(v.custom, name)
		}
	}
	for t.kind != 0 && t.kind != ';' {
		t = l.next()
	}
	return t.kind
}

// setConfig looks at the arguments of set_config. With true as the third the
// setting ends with the transaction; with a first that is no literal nobody
// knows what was set.
func (v *sight) setConfig(l *lexer) {
	at := *l
	defer func() { *l = at }() // the arguments are looked at again, as tokens
	if l.next().kind != '(' {
		return
	}
	name := l.next()
	comma := l.next()
	const most = 256 // tokens looked at: calls within calls would be read again and again
	for n, depth, last := 0, 0, (lexeme{}); ; n++ {
		t := l.next()
		switch {
		case t.kind == 0 || n == most || t.kind == ';', t.kind == ')' && depth == 0:
			if t.kind == ')' && last.kind == 'w' && last.text == "true" {
				return
			}
			v.suspect = true
			switch {
			case name.kind != 's' || comma.kind != ',':
				v.pin = true
			case strings.Contains(name.text, "."):
				v.custom = append(v.custom, name.text)
			}
			return
		case t.kind == '(':
			depth++
		case t.kind == ')':
			depth--
		}
		last = t
	}
}

// lexeme is one piece of SQL: 'w' a bare word in lower case, 'q' a quoted name,
// 's' a string, 'n' anything else of a word's shape; or the character itself.
// The zero kind is the end.
type lexeme struct {
	kind byte
	text string
}

type lexer struct {
	b      []byte
	at     int
	before string // word before the current one; kept by statement
}

func (l *lexer) next() lexeme {
	for l.at < len(l.b) {
		c := l.b[l.at]
		rest := l.b[l.at:]
		switch {
		case c == ' ' || c >= '\t' && c <= '\r' || c == 0:
			l.at++
		case bytes.HasPrefix(rest, []byte("--")):
			n := bytes.IndexByte(rest, '\n')
			if n < 0 {
				n = len(rest) - 1
			}
			l.at += n + 1
		case bytes.HasPrefix(rest, []byte("/*")):
			l.comment()
		case c == '\'':
			return lexeme{'s', l.quoted('\'', false)}
		case c == '"':
			return lexeme{'q', l.quoted('"', false)}
		case c == '$':
			return l.dollar()
		case wordStart(c):
			return l.word()
		case c >= '0' && c <= '9':
			from := l.at
			for l.at < len(l.b) && (wordPart(l.b[l.at]) || l.b[l.at] == '.') {
				l.at++
			}
			return lexeme{'n', string(l.b[from:l.at])}
		default:
			l.at++
			return lexeme{c, ""}
		}
	}
	return lexeme{}
}

func wordStart(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= 0x80
}

func wordPart(c byte) bool { return wordStart(c) || c >= '0' && c <= '9' || c == '$' }

func (l *lexer) word() lexeme {
	from := l.at
	for l.at < len(l.b) && wordPart(l.b[l.at]) {
		l.at++
	}
	w := l.b[from:l.at]
	if l.at < len(l.b) && l.b[l.at] == '\'' && len(w) == 1 && strings.IndexByte("eEbBxXnN", w[0]) >= 0 {
		return lexeme{'s', l.quoted('\'', w[0] == 'e' || w[0] == 'E')}
	}
	if len(w) > 64 { // longer than any word we know
		return lexeme{'w', ""}
	}
	return lexeme{'w', lower(w)}
}

// lower makes ASCII letters small; words that occur all the time cost no
// memory.
func lower(w []byte) string {
	var b [64]byte
	n := copy(b[:], w)
	for i := range n {
		if b[i] >= 'A' && b[i] <= 'Z' {
			b[i] += 'a' - 'A'
		}
	}
	switch string(b[:n]) {
	case "select":
		return "select"
	case "from":
		return "from"
	case "where":
		return "where"
	case "and":
		return "and"
	case "insert":
		return "insert"
	case "update":
		return "update"
	case "begin":
		return "begin"
	case "commit":
		return "commit"
	}
	return string(b[:n])
}

// quoted passes over a string or a quoted name and returns what it means; an
// unfinished one reaches to the end.
func (l *lexer) quoted(q byte, backslashes bool) string {
	l.at++
	var out []byte
	for l.at < len(l.b) {
		c := l.b[l.at]
		l.at++
		switch {
		case c == q && l.at < len(l.b) && l.b[l.at] == q:
			l.at++
		case c == q:
			return string(out)
		case c == '\\' && backslashes && l.at < len(l.b):
			c = l.b[l.at]
			l.at++
		}
		if len(out) < 256 { // names are all that matters
			out = append(out, c)
		}
	}
	return string(out)
}

// comment passes over a comment, which may hold others.
func (l *lexer) comment() {
	depth := 0
	for l.at < len(l.b) {
		rest := l.b[l.at:]
		switch {
		case bytes.HasPrefix(rest, []byte("/*")):
			depth++
			l.at += 2
		case bytes.HasPrefix(rest, []byte("*/")):
			l.at += 2
			if depth--; depth == 0 {
				return
			}
		default:
			l.at++
		}
	}
}

// dollar passes over $1 or a dollar-quoted string.
func (l *lexer) dollar() lexeme {
	end := l.at + 1
	for end < len(l.b) && l.b[end] != '$' && wordPart(l.b[end]) {
		end++
	}
	if end >= len(l.b) || l.b[end] != '$' || end > l.at+1 && l.b[l.at+1] >= '0' && l.b[l.at+1] <= '9' {
		l.at = end
		return lexeme{'n', ""}
	}
	mark := l.b[l.at : end+1]
	body := l.b[end+1:]
	n := bytes.Index(body, mark)
	if n < 0 {
		l.at = len(l.b)
		return lexeme{'s', ""}
	}
	l.at = end + 1 + n + len(mark)
	return lexeme{'s', string(body[:min(n, 256)])}
}
