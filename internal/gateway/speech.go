package gateway

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sync/atomic"
)

// speech follows what a client says on a direct session, as it passes by: how
// many answers Postgres owes it, and what only the words tell of the session's
// state. It changes nothing.
type speech struct {
	head  [5]byte // of a message whose header was cut in two
	have  int     // bytes in head
	rest  int     // bytes of the current message still to come
	kind  byte    // of the current or last message
	cut   []byte  // what is there of the body of a message that is looked at and came in parts
	large bool    // the current message is not kept: it is too large
	lost  bool    // that was no protocol we know

	asked   atomic.Uint64 // ReadyForQuery that Postgres will have sent; written by one goroutine
	syncs   uint64        // Sync since the last Execute or Query
	open    bool          // messages that no Sync or Query has followed yet
	copying atomic.Bool   // Postgres reads CopyData; set by the other direction

	unnamed []byte   // body of the Parse that made the unnamed statement; nil = there is none
	custom  []string // settings with a dot that were set
	opaque  string   // what was said that leaves something nobody can list
}

const (
	maxUnnamed = 16 << 10  // of an unnamed statement that is kept
	maxLook    = 256 << 10 // of a text that is looked at
)

// feed looks at bytes from the client.
func (s *speech) feed(p []byte) {
	for len(p) > 0 && !s.lost {
		if s.rest > 0 {
			n := min(s.rest, len(p))
			s.rest -= n
			if s.looks() {
				s.keep(p[:n])
			}
			p = p[n:]
			if s.rest == 0 {
				s.whole(s.cut)
			}
			continue
		}
		if s.have == 0 && len(p) >= 5 { // the common case
			copy(s.head[:], p[:5])
			s.have, p = 5, p[5:]
		} else {
			n := copy(s.head[s.have:], p)
			s.have += n
			if p = p[n:]; s.have < len(s.head) {
				return
			}
		}
		size := binary.BigEndian.Uint32(s.head[1:])
		if size < 4 || size > 1<<30 {
			s.lost = true
			return
		}
		s.have, s.kind, s.rest = 0, s.head[0], int(size)-4
		s.cut, s.large = s.cut[:0], false
		s.begins()
		if s.rest <= len(p) {
			body := p[:s.rest]
			p, s.rest = p[s.rest:], 0
			s.whole(body)
		}
	}
}

// begins counts a message of which the header is there.
func (s *speech) begins() {
	switch s.kind {
	case 'Q', 'F':
		s.asked.Store(s.asked.Load() + 1)
		s.syncs, s.open = 0, false
	case 'S':
		s.asked.Store(s.asked.Load() + 1)
		s.syncs++
		s.open = false
	case 'E':
		s.syncs, s.open = 0, true
	case 'P', 'B', 'D', 'C', 'H':
		s.open = true
	case 'c', 'f':
		// Postgres ignored what was to end the pipeline before the copy did.
		if s.copying.Swap(false) {
			s.asked.Store(s.asked.Load() - s.syncs)
		}
	}
}

// looks says whether the current message's body matters.
func (s *speech) looks() bool { return s.kind == 'Q' || s.kind == 'P' || s.kind == 'C' }

// keep puts a part of a body aside.
func (s *speech) keep(p []byte) {
	if s.large = s.large || len(s.cut)+s.rest+len(p) > maxLook; !s.large {
		s.cut = append(s.cut, p...)
	}
}

// whole looks at a message that is complete.
func (s *speech) whole(body []byte) {
	if !s.looks() {
		return
	}
	if s.large {
		s.opaque = "a statement of more than 256 KB"
		s.unnamed, s.cut = nil, nil
		return
	}
	switch s.kind {
	case 'Q':
		s.unnamed = nil
		s.text(bytes.TrimSuffix(body, []byte{0}))
	case 'P':
		name, text, ok := bytes.Cut(body, []byte{0})
		if !ok {
			s.lost = true
			return
		}
		if len(name) == 0 {
			if s.unnamed = append(s.unnamed[:0], body...); len(body) > maxUnnamed {
				s.unnamed, s.opaque = nil, "an unnamed statement of more than 16 KB"
			}
		}
		text, _, _ = bytes.Cut(text, []byte{0})
		s.text(text)
	case 'C':
		if string(body) == "S\x00" {
			s.unnamed = nil
		}
	}
	if cap(s.cut) > smallSize { // nobody keeps the room for a large one
		s.cut = nil
	}
}

// text notes what a statement may leave that Postgres does not list.
func (s *speech) text(sql []byte) {
	first := bytes.TrimLeft(sql, " \t\r\n")
	if len(first) > 2 && bytes.EqualFold(first[:2], []byte("do")) && !wordPart(first[2]) && wordIn(sql, setWord) {
		s.opaque = "settings of a DO block"
	}
	if !sets(sql) {
		return
	}
	v := look(sql)
	if v.pin {
		s.opaque = "LOAD, or a setting whose name cannot be read"
	}
	for _, n := range v.custom {
		if len(s.custom) == 256 {
			s.opaque = "more than 256 settings with a dot"
		} else if !slices.Contains(s.custom, n) {
			s.custom = append(s.custom, n)
		}
	}
}

var (
	setWord  = []byte("set")
	loadWord = []byte("load")
)

// sets says whether a text may set something by a name that Postgres does not
// list: it holds set_config, or SET or LOAD where a statement may begin. Most
// statements do not, and are looked at no further.
func sets(sql []byte) bool {
	for i, c := range sql {
		switch c | 0x20 {
		case 's':
			if wordAt(sql, i, setWord) && (i+3 < len(sql) && sql[i+3] == '_' || opens(sql[:i])) {
				return true
			}
		case 'l':
			if wordAt(sql, i, loadWord) && opens(sql[:i]) {
				return true
			}
		}
	}
	return false
}

// wordAt says whether a word that begins with w begins at i.
func wordAt(sql []byte, i int, w []byte) bool {
	return len(sql)-i >= len(w) && sql[i+1]|0x20 == w[1] && bytes.EqualFold(sql[i:i+len(w)], w) && (i == 0 || !wordPart(sql[i-1]))
}

func wordIn(sql, w []byte) bool {
	for i, c := range sql {
		if c|0x20 == w[0] && wordAt(sql, i, w) {
			return true
		}
	}
	return false
}

// opens says whether a statement may begin behind before: not in the middle of
// an UPDATE.
func opens(before []byte) bool {
	for i := len(before) - 1; i >= 0; i-- {
		switch c := before[i]; {
		case c == ' ' || c >= '\t' && c <= '\r':
		case c == ';' || c == '/':
			return true
		default: // the last word of a comment up to the end of its line looks like any word
			return bytes.Contains(before, []byte("--"))
		}
	}
	return true
}

// between says whether a message of our own may be put in now.
func (s *speech) between() bool { return s.rest == 0 && s.have == 0 && !s.open && !s.lost }
