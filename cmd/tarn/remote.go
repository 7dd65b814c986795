package main

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/compute"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/wal"
)

// openRemote opens the object store of a data directory, if it has one, for one
// of the processes that its supervisor starts.
func (c *serverConfig) openRemote(ctx context.Context) (err error) {
	if c.storage.Place == "" {
		return nil
	}
	c.Remote, err = c.storage.open(ctx)
	return err
}

// remote is what the node keeps in the object store; zero without one.
func (c *serverConfig) remote(log *slog.Logger) (r compute.Remote, err error) {
	if c.Remote == nil {
		return r, nil
	}
	m, err := readMembership(c.Data)
	if err != nil {
		return r, err
	}
	r = compute.Remote{Store: c.Remote, Node: m.Node, Local: int64(c.storage.Cache), Lease: cmp.Or(m.Lease, usualLease)}
	r.WAL, err = wal.NewRemote(c.Remote, wal.RemoteOptions{Log: log})
	return r, err
}

// restoreControl fills a control database that was just made with the last copy
// in the object store, if there is one. While the store is not reached, nothing
// begins: a new workspace would stand where the old one belongs.
func (c *serverConfig) restoreControl(ctx context.Context, own *controlPostgres, log *slog.Logger) error {
	if c.Remote == nil {
		return nil
	}
	r, err := controldb.Restore(ctx, own.url, c.Remote, controldb.BackupOptions{Log: log})
	if err != nil {
		switch tarn.KindOf(err) {
		case tarn.KindConflict, tarn.KindNotFound:
			return nil // it is in use already; there is nothing to restore
		}
		return err
	}
	log.Info("control database restored", "path", c.Remote.URL(), "count", r.Rows, "version", r.Time.Format(time.RFC3339Nano))
	return nil
}

// lastCopyPatience bounds how long an end waits for the object store.
const lastCopyPatience = 10 * time.Second

// lastCopy copies the control database once more when everything that writes it
// has ended with err; a control that was overtaken may not.
func lastCopy(ctx context.Context, err error, b *controldb.Backup, log *slog.Logger) error {
	if tarn.KindOf(err) == tarn.KindConflict {
		return err
	}
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastCopyPatience)
	defer cancel()
	if err := b.Copy(limit); err != nil {
		log.Error("last change of the control database not copied", "err", err)
	}
	return err
}
