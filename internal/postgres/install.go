package postgres

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/tarndb/tarn"
)

// MinMajor and MaxMajor bound the Postgres versions Tarn runs.
const (
	MinMajor = 15
	MaxMajor = 18
)

// Install is one Postgres found on this machine.
type Install struct {
	BinDir  string // absolute; holds postgres and initdb
	Major   int    // e.g. 18
	Version string // as the program says it, e.g. "18.4"
}

func (in Install) program(name string) string { return filepath.Join(in.BinDir, name) }

// Where distributions and the source build put Postgres.
var systemBinDirs = [...]string{
	"/usr/lib/postgresql/*/bin",
	"/usr/pgsql-*/bin",
	"/usr/local/pgsql/bin",
}

// Find looks for Postgres 15 to 18: in the directory named explicitly, in
// extra, in PATH and where distributions put it. The explicit one, which must
// be usable, comes first; the others follow newest first. Of several
// directories with one major version the first found stays. Finding none is
// KindUnavailable.
func Find(ctx context.Context, explicit string, extra ...string) ([]Install, error) {
	var found []Install
	if explicit != "" {
		in, err := inspect(ctx, explicit)
		if err != nil {
			return nil, err
		}
		found = append(found, in)
	}
	dirs := slices.Clone(extra)
	if p, err := exec.LookPath("postgres"); err == nil {
		dirs = append(dirs, filepath.Dir(p))
	}
	for _, pattern := range systemBinDirs {
		match, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		dirs = append(dirs, match...)
	}
	for _, dir := range dirs {
		in, err := inspect(ctx, dir)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		// A directory that was only guessed may well hold none, or another
		// version than ours.
		if err == nil && !slices.ContainsFunc(found, func(o Install) bool { return o.Major == in.Major }) {
			found = append(found, in)
		}
	}
	if len(found) == 0 {
		return nil, tarn.Unavailable("find Postgres %d to %d: none on this machine", MinMajor, MaxMajor).
			WithHint("install it (apt install postgresql), run make to fetch the embedded one, or name its directory with --pg-bin")
	}
	rest := found
	if explicit != "" {
		rest = found[1:]
	}
	slices.SortStableFunc(rest, func(a, b Install) int { return b.Major - a.Major })
	return found, nil
}

func inspect(ctx context.Context, dir string) (Install, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return Install{}, err
	}
	abs = home(abs)
	for _, name := range [...]string{"postgres", "initdb"} {
		if _, err := exec.LookPath(filepath.Join(abs, name)); err != nil {
			return Install{}, tarn.Invalid("look for Postgres in %s: %w", abs, err).
				WithHint("name the directory that holds the programs postgres and initdb")
		}
	}
	program := filepath.Join(abs, "postgres")
	cmd := exec.CommandContext(ctx, program, "--version")
	cmd.Env = environment(abs)
	out, err := cmd.Output()
	if err != nil {
		if e, ok := errors.AsType[*exec.ExitError](err); ok && len(e.Stderr) > 0 {
			return Install{}, tarn.Invalid("ask %s for its version: %w: %s", program, err, strings.TrimSpace(string(e.Stderr)))
		}
		return Install{}, tarn.Invalid("ask %s for its version: %w", program, err)
	}
	major, version, err := parseVersion(string(out))
	if err != nil {
		return Install{}, tarn.Invalid("ask %s for its version: %w", program, err)
	}
	if major < MinMajor || major > MaxMajor {
		return Install{}, tarn.Invalid("%s is Postgres %s: want %d to %d", program, version, MinMajor, MaxMajor)
	}
	return Install{BinDir: abs, Major: major, Version: version}, nil
}

// home is where the programs of dir really are, when those in dir are links to
// them: their companions (pg_controldata, pg_dump) stand beside the originals.
func home(dir string) string {
	program := filepath.Join(dir, "postgres")
	if _, err := os.Readlink(program); err != nil {
		return dir
	}
	real, err := filepath.EvalSymlinks(program)
	if err != nil || filepath.Base(real) != "postgres" {
		return dir
	}
	if _, err := exec.LookPath(filepath.Join(filepath.Dir(real), "initdb")); err != nil {
		return dir
	}
	return filepath.Dir(real)
}

// parseVersion reads "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)".
func parseVersion(out string) (int, string, error) {
	_, rest, ok := strings.Cut(out, "(PostgreSQL) ")
	fields := strings.Fields(rest)
	if !ok || len(fields) == 0 {
		return 0, "", tarn.Invalid("version %q: want postgres (PostgreSQL) N", strings.TrimSpace(out))
	}
	digits := fields[0]
	if i := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		digits = digits[:i] // 18.4, 18beta1
	}
	major, err := strconv.Atoi(digits)
	if err != nil {
		return 0, "", tarn.Invalid("version %q: want a number", fields[0])
	}
	return major, fields[0], nil
}

// environment is all that a Postgres program of ours sees of the environment:
// nothing in ours may change how a branch behaves. UTC is what initdb writes
// as the default time zone.
func environment(binDir string) []string {
	return []string{
		"LC_ALL=C.UTF-8",
		"TZ=UTC",
		"PATH=" + binDir + string(os.PathListSeparator) + "/usr/local/bin:/usr/bin:/bin",
	}
}
