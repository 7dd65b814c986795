package gateway

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// settings are what a session has set beyond what its role and database give
// it, in the order of their names in lower case. The zero value is none.
// Nothing changes a settings once it is made.
type settings struct {
	list []param
	key  string // equal for equal settings
}

func newSettings(list []param) settings {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b param) int { return strings.Compare(strings.ToLower(a.name), strings.ToLower(b.name)) })
	list = slices.CompactFunc(list, func(a, b param) bool { return strings.EqualFold(a.name, b.name) })
	// SET ROLE last: under another role less may be allowed.
	for i, p := range list {
		if strings.EqualFold(p.name, "role") {
			list = append(slices.Delete(list, i, i+1), p)
			break
		}
	}
	var key []byte
	for _, p := range list {
		key = append(append(key, strings.ToLower(p.name)...), 0)
		key = append(append(key, p.value...), 0)
	}
	return settings{list: list, key: string(key)}
}

// over returns s and what of base it does not set.
func (s settings) over(base settings) settings {
	var missing []param
	for _, p := range base.list {
		if !slices.ContainsFunc(s.list, func(q param) bool { return strings.EqualFold(p.name, q.name) }) {
			missing = append(missing, p)
		}
	}
	if len(missing) == 0 {
		return s
	}
	return newSettings(append(missing, s.list...))
}

// startupSettings are the settings a client asked for in its startup packet.
// Those in options come first in Postgres and so lose against parameters.
func startupSettings(st *startup) (settings, error) {
	var list []param
	for _, p := range st.params {
		switch p.name {
		case "database":
		case "replication":
			switch strings.ToLower(p.value) {
			case "false", "off", "no", "0":
			default:
				return settings{}, &fatal{code: codeUnsupported, msg: "replication connections cannot go through the pooler", hint: directHint}
			}
		case "options":
		default:
			list = append(list, p)
		}
	}
	more, err := optionSettings(st.param("options"))
	if err != nil {
		return settings{}, err
	}
	return newSettings(append(list, more...)), nil
}

// optionSettings reads -c name=value and --name=value; the last of a name
// counts.
func optionSettings(options string) ([]param, error) {
	var list []param
	words := splitOptions(options)
	for i := 0; i < len(words); i++ {
		setting, ok := "", true
		switch w := words[i]; {
		case w == "-c" && i+1 < len(words):
			i++
			setting = words[i]
		case strings.HasPrefix(w, "-c"):
			setting = w[2:]
		case strings.HasPrefix(w, "--"):
			setting = w[2:]
		default:
			ok = false
		}
		name, value, cut := strings.Cut(setting, "=")
		if !ok || !cut || name == "" {
			return nil, &fatal{code: codeUnsupported, msg: fmt.Sprintf("the pooler does not understand startup option %q", words[i]),
				hint: "Write settings as -c name=value. " + directHint}
		}
		list = append([]param{{strings.ReplaceAll(name, "-", "_"), value}}, list...)
	}
	return list, nil
}

const directHint = "Use the endpoint's direct address or name, without -pooler."

// What a server connection is told before it serves a client whose settings
// are not what it has, and after a client left something behind.
const (
	sqlForget  = `RESET ROLE; RESET ALL`
	sqlDiscard = `DISCARD ALL`
	sqlSet     = `
SELECT pg_catalog.set_config(($1::pg_catalog.text[])[i], ($2::pg_catalog.text[])[i], false)
FROM pg_catalog.generate_subscripts($1::pg_catalog.text[], 1) AS s(i)`

	// sqlState lists what a session has that outlives its transaction: its
	// settings by name, and under an empty name the kinds of things for
	// which it must keep its server connection. Settings with a dot are in no
	// list: $1 names those the client set.
	sqlState = `
SELECT name, setting FROM pg_catalog.pg_settings WHERE source = 'session' AND name NOT LIKE 'transaction\_%'
UNION ALL SELECT 'role', pg_catalog.current_setting('role') WHERE pg_catalog.current_setting('role') <> 'none'
UNION ALL SELECT n, pg_catalog.current_setting(n, true) FROM pg_catalog.unnest($1::pg_catalog.text[]) AS c(n)
          WHERE pg_catalog.current_setting(n, true) <> ''
UNION ALL SELECT '', what FROM (VALUES
  ('temporary tables', EXISTS (SELECT FROM pg_catalog.pg_class WHERE relnamespace = pg_catalog.pg_my_temp_schema())),
  ('a cursor WITH HOLD', EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable)),
  ('statements of SQL PREPARE', EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql)),
  ('LISTEN', EXISTS (SELECT FROM pg_catalog.pg_listening_channels())),
  ('advisory locks', EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid()))
) AS s(what, there) WHERE there`
)

// The messages below are written by hand: they are made for every client that
// changes its server connection.

func appendQuery(b []byte, sql string) []byte {
	b = appendHead(b, 'Q', len(sql)+1)
	return append(append(b, sql...), 0)
}

func appendHead(b []byte, kind byte, body int) []byte {
	b = append(b, kind)
	return binary.BigEndian.AppendUint32(b, uint32(body+4))
}

// appendCall asks one statement with text arrays as its arguments, under the
// unnamed statement and portal, and ends with Sync.
func appendCall(b []byte, sql string, args ...[]string) []byte {
	b = appendHead(b, 'P', 1+len(sql)+1+2)
	b = append(append(append(b, 0), sql...), 0, 0, 0)
	size := 1 + 1 + 2 + 2 + 2
	var arrays []string
	for _, a := range args {
		arrays = append(arrays, textArray(a))
		size += 4 + len(arrays[len(arrays)-1])
	}
	b = append(appendHead(b, 'B', size), 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(arrays)))
	for _, a := range arrays {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(a))), a...)
	}
	b = append(b, 0, 0)
	b = append(appendHead(b, 'E', 1+4), 0, 0, 0, 0, 0)
	return append(b, 'S', 0, 0, 0, 4)
}

// textArray is Postgres's text form of an array.
func textArray(a []string) string {
	var s strings.Builder
	s.WriteByte('{')
	for i, v := range a {
		if i > 0 {
			s.WriteByte(',')
		}
		s.WriteByte('"')
		for j := 0; j < len(v); j++ {
			if v[j] == '"' || v[j] == '\\' {
				s.WriteByte('\\')
			}
			s.WriteByte(v[j])
		}
		s.WriteByte('"')
	}
	s.WriteByte('}')
	return s.String()
}

// appendSetup makes a session that has the settings had one that has want; it
// ends with how many ReadyForQuery answer it.
func appendSetup(b []byte, had, want settings) ([]byte, int) {
	ready := 0
	if len(had.list) > 0 {
		b = appendQuery(b, sqlForget)
		ready++
	}
	if len(want.list) > 0 {
		names, values := make([]string, len(want.list)), make([]string, len(want.list))
		for i, p := range want.list {
			names[i], values[i] = p.name, p.value
		}
		b = appendCall(b, sqlSet, names, values)
		ready++
	}
	return b, ready
}

// dataRow reads the text columns of a DataRow's body; a null is "".
func dataRow(body []byte) ([]string, bool) {
	if len(body) < 2 {
		return nil, false
	}
	n := int(binary.BigEndian.Uint16(body))
	body = body[2:]
	cols := make([]string, 0, n)
	for range n {
		if len(body) < 4 {
			return nil, false
		}
		size := int32(binary.BigEndian.Uint32(body))
		body = body[4:]
		if size < 0 {
			cols = append(cols, "")
			continue
		}
		if int(size) > len(body) {
			return nil, false
		}
		cols = append(cols, string(body[:size]))
		body = body[size:]
	}
	return cols, true
}
