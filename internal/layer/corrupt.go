package layer

import (
	"errors"
	"fmt"
)

// ErrCorrupt is what every *CorruptError unwraps to.
var ErrCorrupt = errors.New("corrupt")

// CorruptError says that bytes which must be whole are not.
type CorruptError struct {
	File     string
	Offset   int64 // bytes from the start of the file
	Expected string
	Found    string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s at byte %d: corrupt: expected %s, found %s", e.File, e.Offset, e.Expected, e.Found)
}

// Unwrap lets errors.Is find ErrCorrupt.
func (e *CorruptError) Unwrap() error { return ErrCorrupt }
