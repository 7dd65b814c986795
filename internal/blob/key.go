package blob

import (
	"fmt"
	"strings"
)

// CheckKey says why key cannot name an object. Every backend refuses such a key
// before it touches anything, so a key never leads out of its store.
func CheckKey(key string) error {
	if key == "" {
		return fmt.Errorf("empty key")
	}
	if strings.IndexByte(key, 0) >= 0 {
		return fmt.Errorf("key %q holds a NUL byte", key)
	}
	for seg := range strings.SplitSeq(key, "/") {
		if seg == "" || seg == "." || seg == ".." {
			return fmt.Errorf("key %q has the segment %q", key, seg)
		}
	}
	return nil
}

// CheckPrefix says why prefix cannot begin a key. "" and a trailing slash are
// good; the last segment may be any beginning of a name.
func CheckPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	p := strings.TrimSuffix(prefix, "/")
	if at := strings.LastIndexByte(p, '/'); len(p) == len(prefix) {
		// The last segment is only the beginning of a name: "a/." is good.
		if at < 0 {
			return nil
		}
		p = p[:at]
	}
	return CheckKey(p)
}
