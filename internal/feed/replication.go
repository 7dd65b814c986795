package feed

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/pgoutput"
)

// replication is a connection in replication mode. Its reading half and its
// writing half may be used by two goroutines once it streams.
type replication struct {
	conn     *pgx.Conn
	systemID string
	major    int // of the server's version
}

// textSettings make Postgres print values the one way value.go reads them,
// whatever the database or the role has set.
var textSettings = [...][2]string{
	{"datestyle", "ISO, MDY"},
	{"intervalstyle", "iso_8601"},
	{"extra_float_digits", "3"},
	{"bytea_output", "hex"},
	{"timezone", "UTC"},
	{"client_encoding", "UTF8"},
	{"search_path", "pg_catalog"},
	// A feed may copy or wait for longer than the limits of an application.
	{"statement_timeout", "0"},
	{"idle_in_transaction_session_timeout", "0"},
	{"idle_session_timeout", "0"},
	{"lock_timeout", "0"},
}

// configure prepares an ordinary connection that reads values as text.
func configure(c *pgx.ConnConfig, name string) {
	for _, s := range textSettings {
		c.RuntimeParams[s[0]] = s[1]
	}
	c.RuntimeParams["application_name"] = name
	c.DefaultQueryExecMode = pgx.QueryExecModeExec
}

func configureReplication(c *pgx.ConnConfig, name string) {
	configure(c, name)
	c.RuntimeParams["replication"] = "database"
	c.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
}

func newReplication(ctx context.Context, conn *pgx.Conn) (*replication, error) {
	r := &replication{conn: conn}
	row, err := r.one(ctx, "IDENTIFY_SYSTEM")
	if err != nil {
		return nil, fmt.Errorf("identify the system: %w", err)
	}
	r.systemID = row[0]
	r.major = majorOf(conn)
	return r, nil
}

// majorOf is a server's major version; 0 = a development version, for which the
// oldest will do.
func majorOf(conn *pgx.Conn) int {
	text := conn.PgConn().ParameterStatus("server_version") // "18.1 (Debian 18.1-1)"
	n, err := strconv.Atoi(text[:max(0, strings.IndexByte(text, '.'))])
	if err != nil {
		return 0
	}
	return n
}

// one runs a replication command that answers one row.
func (r *replication) one(ctx context.Context, command string) ([]string, error) {
	res, err := r.conn.PgConn().Exec(ctx, command).ReadAll()
	if err != nil {
		return nil, err
	}
	if len(res) != 1 || len(res[0].Rows) != 1 {
		return nil, fmt.Errorf("%s: want one row", command)
	}
	row := make([]string, len(res[0].Rows[0]))
	for i, v := range res[0].Rows[0] {
		row[i] = string(v)
	}
	return row, nil
}

// exported is a snapshot that a new slot exported: it shows every transaction
// whose commit ended at or before Point, and the slot yields all others. It
// lives as long as its replication connection runs no other command.
type exported struct {
	Point    tarn.LSN
	Snapshot string
}

// slotKind says how long a replication slot lives.
type slotKind string

const (
	durableSlot   slotKind = ""
	temporarySlot slotKind = " TEMPORARY" // ends with its connection
)

// Postgres 18.4 dies of a segmentation fault when what it decodes while it makes
// a slot has to go to disk and transactions are rolled back: 1 of 139 slots under
// the load of this package's tests at 64 kB, none of 903 at 64 MB. Only what
// transactions that run just then have written is held.
const (
	roomySQL  = `SELECT set_config(name, greatest(setting::bigint, 256 << 10)::text, false) FROM pg_settings WHERE name = 'logical_decoding_work_mem'`
	asWereSQL = `RESET logical_decoding_work_mem`
)

// createSlot makes a logical slot and exports the snapshot of its start. It
// returns when every transaction that was running has ended.
func (r *replication) createSlot(ctx context.Context, name string, kind slotKind) (exported, error) {
	if _, err := r.conn.Exec(ctx, roomySQL); err != nil {
		return exported{}, fmt.Errorf("set logical_decoding_work_mem: %w", err)
	}
	options := " LOGICAL pgoutput (SNAPSHOT 'export')"
	if kind == durableSlot && r.major >= 17 {
		// A standby that synchronizes slots takes it over; without one it
		// makes no difference.
		options = " LOGICAL pgoutput (SNAPSHOT 'export', FAILOVER true)"
	}
	row, err := r.one(ctx, "CREATE_REPLICATION_SLOT "+pgx.Identifier{name}.Sanitize()+string(kind)+options)
	if err != nil {
		return exported{}, fmt.Errorf("create slot %s: %w", name, err)
	}
	if len(row) < 3 {
		return exported{}, fmt.Errorf("create slot %s: answer has %d columns", name, len(row))
	}
	p, err := tarn.ParseLSN(row[1])
	return exported{Point: p, Snapshot: row[2]}, err
}

// start begins streaming where the slot was last confirmed. Transactions that
// are larger than logical_decoding_work_mem come before their end, so that they
// wait on this side, in a file, and not on the server's disk.
func (r *replication) start(ctx context.Context, slot, publication string) error {
	if _, err := r.conn.Exec(ctx, asWereSQL); err != nil {
		return fmt.Errorf("set logical_decoding_work_mem: %w", err)
	}
	pc := r.conn.PgConn()
	fe := pc.Frontend()
	fe.SendQuery(&pgproto3.Query{String: "START_REPLICATION SLOT " + pgx.Identifier{slot}.Sanitize() +
		" LOGICAL 0/0 (proto_version '2', streaming 'on', publication_names " + quoteOption(publication) + ", messages 'true')"})
	if err := fe.Flush(); err != nil {
		return fmt.Errorf("start replication: %w", err)
	}
	for {
		m, err := pc.ReceiveMessage(ctx)
		if err != nil {
			return fmt.Errorf("start replication from slot %s: %w", slot, err)
		}
		switch m := m.(type) {
		case *pgproto3.CopyBothResponse:
			return nil
		case *pgproto3.ErrorResponse:
			return fmt.Errorf("start replication from slot %s: %w", slot, &streamError{pgconn.ErrorResponseToPgError(m)})
		}
	}
}

// quoteOption writes a list of one identifier as an option's string literal.
func quoteOption(name string) string {
	return "'" + strings.ReplaceAll(pgx.Identifier{name}.Sanitize(), "'", "''") + "'"
}

// event is one message of the stream: a change with its bytes, or a keepalive.
//
//	XLogData   'w' start LSN (8) server end LSN (8) server time (8) payload
//	keepalive  'k' server end LSN (8) server time (8) reply wanted (1)
type event struct {
	lsn     tarn.LSN // of the change; of everything sent so far for a keepalive
	payload []byte   // nil for a keepalive
	reply   bool     // keepalive wants a status now
}

// errStreamEnded means the server ended the stream, as it does at shutdown.
var errStreamEnded = errors.New("server ended the stream")

// streamError is what Postgres says of a stream, not of a connection.
type streamError struct{ err error }

func (e *streamError) Error() string { return e.err.Error() }
func (e *streamError) Unwrap() error { return e.err }

// next reads one message. The payload is a copy. A context that ends leaves the
// connection usable for another next.
func (r *replication) next(ctx context.Context) (event, error) {
	for {
		m, err := r.conn.PgConn().ReceiveMessage(ctx)
		if err != nil {
			return event{}, err
		}
		switch m := m.(type) {
		case *pgproto3.CopyData:
			return parseEvent(m.Data)
		case *pgproto3.ErrorResponse:
			return event{}, &streamError{pgconn.ErrorResponseToPgError(m)}
		case *pgproto3.CopyDone, *pgproto3.CommandComplete, *pgproto3.ReadyForQuery:
			return event{}, errStreamEnded
		}
	}
}

func parseEvent(b []byte) (event, error) {
	switch {
	case len(b) >= 25 && b[0] == 'w':
		return event{lsn: tarn.LSN(binary.BigEndian.Uint64(b[1:])), payload: append([]byte(nil), b[25:]...)}, nil
	case len(b) == 18 && b[0] == 'k':
		return event{lsn: tarn.LSN(binary.BigEndian.Uint64(b[1:])), reply: b[17] != 0}, nil
	}
	kind := byte(0)
	if len(b) > 0 {
		kind = b[0]
	}
	return event{}, &pgoutput.CorruptError{Type: kind, Offset: len(b), Want: "a replication message w or k"}
}

// status tells the server that everything up to flushed is ours for good.
//
//	'r' written (8) flushed (8) applied (8) client time (8) reply wanted (1)
func (r *replication) status(flushed tarn.LSN, now time.Time) error {
	var m [5 + 34]byte
	m[0] = 'd' // CopyData
	binary.BigEndian.PutUint32(m[1:], uint32(len(m)-1))
	m[5] = 'r'
	binary.BigEndian.PutUint64(m[6:], uint64(flushed))
	binary.BigEndian.PutUint64(m[14:], uint64(flushed))
	binary.BigEndian.PutUint64(m[22:], uint64(flushed))
	binary.BigEndian.PutUint64(m[30:], uint64(now.UnixMicro()-postgresEpoch))
	if err := r.conn.PgConn().Frontend().SendUnbufferedEncodedCopyData(m[:]); err != nil {
		return fmt.Errorf("send replication status: %w", err)
	}
	return nil
}

// postgresEpoch is 2000-01-01 UTC in µs of Unix time.
const postgresEpoch = 946684800 * 1000000
