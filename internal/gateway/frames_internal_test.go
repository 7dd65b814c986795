package gateway

import (
	"encoding/binary"
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

func frame(kind byte, body string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(4+len(body))), body...)
}

// TestFrames: however the bytes are cut, the gateway knows the same of them as
// if it had seen each message alone.
func TestFrames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var all []byte
		ends := map[int]bool{0: true}
		var names []string
		type state struct {
			kind, status byte
		}
		at := map[int]state{0: {}}
		now := state{}
		for range rapid.IntRange(0, 20).Draw(t, "messages") {
			var m []byte
			switch rapid.IntRange(0, 4).Draw(t, "kind") {
			case 0:
				now.status = rapid.SampledFrom([]byte("ITE")).Draw(t, "status")
				m = frame('Z', string(now.status))
			case 1:
				n := rapid.StringMatching("[a-z]{0,20}").Draw(t, "name")
				names = append(names, n)
				m = frame('S', "application_name\x00"+n+"\x00")
			case 2:
				m = frame('S', "TimeZone\x00UTC\x00")
			case 3:
				m = frame('E', "")
			default:
				m = frame('D', string(make([]byte, rapid.IntRange(0, 3000).Draw(t, "size"))))
			}
			now.kind = m[0]
			all = append(all, m...)
			ends[len(all)] = true
			at[len(all)] = now
		}
		var seen []string
		f := frames{name: func(n string) { seen = append(seen, n) }}
		for pos := 0; pos < len(all); {
			n := rapid.IntRange(1, min(len(all)-pos, 700)).Draw(t, "cut")
			f.feed(all[pos : pos+n])
			pos += n
			if f.between() != ends[pos] {
				t.Fatalf("at %d: between messages is %v", pos, f.between())
			}
			if ends[pos] {
				s := at[pos]
				if f.idle() != (s.status == 'I') || f.told() != (s.kind == 'E') {
					t.Fatalf("at %d: idle %v, told %v, want %+v", pos, f.idle(), f.told(), s)
				}
			}
		}
		if fmt.Sprint(seen) != fmt.Sprint(names) {
			t.Fatalf("names %q, want %q", seen, names)
		}
	})
}

func TestFramesOfNoProtocol(t *testing.T) {
	for _, size := range []uint32{0, 3, 1 << 31} {
		var f frames
		f.feed(binary.BigEndian.AppendUint32([]byte{'D'}, size))
		f.feed([]byte("more"))
		if f.between() || f.idle() {
			t.Errorf("size %d is a message", size)
		}
	}
}

func TestLongParameterIsNotKept(t *testing.T) {
	f := frames{name: func(n string) { t.Errorf("name %q", n) }}
	f.feed(frame('S', "application_name\x00"+string(make([]byte, 1<<20))))
	if cap(f.small) > 2*maxParam || !f.between() {
		t.Errorf("kept %d bytes", cap(f.small))
	}
}
