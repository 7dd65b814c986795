package postgres

import "testing"

// The reason of a failed start must not drown in what our probing causes.
func TestLogTailWithoutKnocks(t *testing.T) {
	const (
		reason = "10:00 [2] FATAL:  recovery ended before configured recovery target was reached\n"
		knock  = "10:00 [3] a@b FATAL:  the database system is not accepting connections\n10:00 [3] a@b DETAIL:  Hot standby mode is disabled.\n"
		detail = "10:00 [2] DETAIL:  of the reason\n"
		end    = "10:00 [1] LOG:  database system is shut down\n"
	)
	if got, want := withoutKnocks(knock+reason+detail+knock+knock+end), reason+detail+end; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
