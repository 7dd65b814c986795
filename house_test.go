package tarn_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The plan of the house. A room may import rooms of lower floors only; a
// sub-package lives on its room's floor. ARCHITECTURE.md says why.
func floors() map[string]int {
	return map[string]int{
		"blob": 1, "layer": 1, "pgoutput": 1, "pgvalue": 1, "token": 1,
		"pagestore": 2, "volumefs": 2, "plaindir": 2, "postgres": 2, "wal": 2, "delta": 2, "controldb": 2,
		"node": 3, "compute": 3, "catalog": 3,
		"control": 4, "feed": 4, "ingest": 4, "syncedtable": 4, "warehouse": 4,
		"gateway": 5, "api": 5,
	}
}

// Exceptions to the limits on size, each with its reason.
func oversize() map[string]string {
	return map[string]string{}
}

const (
	module = "github.com/tarndb/tarn"
	// Tests of every room may stand on a real Postgres.
	pgtest        = "internal/postgres/pgtest"
	maxFileLines  = 800
	maxMethods    = 30
	maxFields     = 20
	floorWords    = 0
	floorPrograms = 6 // cmd, client, e2e, bench: stand outside and may import every room
)

type source struct {
	path string // slash-separated, relative to the module
	fset *token.FileSet
	ast  *ast.File
}

func (s source) dir() string  { return filepath.ToSlash(filepath.Dir(s.path)) }
func (s source) test() bool   { return strings.HasSuffix(s.path, "_test.go") }
func (s source) lines() int   { return s.fset.File(s.ast.Pos()).LineCount() }
func (s source) exempt() bool { return oversize()[s.path] != "" }

func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			switch d.Name() {
			case "build", "tarn-data", "node_modules", "testdata", ".git":
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		all = append(all, source{filepath.ToSlash(path), fset, f})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("found %d Go files: the walk is broken", len(all))
	}
	return all
}

// room gives the room and floor of a directory of the module; ok is false for a
// folder the plan does not know.
func room(dir string) (name string, floor int, ok bool) {
	switch first, rest, _ := strings.Cut(dir, "/"); first {
	case ".":
		return "words", floorWords, true
	case "cmd", "client", "e2e", "bench":
		return first, floorPrograms, true
	case "examples":
		// Data and programs for users.
		return first, 1, true
	case "internal":
		name, _, _ = strings.Cut(rest, "/")
		floor, ok = floors()[name]
		return name, floor, ok
	}
	return dir, 0, false
}

func TestImportsGoDown(t *testing.T) {
	for _, s := range sources(t) {
		name, floor, ok := room(s.dir())
		if !ok {
			t.Errorf("%s: folder %s is not in the plan: add it to floors()", s.path, s.dir())
			continue
		}
		for _, imp := range s.ast.Imports {
			path, _ := strconv.Unquote(imp.Path.Value)
			if path == module && floor == floorWords && !s.test() {
				t.Errorf("%s: the words import themselves", s.path)
			}
			rest, ours := strings.CutPrefix(path, module+"/")
			if !ours {
				if floor == floorWords && !s.test() && strings.Contains(path, ".") {
					t.Errorf("%s: the words import %s; they may use the standard library only", s.path, path)
				}
				continue
			}
			if s.test() && rest == pgtest {
				continue
			}
			target, below, known := room(rest)
			if !known {
				t.Errorf("%s: imports %s, which is not in the plan", s.path, path)
			} else if target != name && below >= floor && floor != floorPrograms {
				t.Errorf("%s: %s (floor %d) imports %s (floor %d): only lower floors may be imported", s.path, name, floor, target, below)
			}
		}
	}
}

func TestPackagesSayWhatTheyKnow(t *testing.T) {
	doc := map[string]bool{}
	for _, s := range sources(t) {
		if !s.test() {
			doc[s.dir()] = doc[s.dir()] || s.ast.Doc != nil && len(s.ast.Doc.Text()) > 40
		}
	}
	for dir, ok := range doc {
		if !ok {
			t.Errorf("%s: no package comment that says what the package knows", dir)
		}
	}
}

func TestForbiddenNames(t *testing.T) {
	packages := []string{"util", "utils", "common", "helpers", "helper", "misc", "base", "shared", "types", "models", "manager", "service", "pkg"}
	suffixes := []string{"Manager", "Helper", "Wrapper", "Impl"}
	for _, s := range sources(t) {
		if n := s.ast.Name.Name; slices.Contains(packages, n) {
			t.Errorf("%s: package name %s says nothing", s.path, n)
		}
		for _, d := range s.ast.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.TYPE {
				continue
			}
			for _, spec := range g.Specs {
				n := spec.(*ast.TypeSpec).Name.Name
				for _, suffix := range suffixes {
					if strings.HasSuffix(n, suffix) {
						t.Errorf("%s: type %s: the suffix %s says nothing", s.path, n, suffix)
					}
				}
			}
		}
	}
}

func TestNoInitNoSleep(t *testing.T) {
	for _, s := range sources(t) {
		ast.Inspect(s.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Recv == nil && n.Name.Name == "init" {
					t.Errorf("%s: init(): wire by hand in cmd/tarn/serve.go", s.fset.Position(n.Pos()))
				}
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && n.Sel.Name == "Sleep" {
					t.Errorf("%s: time.Sleep: wait for the event instead", s.fset.Position(n.Pos()))
				}
			}
			return true
		})
	}
}

func TestSizes(t *testing.T) {
	methods := map[string]int{}
	for _, s := range sources(t) {
		if n := s.lines(); n > maxFileLines && !s.exempt() {
			t.Errorf("%s: %d lines, the limit is %d", s.path, n, maxFileLines)
		}
		if s.test() {
			continue
		}
		for _, d := range s.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv != nil {
					methods[s.dir()+"."+receiver(d.Recv.List[0].Type)]++
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					ts, ok := spec.(*ast.TypeSpec)
					if !ok {
						continue
					}
					if st, ok := ts.Type.(*ast.StructType); ok && st.Fields.NumFields() > maxFields && oversize()[s.dir()+"."+ts.Name.Name] == "" {
						t.Errorf("%s: struct %s has %d fields, the limit is %d", s.path, ts.Name.Name, st.Fields.NumFields(), maxFields)
					}
				}
			}
		}
	}
	for typ, n := range methods {
		if n > maxMethods && oversize()[typ] == "" {
			t.Errorf("%s has %d methods, the limit is %d", typ, n, maxMethods)
		}
	}
}

func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return "?"
}
