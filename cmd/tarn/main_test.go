package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"tarn": main, "psql": showPsql})
}

// showPsql stands where psql would be found: it prints how it was called.
func showPsql() {
	fmt.Printf("arguments %q\n", os.Args[1:])
	for _, kv := range os.Environ() {
		if strings.HasPrefix(kv, "PG") {
			fmt.Println(kv)
		}
	}
}

// recorded is a server that gives the answers a script holds under
// answers/METHOD/path.json: how a command prints what a server says. What a
// server says is tested in internal/api and, together, in e2e.
func recorded(dir string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := os.ReadFile(filepath.Join(dir, "answers", r.Method, filepath.FromSlash(r.URL.Path)+".json"))
		if err != nil {
			w.WriteHeader(http.StatusNotFound)
			b = []byte(`{"error_code":"RESOURCE_DOES_NOT_EXIST","message":"no answer to ` + r.Method + " " + r.URL.RequestURI() + `"}`)
		}
		if strings.HasPrefix(string(b), `{"error_code":"NOT_IMPLEMENTED"`) {
			w.WriteHeader(http.StatusNotImplemented)
		}
		_, _ = w.Write(b) // a client that left fails its own check
	})
}

// TestScripts types what a user types; see testdata/script.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			home := e.Getenv("WORK") + "/home"
			e.Setenv("HOME", home)
			e.Setenv("XDG_CONFIG_HOME", home+"/.config")
			srv := httptest.NewServer(recorded(e.Getenv("WORK")))
			e.Defer(srv.Close)
			e.Setenv("RECORDED", srv.URL)
			return os.MkdirAll(home, 0o755)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
	})
}

// exits is the script command `exits CODE COMMAND ARGUMENT…`: it runs the
// command and checks its exit code; stdout and stderr are its.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND ARGUMENT…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	switch err := ts.Exec(args[1], args[2:]...); {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	default:
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}
