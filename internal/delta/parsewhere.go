package delta

import (
	"strconv"
	"strings"

	"github.com/tarndb/tarn"
)

// ParsePredicate reads a condition as SQL writes it: comparisons of a column with
// a literal by = <> != < <= > >=, IN (…), IS [NOT] NULL, joined by AND, OR, NOT
// and parentheses. Literals are numbers, 'text' (also for dates and times), true
// and false. Columns with other signs than letters, digits, _ and . stand in
// backticks.
func ParsePredicate(text string) (Predicate, error) {
	p := &whereParser{text: text}
	if err := p.lex(); err != nil {
		return Predicate{}, err
	}
	out, err := p.or(0)
	if err == nil && p.at < len(p.tokens) {
		err = p.bad("the end or AND, OR")
	}
	if err != nil {
		return Predicate{}, err
	}
	return out, nil
}

type whereToken struct {
	kind byte // w: word, s: string, n: number, o: sign
	text string
	from int
}

type whereParser struct {
	text   string
	tokens []whereToken
	at     int
}

func (p *whereParser) lex() error {
	isWord := func(c byte) bool {
		return c == '_' || c == '.' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
	}
	for i := 0; i < len(p.text); {
		c, from := p.text[i], i
		switch {
		case c == ' ' || c == '\t' || c == '\n':
			i++
			continue
		case c == '\'':
			var b strings.Builder
			for i++; ; i++ {
				if i >= len(p.text) {
					return tarn.Invalid("condition %q: the text from character %d on does not end", p.text, from+1)
				}
				if p.text[i] == '\'' {
					if i+1 >= len(p.text) || p.text[i+1] != '\'' {
						break
					}
					i++
				}
				b.WriteByte(p.text[i])
			}
			i++
			p.tokens = append(p.tokens, whereToken{'s', b.String(), from})
			continue
		case c >= '0' && c <= '9' || c == '-' || c == '+':
			for i++; i < len(p.text) && (isWord(p.text[i]) || (p.text[i] == '-' || p.text[i] == '+') && strings.IndexByte("eE", p.text[i-1]) >= 0); i++ {
			}
			p.tokens = append(p.tokens, whereToken{'n', p.text[from:i], from})
			continue
		case isWord(c) || c == '`':
			for i < len(p.text) && (isWord(p.text[i]) || p.text[i] == '`') {
				if p.text[i] == '`' {
					end := strings.IndexByte(p.text[i+1:], '`')
					if end < 0 {
						return tarn.Invalid("condition %q: the backtick at character %d does not close", p.text, i+1)
					}
					i += end + 1
				}
				i++
			}
			p.tokens = append(p.tokens, whereToken{'w', p.text[from:i], from})
			continue
		}
		i++
		if i < len(p.text) && strings.Contains("<= >= <> !=", p.text[from:i+1]) && p.text[i] != ' ' {
			i++
		}
		sign := p.text[from:i]
		if !strings.Contains(" = < > <= >= <> != ( ) , ", " "+sign+" ") {
			return tarn.Invalid("condition %q: %q at character %d is not understood", p.text, sign, from+1)
		}
		p.tokens = append(p.tokens, whereToken{'o', sign, from})
	}
	return nil
}

func (p *whereParser) bad(want string) error {
	if p.at >= len(p.tokens) {
		return tarn.Invalid("condition %q: want %s at its end", p.text, want)
	}
	t := p.tokens[p.at]
	return tarn.Invalid("condition %q: want %s instead of %q at character %d", p.text, want, t.text, t.from+1)
}

// word takes the next token when it is this keyword or sign.
func (p *whereParser) word(w string) bool {
	if p.at < len(p.tokens) && (p.tokens[p.at].kind == 'w' || p.tokens[p.at].kind == 'o') && strings.EqualFold(p.tokens[p.at].text, w) {
		p.at++
		return true
	}
	return false
}

func (p *whereParser) or(depth int) (Predicate, error) {
	a, err := p.and(depth)
	for err == nil && p.word("or") {
		var b Predicate
		b, err = p.and(depth)
		a = Or(a, b)
	}
	return a, err
}

func (p *whereParser) and(depth int) (Predicate, error) {
	a, err := p.not(depth)
	for err == nil && p.word("and") {
		var b Predicate
		b, err = p.not(depth)
		a = And(a, b)
	}
	return a, err
}

func (p *whereParser) not(depth int) (Predicate, error) {
	switch {
	case depth > maxNesting:
		return Predicate{}, tarn.Invalid("condition is nested deeper than %d", maxNesting)
	case p.word("not"):
		q, err := p.not(depth + 1)
		return Not(q), err
	case p.word("("):
		q, err := p.or(depth + 1)
		if err == nil && !p.word(")") {
			err = p.bad("a closing parenthesis")
		}
		return q, err
	}
	if p.at >= len(p.tokens) || p.tokens[p.at].kind != 'w' {
		return Predicate{}, p.bad("a column")
	}
	column := p.tokens[p.at].text
	p.at++
	switch {
	case p.word("is"):
		negative := p.word("not")
		if !p.word("null") {
			return Predicate{}, p.bad("NULL")
		}
		if negative {
			return NotNull(column), nil
		}
		return IsNull(column), nil
	case p.word("not"):
		if !p.word("in") {
			return Predicate{}, p.bad("IN")
		}
		q, err := p.in(column)
		return Not(q), err
	case p.word("in"):
		return p.in(column)
	}
	for _, c := range []struct {
		sign string
		make func(string, any) Predicate
	}{{"=", Eq}, {"<>", Ne}, {"!=", Ne}, {"<=", Le}, {">=", Ge}, {"<", Lt}, {">", Gt}} {
		if p.word(c.sign) {
			v, err := p.literal()
			return c.make(column, v), err
		}
	}
	return Predicate{}, p.bad("a comparison")
}

func (p *whereParser) in(column string) (Predicate, error) {
	if !p.word("(") {
		return Predicate{}, p.bad("an opening parenthesis")
	}
	var values []any
	for {
		v, err := p.literal()
		if err != nil {
			return Predicate{}, err
		}
		values = append(values, v)
		if p.word(")") {
			return In(column, values...), nil
		}
		if !p.word(",") {
			return Predicate{}, p.bad("a comma or closing parenthesis")
		}
	}
}

func (p *whereParser) literal() (any, error) {
	switch {
	case p.word("true"):
		return true, nil
	case p.word("false"):
		return false, nil
	case p.at >= len(p.tokens):
		return nil, p.bad("a value")
	}
	t := p.tokens[p.at]
	p.at++
	switch t.kind {
	case 's':
		return t.text, nil
	case 'n':
		if n, err := strconv.ParseInt(t.text, 10, 64); err == nil {
			return n, nil
		}
		if _, err := strconv.ParseFloat(t.text, 64); err == nil {
			return t.text, nil // a decimal keeps its digits
		}
	}
	p.at--
	return nil, p.bad("a number, 'text', true or false")
}
