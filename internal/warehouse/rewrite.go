package warehouse

import (
	"strconv"
	"strings"
	"time"

	"github.com/tarndb/tarn"
)

// rewritten is a statement in DuckDB's words. These are written otherwise:
//
//	`name`                                   → "name"
//	t VERSION AS OF 3, t@v3, t TIMESTAMP AS OF '…' → "t@…" AS t
//	table_changes('c.s.t', 2, 5)             → "c"."s"."t@changes…"
//	:name                                    → CAST($name AS its type)
//	system.access.audit                      → "system…".access.audit
type rewritten struct {
	sql   string
	edits []edit
}

// edit is a stretch of the text that was replaced.
type edit struct{ from, to, by int } // bytes of the original, and how many took their place

// origin finds where a place of the new text was.
func (r *rewritten) origin(at int) int {
	shift := 0
	for _, e := range r.edits {
		begin := e.from + shift
		if at < begin {
			break
		}
		if at < begin+e.by {
			return e.from
		}
		shift += e.by - (e.to - e.from)
	}
	return at - shift
}

// replacement is one edit and its text.
type replacement struct {
	from, to int
	text     string
}

func apply(sql string, all []replacement) *rewritten {
	var b strings.Builder
	out := &rewritten{}
	at := 0
	for _, r := range all {
		b.WriteString(sql[at:r.from])
		b.WriteString(r.text)
		out.edits = append(out.edits, edit{r.from, r.to, len(r.text)})
		at = r.to
	}
	b.WriteString(sql[at:])
	out.sql = b.String()
	return out
}

func itoa(n int) string { return strconv.Itoa(n) }

// quote writes a name as SQL does.
func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

func quoteAll(parts ...string) string {
	out := make([]string, len(parts))
	for i, p := range parts {
		out[i] = quote(p)
	}
	return strings.Join(out, ".")
}

// pastMark is between a table's name and what is asked of its past, in names
// that rewrite makes: no table can have it in its name.
const pastMark = "\x01"

// catalogMark ends the names of catalogs that DuckDB has databases of its own
// under: a statement means ours, and never gets at theirs.
const catalogMark = "\x02"

// duckCatalog is the database in which DuckDB sees a catalog.
func duckCatalog(name string) string {
	if strings.EqualFold(name, "system") || strings.EqualFold(name, "temp") {
		return strings.ToLower(name) + catalogMark
	}
	return name
}

// duckTable writes a table's name as DuckDB finds it; mark goes behind it.
func duckTable(parts []string, mark string) string {
	all := append([]string{}, parts...)
	if len(all) > 2 {
		all[0] = duckCatalog(all[0])
	}
	all[len(all)-1] += mark
	return quoteAll(all...)
}

// rewrite turns a statement into DuckDB's words; types are those of its
// parameters, by name.
func rewrite(sql string, types map[string]string) (*rewritten, error) {
	tokens, err := lex(sql)
	if err != nil {
		return nil, err
	}
	var all []replacement
	at := func(i int) lexeme {
		if i < 0 || i >= len(tokens) {
			return lexeme{kind: lexSign}
		}
		return tokens[i]
	}
	for i := 0; i < len(tokens); i++ {
		t := tokens[i]
		if t.sign(":") && at(i+1).kind == lexWord && at(i+1).from == t.to && !at(i-1).sign(":") && !at(i+2).sign(":") {
			if typ, ok := types[at(i+1).text]; ok {
				all = append(all, replacement{t.from, at(i + 1).to, "CAST($" + at(i+1).text + " AS " + typ + ")"})
				i++
				continue
			}
		}
		if t.is("table_changes") && at(i+1).sign("(") {
			r, next, err := tableChanges(sql, tokens, i)
			if err != nil {
				return nil, err
			}
			all = append(all, r)
			i = next - 1
			continue
		}
		if t.name() && !at(i-1).sign(".") {
			if r, next, err := past(sql, tokens, i); err != nil {
				return nil, err
			} else if next > i {
				all = append(all, r)
				i = next - 1
				continue
			}
			if parts, _ := chain(tokens, i); len(parts) > 2 && duckCatalog(parts[0]) != parts[0] {
				all = append(all, replacement{t.from, t.to, quote(duckCatalog(parts[0]))})
				continue
			}
		}
		if t.kind == lexQuoted && t.text[0] == '`' {
			all = append(all, replacement{t.from, t.to, quote(t.value())})
		}
	}
	return apply(sql, all), nil
}

// chain reads a.b.c from token i; next is behind it.
func chain(tokens []lexeme, i int) (parts []string, next int) {
	for i < len(tokens) && tokens[i].name() {
		parts = append(parts, tokens[i].value())
		if i+2 >= len(tokens) || !tokens[i+1].sign(".") || !tokens[i+2].name() {
			return parts, i + 1
		}
		i += 2
	}
	return parts, i
}

// past reads a table's name with a point in its past behind it; next = i when
// there is none.
func past(sql string, tokens []lexeme, i int) (r replacement, next int, err error) {
	parts, j := chain(tokens, i)
	at := func(k int) lexeme {
		if k >= len(tokens) {
			return lexeme{kind: lexSign}
		}
		return tokens[k]
	}
	var asked string
	switch {
	case at(j).sign("@") && at(j+1).kind == lexWord && at(j).from == tokens[j-1].to:
		word := at(j + 1).text
		if _, err := strconv.ParseUint(word[1:], 10, 63); err != nil || word[0] != 'v' {
			return r, 0, badAt(sql, at(j).from, "behind @ stands a version, as in t@v3")
		}
		asked, j = "v"+word[1:], j+2
	case len(parts) == 0:
		return r, i, nil
	default:
		k := j
		if at(k).is("for") {
			k++
		}
		version := at(k).is("version") || at(k).is("system_version")
		if !version && !at(k).is("timestamp") && !at(k).is("system_time") || !at(k+1).is("as") || !at(k+2).is("of") {
			return r, i, nil
		}
		if k += 3; at(k).is("timestamp") || at(k).is("date") {
			k++ // TIMESTAMP AS OF TIMESTAMP '…'
		}
		if version {
			if _, err := strconv.ParseUint(at(k).value(), 10, 63); err != nil {
				return r, 0, badAt(sql, at(k-1).from, "VERSION AS OF wants a number")
			}
			asked = "v" + at(k).value()
		} else {
			if at(k).kind != lexString {
				return r, 0, badAt(sql, at(k-1).from, "TIMESTAMP AS OF wants a text like '2026-01-31 12:00:00'")
			}
			when, err := parseInstant(at(k).value())
			if err != nil {
				return r, 0, badAt(sql, at(k).from, err.Error())
			}
			asked = "t" + strconv.FormatInt(when.UnixMicro(), 10)
		}
		j = k + 1
	}
	text := duckTable(parts, pastMark+asked)
	if !aliased(at(j)) {
		text += " AS " + quote(parts[len(parts)-1])
	}
	return replacement{tokens[i].from, tokens[j-1].to, text}, j, nil
}

// aliased tells whether a table's alias begins here.
func aliased(t lexeme) bool {
	if t.is("as") || t.kind == lexQuoted {
		return true
	}
	if t.kind != lexWord {
		return false
	}
	switch strings.ToLower(t.text) {
	case "where", "join", "inner", "left", "right", "full", "cross", "natural", "on", "using", "group", "order", "limit", "offset", "having", "qualify", "window",
		"union", "except", "intersect", "semi", "anti", "asof", "positional", "tablesample", "select", "when", "set", "lateral", "fetch":
		return false
	}
	return true
}

// tableChanges reads table_changes('name', from[, to]).
func tableChanges(sql string, tokens []lexeme, i int) (r replacement, next int, err error) {
	bad := func(k int) (replacement, int, error) {
		return r, 0, badAt(sql, tokens[min(k, len(tokens)-1)].from, "want table_changes('catalog.schema.table', first version[, last version]), versions or texts with times")
	}
	j := i + 2
	if j >= len(tokens) || tokens[j].kind != lexString {
		return bad(j)
	}
	parts := splitName(tokens[j].value())
	asked := "c"
	for n := 0; ; n++ {
		if j++; j >= len(tokens) {
			return bad(j)
		}
		if tokens[j].sign(")") && n > 0 {
			break
		}
		if !tokens[j].sign(",") || n > 1 {
			return bad(j)
		}
		if j++; j >= len(tokens) {
			return bad(j)
		}
		switch tokens[j].kind {
		case lexNumber:
			if _, err := strconv.ParseUint(tokens[j].text, 10, 63); err != nil {
				return bad(j)
			}
			asked += ":v" + tokens[j].text
		case lexString:
			when, err := parseInstant(tokens[j].value())
			if err != nil {
				return r, 0, badAt(sql, tokens[j].from, err.Error())
			}
			asked += ":t" + strconv.FormatInt(when.UnixMicro(), 10)
		default:
			return bad(j)
		}
	}
	text := duckTable(parts, pastMark+asked)
	var behind lexeme
	if j+1 < len(tokens) {
		behind = tokens[j+1]
	} else {
		behind.kind = lexSign
	}
	if !aliased(behind) {
		text += " AS table_changes"
	}
	return replacement{tokens[i].from, tokens[j].to, text}, j + 1, nil
}

// splitName cuts a name that stands in a text.
func splitName(name string) []string {
	tokens, err := lex(name)
	if err == nil {
		if parts, n := chain(tokens, 0); n == len(tokens) && len(parts) > 0 {
			return parts
		}
	}
	return []string{name}
}

// parseInstant reads the forms of a time; without a zone it is UTC.
func parseInstant(s string) (time.Time, error) {
	for _, form := range []string{time.RFC3339Nano, "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.Parse(form, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, tarn.Invalid("%q is not a time: want one like 2026-01-31 12:00:00", s)
}
