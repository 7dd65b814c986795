package postgres

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"time"

	"github.com/tarndb/tarn"
)

// Control is what pg_control says of a data directory.
type Control struct {
	SystemID       uint64
	State          uint32 // StateShutDown and so on
	Checkpoint     tarn.LSN
	Redo           tarn.LSN // where recovery from Checkpoint begins
	TLI            uint32
	CheckpointTime time.Time // whole seconds
	SegmentBytes   uint32    // size of a WAL segment

	// What the server that wrote it had; a standby must not have less.
	MaxConnections, MaxWorkers, MaxSenders, MaxPrepared, MaxLocks int
}

// Postgres's DBState.
const (
	StateStartup            = 0
	StateShutDown           = 1
	StateShutDownInRecovery = 2
	StateShuttingDown       = 3
	StateCrashRecovery      = 4
	StateArchiveRecovery    = 5
	StateInProduction       = 6
)

// Positions in ControlFileData (little-endian, on every 64-bit machine):
//
//	  0 system_identifier u64      8 pg_control_version u32
//	 12 catalog_version_no u32    16 state u32
//	 24 time i64                  32 checkPoint u64
//	 40 checkPointCopy: redo u64, ThisTimeLineID u32 (48), …, time i64 (104)
//	180 MaxConnections, max_worker_processes, max_wal_senders, max_prepared_xacts, max_locks_per_xact: 5 × i32
//	220 relseg_size … 228 xlog_seg_size u32
//	252 data_checksum_version u32
//	256 (18: default_char_signedness u8) mock_authentication_nonce [32]
//	288 (18: 292) crc u32: CRC-32C of everything before it
const (
	ctlSystemID   = 0
	ctlVersion    = 8
	ctlState      = 16
	ctlCheckpoint = 32
	ctlRedo       = 40
	ctlTLI        = 48
	ctlTime       = 104
	ctlRoom       = 180
	ctlSegment    = 228
)

// Where the checksum stands, by pg_control_version.
var ctlCRC = [...]struct{ version, at uint32 }{
	{1300, 288}, // Postgres 13 to 17
	{1800, 292}, // Postgres 18
}

// errTorn is a pg_control whose checksum is wrong.
var errTorn = errors.New("checksum mismatch")

// ReadControl reads global/pg_control of a data directory, whose server may be
// running.
func ReadControl(dataDir string) (Control, error) {
	path := filepath.Join(dataDir, "global", "pg_control")
	var torn error
	// Postgres rewrites the file in place; a read may meet half a write, but
	// not again and again.
	for range 10 {
		b, err := os.ReadFile(path)
		if err != nil {
			return Control{}, err
		}
		c, err := ParseControl(b)
		if !errors.Is(err, errTorn) {
			if err != nil {
				err = fmt.Errorf("read %s: %w", path, err)
			}
			return c, err
		}
		torn = err
	}
	return Control{}, fmt.Errorf("read %s: %w", path, torn)
}

// ParseControl reads the bytes of a pg_control of Postgres 15 to 18.
func ParseControl(b []byte) (Control, error) {
	le := binary.LittleEndian
	at, err := controlSum(b)
	if err != nil {
		return Control{}, err
	}
	if want, got := le.Uint32(b[at:]), crc32.Checksum(b[:at], crc32.MakeTable(crc32.Castagnoli)); want != got {
		return Control{}, fmt.Errorf("pg_control at byte %d: %w: expected %08x, found %08x", at, errTorn, want, got)
	}
	room := func(i int) int { return int(int32(le.Uint32(b[ctlRoom+4*i:]))) }
	return Control{
		MaxConnections: room(0), MaxWorkers: room(1), MaxSenders: room(2), MaxPrepared: room(3), MaxLocks: room(4),
		SystemID:       le.Uint64(b[ctlSystemID:]),
		State:          le.Uint32(b[ctlState:]),
		Checkpoint:     tarn.LSN(le.Uint64(b[ctlCheckpoint:])),
		Redo:           tarn.LSN(le.Uint64(b[ctlRedo:])),
		TLI:            le.Uint32(b[ctlTLI:]),
		CheckpointTime: time.Unix(int64(le.Uint64(b[ctlTime:])), 0).UTC(),
		SegmentBytes:   le.Uint32(b[ctlSegment:]),
	}, nil
}

// controlSum is where the checksum of a pg_control stands.
func controlSum(b []byte) (at uint32, err error) {
	if len(b) < ctlVersion+4 {
		return 0, fmt.Errorf("pg_control has only %d bytes", len(b))
	}
	version := binary.LittleEndian.Uint32(b[ctlVersion:])
	for _, l := range ctlCRC {
		if l.version == version {
			at = l.at
		}
	}
	if at == 0 {
		return 0, fmt.Errorf("pg_control is of version %d: want one of Postgres %d to %d", version, MinMajor, MaxMajor)
	}
	if len(b) < int(at)+4 {
		return 0, fmt.Errorf("pg_control has only %d bytes, want %d", len(b), at+4)
	}
	return at, nil
}

// DemandRecovery changes the bytes of a pg_control so that the next start
// replays the WAL behind its checkpoint, as after a crash. Where it says that
// Postgres has shut down, Postgres believes that nothing follows and overwrites
// what does: right on the computer it ran on, wrong for pages older than the WAL
// that is put beside them. It says afterwards what Postgres itself writes there
// when it starts.
func DemandRecovery(b []byte) error {
	if _, err := ParseControl(b); err != nil {
		return err
	}
	at, err := controlSum(b)
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	le.PutUint32(b[ctlState:], StateInProduction)
	le.PutUint32(b[at:], crc32.Checksum(b[:at], crc32.MakeTable(crc32.Castagnoli)))
	return nil
}
