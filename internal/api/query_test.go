package api

import (
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/control"
)

func bodyQuery(body string) *query {
	r := httptest.NewRequest("POST", "/", strings.NewReader(body))
	r.Body = http.MaxBytesReader(httptest.NewRecorder(), r.Body, maxBody)
	return &query{r: r}
}

func TestDecodeNamesTheField(t *testing.T) {
	for body, field := range map[string]string{
		`{"spec":{"pg_version":"18"}}`:                 "spec.pg_version",
		`{"spec":{"custom_tags":[{"key":1}]}}`:         "spec.custom_tags[0].key",
		`{"spec":{"enable_pg_native_login":"yes"}}`:    "spec.enable_pg_native_login",
		`{"spec":{"history_retention_duration":3600}}`: "spec.history_retention_duration",
	} {
		var in wire.Project
		var f *failure
		if err := bodyQuery(body).decode(&in); !errors.As(err, &f) || f.fields[0].Field != field || f.code != "INVALID_PARAMETER_VALUE" {
			t.Errorf("%s: got %v, want field %s blamed", body, err, field)
		}
	}
	var inst wire.DatabaseInstance
	var f *failure
	if err := bodyQuery(`{"name":"x","stopped":1}`).decode(&inst); !errors.As(err, &f) || f.fields[0].Field != "stopped" {
		t.Errorf("got %v", err)
	}
	if err := bodyQuery(`{"name":"x","effective_stopped":1}`).decode(&inst); !errors.As(err, &f) || !strings.HasSuffix(f.fields[0].Field, "effective_stopped") {
		t.Errorf("got %v", err)
	}
}

func TestDecodeBodies(t *testing.T) {
	var in wire.Project
	if err := bodyQuery("").decode(&in); err != nil {
		t.Errorf("no body: %v", err)
	}
	if err := bodyQuery(`{"spec":{"display_name":"d","nobody_knows":1},"more":[]}`).decode(&in); err != nil || in.Spec.DisplayName != "d" {
		t.Errorf("unknown fields: %v", err)
	}
	for _, bad := range []string{`{`, `{} {}`, `[1]`, `"x"`} {
		var f *failure
		if err := bodyQuery(bad).decode(&in); !errors.As(err, &f) || f.code != "MALFORMED_REQUEST" {
			t.Errorf("%s: got %v", bad, err)
		}
	}
	var f *failure
	long := `{"spec":{"display_name":"` + strings.Repeat("x", maxBody) + `"}}`
	if err := bodyQuery(long).decode(&in); !errors.As(err, &f) || f.status != 400 || !strings.Contains(f.msg, "larger") {
		t.Errorf("long body: got %v", err)
	}
}

func TestPageOf(t *testing.T) {
	all := []string{"d", "a", "c", "b", "e"}
	var got []string
	pg := control.Page{Size: 2}
	for range 10 {
		page, next, err := pageOf(append([]string(nil), all...), func(s string) string { return s }, pg)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, page...)
		if pg.Token = next; next == "" {
			break
		}
	}
	if strings.Join(got, "") != "abcde" {
		t.Errorf("pages give %v", got)
	}
	if _, _, err := pageOf(all, func(s string) string { return s }, control.Page{Size: 2, Token: "!"}); err == nil {
		t.Error("a forged token was taken")
	}
	past := base64.RawURLEncoding.EncodeToString([]byte("z"))
	if page, next, err := pageOf(all, func(s string) string { return s }, control.Page{Size: 2, Token: past}); err != nil || len(page) != 0 || next != "" {
		t.Errorf("past the end: %v %q %v", page, next, err)
	}
}

func TestPageParameters(t *testing.T) {
	for target, want := range map[string]control.Page{
		"/":                            {Size: 100},
		"/?page_size=5&page_token=abc": {Size: 5, Token: "abc"},
		"/?page_size=5000":             {Size: 100},
	} {
		q := &query{r: httptest.NewRequest("GET", target, nil)}
		if got, err := q.page("page_size"); err != nil || got != want {
			t.Errorf("%s: %v %v", target, got, err)
		}
	}
	for _, bad := range []string{"/?page_size=-1", "/?page_size=x"} {
		q := &query{r: httptest.NewRequest("GET", bad, nil)}
		if _, err := q.page("page_size"); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}
