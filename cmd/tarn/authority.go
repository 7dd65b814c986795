package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/tarndb/tarn/internal/blob"
)

// authorityFiles are the gateway's own certificate authority: the key first, as
// the gateway makes them. Clients that trust it shall go on when the data
// directory is lost.
func authorityFiles() []string { return []string{"ca.key", "ca.crt"} }

const authorityPrefix = "ca/"

// restoreAuthority fills a data directory without an authority with the one in
// the object store, if there is one. A crash between the two files is mended by
// the next start: the certificate is written last.
func (c *serverConfig) restoreAuthority(ctx context.Context) error {
	dir := filepath.Join(c.Data, "ca")
	if c.Remote == nil {
		return nil
	}
	if _, err := os.Stat(filepath.Join(dir, "ca.crt")); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, name := range authorityFiles() {
		text, _, err := readTagged(ctx, c.Remote, authorityPrefix+name)
		if errors.Is(err, blob.ErrNotExist) {
			return nil
		}
		if err == nil {
			err = os.MkdirAll(dir, 0o755)
		}
		mode := fs.FileMode(0o644)
		if name == "ca.key" {
			mode = 0o600
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name+".new"), text, mode)
		}
		if err == nil {
			err = os.Rename(filepath.Join(dir, name+".new"), filepath.Join(dir, name))
		}
		if err != nil {
			return fmt.Errorf("bring the certificate authority back: %w", err)
		}
	}
	return nil
}

// copyAuthority copies the authority to the object store when the gateway has
// made it, and ends.
func (c *serverConfig) copyAuthority(ctx context.Context, certificate string, log *slog.Logger) error {
	if c.Remote == nil {
		return nil
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for warned := false; ; {
		err := c.putAuthority(ctx, filepath.Dir(certificate))
		if err == nil || ctx.Err() != nil {
			return nil
		}
		if !warned && !errors.Is(err, fs.ErrNotExist) {
			log.Warn("certificate authority not copied", "err", err)
			warned = true
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (c *serverConfig) putAuthority(ctx context.Context, dir string) error {
	for _, name := range authorityFiles() {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if err := c.Remote.Put(ctx, authorityPrefix+name, bytes.NewReader(text)); err != nil {
			return err
		}
	}
	return nil
}
