package gateway

import (
	"bytes"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// FuzzSpeech: what a client says tells the same, wherever the network cut it,
// and nothing is kept that could grow without bound.
func FuzzSpeech(f *testing.F) {
	add := func(cut uint8, m ...pgproto3.FrontendMessage) {
		var b []byte
		for _, x := range m {
			var err error
			if b, err = x.Encode(b); err != nil {
				f.Fatal(err)
			}
		}
		f.Add(b, cut)
	}
	add(0, &pgproto3.Query{String: "SET app.user = 'x'; SELECT set_config('a.b', 'c', false)"})
	add(2, &pgproto3.Parse{Query: "SELECT $1", ParameterOIDs: []uint32{23}}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{})
	add(6, &pgproto3.Query{String: "COPY t FROM STDIN"}, &pgproto3.CopyData{Data: []byte("1\n")}, &pgproto3.CopyDone{})
	add(4, &pgproto3.Parse{Name: "a", Query: "DO $$ BEGIN SET a.b = 'c'; END $$"}, &pgproto3.Close{ObjectType: 'S'}, &pgproto3.Terminate{})
	f.Add([]byte{'P', 0, 0, 0, 5, 'x'}, uint8(0))
	f.Add([]byte{'Q', 0, 0, 0, 3}, uint8(9))
	f.Add([]byte{'P', 0xff, 0xff, 0xff, 0xff}, uint8(9))
	f.Fuzz(func(t *testing.T, b []byte, cut uint8) {
		var whole, parts speech
		whole.feed(bytes.Clone(b))
		for p := range bytesIn(b, int(cut)+1) {
			parts.feed(p)
		}
		if whole.lost != parts.lost {
			t.Fatalf("lost %v in one piece, %v in pieces of %d", whole.lost, parts.lost, int(cut)+1)
		}
		if whole.asked.Load() != parts.asked.Load() || whole.between() != parts.between() || whole.opaque != parts.opaque ||
			!bytes.Equal(whole.unnamed, parts.unnamed) || (whole.unnamed == nil) != (parts.unnamed == nil) || !slices.Equal(whole.custom, parts.custom) {
			t.Fatalf("in one piece %d %v %q %q %q, in pieces of %d %d %v %q %q %q",
				whole.asked.Load(), whole.between(), whole.opaque, whole.unnamed, whole.custom,
				int(cut)+1, parts.asked.Load(), parts.between(), parts.opaque, parts.unnamed, parts.custom)
		}
		if len(parts.unnamed) > maxUnnamed || len(parts.custom) > 256 || len(parts.cut) > maxLook {
			t.Fatalf("keeps %d bytes of a statement, %d names, %d bytes of a message", len(parts.unnamed), len(parts.custom), len(parts.cut))
		}
	})
}

// FuzzSieve: of what a compute says in answer to our question the client gets
// the same, wherever it was cut, and only whole messages.
func FuzzSieve(f *testing.F) {
	add := func(cut uint8, m ...pgproto3.BackendMessage) {
		var b []byte
		for _, x := range m {
			var err error
			if b, err = x.Encode(b); err != nil {
				f.Fatal(err)
			}
		}
		f.Add(b, cut)
	}
	row := &pgproto3.DataRow{Values: [][]byte{[]byte("s"), []byte("TimeZone"), []byte("UTC"), nil}}
	add(3, &pgproto3.ParseComplete{}, &pgproto3.BindComplete{}, row, &pgproto3.NoticeResponse{Message: "x"},
		&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")}, &pgproto3.CloseComplete{}, &pgproto3.ReadyForQuery{TxStatus: 'I'}, &pgproto3.ParameterStatus{Name: "a", Value: "b"})
	add(0, &pgproto3.NotificationResponse{Channel: "c"}, &pgproto3.ErrorResponse{Severity: "FATAL", Code: "57P01"})
	f.Add([]byte{'D', 0, 0, 0, 10, 0, 9, 0, 0, 0, 200}, uint8(1))
	f.Add([]byte{'Z', 0, 0, 0, 3}, uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, cut uint8) {
		var whole, parts sieve
		pass, rest, done := whole.take(bytes.Clone(b))
		var pass2, rest2 []byte
		var done2 bool
		for p := range bytesIn(b, int(cut)+1) {
			if done2 {
				rest2 = append(rest2, p...)
				continue
			}
			if parts.odd {
				break
			}
			var more []byte
			more, rest2, done2 = parts.take(p)
			pass2 = append(pass2, more...)
		}
		if done != done2 || whole.odd != parts.odd || !bytes.Equal(pass, pass2) || !bytes.Equal(rest, rest2) || len(whole.rows) != len(parts.rows) {
			t.Fatalf("in one piece %q %q %v %v, in pieces of %d %q %q %v %v", pass, rest, done, whole.odd, int(cut)+1, pass2, rest2, done2, parts.odd)
		}
		for at := 0; at < len(pass); {
			if len(pass)-at < 5 || int(be32(pass[at+1:]))+1 > len(pass)-at {
				t.Fatalf("the client gets half a message: %q", pass[at:])
			}
			at += int(be32(pass[at+1:])) + 1
		}
	})
}
