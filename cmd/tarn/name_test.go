package main

import (
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/client"
)

func TestParseMoment(t *testing.T) {
	zone := time.FixedZone("here", 2*60*60)
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, zone)
	for s, want := range map[string]time.Time{
		"2026-01-02T09:00:00Z":      time.Date(2026, 1, 2, 9, 0, 0, 0, time.UTC),
		"2026-01-02T09:00:00+02:00": time.Date(2026, 1, 2, 7, 0, 0, 0, time.UTC),
		"2026-01-02 09:00:00.5+00":  time.Date(2026, 1, 2, 9, 0, 0, 5e8, time.UTC), // as psql prints it
		"2026-01-02 09:00:00+05:30": time.Date(2026, 1, 2, 3, 30, 0, 0, time.UTC),
		"2026-01-02 09:00:00Z":      time.Date(2026, 1, 2, 9, 0, 0, 0, time.UTC),
		"2026-01-02 09:00:00":       time.Date(2026, 1, 2, 7, 0, 0, 0, time.UTC),
		"2026-01-02 09:00:00.25":    time.Date(2026, 1, 2, 7, 0, 0, 250e6, time.UTC),
		"2026-01-02":                time.Date(2026, 1, 1, 22, 0, 0, 0, time.UTC),
		"-10m":                      time.Date(2026, 1, 2, 9, 50, 0, 0, time.UTC),
		"-1d12h":                    time.Date(2025, 12, 31, 22, 0, 0, 0, time.UTC),
		"10 minutes ago":            time.Date(2026, 1, 2, 9, 50, 0, 0, time.UTC),
		"1 day 2 hours ago":         time.Date(2026, 1, 1, 8, 0, 0, 0, time.UTC),
		"90s ago":                   time.Date(2026, 1, 2, 9, 58, 30, 0, time.UTC),
	} {
		m, err := parseMoment(s, now)
		if err != nil || m.lsn != 0 || !m.time.Equal(want) {
			t.Errorf("%s: %v %v, want %v", s, m, err, want)
		}
	}
	if m, err := parseMoment("0/16B3748", now); err != nil || m.lsn != 0x16B3748 || !m.time.IsZero() {
		t.Errorf("LSN: %v %v", m, err)
	}
	for _, bad := range []string{"", "yesterday", "10m", "-", "-0m", "--1m", "0/xyz", "0/0", "2026-13-01", "10 moons ago", "ago", "ten minutes ago", "10 minutes"} {
		if m, err := parseMoment(bad, now); tarn.KindOf(err) != tarn.KindInvalid {
			t.Errorf("%q: got %v %v", bad, m, err)
		}
	}
}

func TestParseSpan(t *testing.T) {
	for s, want := range map[string]time.Duration{"90m": 90 * time.Minute, "7d": 168 * time.Hour, "1d12h": 36 * time.Hour} {
		if got, err := parseSpan(s); err != nil || got != want {
			t.Errorf("%s: %v %v", s, got, err)
		}
	}
	for _, bad := range []string{"", "d", "7", "-7d", "1d-1h", "0s", "7dd", "week"} {
		if got, err := parseSpan(bad); err == nil {
			t.Errorf("%q: got %v", bad, got)
		}
	}
}

// A pasted URL must survive names with @ and paths with spaces.
func TestConnectionURL(t *testing.T) {
	ca := filepath.Join(t.TempDir(), "my ca.pem")
	if err := os.WriteFile(ca, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	at := client.Connection{Host: "127.1.2.3", Port: 5432, Database: "databricks_postgres", User: "me@example.com", CAFile: ca}
	u, err := url.Parse(connectionURL(at, url.UserPassword(at.User, "a.b-c_d")))
	if err != nil {
		t.Fatal(err)
	}
	pw, _ := u.User.Password()
	if u.User.Username() != at.User || pw != "a.b-c_d" || u.Host != "127.1.2.3:5432" || u.Path != "/databricks_postgres" ||
		u.Query().Get("sslmode") != "require" || u.Query().Get("sslrootcert") != ca {
		t.Errorf("%s", u)
	}
	at.CAFile = "/nowhere/ca.pem"
	const want = "postgresql://me%40example.com@127.1.2.3:5432/databricks_postgres?sslmode=require"
	if got := connectionURL(at, url.User(at.User)); got != want {
		t.Errorf("got %s", got)
	}
}

func TestProfileIsPrivate(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	for _, p := range []profile{{Host: "http://h", Token: "secret"}, {Host: "http://h2", Token: "other", Project: "shop"}} {
		path, err := saveProfile("", p)
		if err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(path)
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("mode %v %v, want 0600", st.Mode(), err)
		}
		if got, err := loadProfile(""); err != nil || got != p {
			t.Errorf("got %v %v", got, err)
		}
		if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".profile-*")); len(left) > 0 {
			t.Errorf("left behind %v", left)
		}
	}
}
