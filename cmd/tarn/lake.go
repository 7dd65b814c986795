package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/blob/dir"
	"github.com/tarndb/tarn/internal/blob/open"
	"github.com/tarndb/tarn/internal/delta"
)

// tableAt opens the Delta table at a location, a folder or a URL, without a
// server: what `tarn table --path` reads.
func tableAt(ctx context.Context, location string) (*delta.Table, error) {
	s, err := existingStore(ctx, location)
	if err != nil {
		return nil, err
	}
	t, err := delta.Open(ctx, s, "")
	if err != nil {
		return nil, fmt.Errorf("open table at %s: %w", location, err)
	}
	return t, nil
}

// existingStore finds the store of a location. It makes nothing: a folder that is
// not there is an error. Buckets are reached by AWS's standard chain of
// environment and files.
func existingStore(ctx context.Context, location string) (blob.Store, error) {
	path := location
	if scheme, _, ok := strings.Cut(location, "://"); ok {
		u, err := url.Parse(location)
		if err != nil {
			return nil, tarn.Invalid("table location %q: %w", location, err)
		}
		if scheme == "s3" {
			return open.Store(ctx, location, open.Options{})
		}
		if scheme != "file" {
			return nil, tarn.Invalid("table location %q: this Tarn reads folders, file:// and s3:// URLs, not %s", location, scheme)
		}
		path = u.Path
	}
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, tarn.NotFound("no folder %s", path)
	case err != nil:
		return nil, fmt.Errorf("open table location: %w", err)
	case !st.IsDir():
		return nil, tarn.Invalid("table location %s is a file, want the folder that holds _delta_log", path)
	}
	return dir.Open(path)
}

// locationURL makes an absolute URL of a folder, or keeps a URL.
func locationURL(location string) (string, error) {
	if strings.Contains(location, "://") {
		return location, nil
	}
	abs, err := filepath.Abs(location)
	if err != nil {
		return "", fmt.Errorf("find %s: %w", location, err)
	}
	return "file://" + (&url.URL{Path: abs}).EscapedPath(), nil
}
