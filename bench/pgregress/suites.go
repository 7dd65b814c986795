package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/postgres"
)

// suite is one call of pg_regress or pg_isolation_regress.
type suite struct {
	name     string
	program  string
	input    string            // directory with sql or specs, and expected
	dlpath   string            // where regress.so is
	database string            // made anew by the program
	user     string            // a superuser; "" = the one with the name of Postgres's user
	args     []string          // schedule or tests, options
	settings map[string]string // of the server, beside the usual ones
}

// findSuites lists the server's suites and those of every contrib module that
// is installed.
func findSuites(ctx context.Context, source string, in postgres.Install) ([]suite, error) {
	lib := filepath.Join(filepath.Dir(in.BinDir), "lib")
	tests := filepath.Join(lib, "pgxs", "src", "test")
	regress, isolation := filepath.Join(tests, "regress", "pg_regress"), filepath.Join(tests, "isolation", "pg_isolation_regress")
	src, dl := filepath.Join(source, "source"), filepath.Join(source, "dl")
	server := func(name, program, at, schedule, database string) suite {
		input := filepath.Join(src, "src", "test", at)
		return suite{name: name, program: program, input: input, dlpath: dl, database: database, user: tarn.Superuser, args: []string{"--schedule=" + filepath.Join(input, schedule)}}
	}
	suites := []suite{
		server("regress", regress, "regress", "parallel_schedule", "regression"),
		server("isolation", isolation, "isolation", "isolation_schedule", "isolation_regression"),
	}
	makefiles, err := filepath.Glob(filepath.Join(src, "contrib", "*", "Makefile"))
	if err != nil {
		return nil, err
	}
	for _, m := range makefiles {
		dir := filepath.Dir(m)
		vars, err := contribVariables(ctx, source, dir)
		if err != nil {
			return nil, err
		}
		if !vars.installed(lib) {
			continue
		}
		name := "contrib/" + filepath.Base(dir)
		for _, kind := range []struct{ name, program, tests, options string }{
			{name, regress, "REGRESS", "REGRESS_OPTS"},
			{name + "-isolation", isolation, "ISOLATION", "ISOLATION_OPTS"},
		} {
			if len(vars[kind.tests]) == 0 {
				continue
			}
			u := suite{name: kind.name, program: kind.program, input: dir, dlpath: dl, database: "contrib_regression"}
			if err := u.options(src, vars[kind.options]); err != nil {
				return nil, err
			}
			u.args = append(u.args, vars[kind.tests]...)
			suites = append(suites, u)
		}
	}
	return suites, nil
}

// variables are those of a Makefile, split at spaces.
type variables map[string][]string

// contribVariables asks make what a module's Makefile says. pg_config in source
// answers with a file of rules that prints it.
func contribVariables(ctx context.Context, source, dir string) (variables, error) {
	cmd := exec.CommandContext(ctx, "make", "--no-print-directory", "-s", "-C", dir, "USE_PGXS=1",
		"PG_CONFIG="+filepath.Join(source, "pg_config"), "variables")
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("read the Makefile of %s: %w", dir, err)
	}
	v := variables{}
	for line := range strings.Lines(string(out)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			v[name] = strings.Fields(value)
		}
	}
	return v, nil
}

// installed says whether the server has everything the module is made of.
func (v variables) installed(lib string) bool {
	share := filepath.Join("/usr/share/postgresql", filepath.Base(filepath.Dir(lib)), "extension")
	var needed []string
	for _, m := range v["MODULES"] {
		needed = append(needed, filepath.Join(lib, m+".so"))
	}
	for _, e := range v["EXTENSION"] {
		needed = append(needed, filepath.Join(share, e+".control"))
	}
	return len(needed) > 0 && !slices.ContainsFunc(needed, func(path string) bool {
		_, err := os.Stat(path)
		return err != nil
	})
}

// options keeps what the module's options mean for a server that runs already:
// the settings its Makefile would give a temporary one, and no other dlpath.
func (u *suite) options(src string, options []string) error {
	for i := 0; i < len(options); i++ {
		o := options[i]
		conf, isConf := strings.CutPrefix(o, "--temp-config=")
		if o == "--temp-config" && i+1 < len(options) {
			i++
			conf, isConf = options[i], true
		}
		switch {
		case isConf:
			// $(top_srcdir) is empty in an installed module's Makefile.
			var err error
			if u.settings, err = readConf(filepath.Join(src, conf)); err != nil {
				return err
			}
		case !strings.HasPrefix(o, "--dlpath"):
			u.args = append(u.args, o)
		}
	}
	return nil
}

func readConf(path string) (map[string]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	m := map[string]string{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), "#")
		if name, value, ok := strings.Cut(line, "="); ok {
			m[strings.TrimSpace(name)] = strings.Trim(strings.TrimSpace(value), "'")
		}
	}
	return m, lines.Err()
}
