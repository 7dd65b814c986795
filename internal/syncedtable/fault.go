package syncedtable

import (
	"errors"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tarndb/tarn"
)

// errorClass is the published class of a row's fault.
func errorClass(err error) string {
	const class = "SYNCED_TABLE_USER_ERROR."
	switch {
	case errors.Is(err, errNUL), errors.Is(err, errUTF8), isCode(err, "22021", "22P05"):
		return class + "CHARACTER_NOT_IN_REPERTOIRE"
	case errors.Is(err, errNullKey), isCode(err, "23505", "23502"):
		return class + "PRIMARY_KEY_CONSTRAINT_VIOLATION"
	}
	return class + "DATA_EXCEPTION"
}

// ofRow tells a fault of Postgres that lies in a row: of its values, of a
// constraint, or of an index that cannot hold it.
func ofRow(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || len(pg.Code) < 2 {
		return false
	}
	return pg.Code[:2] == "22" || pg.Code[:2] == "23" || pg.Code == "54000"
}

// final tells a fault that only the asker can mend.
func final(err error) bool {
	switch tarn.KindOf(err) {
	case tarn.KindInvalid, tarn.KindNotFound, tarn.KindConflict:
		return true
	}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || len(pg.Code) < 2 {
		return false
	}
	switch pg.Code {
	case "54000", "54011", "3D000": // an index row or too many columns; no such database
		return true
	case "42P01", "42P07", "42704", "42710": // somebody else works in the schema: look again
		return false
	}
	return pg.Code[:2] == "22" || pg.Code[:2] == "42" || pg.Code[:2] == "23"
}

// isCode tells whether err is one of Postgres's SQLSTATEs.
func isCode(err error, codes ...string) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return false
	}
	for _, c := range codes {
		if pg.Code == c {
			return true
		}
	}
	return false
}

// errMoved is a passing fault: the branch is not what it was when the load began.
var errMoved = tarn.Unavailable("the branch was restored or reset during the load")

// errBusy is a passing fault: a load of a killed process is not over yet.
var errBusy = errors.New("another load of the same table still runs")
