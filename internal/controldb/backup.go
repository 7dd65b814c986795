package controldb

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
)

// BackupOptions of a Backup.
type BackupOptions struct {
	Prefix string        // of its keys; "" = "control"
	Every  time.Duration // how often it looks for changes; 0 = 1 s
	Log    *slog.Logger  // nil = none
}

// Backup keeps copies of the control database in an object store: all rows as of
// one moment, one object each, a second after they changed. The database is
// small, so whole copies are the simplest thing that is right; they are
// independent of Postgres's version and can be read with tar.
//
//	<prefix>/<reign>-<number>.tar.zst      16 hexadecimal digits each
//
// The last copy in the order of keys is right. A reign is the time one control
// process writes: it claims the next number with its first copy. So one that was
// believed dead and goes on writes into the past, and is told to end.
//
// Every reign has a lineage, which its copies and the database it copies both
// name (backup_lineage, in a Postgres schema of its own: it is about this
// database, and no copy holds it). A control whose database does not descend
// from the last copy does not begin: the store belongs to another by now.
type Backup struct {
	db    *DB
	store blob.Store
	o     BackupOptions
	log   *slog.Logger

	// Of the goroutine in Run, and afterwards of Copy.
	reign   uint64
	number  uint64
	lineage string
	seen    string // what Postgres saw when the last copy was taken
	digest  string // of the last copy

	asOf atomic.Int64 // everything committed before was copied; after born, ns
	born time.Time
}

// NewBackup keeps copies of db in a store.
func NewBackup(db *DB, store blob.Store, o BackupOptions) *Backup {
	o.fill()
	return &Backup{db: db, store: store, o: o, log: o.Log, born: time.Now()}
}

func (o *BackupOptions) fill() {
	if o.Prefix == "" {
		o.Prefix = "control"
	}
	if o.Every == 0 {
		o.Every = time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// Run copies the database after every change until ctx ends, which is no error.
// A store that is not reached is tried again. KindConflict: the store belongs to
// another control by now, and this one must end.
func (b *Backup) Run(ctx context.Context) error {
	failed := false
	tick := time.NewTicker(b.o.Every)
	defer tick.Stop()
	for {
		err := b.Copy(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case tarn.KindOf(err) == tarn.KindConflict:
			return err
		case err != nil && !failed:
			b.log.Warn("control database not copied", "err", err)
		case err == nil && failed:
			b.log.Info("control database copied again")
		}
		failed = err != nil
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Copy copies the database now, unless nothing changed since the last copy. Run
// calls it; call it once more when Run has returned and nobody writes any more.
//
//  1. Claim a reign, once (claim).
//  2. See that no other reign has begun.
//  3. Write the copy. Crash: it is whole or not there.
//  4. Delete copies that nobody needs (thin). Crash: some are left.
func (b *Backup) Copy(ctx context.Context) error {
	began := time.Since(b.born)
	if err := b.copy(ctx); err != nil {
		return fmt.Errorf("copy the control database to %s: %w", b.store.URL(), err)
	}
	b.asOf.Store(int64(began))
	return nil
}

// Age is how long ago everything in the database was in the store too: what was
// changed since would be lost with this computer. Before the first copy it is how
// long there has been none.
func (b *Backup) Age() time.Duration {
	return time.Since(b.born) - time.Duration(b.asOf.Load())
}

func (b *Backup) copy(ctx context.Context) error {
	if b.reign == 0 {
		return b.claim(ctx)
	}
	var sees string
	if err := b.db.pool.QueryRow(ctx, dumpSnapshot).Scan(&sees); err != nil {
		return err
	}
	if sees == b.seen {
		return nil
	}
	d, err := b.db.takeDump(ctx)
	if err != nil {
		return err
	}
	if d.digest() == b.digest {
		b.seen = d.meta.snapshot
		return nil
	}
	for o, err := range b.store.List(ctx, b.o.Prefix+"/", b.key(b.reign, ^uint64(0))) {
		if err != nil {
			return err
		}
		return tarn.Conflict("another control has begun to write there: %s", o.Key).
			WithHint("end this one, or give it a storage of its own")
	}
	d.meta.Lineage = b.lineage
	if err := b.put(ctx, b.key(b.reign, b.number+1), d); err != nil {
		return err
	}
	b.number++
	b.seen, b.digest = d.meta.snapshot, d.digest()
	if b.number%thinEvery == 0 {
		if err := b.thin(ctx); err != nil {
			b.log.Warn("old copies of the control database not deleted", "err", err)
		}
	}
	return nil
}

// claim begins a reign.
//
//  1. Read whose the last copy is: ours, or nobody's.
//  2. Give the database a new lineage, and keep the old one beside it. Crash:
//     the last copy is of the old one.
//  3. Write the first copy under the next number. Only one can.
func (b *Backup) claim(ctx context.Context) error {
	last, err := lastCopy(ctx, b.store, b.o.Prefix, b.log)
	if err != nil && tarn.KindOf(err) != tarn.KindNotFound {
		return err
	}
	own, before, err := b.db.lineage(ctx)
	if err != nil {
		return err
	}
	if last.key != "" && last.meta.Lineage != own && last.meta.Lineage != before {
		return tarn.Conflict("the storage holds the control database of another Tarn, last written at %s", last.meta.Time.Format(time.RFC3339)).
			WithHint("give this one a storage of its own, or an empty data directory to restore the other into")
	}
	var fresh [16]byte
	if _, err := rand.Read(fresh[:]); err != nil {
		return err
	}
	lineage := hex.EncodeToString(fresh[:])
	if err := b.db.setLineage(ctx, lineage, last.meta.Lineage); err != nil {
		return err
	}
	d, err := b.db.takeDump(ctx)
	if err != nil {
		return err
	}
	d.meta.Lineage = lineage
	if err := b.put(ctx, b.key(last.reign+1, 0), d); err != nil {
		return err
	}
	b.reign, b.number, b.lineage, b.seen, b.digest = last.reign+1, 0, lineage, d.meta.snapshot, d.digest()
	return nil
}

// put writes a copy. After a lost answer it looks whether the bytes are there.
func (b *Backup) put(ctx context.Context, key string, d dump) error {
	packed, err := d.pack()
	if err != nil {
		return err
	}
	err = b.store.PutIfAbsent(ctx, key, packed)
	if err == nil || !errors.Is(err, blob.ErrAmbiguous) && !errors.Is(err, blob.ErrExists) {
		return err
	}
	there, rerr := readAll(ctx, b.store, key)
	switch {
	case rerr == nil && bytes.Equal(there, packed):
		return nil
	case errors.Is(rerr, blob.ErrNotExist):
		return err // it did not happen
	case rerr != nil:
		return errors.Join(err, rerr)
	}
	if got, derr := unpackDump(there); derr == nil && got.meta.Lineage == d.meta.Lineage {
		// An earlier try of ours, whose answer was lost: the next copy replaces it.
		b.number++
		return err
	}
	return tarn.Conflict("another control has written %s", key)
}

func (b *Backup) key(reign, number uint64) string {
	return fmt.Sprintf("%s/%016x-%016x%s", b.o.Prefix, reign, number, copySuffix)
}

const copySuffix = ".tar.zst"

// stored is a copy in the store; key is "" for none.
type stored struct {
	key   string
	reign uint64
	dump
}

// lastCopy reads the last copy that is whole; KindNotFound without one.
func lastCopy(ctx context.Context, s blob.Store, prefix string, log *slog.Logger) (stored, error) {
	var all []stored
	for o, err := range s.List(ctx, prefix+"/", "") {
		if err != nil {
			return stored{}, err
		}
		if reign, ok := parseCopyKey(strings.TrimPrefix(o.Key, prefix+"/")); ok {
			all = append(all, stored{key: o.Key, reign: reign})
		}
	}
	for i := len(all) - 1; i >= 0; i-- {
		b, err := readAll(ctx, s, all[i].key)
		if err != nil {
			return stored{}, err
		}
		d, err := unpackDump(b)
		if err == nil {
			all[i].dump = d
			all[i].reign = all[len(all)-1].reign // the number is taken, whole or not
			return all[i], nil
		}
		log.Error("a copy of the control database is broken", "path", all[i].key, "err", err)
	}
	if len(all) > 0 {
		return stored{}, fmt.Errorf("no copy in %s/%s is whole", s.URL(), prefix)
	}
	return stored{}, tarn.NotFound("no copy of a control database in %s/%s", s.URL(), prefix)
}

func parseCopyKey(name string) (reign uint64, ok bool) {
	name, ok = strings.CutSuffix(name, copySuffix)
	if !ok || len(name) != 33 || name[16] != '-' {
		return 0, false
	}
	reign, err := strconv.ParseUint(name[:16], 16, 64)
	return reign, err == nil
}

func readAll(ctx context.Context, s blob.Store, key string) (b []byte, err error) {
	r, err := s.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return io.ReadAll(io.LimitReader(r, dumpMost))
}

// How many copies stay: the last ones, and the last of every hour for a week.
const (
	thinEvery  = 60
	keepLatest = 60
	keepHourly = 7 * 24 * time.Hour
)

func (b *Backup) thin(ctx context.Context) error {
	var all []blob.Object
	for o, err := range b.store.List(ctx, b.o.Prefix+"/", "") {
		if err != nil {
			return err
		}
		if _, ok := parseCopyKey(strings.TrimPrefix(o.Key, b.o.Prefix+"/")); ok {
			all = append(all, o)
		}
	}
	return b.store.Delete(ctx, superfluous(all, time.Now())...)
}

// superfluous are the keys of copies, given in order, that may go.
func superfluous(all []blob.Object, now time.Time) []string {
	var gone []string
	for i := range max(0, len(all)-keepLatest) {
		lastOfHour := !all[i+1].ModTime.Truncate(time.Hour).Equal(all[i].ModTime.Truncate(time.Hour))
		if !lastOfHour || now.Sub(all[i].ModTime) > keepHourly {
			gone = append(gone, all[i].Key)
		}
	}
	return gone
}

const (
	makeLineage = `CREATE SCHEMA IF NOT EXISTS backup`
	makeTable   = `CREATE TABLE IF NOT EXISTS backup.lineage (one boolean PRIMARY KEY DEFAULT true CHECK (one), own text NOT NULL, before text NOT NULL)`
	putLineage  = `INSERT INTO backup.lineage (own, before) VALUES ($1, $2) ON CONFLICT (one) DO UPDATE SET own = $1, before = $2`
	hasLineage  = `SELECT to_regclass('backup.lineage') IS NOT NULL`
	getLineage  = `SELECT own, before FROM backup.lineage`
)

// lineage is what the database descends from; "" for a new one.
func (d *DB) lineage(ctx context.Context) (own, before string, err error) {
	var has bool
	if err := d.pool.QueryRow(ctx, hasLineage).Scan(&has); err != nil || !has {
		return "", "", err
	}
	err = d.pool.QueryRow(ctx, getLineage).Scan(&own, &before)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", "", nil
	}
	return own, before, err
}

func (d *DB) setLineage(ctx context.Context, own, before string) error {
	return pgx.BeginFunc(ctx, d.pool, func(tx pgx.Tx) error { return writeLineage(ctx, tx, own, before) })
}

func writeLineage(ctx context.Context, tx pgx.Tx, own, before string) error {
	for _, sql := range [...]string{makeLineage, makeTable} {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return fmt.Errorf("record the lineage of the control database: %w", err)
		}
	}
	if _, err := tx.Exec(ctx, putLineage, own, before); err != nil {
		return fmt.Errorf("record the lineage of the control database: %w", err)
	}
	return nil
}
