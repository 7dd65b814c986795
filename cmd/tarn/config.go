package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/client"
)

// This file reads files, flags and environment for the command line, and
// serverconfig.go for `tarn up`, and signedin.go the profile's sign-in; nothing
// else does.

// defaultHost is where `tarn up` serves.
const defaultHost = "http://127.0.0.1:8181"

// flags are those every command takes.
type flags struct {
	host      string
	tokenFile string
	project   string
	profile   string
	json      bool
}

func (f *flags) register(s *pflag.FlagSet) {
	s.StringVar(&f.host, "host", "", "server URL (TARN_HOST, DATABRICKS_HOST; default: the profile's, else "+defaultHost+")")
	s.StringVar(&f.tokenFile, "token-file", "", "file with the access token, - for standard input (TARN_TOKEN, DATABRICKS_TOKEN; default: the profile's)")
	s.StringVar(&f.project, "project", "", "project of a branch given without one (TARN_PROJECT; default: the profile's, else the only one)")
	s.StringVar(&f.profile, "profile", os.Getenv("TARN_PROFILE"), "which of your sign-ins to use (TARN_PROFILE; default: the one that tarn up writes)")
	s.BoolVar(&f.json, "json", false, "print JSON: the objects of the HTTP API")
}

// profile is what `tarn up` leaves for the command line: mode 0600, in the
// user's configuration directory.
type profile struct {
	Host    string `json:"host"`
	Token   string `json:"token"`
	Project string `json:"project,omitempty"`
	Data    string `json:"data,omitempty"` // data directory of the Tarn at Host, for `tarn down`

	SignIn signedIn `json:"sign_in,omitzero"` // goes before Token
}

// profilePath is <user configuration directory>/tarn/profile.json, and of a
// named profile profiles/NAME.json beside it.
func profilePath(name string) (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("find the configuration directory: %w", err)
	}
	switch {
	case name == "":
		return filepath.Join(dir, "tarn", "profile.json"), nil
	case len(name) > 64 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "":
		return "", tarn.Invalid("--profile %q: want letters, digits, - and _", name)
	}
	return filepath.Join(dir, "tarn", "profiles", name+".json"), nil
}

// loadProfile reads the profile; a missing one is empty.
func loadProfile(name string) (profile, error) {
	path, err := profilePath(name)
	if err != nil && name != "" {
		return profile{}, err
	}
	if err != nil {
		return profile{}, nil // nowhere to have one
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return profile{}, nil
	}
	if err != nil {
		return profile{}, fmt.Errorf("read profile: %w", err)
	}
	var p profile
	if err := json.Unmarshal(b, &p); err != nil {
		return profile{}, tarn.Invalid("read profile %s: %w", path, err).WithHint("delete the file; `tarn up` writes it again")
	}
	return p, nil
}

// saveProfile replaces the profile. It is written beside and renamed over, so
// that a crash leaves the old one or the new one.
func saveProfile(name string, p profile) (string, error) {
	path, err := profilePath(name)
	if err != nil {
		return "", err
	}
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return "", fmt.Errorf("save profile: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", fmt.Errorf("save profile: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".profile-*") // mode 0600
	if err != nil {
		return "", fmt.Errorf("save profile: %w", err)
	}
	_, err = f.Write(append(b, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("save profile: %w", err), os.Remove(f.Name()))
	}
	return path, nil
}

// settings say which server is meant, as whom, and which project is taken when
// none is named.
type settings struct {
	host    string
	token   tarn.Secret
	project string
}

// settings resolves flags, environment and profile, in this order. A token
// never travels to a host it was not given for: the profile's goes to the
// profile's host, DATABRICKS_TOKEN to DATABRICKS_HOST.
func (sh *shell) settings() (settings, error) {
	if sh.resolved == nil { // once: the token may come from standard input
		s, err := sh.resolve()
		if err != nil {
			return settings{}, err
		}
		sh.resolved = &s
	}
	return *sh.resolved, nil
}

func (sh *shell) resolve() (settings, error) {
	p, err := loadProfile(sh.flags.profile)
	if err != nil {
		return settings{}, err
	}
	s := settings{
		host:    first(sh.flags.host, os.Getenv("TARN_HOST"), os.Getenv("DATABRICKS_HOST"), p.Host, defaultHost),
		project: first(sh.flags.project, os.Getenv("TARN_PROJECT"), p.Project),
	}
	var token string
	switch {
	case sh.flags.tokenFile == "-":
		b, err := io.ReadAll(io.LimitReader(sh.in, 64<<10))
		if err != nil {
			return settings{}, fmt.Errorf("read token from standard input: %w", err)
		}
		token = string(b)
	case sh.flags.tokenFile != "":
		b, err := os.ReadFile(sh.flags.tokenFile)
		if err != nil {
			return settings{}, fmt.Errorf("read token: %w", err)
		}
		token = string(b)
	case os.Getenv("TARN_TOKEN") != "":
		token = os.Getenv("TARN_TOKEN")
	case os.Getenv("DATABRICKS_TOKEN") != "" && sameHost(s.host, os.Getenv("DATABRICKS_HOST")):
		token = os.Getenv("DATABRICKS_TOKEN")
	case sameHost(s.host, first(p.Host, defaultHost)):
		if token, err = freshToken(sh.flags.profile, p); err != nil {
			return settings{}, err
		}
	}
	s.token = tarn.Secret(strings.TrimSpace(token))
	return s, nil
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

func sameHost(a, b string) bool {
	clean := func(s string) string { return strings.TrimRight(strings.TrimSpace(s), "/") }
	return clean(a) == clean(b)
}

// client builds a client for the server meant.
func (sh *shell) client() (*client.Client, error) {
	s, err := sh.settings()
	if err != nil {
		return nil, err
	}
	if s.token == "" {
		return nil, tarn.Denied("no token for %s", s.host).
			WithHint("start Tarn with `tarn up`, which writes one to your profile, sign in with `tarn login`, or set TARN_TOKEN or --token-file")
	}
	return client.New(client.Options{Host: s.host, Token: s.token, UserAgent: "tarn/" + version()})
}

// withoutPostgres is the environment without what would redirect psql.
func withoutPostgres() []string {
	var env []string
	for _, kv := range os.Environ() {
		switch name, _, _ := strings.Cut(kv, "="); name {
		case "PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD", "PGPASSFILE",
			"PGSERVICE", "PGSERVICEFILE", "PGSSLMODE", "PGSSLROOTCERT", "PGREQUIREAUTH", "PGCHANNELBINDING":
		default:
			env = append(env, kv)
		}
	}
	return env
}

// readable says whether a file of the server's is on this computer too.
func readable(path string) bool {
	if path == "" {
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	_ = f.Close() // opened for reading only
	return true
}
