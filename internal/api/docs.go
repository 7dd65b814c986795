package api

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"html/template"
	"slices"
	"strings"
)

func (d *docsDoor) document(context.Context, *query) (any, error) {
	return documentOf(d.rows, cmp.Or(d.version, "0")), nil
}

// call is one line of the page.
type call struct {
	Method, Path, ID, Who string
	Query                 []openParameter
	Body                  string
}

type chapter struct {
	Service string
	Calls   []call
}

func (d *docsDoor) read(context.Context, *query) (any, error) {
	doc := documentOf(d.rows, d.version)
	var all []chapter
	for _, s := range doc.services() {
		c := chapter{Service: s}
		for path, methods := range doc.Paths {
			for method, op := range methods {
				if op.Tags[0] == s {
					c.Calls = append(c.Calls, callOf(strings.ToUpper(method), path, op))
				}
			}
		}
		slices.SortFunc(c.Calls, func(a, b call) int { return strings.Compare(a.Path+a.Method, b.Path+b.Method) })
		all = append(all, c)
	}
	t, err := template.New("docs").Parse(docsPage)
	if err != nil {
		return nil, fmt.Errorf("read the page of the API: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, struct {
		Version  string
		Chapters []chapter
	}{doc.Info.Version, all}); err != nil {
		return nil, fmt.Errorf("write the page of the API: %w", err)
	}
	return page(b.Bytes()), nil
}

func callOf(method, path string, op *openOperation) call {
	c := call{Method: method, Path: path, ID: op.ID, Who: op.Who}
	for _, p := range op.Parameters {
		if p.In == "query" {
			c.Query = append(c.Query, p)
		}
	}
	if op.Body != nil {
		c.Body = strings.TrimPrefix(op.Body.Content["application/json"].Schema.Ref, "#/components/schemas/")
	}
	return c
}

// docsPage needs nothing from elsewhere: no script, no font, no picture.
const docsPage = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Tarn API</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff }
code { font: 13px ui-monospace, monospace } h2 { margin: 2rem 0 .5rem } summary { cursor: pointer } details { padding: .15rem 0 }
b { display: inline-block; width: 4.5rem } dl { margin: .3rem 0 .6rem 4.5rem } dt { font-weight: 600 } dd { margin: 0 0 .3rem }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #161616 } a { color: #8ab4f8 } }
</style></head><body>
<h1>Tarn API</h1><p>Version {{.Version}}. The same for programs: <a href="/api/docs/openapi.json">openapi.json</a> (OpenAPI 3.1).</p>
{{range .Chapters}}<h2>{{.Service}}</h2>
{{range .Calls}}<details><summary><b>{{.Method}}</b><code>{{.Path}}</code></summary><dl>
<dt>{{.ID}}</dt><dd>For {{.Who}}.</dd>{{if .Body}}<dt>Body</dt><dd>{{.Body}}</dd>{{end}}
{{range .Query}}<dt><code>{{.Name}}</code> ({{.Schema.Type}})</dt><dd>{{.Description}}</dd>{{end}}</dl></details>
{{end}}{{end}}</body></html>
`
