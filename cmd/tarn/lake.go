package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/blob/dir"
	"github.com/tarndb/tarn/internal/blob/open"
	"github.com/tarndb/tarn/internal/catalog"
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
			return tableStore(ctx, location)
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

// tableStore opens the folder of a table for a command on the server's own
// computer, and makes it. Buckets are reached as the server reaches its storage.
func tableStore(ctx context.Context, location string) (blob.Store, error) {
	at, err := open.Parse(location)
	if err != nil {
		return nil, err
	}
	if at.Dir != "" {
		return dir.Open(at.Dir)
	}
	p, err := loadProfile("")
	if err != nil {
		return nil, err
	}
	m, err := readMembership(p.Data)
	if err != nil || !strings.HasPrefix(location, m.Storage+"/") {
		m = membership{} // of another storage, or none
	}
	return open.Store(ctx, location, open.Options{
		Endpoint: first(os.Getenv("TARN_STORAGE_ENDPOINT"), m.Endpoint), Region: first(os.Getenv("TARN_STORAGE_REGION"), m.Region),
	})
}

// lakes are the folders of tables that the server reads and writes.
type lakes struct {
	data    string     // data directory
	storage string     // URL; "" = none
	remote  blob.Store // what is there
}

// inStorage are the folders of a storage that hold catalogs: lake, and the others.
var inStorage = [...]string{"lake", "catalogs"}

// root is where a new Tarn has its tables: in its storage, or here without one.
func (l lakes) root() string {
	if l.storage != "" {
		return strings.TrimSuffix(l.storage, "/") + "/" + inStorage[0]
	}
	return "file://" + (&url.URL{Path: filepath.Join(l.data, "lake")}).EscapedPath()
}

// begin makes catalog lake, or tells that the one that is there lies where no
// storage has it, and gives its root.
func (l lakes) begin(ctx context.Context, cat *catalog.Catalog, log *slog.Logger) (root string, err error) {
	if err := cat.EnsureDefault(ctx, l.root()); err != nil {
		return "", err
	}
	root, err = cat.Root(ctx, catalog.Default)
	if _, stored := l.folder(root); err == nil && l.storage != "" && !stored {
		log.Warn("managed tables are not in the storage, which is younger than catalog lake: copy this folder yourself", "path", root)
	}
	return root, err
}

// folder is where in the storage a folder of tables lies.
func (l lakes) folder(location string) (string, bool) {
	at, err := open.Parse(location)
	home, herr := open.Parse(l.storage)
	if err != nil || herr != nil || at.Bucket != home.Bucket {
		return "", false
	}
	path, below := at.Prefix, home.Prefix
	if home.Dir != "" {
		path, below = at.Dir, home.Dir
	}
	if below != "" {
		var ok bool
		if path, ok = strings.CutPrefix(path, strings.TrimSuffix(below, "/")+"/"); !ok {
			return "", false
		}
	}
	top, _, _ := strings.Cut(path, "/")
	return path, slices.Contains(inStorage[:], top)
}

// open opens the folder of a table: of this computer, of catalogs in the storage,
// whose connections it shares, or of another bucket, which is reached by AWS's
// standard chain of environment and files. Nothing else of the storage is opened.
func (l lakes) open(ctx context.Context, location string) (blob.Store, error) {
	at, err := open.Parse(location)
	if err != nil {
		return nil, fmt.Errorf("open the table at %s: %w", location, err)
	}
	if at.Dir != "" {
		return dir.Open(at.Dir)
	}
	if folder, ok := l.folder(location); ok {
		return blob.Below(l.remote, folder)
	}
	if l.storage != "" && strings.HasPrefix(at.String()+"/", l.storage+"/") {
		return nil, tarn.Invalid("open the table at %s: tables lie below %s/ in this storage", location, strings.Join(inStorage[:], "/ and ")).
			WithHint("copy the table below " + l.root() + ", and register it there")
	}
	return open.Store(ctx, location, open.Options{})
}

func (l lakes) openTable(ctx context.Context, location string) (*delta.Table, error) {
	s, err := l.open(ctx, location)
	if err != nil {
		return nil, err
	}
	return delta.Open(ctx, s, "")
}
