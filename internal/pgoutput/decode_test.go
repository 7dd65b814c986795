package pgoutput_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tarndb/tarn/internal/pgoutput"
)

var update = flag.Bool("update", false, "rewrite testdata/*.txt from the golden messages")

// messages are those a real server sent; testdata/record.sql says how.
func messages(t testing.TB, file string) [][]byte {
	t.Helper()
	text, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	var all [][]byte
	for line := range strings.Lines(string(text)) {
		b, err := hex.DecodeString(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

func TestGoldenMessages(t *testing.T) {
	for _, v := range []string{"pg15", "pg18"} {
		t.Run(v, func(t *testing.T) {
			var d pgoutput.Decoder
			var got strings.Builder
			for i, b := range messages(t, v+".golden") {
				m, err := d.Decode(b)
				if err != nil {
					t.Fatalf("message %d: %v", i, err)
				}
				fmt.Fprintln(&got, show(m))
			}
			file := "testdata/" + v + ".txt"
			if *update {
				if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got.String() != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got.String(), want)
			}
		})
	}
}

func show(m pgoutput.Message) string {
	switch m := m.(type) {
	case *pgoutput.Begin:
		return fmt.Sprintf("begin final=%s time=%s xid=%d", m.FinalLSN, m.CommitTime.Format(time.RFC3339Nano), m.XID)
	case *pgoutput.Commit:
		return fmt.Sprintf("commit lsn=%s end=%s time=%s", m.CommitLSN, m.EndLSN, m.CommitTime.Format(time.RFC3339Nano))
	case *pgoutput.Origin:
		return fmt.Sprintf("origin lsn=%s name=%s", m.CommitLSN, m.Name)
	case *pgoutput.Relation:
		return fmt.Sprintf("relation %d %s.%s %c %v", m.ID, m.Namespace, m.Name, m.Identity, m.Columns)
	case *pgoutput.Type:
		return fmt.Sprintf("type %d %q %s", m.OID, m.Namespace, m.Name)
	case *pgoutput.Insert:
		return fmt.Sprintf("insert %d %s", m.Relation, row(m.New))
	case *pgoutput.Update:
		return fmt.Sprintf("update %d %c%s -> %s", m.Relation, max(m.OldKind, '-'), row(m.Old), row(m.New))
	case *pgoutput.Delete:
		return fmt.Sprintf("delete %d %c%s", m.Relation, m.OldKind, row(m.Old))
	case *pgoutput.Truncate:
		return fmt.Sprintf("truncate %v cascade=%t restart=%t", m.Relations, m.Cascade, m.RestartIdentity)
	case *pgoutput.Logical:
		return fmt.Sprintf("message %t %s %s %q", m.Transactional, m.LSN, m.Prefix, m.Content)
	}
	return fmt.Sprintf("%T", m)
}

func row(t pgoutput.Tuple) string {
	s := make([]string, len(t))
	for i, c := range t {
		switch v := c.Value; {
		case len(v) > 40:
			s[i] = fmt.Sprintf("%c:%s…%d", c.Kind, v[:4], len(v))
		case v != nil:
			s[i] = fmt.Sprintf("%c:%q", c.Kind, v)
		default:
			s[i] = string(rune(c.Kind))
		}
	}
	return "(" + strings.Join(s, " ") + ")"
}

// Every proper prefix of a message, and every message with a byte too many, is
// refused with an offset inside it.
func TestDamagedMessagesAreRefused(t *testing.T) {
	var d pgoutput.Decoder
	for i, b := range messages(t, "pg18.golden") {
		for n := range len(b) {
			_, err := d.Decode(b[:n])
			var c *pgoutput.CorruptError
			if !errors.As(err, &c) || c.Offset > n {
				t.Fatalf("message %d cut to %d bytes of %d: error %v", i, n, len(b), err)
			}
		}
		if _, err := d.Decode(append(b[:len(b):len(b)], 0)); err == nil {
			t.Fatalf("message %d with a byte more was accepted", i)
		}
	}
}

// Protocol 2: the boundaries of streamed transactions, as the documentation of
// Postgres draws them, and changes with their transaction's id in front.
func TestStreams(t *testing.T) {
	var d pgoutput.Decoder
	for _, c := range []struct {
		bytes string
		want  pgoutput.Message
	}{
		{"S\x00\x00\x00\x07\x01", &pgoutput.StreamStart{XID: 7, First: true}},
		{"E", &pgoutput.StreamStop{}},
		{"A\x00\x00\x00\x07\x00\x00\x00\x09", &pgoutput.StreamAbort{XID: 7, Sub: 9}},
		{"c\x00\x00\x00\x07\x00" + "\x00\x00\x00\x01\x00\x00\x00\x02" + "\x00\x00\x00\x01\x00\x00\x00\x03" + "\x00\x00\x00\x00\x00\x00\x00\x01",
			&pgoutput.StreamCommit{XID: 7, CommitLSN: 1<<32 + 2, EndLSN: 1<<32 + 3, CommitTime: time.UnixMicro(946684800*1000000 + 1).UTC()}},
	} {
		m, err := d.Decode([]byte(c.bytes))
		if err != nil || !reflect.DeepEqual(m, c.want) {
			t.Errorf("%q: %+v, %v", c.bytes, m, err)
		}
		for n := range len(c.bytes) {
			if _, err := d.Decode([]byte(c.bytes[:n])); err == nil {
				t.Errorf("%q cut to %d bytes was accepted", c.bytes, n)
			}
		}
	}
	for _, b := range messages(t, "pg18.golden") {
		in := append([]byte{b[0], 0, 0, 1, 2}, b[1:]...)
		xid, m, err := pgoutput.Split(in)
		if err != nil || xid != 258 || !bytes.Equal(m, b) {
			t.Fatalf("%q: split into %d and %q, %v", b, xid, m, err)
		}
	}
	if _, _, err := pgoutput.Split([]byte("I123")); err == nil {
		t.Error("half an xid was accepted")
	}
}

func TestRowsAreDecodedWithoutAllocation(t *testing.T) {
	var rows [][]byte
	for _, b := range messages(t, "pg18.golden") {
		if strings.IndexByte("BCIUDT", b[0]) >= 0 {
			rows = append(rows, b)
		}
	}
	var d pgoutput.Decoder
	n := testing.AllocsPerRun(100, func() {
		for _, b := range rows {
			if _, err := d.Decode(b); err != nil {
				t.Fatal(err)
			}
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for %d messages, want none", n, len(rows))
	}
}

func FuzzDecode(f *testing.F) {
	for _, v := range []string{"pg15.golden", "pg18.golden"} {
		for _, b := range messages(f, v) {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var d pgoutput.Decoder
		m, err := d.Decode(b)
		var c *pgoutput.CorruptError
		switch {
		case err == nil && m == nil:
			t.Error("neither a message nor an error")
		case err != nil && (!errors.As(err, &c) || c.Offset < 0 || c.Offset > len(b)):
			t.Errorf("error %v", err)
		case err == nil:
			_ = show(m)
		}
	})
}
