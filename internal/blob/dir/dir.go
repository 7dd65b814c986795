// Package dir keeps a blob store in a directory of a local file system, one file
// per object, so that other programs can read the same files. It knows names,
// links and locks of the file system, and nothing of what the files hold. Files
// whose name begins with ".tarn-" are its own and are never listed.
package dir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/tarndb/tarn/internal/blob"
)

// tempPrefix begins the names of files being written. A crash leaves such a
// file behind; it is invisible and harmless.
const tempPrefix = ".tarn-"

// Store is a directory. The zero value is not usable; see Open.
type Store struct{ root string }

var _ blob.Store = (*Store)(nil)

// Open gives the store at path, a directory or a file:// URL, and makes the
// directory when it is missing.
func Open(path string) (*Store, error) {
	root, err := localPath(path)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	if err := makeDirs(root); err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	return &Store{root: root}, nil
}

// localPath turns a path or file:// URL into an absolute path.
func localPath(path string) (string, error) {
	if strings.HasPrefix(path, "file:") {
		u, err := url.Parse(path)
		if err != nil {
			return "", err
		}
		if u.Host != "" && u.Host != "localhost" {
			return "", fmt.Errorf("host %q in a file URL", u.Host)
		}
		if u.Path == "" || u.RawQuery != "" || u.Fragment != "" {
			return "", errors.New("not a file URL of a directory")
		}
		path = u.Path
	} else if at := strings.Index(path, "://"); at > 0 {
		return "", fmt.Errorf("scheme %q is not file", path[:at])
	}
	if path == "" {
		return "", errors.New("empty path")
	}
	return filepath.Abs(path)
}

// Root is the directory's absolute path.
func (s *Store) Root() string { return s.root }

// URL is the root as a file:// URL.
func (s *Store) URL() string { return (&url.URL{Scheme: "file", Path: s.root}).String() }

// file gives the path of key's file.
func (s *Store) file(key string) (string, error) {
	if err := blob.CheckKey(key); err != nil {
		return "", err
	}
	for seg := range strings.SplitSeq(key, "/") {
		if strings.HasPrefix(seg, tempPrefix) {
			return "", fmt.Errorf("key %q has a reserved name", key)
		}
	}
	return filepath.Join(s.root, filepath.FromSlash(key)), nil
}

// Get reads n bytes at off; see blob.Store.
func (s *Store) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	name, err := s.file(key)
	if err != nil {
		return nil, fmt.Errorf("get: %w", err)
	}
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	if off < 0 {
		return nil, fmt.Errorf("get %s: negative offset %d", key, off)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, notExist(err))
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = blob.ErrNotExist
	}
	if err == nil && off > 0 {
		_, err = f.Seek(off, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	if n < 0 {
		return f, nil
	}
	return &section{Reader: io.LimitReader(f, n), Closer: f}, nil
}

type section struct {
	io.Reader
	io.Closer
}

// Head describes one object.
func (s *Store) Head(ctx context.Context, key string) (blob.Object, error) {
	name, err := s.file(key)
	if err != nil {
		return blob.Object{}, fmt.Errorf("head: %w", err)
	}
	if err := context.Cause(ctx); err != nil {
		return blob.Object{}, fmt.Errorf("head %s: %w", key, err)
	}
	st, err := os.Stat(name)
	if err == nil && !st.Mode().IsRegular() {
		err = blob.ErrNotExist
	}
	if err != nil {
		return blob.Object{}, fmt.Errorf("head %s: %w", key, notExist(err))
	}
	return object(key, st), nil
}

func object(key string, st fs.FileInfo) blob.Object {
	return blob.Object{Key: key, Size: st.Size(), ModTime: st.ModTime().UTC(), ETag: etag(st)}
}

// etag tells two contents of one name apart: every write of ours goes to a new
// inode with a modification time in nanoseconds that replace makes unlike the
// one before.
func etag(st fs.FileInfo) string {
	return strconv.FormatInt(st.ModTime().UnixNano(), 36) + "-" + strconv.FormatInt(st.Size(), 36) + "-" + strconv.FormatUint(inode(st), 36)
}

// notExist maps the file system's "no such file" (and a file where the key
// wants a directory) to the store's refusal.
func notExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) || isNotDir(err) {
		return blob.ErrNotExist
	}
	return err
}
