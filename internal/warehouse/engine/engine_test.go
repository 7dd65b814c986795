package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/warehouse/duck"
	"github.com/tarndb/tarn/internal/warehouse/engine"
)

// TestMain lets the test be the engine's process.
func TestMain(m *testing.M) {
	if dir := os.Getenv("TARN_TEST_ENGINE"); dir != "" {
		if err := engine.Serve(context.Background(), engine.Options{Library: duck.Find(""), Dir: dir}, os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func command(o engine.Options) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "TARN_TEST_ENGINE="+o.Dir)
	return cmd
}

func start(t *testing.T) *engine.Process {
	t.Helper()
	dir, err := os.MkdirTemp("", "tarn-engine")
	if err != nil {
		t.Fatal(err)
	}
	p := engine.NewProcess(engine.Options{Dir: dir}, command, slog.New(slog.DiscardHandler))
	t.Cleanup(func() { p.Stop(); os.RemoveAll(dir) })
	return p
}

func all(ctx context.Context, p *engine.Process, st engine.Statement) (out []string, err error) {
	rows, err := p.Run(ctx, st)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for {
		rec, err := rows.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		for i := range int(rec.NumRows()) {
			var row []string
			for _, c := range rec.Columns() {
				row = append(row, c.ValueStr(i))
			}
			out = append(out, strings.Join(row, ","))
		}
	}
}

func TestStatements(t *testing.T) {
	p := start(t)
	ctx := t.Context()
	x := "5"
	got, err := all(ctx, p, engine.Statement{
		Prepare: []string{`ATTACH ':memory:' AS "lake"`, `CREATE SCHEMA "lake"."s"`, `CREATE VIEW "lake"."s"."t" AS SELECT i FROM range(10) r(i)`, `USE "lake"."s"`},
		SQL:     "SELECT count(*), sum(i) FROM t WHERE i > $x::BIGINT", Params: []engine.Param{{Name: "x", Text: &x}}, Memory: 100 << 20,
	})
	if err != nil || len(got) != 1 || got[0] != "4,30" {
		t.Fatalf("got %q, %v", got, err)
	}
	got, err = all(ctx, p, engine.Statement{SQL: "SELECT i FROM range(100000) r(i)"})
	if err != nil || len(got) != 100000 {
		t.Fatalf("%d rows, %v", len(got), err)
	}
	tree, err := p.Parse(ctx, "SELECT 1 FROM a.b.c")
	if err != nil || !strings.Contains(string(tree), "BASE_TABLE") {
		t.Fatalf("parsed %s, %v", tree, err)
	}
	var said *engine.Error
	for _, bad := range []string{"SELEC", "SELECT nope", "SELECT CASE WHEN i = 90000 THEN error('stop') ELSE i END FROM range(100000) r(i)"} {
		if _, err := all(ctx, p, engine.Statement{SQL: bad}); !errors.As(err, &said) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// Whatever the SQL is, it reaches nothing but what it was given.
func TestSandbox(t *testing.T) {
	p := start(t)
	dir := t.TempDir()
	secret, given := filepath.Join(dir, "secret.csv"), filepath.Join(dir, "given.csv")
	for _, f := range []string{secret, given} {
		if err := os.WriteFile(f, []byte("a\n1\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(dir, "link.csv")
	if err := os.Symlink(secret, link); err != nil {
		t.Fatal(err)
	}
	st := func(sql string) engine.Statement { return engine.Statement{SQL: sql, Paths: []string{given}} }
	if got, err := all(t.Context(), p, st("SELECT a FROM read_csv("+engine.Literal(given)+")")); err != nil || len(got) != 1 {
		t.Fatalf("what was given: %q, %v", got, err)
	}
	for _, sql := range []string{
		"SELECT * FROM read_csv(" + engine.Literal(secret) + ")",
		"SELECT * FROM read_text('/etc/passwd')",
		"SELECT * FROM " + engine.Literal(secret),
		"SELECT * FROM read_csv(" + engine.Literal(link) + ")",
		"SELECT * FROM read_csv(" + engine.Literal(filepath.Join(dir, "*.csv")) + ")",
		"SELECT * FROM glob(" + engine.Literal(filepath.Join(dir, "*")) + ")",
		"COPY (SELECT 1) TO " + engine.Literal(filepath.Join(dir, "out.csv")),
		"ATTACH " + engine.Literal(filepath.Join(dir, "x.db")),
		"INSTALL httpfs", "LOAD httpfs", "LOAD " + engine.Literal(filepath.Join(dir, "x.duckdb_extension")),
		"SET enable_external_access = true", "SET allowed_paths = ['/etc/passwd']", "SET lock_configuration = false", "RESET memory_limit", "SET temp_directory = '/tmp'",
		"EXPORT DATABASE " + engine.Literal(filepath.Join(dir, "out")),
	} {
		if got, err := all(t.Context(), p, st(sql)); err == nil && len(got) > 0 {
			t.Errorf("%s gives %q", sql, got)
		} else if err == nil && !strings.HasPrefix(sql, "SELECT") {
			t.Errorf("%s succeeds", sql)
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 3 {
		t.Fatalf("the directory has %v, %v", left, err)
	}
	if _, err := all(t.Context(), p, engine.Statement{SQL: "SELECT length(string_agg(i::VARCHAR, ',')) FROM range(50000000) r(i)", Memory: 32 << 20}); err == nil {
		t.Error("a statement takes more memory than it may")
	}
}

func TestCancelCrashStop(t *testing.T) {
	p := start(t)
	const long = "SELECT count(*) FROM range(10000000) a(i), range(10000000) b(j) WHERE i * j % 7 = 3"
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the user went away")
	done := make(chan error, 1)
	run := func(ctx context.Context) {
		_, err := all(ctx, p, engine.Statement{ID: "long", SQL: long})
		done <- err
	}
	running := func() {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); p.Progress(t.Context(), "long") < 0; {
			select {
			case err := <-done:
				t.Fatalf("ended: %v", err)
			default:
			}
			if time.Now().After(deadline) {
				t.Fatal("the statement does not run")
			}
		}
	}
	go run(ctx)
	running()
	cancel(why)
	if err := <-done; !errors.Is(err, why) {
		t.Fatalf("cancelled: %v", err)
	}
	if got, err := all(t.Context(), p, engine.Statement{SQL: "SELECT 1"}); err != nil || len(got) != 1 {
		t.Fatalf("after a cancel: %q, %v", got, err)
	}

	go run(t.Context())
	running()
	if err := engine.Kill(p); err != nil {
		t.Fatal(err)
	}
	if err := <-done; tarn.KindOf(err) != tarn.KindUnavailable || !strings.Contains(err.Error(), "ended while the statement ran") {
		t.Fatalf("crash: %v", err)
	}
	if got, err := all(t.Context(), p, engine.Statement{SQL: "SELECT 2"}); err != nil || len(got) != 1 {
		t.Fatalf("after a crash: %q, %v", got, err)
	}
	p.Stop()
	if p.Running() {
		t.Fatal("runs after Stop")
	}
	if got, err := all(t.Context(), p, engine.Statement{SQL: "SELECT 3"}); err != nil || got[0] != "3" {
		t.Fatalf("after Stop: %q, %v", got, err)
	}
}
