// Command pgregress runs Postgres's own regression suites, of the server and of
// its contrib modules, against a Debian Postgres 15 on a volume of the page
// store and against the same Postgres on the file system the store lives on,
// and compares the two. It ends with an error when the volume fails a test that
// the file system passes. scripts/pg-regress.sh gets what it needs.
//
//	go run ./bench/pgregress -source DIR [-suite REGEX] [-keep]
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"time"

	"github.com/tarndb/tarn/internal/postgres"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "pg-regress:", err)
		os.Exit(1)
	}
}

// settings are those of both servers: the stock ones, except what suites that
// look at prepared transactions and logical decoding need.
var settings = map[string]string{
	"wal_level":                 "logical",
	"max_prepared_transactions": "10",
	"max_connections":           "60",
	"shared_buffers":            "128MB",
}

// onVolume are the settings a compute has because of the page store.
var onVolume = map[string]string{"full_page_writes": "off", "wal_recycle": "off", "wal_init_zero": "on"}

func run(ctx context.Context) (err error) {
	source := flag.String("source", "", "directory that scripts/pg-regress.sh prints")
	pattern := flag.String("suite", "", "run only the suites that match this regular expression")
	keep := flag.Bool("keep", false, "keep results and logs of a run in which nothing differs, too")
	flag.Parse()
	chosen, err := regexp.Compile(*pattern)
	if err != nil {
		return err
	}
	if *source == "" {
		return errors.New("-source is missing: make pg-regress passes it")
	}
	install, err := debian15(ctx)
	if err != nil {
		return err
	}
	suites, err := findSuites(ctx, *source, install)
	if err != nil {
		return err
	}
	runAs, err := postgres.DefaultRunAs()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(baseDir(), "tarn-pg-regress-")
	if err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	remove := true
	defer func() {
		if !remove {
			fmt.Println("results, differences and logs are kept in", dir)
			return
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	volume := &server{install: install, runAs: runAs, dir: filepath.Join(dir, "volume"), port: 54315, files: &onStore{dir: filepath.Join(dir, "volume", "store"), runAs: runAs}}
	plain := &server{install: install, runAs: runAs, dir: filepath.Join(dir, "plain"), port: 54316, files: onDisk{}}
	volume.settings = maps.Clone(settings)
	maps.Copy(volume.settings, onVolume)
	plain.settings = maps.Clone(settings)
	var all []comparison
	for _, s := range []*server{volume, plain} {
		if err := s.make(ctx); err != nil {
			return err
		}
		// What runs must end although we were interrupted.
		defer func() { err = errors.Join(err, s.stop(context.WithoutCancel(ctx))) }()
	}
	for _, u := range suites {
		if !chosen.MatchString(u.name) {
			continue
		}
		c, err := compare(ctx, u, volume, plain)
		if err != nil {
			return fmt.Errorf("suite %s: %w", u.name, err)
		}
		fmt.Fprintf(os.Stderr, "%-28s volume %d/%d, file system %d/%d\n", u.name, c.volume.passed(), len(c.volume.tests), c.plain.passed(), len(c.plain.tests))
		all = append(all, c)
	}
	if len(all) == 0 {
		return fmt.Errorf("no suite matches %q", *pattern)
	}
	printTable(os.Stdout, all)
	bad := false
	for _, c := range all {
		bad = c.explain(os.Stdout) || bad
	}
	broken, err := volume.survive(ctx, os.Stdout)
	if err != nil {
		return err
	}
	remove = !bad && !broken && !*keep
	switch {
	case bad:
		return errors.New("the volume fails tests that the file system passes")
	case broken:
		return errors.New("pg_amcheck finds damage on the volume")
	}
	fmt.Println("The volume passes every test that the file system passes.")
	return nil
}

// baseDir is where both sides keep their files: a real disk that an
// unprivileged user can reach.
func baseDir() string {
	if d := os.Getenv("TARN_BENCH_DIR"); d != "" {
		return d
	}
	return "/var/tmp"
}

func debian15(ctx context.Context) (postgres.Install, error) {
	const bin = "/usr/lib/postgresql/15/bin"
	found, err := postgres.Find(ctx, bin)
	if err != nil {
		return postgres.Install{}, fmt.Errorf("find Debian's Postgres 15 in %s: %w", bin, err)
	}
	return found[0], nil
}

// compare runs one suite on the volume and on the file system, both with the
// settings the suite asks for.
func compare(ctx context.Context, u suite, volume, plain *server) (comparison, error) {
	c := comparison{suite: u.name}
	for _, side := range []struct {
		server *server
		into   *outcome
	}{{volume, &c.volume}, {plain, &c.plain}} {
		if err := side.server.configure(ctx, u.settings); err != nil {
			return c, err
		}
		out := filepath.Join(side.server.dir, "results", filepath.FromSlash(u.name))
		if err := side.server.ownDir(out); err != nil {
			return c, err
		}
		began := time.Now()
		tests, err := u.run(ctx, side.server, out)
		if err != nil {
			return c, err
		}
		*side.into = outcome{tests: tests, dir: out, took: time.Since(began)}
	}
	return c, nil
}

// run runs the suite's tests and returns what became of each.
func (u suite) run(ctx context.Context, s *server, out string) (map[string]verdict, error) {
	args := append([]string{
		"--bindir=" + s.install.BinDir, "--inputdir=" + u.input, "--outputdir=" + out, "--dlpath=" + u.dlpath,
		"--host=" + s.socketDir(), "--port=" + strconv.Itoa(s.port), "--user=" + cmp.Or(u.user, s.superuser()), "--dbname=" + u.database,
		"--max-concurrent-tests=20",
	}, u.args...)
	cmd := exec.CommandContext(ctx, u.program, args...)
	cmd.Dir = u.input // some tests name files of theirs relative to it
	cmd.Env = []string{"PATH=" + s.install.BinDir + ":/usr/bin:/bin", "LC_ALL=C.UTF-8", "HOME=" + out}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.credential(), Setpgid: true}
	// pg_regress has psql processes of its own, which must end with it.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	text, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if werr := os.WriteFile(filepath.Join(out, "pg_regress.log"), text, 0o644); werr != nil {
		return nil, werr
	}
	tests := parseVerdicts(text)
	var exit *exec.ExitError
	if len(tests) == 0 || err != nil && !errors.As(err, &exit) {
		return nil, fmt.Errorf("run %s on %s: %w\n%s", filepath.Base(u.program), s.dir, err, text)
	}
	return tests, nil
}
