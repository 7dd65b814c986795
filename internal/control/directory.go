package control

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// Directory tells running computes which principals there are, so that
// databricks_create_role can refuse a name that nobody has. It is told as the
// comment of Tarn's own role, which every database of a compute can read and
// only a superuser can write:
//
//	tarn directory 1
//	<first 32 hexadecimal digits of SHA-256 of "TYPE:name">
//	…
//
// What a compute was not told yet it does not know; nothing else stands on it,
// because every login is checked against the control database.
type Directory struct {
	cfg   Config
	fleet *fleet
	again signal // a principal or a compute came or went

	slot chan struct{}   // of the one caller that tells
	told map[string]told // endpoint UID → what it was told; guarded by slot
}

// told is what one run of a compute was told.
type told struct {
	start time.Time
	hash  [32]byte
}

func newDirectory(cfg Config, f *fleet) *Directory {
	return &Directory{cfg: cfg, fleet: f, slot: make(chan struct{}, 1), told: make(map[string]told)}
}

const (
	directoryHead    = "tarn directory 1\n"
	directorySettle  = 300 * time.Millisecond // what has just started is left to its clients
	directoryRetry   = 5 * time.Second        // after a compute could not be told
	directoryPatient = 3 * time.Second        // how long a change of a principal waits for computes
)

// run tells computes until ctx ends.
func (d *Directory) run(ctx context.Context) {
	for ctx.Err() == nil {
		again := d.again.next()
		var retry <-chan time.Time
		if !d.tell(ctx) {
			retry = time.After(directoryRetry)
		}
		select {
		case <-again:
			settled := time.NewTimer(directorySettle)
			select {
			case <-settled.C:
			case <-ctx.Done():
			}
			settled.Stop()
		case <-retry:
		case <-ctx.Done():
		}
	}
}

// changed tells running computes of a change; one that does not answer in time
// hears of it later.
func (d *Directory) changed(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), directoryPatient)
	defer cancel()
	if !d.tell(ctx) {
		d.again.fire()
	}
}

// woke takes note of a compute that runs.
func (d *Directory) woke(st tarn.ComputeStatus) {
	if st.SocketDir == "" {
		return
	}
	select {
	case d.slot <- struct{}{}:
		known := d.told[st.Endpoint].start.Equal(st.StartTime)
		<-d.slot
		if known {
			return
		}
	default: // somebody tells at this moment, perhaps without this one
	}
	d.again.fire()
}

// tell tells every running compute what it does not know; all says whether
// that went well.
func (d *Directory) tell(ctx context.Context) (all bool) {
	select {
	case d.slot <- struct{}{}:
		defer func() { <-d.slot }()
	case <-ctx.Done():
		return false
	}
	if d.cfg.Node == nil {
		return true
	}
	running, err := d.fleet.look(ctx)
	if err != nil {
		return false
	}
	running = slices.DeleteFunc(slices.Clone(running), func(st tarn.ComputeStatus) bool { return st.State != tarn.ComputeActive || st.SocketDir == "" })
	seen := make(map[string]told, len(running))
	all = true
	text, err := d.text(ctx)
	if err != nil {
		return false
	}
	now := sha256.Sum256([]byte(text))
	for _, st := range running {
		want := told{st.StartTime, now}
		if d.told[st.Endpoint] != want {
			if err := tellCompute(ctx, st, text); err != nil {
				d.cfg.Log.Warn("compute not told of principals", "endpoint", st.Endpoint, "err", err)
				all = false
				continue
			}
		}
		seen[st.Endpoint] = want
	}
	d.told = seen
	return all
}

// text is the directory as computes are told it.
func (d *Directory) text(ctx context.Context) (string, error) {
	ps, err := controldb.ListPrincipals(ctx, d.cfg.DB)
	if err != nil {
		return "", err
	}
	lines := make([]string, 0, len(ps))
	for _, p := range ps {
		h := sha256.Sum256([]byte(string(p.Type) + ":" + p.Name))
		lines = append(lines, hex.EncodeToString(h[:16])+"\n")
	}
	slices.Sort(lines) // the same principals give the same text, which need not be written again
	return directoryHead + strings.Join(lines, ""), nil
}

func tellCompute(ctx context.Context, st tarn.ComputeStatus, text string) error {
	conn, err := dial(ctx, st, "postgres", nil)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var knows bool
	if err := conn.QueryRow(ctx, directoryKnown, text).Scan(&knows); err != nil || knows {
		return err
	}
	// A comment takes no parameter; the text is the head and digits alone.
	if _, err := conn.Exec(ctx, `COMMENT ON ROLE `+tarn.Superuser+` IS '`+text+`'`); err != nil {
		return fmt.Errorf("write the comment: %w", err)
	}
	return nil
}

// directoryKnown says whether a compute needs not be told: it knows, or it only
// reads what another writes.
const directoryKnown = `
SELECT pg_is_in_recovery() OR coalesce((SELECT shobj_description(oid, 'pg_authid') = $1::text FROM pg_roles WHERE rolname = current_user), false)`
