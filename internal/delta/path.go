package delta

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/tarndb/tarn/internal/blob"
)

// dataKey gives the store's key of a path in the log: percent-encoded, and
// relative to the table's folder or absolute.
func (t *place) dataKey(path string) (string, error) { return t.logKey(path, "") }

// logKey is dataKey for paths relative to a folder of the table. A path that
// leads out of the store is refused: a log must not make us read other files.
func (t *place) logKey(path, folder string) (string, error) {
	if scheme, rest, ok := strings.Cut(path, ":"); ok && isScheme(scheme) {
		return t.absoluteKey(path, unescape(rest))
	}
	if strings.HasPrefix(path, "/") {
		return t.absoluteKey(path, unescape(path))
	}
	key := t.key(folder) + unescape(path)
	if err := blob.CheckKey(key); err != nil {
		return "", &DamagedError{Path: t.key(logFolder), Reason: "path of a file", Err: err}
	}
	return key, nil
}

// canonical makes the spellings of one absolute local path equal: with and
// without a scheme, and with any number of slashes behind it.
func canonical(path string) string {
	if rest, ok := strings.CutPrefix(path, "file:/"); ok {
		return "/" + strings.TrimLeft(rest, "/")
	}
	return path
}

// isScheme tells a URL scheme from the beginning of a file name with a colon,
// which a writer that forgets to encode may leave.
func isScheme(s string) bool {
	switch strings.ToLower(s) {
	case "file", "s3", "s3a", "s3n", "gs", "abfs", "abfss", "wasb", "wasbs", "adl", "hdfs", "dbfs", "http", "https", "memory":
		return true
	}
	return false
}

// absoluteKey finds an absolute path in the store.
func (t *place) absoluteKey(path, rest string) (string, error) {
	outside := &UnsupportedError{Feature: fmt.Sprintf("file %s outside the store %s", path, t.store.URL())}
	root, err := url.Parse(t.store.URL())
	if err != nil {
		return "", outside
	}
	if scheme, _, ok := strings.Cut(path, ":"); ok && isScheme(scheme) && !strings.EqualFold(scheme, root.Scheme) ||
		!ok && root.Scheme != "file" {
		return "", outside
	}
	if root.Host != "" {
		rest = strings.TrimPrefix(rest, "//"+root.Host)
	} else if strings.HasPrefix(rest, "//") && strings.HasPrefix(rest, "///") {
		rest = rest[2:]
	}
	key, ok := strings.CutPrefix(rest, strings.TrimSuffix(root.Path, "/")+"/")
	if !ok || blob.CheckKey(key) != nil {
		return "", outside
	}
	return key, nil
}

// unescape percent-decodes; a sequence that is not one stays as it is.
func unescape(path string) string {
	if plain, err := url.PathUnescape(path); err == nil {
		return plain
	}
	return path
}

// escapePath percent-encodes a key for the log, segment by segment.
func escapePath(key string) string {
	var b strings.Builder
	for _, c := range []byte(key) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-_.~/=", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
