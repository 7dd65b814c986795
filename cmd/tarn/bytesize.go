package main

import (
	"fmt"
	"strconv"
	"strings"
)

// byteSize is a flag for a number of bytes: 1048576, 64MiB, 50GB.
type byteSize int64

// String writes the number so that Set reads it.
func (b *byteSize) String() string { return strconv.FormatInt(int64(*b), 10) }

// Type is what help calls it.
func (*byteSize) Type() string { return "size" }

// Set reads a number with or without a unit.
func (b *byteSize) Set(text string) error {
	digits := strings.TrimRight(text, "kKMGTiB ")
	factor := int64(1)
	switch unit := strings.TrimSpace(text[len(digits):]); strings.ToLower(unit) {
	case "", "b":
	case "k", "kib":
		factor = 1 << 10
	case "kb":
		factor = 1e3
	case "m", "mib":
		factor = 1 << 20
	case "mb":
		factor = 1e6
	case "g", "gib":
		factor = 1 << 30
	case "gb":
		factor = 1e9
	case "t", "tib":
		factor = 1 << 40
	case "tb":
		factor = 1e12
	default:
		return fmt.Errorf("%q: want bytes, or a number with KiB, MiB, GiB or TiB", text)
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > (1<<62)/factor {
		return fmt.Errorf("%q: want bytes, or a number with KiB, MiB, GiB or TiB", text)
	}
	*b = byteSize(n * factor)
	return nil
}
