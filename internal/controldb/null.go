package controldb

import (
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tarndb/tarn"
)

// stamp is a time whose zero value is NULL; it is read in UTC.
type stamp time.Time

// TimestamptzValue makes a stamp an argument.
func (s stamp) TimestamptzValue() (pgtype.Timestamptz, error) {
	t := time.Time(s)
	return pgtype.Timestamptz{Time: t, Valid: !t.IsZero()}, nil
}

// ScanTimestamptz reads a stamp from a row.
func (s *stamp) ScanTimestamptz(v pgtype.Timestamptz) error {
	*s = stamp{}
	if v.Valid {
		*s = stamp(v.Time.UTC())
	}
	return nil
}

// position is an LSN whose zero value is NULL; its SQL side is
// `$n::text::pg_lsn` and `column::text`.
type position tarn.LSN

// TextValue makes a position an argument.
func (p position) TextValue() (pgtype.Text, error) {
	return pgtype.Text{String: tarn.LSN(p).String(), Valid: p != 0}, nil
}

// ScanText reads a position from a row.
func (p *position) ScanText(v pgtype.Text) error {
	*p = 0
	if !v.Valid {
		return nil
	}
	l, err := tarn.ParseLSN(v.String)
	*p = position(l)
	return err
}

// word is a string whose zero value is NULL.
type word string

// TextValue makes a word an argument.
func (w word) TextValue() (pgtype.Text, error) {
	return pgtype.Text{String: string(w), Valid: w != ""}, nil
}

// ScanText reads a word from a row.
func (w *word) ScanText(v pgtype.Text) error {
	*w = word(v.String)
	return nil
}

// idle keeps "never", any negative duration, from rounding to zero in an
// interval, which counts microseconds; it is read as -1 s.
func idle(d time.Duration) time.Duration {
	if d < 0 {
		return -time.Second
	}
	return d
}

// object is a map for a jsonb column, where nil must be {} and not null.
func object(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

// noEmpty turns {} back into nil, so that a spec is read as it was written.
func noEmpty(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	return m
}
