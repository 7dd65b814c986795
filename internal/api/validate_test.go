package api

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tarndb/tarn/internal/api/wire"
)

// A body is refused for all that it has wrong at once, each with its path.
func TestBodiesAreHeldToTheDocument(t *testing.T) {
	for _, c := range []struct {
		in   any
		body string
		want string // field paths, by blanks; "" = it is taken
	}{
		{&wire.Endpoint{}, `{"spec":{"endpoint_type":"ENDPOINT_TYPE_READ_WRITE","suspend_timeout_duration":"300s","no_such_field":[1]}}`, ""},
		{&wire.Endpoint{}, `{"spec":{"endpoint_type":"","disabled":null,"group":null}}`, ""},
		{&wire.Endpoint{}, `{"spec":{"endpoint_type":"READ_WRITE","suspend_timeout_duration":"5m","disabled":"yes","group":{"min":1.5}}}`,
			"spec.disabled spec.endpoint_type spec.group.min spec.suspend_timeout_duration"},
		{&wire.Branch{}, `{"spec":{"expire_time":"tomorrow","ttl":"3600s"}}`, "spec.expire_time"},
		{&wire.SyncedTable{}, `{"spec":{"scheduling_policy":"HOURLY","type_overrides":[{"column_name":"a"},{"column_name":"b","pg_type":"TEXT","size":"9"}]}}`,
			"spec.scheduling_policy spec.type_overrides[1].pg_type spec.type_overrides[1].size"},
		{&wire.DatabaseInstance{}, `{"name":"x","capacity":"CU_3","custom_tags":[1]}`, "capacity custom_tags[0]"},
		{&wire.Role{}, `{"spec":{"auth_method":"MD5","attributes":[]}}`, "spec.attributes spec.auth_method"},
	} {
		q := &query{r: httptest.NewRequest("POST", "/", strings.NewReader(c.body))}
		err := q.decode(c.in)
		if err == nil {
			if c.want != "" {
				t.Errorf("%s was taken", c.body)
			}
			continue
		}
		e := failureOf(err).body("")
		var got []string
		for _, d := range e.Details {
			for _, v := range d.FieldViolations {
				got = append(got, v.Field)
				if !strings.Contains(e.Message, v.Field+": "+v.Description) {
					t.Errorf("message %q does not tell %+v", e.Message, v)
				}
			}
		}
		if s := strings.Join(got, " "); s != c.want || e.ErrorCode != "INVALID_PARAMETER_VALUE" {
			t.Errorf("%s: %s at %q, want %q", c.body, e.ErrorCode, s, c.want)
		}
	}
}
