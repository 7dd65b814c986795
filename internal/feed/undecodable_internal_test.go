package feed

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

func TestUndecodable(t *testing.T) {
	of := func(code, message string) error {
		return fmt.Errorf("read: %w", &streamError{&pgconn.PgError{Severity: "ERROR", Code: code, Message: message}})
	}
	for _, c := range []struct {
		err  error
		want bool
	}{
		{of("XX000", `could not map filenode "base/16384/16405" to relation OID`), true},      // Postgres 15
		{of("XX000", `could not map filenumber "base/17166/18021" to relation OID`), true},    // Postgres 16 and later
		{of("XX000", `could not find tuple for relation 5`), false},                           // not known to stay
		{of("55000", `can no longer access replication slot`), true},                          // invalidated
		{of("57P01", `terminating connection due to administrator command`), false},           // a compute that goes
		{&pgconn.PgError{Severity: "ERROR", Code: "55000", Message: "not a stream's"}, false}, // another connection's
	} {
		if got := undecodable(c.err); got != c.want {
			t.Errorf("%v: got %v, want %v", c.err, got, c.want)
		}
	}
}
