package gateway

import (
	"bytes"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// FuzzServerBytes: whatever a compute says, cut anywhere, is taken or refused,
// and never more is used than was there.
func FuzzServerBytes(f *testing.F) {
	add := func(ask bool, cut uint8, m ...pgproto3.BackendMessage) {
		var b []byte
		for _, x := range m {
			var err error
			if b, err = x.Encode(b); err != nil {
				f.Fatal(err)
			}
		}
		f.Add(b, ask, cut)
	}
	add(true, 3, &pgproto3.DataRow{Values: [][]byte{[]byte("work_mem"), []byte("4096")}}, &pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")}, &pgproto3.ReadyForQuery{TxStatus: 'I'})
	add(true, 7, &pgproto3.ErrorResponse{Severity: "ERROR", Code: "22023", Message: "no"}, &pgproto3.ReadyForQuery{TxStatus: 'I'})
	add(false, 5, &pgproto3.ParameterStatus{Name: "TimeZone", Value: "UTC"}, &pgproto3.NoticeResponse{Message: "x"})
	f.Add([]byte{'D', 0xff, 0xff, 0xff, 0xff}, true, uint8(1))
	f.Add([]byte{'D', 0, 0, 0, 10, 0, 9, 0, 0, 0, 200}, true, uint8(200))
	f.Fuzz(func(t *testing.T, b []byte, ask bool, cut uint8) {
		s := newServer(nil, nil, nil, time.Time{})
		if ask {
			s.own = &own{ready: 1, then: func(*own) {}}
		}
		var have []byte
		for chunk := range bytesIn(b, int(cut)+1) {
			have = append(have, chunk...)
			used, err := s.feed(have)
			if used < 0 || used > len(have) {
				t.Fatalf("used %d of %d", used, len(have))
			}
			if err != nil {
				return
			}
			have = have[used:]
		}
	})
}

// bytesIn cuts b into pieces.
func bytesIn(b []byte, n int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) > 0 {
			k := min(n, len(b))
			if !yield(bytes.Clone(b[:k])) {
				return
			}
			b = b[k:]
		}
	}
}
