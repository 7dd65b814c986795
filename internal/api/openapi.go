package api

import (
	"encoding/json"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/tarndb/tarn/internal/api/wire"
)

// The parts of an OpenAPI 3.1 document that ours has.
type (
	openAPI struct {
		OpenAPI    string                               `json:"openapi"`
		Info       openAPIInfo                          `json:"info"`
		Paths      map[string]map[string]*openOperation `json:"paths"`
		Components openComponents                       `json:"components"`
		Security   []map[string][]string                `json:"security"`
	}
	openAPIInfo struct {
		Title       string `json:"title"`
		Version     string `json:"version"`
		Description string `json:"description"`
	}
	openComponents struct {
		Schemas         map[string]*schema           `json:"schemas"`
		Responses       map[string]*openResponse     `json:"responses"`
		SecuritySchemes map[string]map[string]string `json:"securitySchemes"`
	}
	openOperation struct {
		ID         string                   `json:"operationId"`
		Tags       []string                 `json:"tags"`
		Who        string                   `json:"x-tarn-access"` // who may ask, in words
		Parameters []openParameter          `json:"parameters,omitempty"`
		Body       *openBody                `json:"requestBody,omitempty"`
		Responses  map[string]*openResponse `json:"responses"`
		Security   *[]map[string][]string   `json:"security,omitempty"`
	}
	openParameter struct {
		Name        string  `json:"name"`
		In          string  `json:"in"`
		Required    bool    `json:"required,omitempty"`
		Description string  `json:"description,omitempty"`
		Schema      *schema `json:"schema"`
	}
	openBody struct {
		Content map[string]openContent `json:"content"`
	}
	openContent struct {
		Schema *schema `json:"schema"`
	}
	openResponse struct {
		Ref         string                 `json:"$ref,omitempty"`
		Description string                 `json:"description,omitempty"`
		Content     map[string]openContent `json:"content,omitempty"`
	}
	// schema is JSON Schema; the zero value is any JSON.
	schema struct {
		Ref        string             `json:"$ref,omitempty"`
		Type       string             `json:"type,omitempty"`
		Format     string             `json:"format,omitempty"`
		Pattern    string             `json:"pattern,omitempty"`
		Enum       []string           `json:"enum,omitempty"` // the empty string stands for none of them
		Properties map[string]*schema `json:"properties,omitempty"`
		Items      *schema            `json:"items,omitempty"`
		Values     *schema            `json:"additionalProperties,omitempty"`
	}
)

// documentOf writes the document of a table of routes. Errors have one form
// whatever the route, SCIM's excepted.
func documentOf(rows []route, version string) openAPI {
	doc := openAPI{
		OpenAPI: "3.1.0",
		Info: openAPIInfo{"Tarn", version, "The published API of the database, postgres, Unity Catalog, pipelines, SCIM and token services, " +
			"and Tarn's own under /api/2.0/tarn/. Fields that nobody knows are ignored; every answer has a request id."},
		Paths: map[string]map[string]*openOperation{},
		Components: openComponents{map[string]*schema{}, map[string]*openResponse{}, map[string]map[string]string{
			"bearer": {"type": "http", "scheme": "bearer"},
		}},
		Security: []map[string][]string{{"bearer": {}}},
	}
	doc.Components.Responses["Refused"] = doc.refusal(reflect.TypeFor[wire.Error]())
	doc.Components.Responses["RefusedBySCIM"] = doc.refusal(reflect.TypeFor[scimError]())
	for _, r := range rows {
		if r.about.out == nil {
			continue
		}
		method, path, _ := strings.Cut(r.pattern, " ")
		path = documented(path)
		if doc.Paths[path] == nil {
			doc.Paths[path] = map[string]*openOperation{}
		}
		doc.Paths[path][strings.ToLower(method)] = doc.operation(r, path)
	}
	return doc
}

// documented is a pattern's path in OpenAPI's words, which have no wildcard over
// segments and no mark of the end.
func documented(path string) string {
	return strings.ReplaceAll(strings.TrimSuffix(path, "{$}"), "...}", "}")
}

var inPath = regexp.MustCompile(`\{(\w+)\}`)

func (doc *openAPI) operation(r route, path string) *openOperation {
	service, _, _ := strings.Cut(r.about.id, ".")
	op := &openOperation{ID: r.about.id, Tags: []string{service}, Who: r.who()}
	for _, m := range inPath.FindAllStringSubmatch(path, -1) {
		op.Parameters = append(op.Parameters, openParameter{Name: m[1], In: "path", Required: true, Schema: &schema{Type: "string"}})
	}
	for _, name := range r.about.params {
		p := parameters[name]
		op.Parameters = append(op.Parameters, openParameter{Name: name, In: "query", Description: p.text, Schema: &schema{Type: p.kind}})
	}
	if r.about.in != nil {
		op.Body = &openBody{map[string]openContent{"application/json": {doc.schema(r.about.in)}}}
	}
	refused := &openResponse{Ref: "#/components/responses/Refused"}
	if strings.HasPrefix(path, scimPrefix) {
		refused = &openResponse{Ref: "#/components/responses/RefusedBySCIM"}
	}
	op.Responses = map[string]*openResponse{
		"200": {Description: "done", Content: map[string]openContent{"application/json": {doc.schema(r.about.out)}}},
		"4XX": refused,
		"500": refused,
		"501": refused,
		"503": refused,
	}
	if r.about.out == reflect.TypeFor[page]() {
		op.Responses["200"].Content = map[string]openContent{"text/html": {&schema{Type: "string"}}}
	}
	if r.access == public {
		op.Security = &[]map[string][]string{}
	}
	return op
}

func (doc *openAPI) refusal(t reflect.Type) *openResponse {
	return &openResponse{
		Description: "refused; error_code and details say why: 501 what this Tarn does not do, 503 what to ask again, 500 a fault that its log tells of",
		Content:     map[string]openContent{"application/json": {doc.schema(t)}},
	}
}

// who says in words who may ask for the route.
func (rt route) who() string {
	switch {
	case rt.access == public:
		return "anybody"
	case rt.access == adminOnly:
		return "admins of the workspace"
	case rt.level() == "":
		return "whoever has a token; the answer holds what they may see"
	}
	return "whoever has " + string(rt.level()) + " on the project"
}

// schema writes a wire type; structs are told once, under components.
func (doc *openAPI) schema(t reflect.Type) *schema {
	switch {
	case t == reflect.TypeFor[json.RawMessage]() || t.Kind() == reflect.Interface:
		return &schema{}
	case t.Kind() == reflect.Pointer:
		return doc.schema(t.Elem())
	}
	switch t.Kind() {
	case reflect.Struct:
		name := typeName(t)
		if _, told := doc.Components.Schemas[name]; !told {
			s := &schema{Type: "object", Properties: map[string]*schema{}}
			doc.Components.Schemas[name] = s // before its fields, which may hold it again
			doc.fields(t, s)
		}
		return &schema{Ref: "#/components/schemas/" + name}
	case reflect.Slice, reflect.Array:
		return &schema{Type: "array", Items: doc.schema(t.Elem())}
	case reflect.Map:
		return &schema{Type: "object", Values: doc.schema(t.Elem())}
	case reflect.Bool:
		return &schema{Type: "boolean"}
	case reflect.Int64:
		return &schema{Type: "integer", Format: "int64"}
	case reflect.Int, reflect.Int32, reflect.Int16, reflect.Uint64, reflect.Uint32, reflect.Uint16, reflect.Uint8:
		return &schema{Type: "integer"}
	case reflect.Float64, reflect.Float32:
		return &schema{Type: "number"}
	}
	return &schema{Type: "string"}
}

// fields adds the fields of a struct, those of what it embeds among them.
func (doc *openAPI) fields(t reflect.Type, s *schema) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-":
		case f.Anonymous && name == "":
			e := f.Type
			if e.Kind() == reflect.Pointer {
				e = e.Elem()
			}
			doc.fields(e, s)
		case f.IsExported():
			if name == "" {
				name = f.Name
			}
			s.Properties[name] = bounded(doc.schema(f.Type), f.Tag)
		}
	}
}

// durations are what wire.ParseDuration reads.
const durations = `^[0-9]+(\.[0-9]+)?s$`

// bounded is the schema of a text with what its field's tags say of it: its
// values, as enum:"A B", or its format. Absent and "" mean the same.
func bounded(s *schema, tag reflect.StructTag) *schema {
	if values := tag.Get("enum"); values != "" {
		s.Enum = append(strings.Fields(values), "")
	}
	switch tag.Get("format") {
	case "date-time":
		s.Format = "date-time"
	case "duration":
		s.Pattern = durations
	}
	return s
}

var notInName = regexp.MustCompile(`[^A-Za-z0-9]+`)

// typeName is the type's, without its package; of ScimList[wire.User] ScimListUser.
func typeName(t reflect.Type) string {
	outer, inner, generic := strings.Cut(t.Name(), "[")
	if !generic {
		return outer
	}
	return outer + notInName.ReplaceAllString(inner[strings.LastIndex(inner, ".")+1:], "")
}

// services are the tags of a document, in order.
func (doc openAPI) services() []string {
	var all []string
	for _, methods := range doc.Paths {
		for _, op := range methods {
			all = append(all, op.Tags...)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// docsDoor answers what the API is: the document and a page to read it.
type docsDoor struct {
	rows    []route // of the whole table, set when that is complete
	version string
}

// page is an answer in HTML.
type page []byte
