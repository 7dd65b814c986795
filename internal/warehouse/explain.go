package warehouse

import (
	"errors"
	"io"
	"regexp"
	"strings"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/warehouse/engine"
)

var duckLine = regexp.MustCompile(`(?s)\n+LINE \d+: .*$`)

var candidates = regexp.MustCompile(`(?s)\n?(Candidate bindings: [^\n]*|Did you mean [^\n]*)`)

// codes are the beginnings of DuckDB's errors, and what they are called.
var codes = map[string]string{
	"Parser Error":                 "PARSE_SYNTAX_ERROR",
	"Catalog Error":                "UNRESOLVED_ROUTINE",
	"Binder Error":                 "UNRESOLVED_COLUMN",
	"Conversion Error":             "CAST_INVALID_INPUT",
	"Out of Range Error":           "ARITHMETIC_OVERFLOW",
	"Out of Memory Error":          "OUT_OF_MEMORY",
	"Permission Error":             "INSUFFICIENT_PERMISSIONS",
	"Invalid Input Error":          "INVALID_PARAMETER_VALUE",
	"Invalid type Error":           "DATATYPE_MISMATCH",
	"Constraint Error":             "CONSTRAINT_VIOLATION",
	"Not implemented Error":        "UNSUPPORTED_FEATURE",
	"Parameter Not Resolved Error": "UNBOUND_SQL_PARAMETER",
}

// explain turns what DuckDB says of a statement into words about the statement
// as it was written: without the views that it does not know, with the place.
func (s *scene) explain(err error, r *rewritten, sql string, shift int) error {
	var said *engine.Error
	if err == nil || errors.Is(err, io.EOF) || !errors.As(err, &said) {
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
	msg := strings.NewReplacer(pastMark, "@", catalogMark, "").Replace(said.Text)
	head, rest, ok := strings.Cut(msg, ": ")
	code := codes[strings.TrimPrefix(head, "prepare the statement: ")]
	if !ok || code == "" {
		code, rest = "INTERNAL_ERROR", msg
	}
	hint := ""
	if m := candidates.FindString(rest); m != "" {
		hint = strings.TrimSpace(m)
		rest = strings.Replace(rest, m, "", 1)
	}
	place := -1
	if m := duckLine.FindString(rest); m != "" {
		rest = strings.Replace(rest, m, "", 1)
		if at, ok := caret(m, r.sql, shift); ok {
			place = r.origin(at)
		}
	}
	e := tarn.Invalid("[%s] %s%s", code, strings.TrimSpace(rest), where(sql, place))
	if code == "OUT_OF_MEMORY" {
		hint = "the statement needs more memory than a warehouse gives it: select less"
	}
	if hint != "" {
		return e.WithHint(hint)
	}
	return e
}

// caret finds the byte that DuckDB's mark is under, by the text around it.
func caret(place, sql string, shift int) (int, bool) {
	lines := strings.Split(strings.Trim(place, "\n"), "\n")
	if len(lines) < 2 {
		return 0, false
	}
	at := strings.IndexByte(lines[len(lines)-1], '^')
	shown := lines[len(lines)-2]
	begin := strings.Index(shown, ": ")
	if at < 0 || begin < 0 || at > len(shown) {
		return 0, false
	}
	text := strings.TrimSuffix(strings.TrimPrefix(shown[begin+2:], "..."), "...")
	in := at - begin - 2
	if strings.HasPrefix(shown[begin+2:], "...") {
		in -= 3
	}
	if shift > 0 {
		if cut := min(shift, len(text)); strings.HasPrefix(text, "EXPLAIN ") {
			text, in = text[cut:], in-cut
		}
	}
	i := strings.Index(sql, text)
	if i < 0 || in < 0 || in > len(text) || strings.Count(sql, text) > 1 {
		return 0, false
	}
	return i + in, true
}
