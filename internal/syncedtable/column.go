package syncedtable

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/tarndb/tarn/internal/delta"
)

// maxIdentifier is NAMEDATALEN-1: Postgres cuts longer names silently.
const maxIdentifier = 63

// column is one column of the Postgres table.
type column struct {
	name  string // in Postgres
	delta string // in Delta
	typ   string // Postgres type
	key   bool
}

// columnsOf plans the Postgres columns of a Delta table.
func columnsOf(s *delta.Schema, a *arrow.Schema, key []string) ([]column, error) {
	isKey := map[string]bool{}
	for _, k := range key {
		isKey[k] = true
	}
	cols := make([]column, len(s.Fields))
	for i, f := range s.Fields {
		kind, err := encodingOf(a.Field(i).Type, pgTypeOf(f))
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", f.Name, err)
		}
		cols[i] = column{name: identifier(f.Name), delta: f.Name, typ: kind.sql, key: isKey[f.Name]}
	}
	return cols, nil
}

// pgTypeOf is the type the column had in Postgres when a feed wrote it.
func pgTypeOf(f delta.Field) string {
	t, _ := f.Metadata["tarn.pgType"].(string)
	return t
}

// identifier shortens a name that Postgres would cut, keeping it unique.
func identifier(name string) string {
	if len(name) <= maxIdentifier {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return cut(name, maxIdentifier-9) + "_" + hex.EncodeToString(sum[:4])
}

// cut shortens s to at most n bytes without splitting a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// resolveKey finds the key columns in the schema: by exact name, else without
// case, as Delta compares names. missing is the first one not found.
func resolveKey(s *delta.Schema, key []string) (names []string, missing string) {
	for _, k := range key {
		found := ""
		for _, f := range s.Fields {
			if f.Name == k {
				found = f.Name
				break
			}
			if found == "" && strings.EqualFold(f.Name, k) {
				found = f.Name
			}
		}
		if found == "" {
			return nil, k
		}
		names = append(names, found)
	}
	return names, ""
}

// nested reports a Delta type that cannot be a key.
func nested(typ string) bool { return strings.HasPrefix(strings.TrimSpace(typ), "{") }
