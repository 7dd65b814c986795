package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tarndb/tarn"
)

// A start without its storage says what to type next, and begins nothing.
func TestStartWithoutItsStorage(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	refused := func(c serverConfig, kind tarn.Kind, said string, hints ...string) {
		t.Helper()
		_, err := c.join(t.Context(), func(string) {}, slog.New(slog.DiscardHandler))
		if tarn.KindOf(err) != kind || !strings.Contains(err.Error(), said) {
			t.Errorf("%v, want one of kind %v that says %q", err, kind, said)
		}
		for _, h := range hints {
			if !strings.Contains(tarn.HintOf(err), h) {
				t.Errorf("the hint is %q, want %q in it", tarn.HintOf(err), h)
			}
		}
	}
	away := serverConfig{Data: t.TempDir(), storage: storage{Place: "s3://b/p", Endpoint: "http://127.0.0.1:1", Region: "eu-1"}}
	refused(away, tarn.KindUnavailable, "nothing was changed", "can be reached from here; then: tarn up --data "+away.Data+" --storage s3://b/p", "add --storage-endpoint URL")

	mount := t.TempDir()
	c := serverConfig{Data: t.TempDir(), storage: storage{Place: "file://" + filepath.Join(mount, "tarn")}}
	if _, err := c.join(t.Context(), func(string) {}, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(c.Data, "control", "pgdata"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(mount, "tarn")); err != nil {
		t.Fatal(err)
	}
	refused(c, tarn.KindConflict, "is empty, and "+c.Data+" was copied there", "mount it, then: tarn up --data "+c.Data+";", "tarn up --data "+c.Data+" --storage "+c.storage.Place)
	left, err := filepath.Glob(filepath.Join(mount, "tarn", "*.json"))
	if err != nil || len(left) > 0 {
		t.Errorf("the empty storage was begun: %v, %v", left, err)
	}
}
