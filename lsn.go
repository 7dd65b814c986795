package tarn

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// LSN is a byte position in Postgres's write-ahead log: Postgres's clock.
// It is printed as Postgres prints it, "16/B374D848".
type LSN uint64

// ParseLSN reads Postgres's text form of an LSN.
func ParseLSN(s string) (LSN, error) {
	hi, lo, ok := strings.Cut(s, "/")
	if !ok || len(hi) == 0 || len(hi) > 8 || len(lo) == 0 || len(lo) > 8 {
		return 0, Invalid("parse LSN %q: want two hexadecimal numbers like 16/B374D848", s)
	}
	h, err1 := strconv.ParseUint(hi, 16, 32)
	l, err2 := strconv.ParseUint(lo, 16, 32)
	if err1 != nil || err2 != nil {
		return 0, Invalid("parse LSN %q: want two hexadecimal numbers like 16/B374D848", s)
	}
	return LSN(h<<32 | l), nil
}

func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

// MarshalText gives Postgres's text form.
func (l LSN) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads Postgres's text form; empty text is zero.
func (l *LSN) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*l = 0
		return nil
	}
	v, err := ParseLSN(string(b))
	if err == nil {
		*l = v
	}
	return err
}

// Seq is a position on a timeline of the page store: the number of records
// written before it. It is the page store's clock.
type Seq uint64

// TimelineID names an unbroken history of writes in the page store. Postgres's
// own timeline number is always called TLI. It is 32 lower-case hexadecimal
// digits.
type TimelineID string

// ParseTimelineID validates the text form of a timeline's id.
func ParseTimelineID(s string) (TimelineID, error) {
	if len(s) != 32 || strings.Trim(s, "0123456789abcdef") != "" {
		return "", Invalid("parse timeline id %q: want 32 hexadecimal digits", s)
	}
	return TimelineID(s), nil
}

// Point is whatever can be branched from: a position on a timeline.
type Point struct {
	Timeline TimelineID `json:"timeline"`
	Seq      Seq        `json:"seq"`
}

func (p Point) String() string { return fmt.Sprintf("%s@%d", p.Timeline, p.Seq) }

// Mark ties the clocks together at one point of a timeline: every page written
// before Seq carries an LSN of at most LSN, and every transaction whose commit
// record ends at or before LSN committed at or before Time.
type Mark struct {
	Seq  Seq       `json:"seq"`
	LSN  LSN       `json:"lsn"`
	Time time.Time `json:"time"`
}
