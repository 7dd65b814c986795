package control

import (
	"bytes"
	"encoding/base64"
	"unicode/utf8"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// Page asks for one page of a listing; Size 0 = 100, and no page has more than
// 1000.
type Page struct {
	Size  int
	Token string // of the page before; "" = the first page
	// Deleted also shows what was deleted and can be brought back; of projects
	// and branches only.
	Deleted controldb.Deleted
}

const (
	pageSize    = 100
	maxPageSize = 1000
)

// start reads a page's token, which is the id its predecessor ended with, and
// its size.
func (pg Page) start() (after string, size int, err error) {
	size = pg.Size
	switch {
	case size < 0:
		return "", 0, tarn.Invalid("page size %d is negative", size)
	case size == 0:
		size = pageSize
	}
	raw, err := base64.RawURLEncoding.DecodeString(pg.Token)
	if err != nil || !utf8.Valid(raw) || bytes.IndexByte(raw, 0) >= 0 { // what Postgres would not take as text
		return "", 0, tarn.Invalid("page token %q was not given by a listing", pg.Token)
	}
	return string(raw), min(size, maxPageSize), nil
}

// cut takes the one row too many, by which a listing learns that there is a
// next page, and gives that page's token.
func cut[T any](rows []T, size int, id func(T) string) ([]T, string) {
	if len(rows) <= size {
		return rows, ""
	}
	rows = rows[:size]
	return rows, base64.RawURLEncoding.EncodeToString([]byte(id(rows[size-1])))
}
