package feed

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/pgoutput"
)

func TestFullXID(t *testing.T) {
	for _, c := range []struct {
		xid  uint32
		near uint64
		want uint64
	}{
		{100, 90, 100}, {90, 100, 90}, {5, 1<<32 - 3, 1<<32 + 5},
		{1<<32 - 3, 1<<32 + 5, 1<<32 - 3}, {7, 3<<32 + 8, 3<<32 + 7}, {4000000000, 10, 4000000000},
	} {
		if got := fullXID(c.xid, c.near); got != c.want {
			t.Errorf("xid %d near %d: got %d, want %d", c.xid, c.near, got, c.want)
		}
	}
}

// Of a subtransaction that was rolled back only descriptions of tables are left.
func TestTransactionLeavesOutWhatWasRolledBack(t *testing.T) {
	tx := transaction{dir: t.TempDir(), limit: 40, open: true, aborted: map[uint32]bool{}}
	for i, m := range []string{"I1", "R2", "I2", "I3", "D2"} {
		xid := uint32(m[1] - '0')
		if err := tx.add(xid, tarn.LSN(i), []byte(m)); err != nil {
			t.Fatal(err)
		}
		tx.notes = append(tx.notes, note{xid, m})
	}
	tx.aborted[2] = true
	var got []string
	for m, err := range tx.all() {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(m.payload))
	}
	if s := strings.Join(got, " "); s != "I1 R2 I3" || tx.spool == nil {
		t.Errorf("got %s", s)
	}
	if s := strings.Join(slices.Collect(tx.said()), " "); s != "I1 I3" {
		t.Errorf("it said %s", s)
	}
}

// A transaction beyond its memory goes to a file and comes back whole, in
// order, more than once.
func TestTransactionSpools(t *testing.T) {
	dir := t.TempDir()
	tx := transaction{dir: dir, limit: 100}
	for round := range 2 {
		if err := tx.begin(&pgoutput.Begin{XID: 7}); err != nil {
			t.Fatal(err)
		}
		for i := range 50 {
			if err := tx.add(uint32(i%3), 1000+1, bytes.Repeat([]byte{byte(i)}, i)); err != nil {
				t.Fatal(err)
			}
		}
		if tx.spool == nil {
			t.Fatal("nothing was spooled")
		}
		for range 2 {
			i := 0
			for m, err := range tx.all() {
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(m.payload, bytes.Repeat([]byte{byte(i)}, i)) {
					t.Fatalf("round %d: message %d came back as %v", round, i, m.payload)
				}
				i++
			}
			if i != 50 {
				t.Fatalf("round %d: %d messages of 50 came back", round, i)
			}
		}
		tx.reset()
	}
	if err := tx.add(0, 1, nil); err == nil {
		t.Error("a change outside of a transaction was taken")
	}
}
