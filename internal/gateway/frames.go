package gateway

import (
	"bytes"
	"encoding/binary"
)

// frames follows what a backend sends, as it passes by, so far as to know
// where messages begin and end, whether the session is idle, and what
// application_name it has. It changes nothing and keeps next to nothing.
type frames struct {
	name func(string) // called with every new application_name

	head    [5]byte // of a message whose header was cut in two
	have    int     // bytes in head
	rest    int     // bytes of the current message still to come
	kind    byte    // of the current or last message
	status  byte    // of the last ReadyForQuery: I, T or E; 0 before
	readies uint64  // ReadyForQuery so far
	done    uint64  // statements completed
	copyIn  bool    // since it was last looked at, Postgres began to read CopyData
	small   []byte  // body so far of a message we read
	lost    bool    // that was no protocol we know
}

// maxParam bounds the ParameterStatus messages that are read.
const maxParam = 512

func (f *frames) feed(p []byte) {
	for len(p) > 0 && !f.lost {
		if f.rest > 0 {
			n := min(f.rest, len(p))
			if f.reads() {
				f.small = append(f.small, p[:n]...)
			}
			f.rest -= n
			p = p[n:]
			f.settle()
			continue
		}
		n := copy(f.head[f.have:], p)
		f.have += n
		p = p[n:]
		if f.have < len(f.head) {
			return
		}
		size := binary.BigEndian.Uint32(f.head[1:])
		if size < 4 || size > 1<<30 {
			f.lost = true
			return
		}
		f.have, f.kind, f.rest, f.small = 0, f.head[0], int(size)-4, f.small[:0]
		f.settle()
	}
}

// reads says whether the current message's body matters.
func (f *frames) reads() bool {
	return f.kind == 'Z' || f.kind == 'S' && len(f.small)+f.rest <= maxParam
}

// settle looks at a message that is complete.
func (f *frames) settle() {
	if f.rest > 0 {
		return
	}
	switch {
	case f.kind == 'C':
		f.done++
	case f.kind == 'Z' && len(f.small) == 1:
		f.status = f.small[0]
		f.readies++
	case f.kind == 'G':
		f.copyIn = true
	case f.kind == 'S' && f.name != nil:
		if v, ok := bytes.CutPrefix(f.small, []byte("application_name\x00")); ok {
			f.name(string(bytes.TrimSuffix(v, []byte{0})))
		}
	}
}

// between says whether a message of our own may be put in now.
func (f *frames) between() bool { return f.rest == 0 && f.have == 0 && !f.lost }

// idle says whether the last ReadyForQuery was outside a transaction, and
// nothing is half said.
func (f *frames) idle() bool { return f.between() && f.status == 'I' }

// missing is how much of the current header or message is still to come, at
// least.
func (f *frames) missing() int {
	if f.rest > 0 {
		return f.rest
	}
	return len(f.head) - f.have
}

// rewind begins to follow another backend of the same session, which is idle.
func (f *frames) rewind() { f.have, f.rest, f.kind, f.status, f.lost = 0, 0, 'Z', 'I', false }

// told says whether the last thing said was an error: Postgres's farewell.
func (f *frames) told() bool { return f.kind == 'E' }
