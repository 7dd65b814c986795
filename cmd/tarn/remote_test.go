package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob/memory"
	"github.com/tarndb/tarn/internal/control"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
	"github.com/tarndb/tarn/internal/token"
)

// The data directory is lost; a new one begins with what the object store has.
func TestControlComesBackFromTheObjectStore(t *testing.T) {
	home := pgtest.Dir(t)
	c := serverConfig{Data: filepath.Join(home, "data"), Remote: memory.New()}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	begin := func() *controldb.DB {
		t.Helper()
		for _, dir := range []string{c.Data, filepath.Join(c.Data, "log")} {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		own, err := openControlPostgres(t.Context(), c, pgtest.Installs(t), log)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(own.server.Kill)
		if err := c.restoreControl(t.Context(), own, log); err != nil {
			t.Fatal(err)
		}
		db, err := controldb.Open(t.Context(), own.url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			db.Close()
			own.close(t.Context(), log)
		})
		return db
	}
	bootstrap := func(db *controldb.DB) (*control.Control, control.Beginning, []token.Key) {
		t.Helper()
		signer := token.NewSigner(db, "http://127.0.0.1:8181/oidc", audience, token.Options{})
		ctl := control.New(control.Config{DB: db, Signer: signer, Owner: "owner@localhost", Log: log})
		b, err := ctl.Bootstrap(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := signer.JWKS(t.Context()); err != nil {
			t.Fatal(err)
		}
		keys, err := db.SigningKeys(t.Context())
		if err != nil || len(keys) == 0 {
			t.Fatal(keys, err)
		}
		return ctl, b, keys
	}
	db := begin()
	_, first, keys := bootstrap(db)
	if first.Token == "" {
		t.Fatal("the first start made no token")
	}
	if err := controldb.NewBackup(db, c.Remote, controldb.BackupOptions{}).Copy(t.Context()); err != nil {
		t.Fatal(err)
	}
	db.Close()

	c.Data = filepath.Join(home, "new")
	db = begin()
	ctl, again, kept := bootstrap(db)
	if again.Token != "" || !reflect.DeepEqual(again.Workspace, first.Workspace) {
		t.Errorf("a new workspace began: %+v, want %+v", again.Workspace, first.Workspace)
	}
	if p, err := ctl.Authenticate(t.Context(), first.Token.Reveal()); err != nil || p.Name != "owner@localhost" {
		t.Errorf("the first token is of %+v, %v", p, err)
	}
	if !reflect.DeepEqual(kept, keys) {
		t.Error("the signing keys are others")
	}
	// A start with the data directory there changes nothing.
	if err := c.restoreControl(t.Context(), &controlPostgres{url: socketURL(c.socketDir("control"), 0, controlDatabase)}, log); err != nil {
		t.Fatal(err)
	}
	var none tarn.Secret
	if _, b, _ := bootstrap(db); b.Token != none {
		t.Error("a second start began anew")
	}
}
