package api

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// The document is served to anybody, and has every route, with its parameters.
func TestDocumentHasEveryRoute(t *testing.T) {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/api/docs/openapi.json", nil)
	r.Header.Set("X-Request-Id", "mine-1")
	New(Config{}).ServeHTTP(w, r)
	var doc openAPI
	if err := json.Unmarshal(w.Body.Bytes(), &doc); w.Code != http.StatusOK || err != nil {
		t.Fatalf("%d, %v:\n%s", w.Code, err, w.Body)
	}
	if got := w.Header().Get("X-Request-Id"); got != "mine-1" {
		t.Errorf("request id %q, want the client's", got)
	}
	n := 0
	for _, r := range routes(Config{}) {
		method, path, ok := strings.Cut(r.pattern, " ")
		if !ok {
			continue
		}
		n++
		path = documented(path)
		op := doc.Paths[path][strings.ToLower(method)]
		if op == nil || op.ID != r.about.id || op.Responses["200"] == nil || op.Responses["4XX"] == nil || (op.Body != nil) != (r.about.in != nil) {
			t.Errorf("%s is not in the document as it is: %+v", r.pattern, op)
			continue
		}
		if got, want := len(op.Parameters), len(r.about.params)+strings.Count(path, "{"); got != want {
			t.Errorf("%s has %d parameters in the document, want %d", r.pattern, got, want)
		}
	}
	if n < 100 {
		t.Errorf("only %d routes were looked at", n)
	}
}

func TestDocsPage(t *testing.T) {
	w := httptest.NewRecorder()
	New(Config{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/api/docs", nil))
	body := w.Body.String()
	if w.Code != http.StatusOK || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/html") || !strings.Contains(body, "postgres.createBranch") || strings.Contains(body, "<script") {
		t.Errorf("%d %s\n%.400s", w.Code, w.Header(), body)
	}
}

// Every struct of package wire that a route speaks is in the document with every
// field, by what stands in its source.
func TestDocumentHasEveryFieldOfTheWire(t *testing.T) {
	doc := documentOf(routes(Config{}), "x")
	files, err := filepath.Glob("wire/*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("files of package wire: %v, %v", files, err)
	}
	structs := map[string]*ast.StructType{}
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if s, ok := n.(*ast.TypeSpec); ok && s.TypeParams == nil {
				if st, ok := s.Type.(*ast.StructType); ok {
					structs[s.Name.Name] = st
				}
			}
			return true
		})
	}
	seen := 0
	for name, s := range doc.Components.Schemas {
		st := structs[name]
		if st == nil {
			continue
		}
		seen++
		for _, f := range st.Fields.List {
			if f.Tag == nil {
				continue // embedded: its fields are told under its own name, or here
			}
			tag, _, _ := strings.Cut(reflect.StructTag(strings.Trim(f.Tag.Value, "`")).Get("json"), ",")
			if tag != "-" && s.Properties[tag] == nil {
				t.Errorf("schema %s has no property %q", name, tag)
			}
		}
	}
	if seen < 100 {
		t.Errorf("only %d structs of package wire are in the document", seen)
	}
}
