package api

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Every row of the table says what it is, once, in words that are known.
func TestEveryRouteIsDescribed(t *testing.T) {
	seen := map[string]string{}
	for _, r := range routes(Config{}) {
		if r.pattern == "/" {
			continue
		}
		switch before := seen[r.about.id]; {
		case r.about.id == "" || r.about.out == nil:
			t.Errorf("%s says nothing of itself: give its row says[In, Out](id, parameters)", r.pattern)
		case before != "":
			t.Errorf("%s and %s are both %s", r.pattern, before, r.about.id)
		}
		seen[r.about.id] = r.pattern
		for _, p := range r.about.params {
			if _, ok := parameters[p]; !ok {
				t.Errorf("%s has parameter %q, which stands not in parameters", r.pattern, p)
			}
		}
	}
}

// What a door reads of a query stands in parameters, and what stands there some
// route has.
func TestParametersAreThoseThatAreRead(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("this package's files: %v, %v", files, err)
	}
	had := map[string]bool{}
	for _, r := range routes(Config{}) {
		for _, p := range r.about.params {
			had[p] = true
		}
	}
	for p := range parameters {
		if !had[p] {
			t.Errorf("no route has parameter %q", p)
		}
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) != 1 {
				return true
			}
			fn, ok := call.Fun.(*ast.SelectorExpr)
			lit, isText := call.Args[0].(*ast.BasicLit)
			if !ok || !isText || lit.Kind != token.STRING {
				return true
			}
			if on, ok := fn.X.(*ast.Ident); !ok || on.Name != "q" {
				return true
			}
			switch p, err := strconv.Unquote(lit.Value); fn.Sel.Name {
			case "text", "flag", "number", "page":
				if err != nil || !had[p] {
					t.Errorf("%s reads query parameter %q, which no route says it has", name, p)
				}
			}
			return true
		})
	}
}
