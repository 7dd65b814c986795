package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tarndb/tarn/internal/api/wire"
)

// maxViolations is how many faults of one body are told.
const maxViolations = 20

// violations holds a body to the schema that the API's document gives for v's
// type, and tells what is wrong where. null is absence, and fields nobody knows
// are ignored, as the published API does; what is no JSON is left to json.
func violations(v any, body []byte) []wire.FieldViolation {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var given any
	if d.Decode(&given) != nil {
		return nil
	}
	object, ok := given.(map[string]any)
	if !ok {
		return nil
	}
	c := checker{doc: openAPI{Components: openComponents{Schemas: map[string]*schema{}}}}
	c.check(c.doc.schema(reflect.TypeOf(v)), object, "")
	return c.found
}

type checker struct {
	doc   openAPI
	found []wire.FieldViolation
}

func (c *checker) refuse(path, format string, args ...any) {
	c.found = append(c.found, wire.FieldViolation{Field: path, Description: fmt.Sprintf(format, args...)})
}

// check holds one value, at path, to its schema.
func (c *checker) check(s *schema, given any, path string) {
	if name, is := strings.CutPrefix(s.Ref, "#/components/schemas/"); is {
		s = c.doc.Components.Schemas[name]
	}
	if given == nil || s.Type == "" || len(c.found) == maxViolations {
		return
	}
	switch v := given.(type) {
	case map[string]any:
		if s.Type == "object" {
			c.members(s, v, path)
			return
		}
	case []any:
		if s.Type == "array" {
			for i, item := range v {
				c.check(s.Items, item, path+"["+strconv.Itoa(i)+"]")
			}
			return
		}
	case string:
		if s.Type == "string" {
			c.text(s, v, path)
			return
		}
	case bool:
		if s.Type == "boolean" {
			return
		}
	case json.Number:
		_, err := strconv.ParseInt(v.String(), 10, 64)
		if s.Type == "number" || s.Type == "integer" && err == nil {
			return
		}
	}
	c.refuse(path, "got %s, want %s", told(given), wanted[s.Type])
}

// members goes through an object's fields in order, so that the answer is the
// same each time.
func (c *checker) members(s *schema, v map[string]any, path string) {
	names := make([]string, 0, len(v))
	for name := range v {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		of := s.Properties[name]
		if of == nil {
			of = s.Values
		}
		if of != nil {
			c.check(of, v[name], strings.TrimPrefix(path+"."+name, "."))
		}
	}
}

var duration = regexp.MustCompile(durations)

func (c *checker) text(s *schema, v, path string) {
	switch {
	case v == "":
	case len(s.Enum) > 0 && !slices.Contains(s.Enum, v):
		values := s.Enum[:len(s.Enum)-1]
		c.refuse(path, "got %s, want %s", told(v), strings.Join(values, " or "))
	case s.Pattern != "" && !duration.MatchString(v):
		c.refuse(path, "got %s, want a number of seconds like 3600s", told(v))
	case s.Format == "date-time":
		if _, err := time.Parse(time.RFC3339Nano, v); err != nil {
			c.refuse(path, "got %s, want an RFC 3339 timestamp like 2026-01-02T15:04:05Z", told(v))
		}
	}
}

var wanted = map[string]string{"object": "an object", "array": "an array", "string": "a string", "boolean": "true or false", "integer": "a whole number", "number": "a number"}

// told names a value without repeating all of it.
func told(given any) string {
	switch v := given.(type) {
	case map[string]any:
		return "an object"
	case []any:
		return "an array"
	case string:
		if len(v) > 64 {
			v = strings.ToValidUTF8(v[:64], "") + "…"
		}
		return strconv.Quote(v)
	}
	return fmt.Sprint(given)
}
