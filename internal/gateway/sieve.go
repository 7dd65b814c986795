package gateway

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"strings"
)

func be32(b []byte) uint32 { return binary.BigEndian.Uint32(b) }

// sieve takes the answer to a question of our own out of what Postgres says.
type sieve struct {
	buf   []byte // a message that is not whole yet
	rows  [][]string
	fault []byte // an error as it came, which may be Postgres's farewell
	odd   bool   // that was no answer to our question
}

// maxAnswer bounds a message of the answer: prepared statements are in it.
const maxAnswer = 8 << 20

// take splits what Postgres said: pass is the client's, and when the answer is
// over, so is rest, which came behind it.
func (s *sieve) take(p []byte) (pass, rest []byte, done bool) {
	s.buf = append(s.buf, p...)
	at := 0
	for len(s.buf)-at >= 5 && !done && !s.odd {
		size := int64(be32(s.buf[at+1:])) + 1
		if s.odd = size < 5 || size > maxAnswer; s.odd || int64(len(s.buf)-at) < size {
			break
		}
		m := s.buf[at : at+int(size)]
		at += int(size)
		switch m[0] {
		case 'N', 'A', 'S':
			pass = append(pass, m...)
		case '1', '2', '3', 'C':
		case 'D':
			if row, ok := dataRow(m[5:]); ok {
				s.rows = append(s.rows, row)
			}
		case 'E':
			s.fault = append([]byte(nil), m...)
		case 'Z':
			done = true
		default:
			s.odd = true
		}
	}
	if done {
		return pass, append([]byte(nil), s.buf[at:]...), true
	}
	s.buf = append(s.buf[:0], s.buf[at:]...)
	return pass, nil, false
}

// oids reads Postgres's text form of an array of oids.
func oids(s string) ([]uint32, bool) {
	s = strings.Trim(s, "{}")
	if s == "" {
		return nil, true
	}
	var all []uint32
	for f := range strings.SplitSeq(s, ",") {
		n, err := strconv.ParseUint(f, 10, 32)
		if err != nil {
			return nil, false
		}
		all = append(all, uint32(n))
	}
	return all, true
}

func paramName(body []byte) string {
	n, _, _ := bytes.Cut(body, []byte{0})
	return string(n)
}

// appendNamedCall asks one statement with text arrays as its arguments, under a
// name that it gives up at once: the unnamed statement stays what it is.
func appendNamedCall(b []byte, name, sql string, args ...[]string) []byte {
	b = appendParse(b, name, sql+"\x00\x00\x00")
	size := 1 + len(name) + 1 + 2 + 2 + 2
	var arrays []string
	for _, a := range args {
		arrays = append(arrays, textArray(a))
		size += 4 + len(arrays[len(arrays)-1])
	}
	b = append(appendHead(b, 'B', size), 0)
	b = append(append(b, name...), 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(arrays)))
	for _, a := range arrays {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(a))), a...)
	}
	b = append(b, 0, 0)
	b = append(appendHead(b, 'E', 1+4), 0, 0, 0, 0, 0)
	b = appendClose(b, name)
	return append(b, 'S', 0, 0, 0, 4)
}
