package api

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
)

var now = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func TestBranchSpecs(t *testing.T) {
	n := tarn.BranchName{Project: "p", Branch: "b"}
	s, err := readBranchSpec(n, decodeTo[wire.BranchSpec](t, `{"source_branch":"projects/p/branches/production","ttl":"3600s"}`), now)
	if err != nil || s.Source != "production" || !s.ExpireTime.Equal(now.Add(time.Hour)) {
		t.Errorf("%+v %v", s, err)
	}
	s, err = readBranchSpec(n, decodeTo[wire.BranchSpec](t, `{"no_expiry":true,"source_branch_lsn":"0/16B3748","is_protected":true}`), now)
	if err != nil || !s.ExpireTime.IsZero() || s.SourceLSN != 0x16B3748 || !s.Protected {
		t.Errorf("%+v %v", s, err)
	}
	s, err = readBranchSpec(n, decodeTo[wire.BranchSpec](t, `{"source_branch_time":"2026-01-02T13:00:00+02:00"}`), now)
	if err != nil || !s.SourceTime.Equal(now.Add(-time.Hour)) {
		t.Errorf("%+v %v", s, err)
	}
	for _, bad := range []string{
		`{"no_expiry":false}`, `{"ttl":"3600"}`, `{"ttl":"1h"}`, `{"ttl":"0s"}`, `{"ttl":"9999999s"}`, `{"ttl":"60s","no_expiry":true}`,
		`{"source_branch":"projects/q/branches/b"}`, `{"source_branch":"production"}`, `{"source_branch_lsn":"x"}`,
		`{"source_branch_time":"yesterday"}`, `{"source_branch_time":"2026-01-02T00:00:00Z","source_branch_lsn":"0/1"}`,
		`{"expire_time":"2026-01-01T00:00:00Z"}`,
	} {
		if _, err := readBranchSpec(n, decodeTo[wire.BranchSpec](t, bad), now); err == nil || failureOf(err).status != 400 {
			t.Errorf("%s: got %v", bad, err)
		}
	}
}

func TestBranchMasks(t *testing.T) {
	for _, c := range []struct {
		mask, spec string
		protected  bool
		expires    bool
	}{
		{"spec.is_protected", `{"is_protected":true}`, true, true},
		{"spec.is_protected", `{}`, false, true},
		{"spec", `{"is_protected":true}`, true, true},
		{"spec", `{"no_expiry":true,"source_branch":"projects/p/branches/production"}`, false, false},
		{"", `{"no_expiry":true}`, false, false},
		{"*", `{}`, false, true},
		{"spec.expiration", `{"no_expiry":true,"is_protected":true}`, false, false},
		{"spec.no_expiry,spec.is_protected", `{"no_expiry":true,"is_protected":true}`, true, false},
		{"spec.expiration", `{}`, false, false},
	} {
		var b tarn.Branch
		b.ExpireTime = now.Add(time.Hour)
		if err := changeBranch(&b, parseMask(c.mask), decodeTo[wire.BranchSpec](t, c.spec), now); err != nil {
			t.Errorf("%s %s: %v", c.mask, c.spec, err)
		}
		if b.Protected != c.protected || b.ExpireTime.IsZero() == c.expires {
			t.Errorf("%q %s: protected %v, expires %v", c.mask, c.spec, b.Protected, b.ExpireTime)
		}
	}
}

func TestEndpointMasks(t *testing.T) {
	start := tarn.Endpoint{EndpointSpec: tarn.EndpointSpec{MinCU: 1, MaxCU: 4, SuspendAfter: time.Hour, Disabled: true, Settings: map[string]string{"work_mem": "8MB"}}}
	for _, c := range []struct {
		mask, spec string
		want       tarn.EndpointSpec
	}{
		{"spec.disabled", `{}`, tarn.EndpointSpec{MinCU: 1, MaxCU: 4, SuspendAfter: time.Hour, Settings: start.Settings}},
		{"spec", `{"autoscaling_limit_min_cu":2,"autoscaling_limit_max_cu":8}`, tarn.EndpointSpec{MinCU: 2, MaxCU: 8, SuspendAfter: time.Hour, Disabled: true, Settings: start.Settings}},
		{"spec.suspension", `{"no_suspension":true}`, tarn.EndpointSpec{MinCU: 1, MaxCU: 4, SuspendAfter: -1, Disabled: true, Settings: start.Settings}},
		{"spec.suspension", `{}`, tarn.EndpointSpec{MinCU: 1, MaxCU: 4, SuspendAfter: tarn.DefaultSuspendAfter, Disabled: true, Settings: start.Settings}},
		{"spec.settings", `{}`, tarn.EndpointSpec{MinCU: 1, MaxCU: 4, SuspendAfter: time.Hour, Disabled: true}},
		{"", `{"suspend_timeout_duration":"60s","disabled":false}`, tarn.EndpointSpec{MinCU: 1, MaxCU: 4, SuspendAfter: time.Minute, Settings: start.Settings}},
		{"spec.autoscaling_limit_min_cu", `{"autoscaling_limit_min_cu":8}`, tarn.EndpointSpec{MinCU: 8, MaxCU: 8, SuspendAfter: time.Hour, Disabled: true, Settings: start.Settings}},
	} {
		e := start
		if err := changeEndpoint(&e, parseMask(c.mask), decodeTo[wire.EndpointSpec](t, c.spec)); err != nil {
			t.Errorf("%q %s: %v", c.mask, c.spec, err)
			continue
		}
		a, _ := json.Marshal(e.EndpointSpec)
		b, _ := json.Marshal(c.want)
		if string(a) != string(b) {
			t.Errorf("%q %s:\n got %s\nwant %s", c.mask, c.spec, a, b)
		}
	}
	for _, bad := range []string{
		`{"autoscaling_limit_max_cu":65}`, `{"autoscaling_limit_min_cu":0.25}`, `{"autoscaling_limit_min_cu":1,"autoscaling_limit_max_cu":32}`,
		`{"suspend_timeout_duration":"30s"}`, `{"no_suspension":false}`, `{"suspend_timeout_duration":"60s","no_suspension":true}`,
		`{"group":{"min":2,"max":2}}`, `{"endpoint_type":"ENDPOINT_TYPE_READ_ONLY"}`,
	} {
		e := start
		if err := changeEndpoint(&e, nil, decodeTo[wire.EndpointSpec](t, bad)); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

func TestProjectSpecs(t *testing.T) {
	s, err := readProjectSpec(decodeTo[wire.Project](t, `{"spec":{"display_name":"Shop","pg_version":17,"history_retention_duration":"172800s",
		"default_endpoint_settings":{"autoscaling_limit_min_cu":1,"autoscaling_limit_max_cu":2,"no_suspension":true}},"initial_endpoint_spec":{"autoscaling_limit_max_cu":4}}`))
	if err != nil || s.DisplayName != "Shop" || s.PGVersion != 17 || s.History != 48*time.Hour || s.Endpoint.MaxCU != 4 || s.Endpoint.SuspendAfter >= 0 {
		t.Errorf("%+v %v", s, err)
	}
	if s, err = readProjectSpec(decodeTo[wire.Project](t, `{"initial_branch_spec":{"is_protected":true}}`)); err != nil || !s.ProtectDefault {
		t.Errorf("%+v %v", s, err)
	}
	for _, bad := range []string{
		`{"spec":{"history_retention_duration":"3024001s"}}`, `{"spec":{"history_retention_duration":"-60s"}}`, `{"spec":{"default_branch":"projects/p/branches/x"}}`,
		`{"initial_endpoint_spec":{"group":{"min":3,"max":3}}}`,
	} {
		if _, err := readProjectSpec(decodeTo[wire.Project](t, bad)); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

// No history, and histories below the published two days, are ours.
func TestHistories(t *testing.T) {
	for asked, want := range map[string]time.Duration{"0s": tarn.NoHistory, "3600s": time.Hour, "172800s": 48 * time.Hour, "3024000s": tarn.MaxHistory} {
		got, err := history(asked)
		if err != nil || got != want {
			t.Errorf("%s: %s %v, want %s", asked, got, err, want)
		}
		p := projectOf(tarn.Project{ProjectSpec: tarn.ProjectSpec{History: got}})
		if p.Status.HistoryRetentionDuration != asked {
			t.Errorf("%s is shown as %s", asked, p.Status.HistoryRetentionDuration)
		}
	}
}

func TestRestoreBodies(t *testing.T) {
	n := tarn.BranchName{Project: "p", Branch: "b"}
	at := time.Date(2026, 1, 2, 12, 0, 0, 250_000_000, time.UTC)
	for body, want := range map[string]tarn.RestoreSpec{
		`{"source_branch_time":"2026-01-02T13:00:00.25+01:00","keep_as":"old"}`: {Time: at, KeepAs: "old"},
		`{"source_branch_lsn":"0/16B3748"}`:                                     {LSN: 0x16B3748},
		`{"source_snapshot":"projects/p/snapshots/s"}`:                          {Snapshot: "s"},
	} {
		if got, err := readRestore(n, decodeTo[wire.RestoreBranch](t, body)); err != nil || got != want {
			t.Errorf("%s: %+v %v", body, got, err)
		}
	}
	for _, bad := range []string{
		`{"source_branch_time":"yesterday"}`, `{"source_branch_lsn":"0/0"}`, `{"source_branch_lsn":"x"}`, `{"source_snapshot":"s"}`,
		`{"source_snapshot":"projects/q/snapshots/s"}`, `{"source_snapshot":"projects/p/snapshots/s","source_branch_lsn":"0/1"}`,
		`{"source_branch_time":"2026-01-02T13:00:00Z","source_branch_lsn":"0/1"}`,
	} {
		if _, err := readRestore(n, decodeTo[wire.RestoreBranch](t, bad)); failureOf(err).status != 400 {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestSnapshotSpecs(t *testing.T) {
	n := tarn.SnapshotName{Project: "p", Snapshot: "s"}
	s, err := readSnapshotSpec(n, decodeTo[wire.SnapshotSpec](t, `{"source_branch":"projects/p/branches/b","source_branch_lsn":"0/1","ttl":"5184000s"}`), now)
	if err != nil || s.Source != "b" || s.SourceLSN != 1 || !s.ExpireTime.Equal(now.Add(60*24*time.Hour)) {
		t.Errorf("%+v %v", s, err)
	}
	for _, bad := range []string{`{"source_branch":"projects/q/branches/b"}`, `{"source_branch":"b"}`, `{"ttl":"0s"}`, `{"no_expiry":false}`, `{"ttl":"1s","no_expiry":true}`} {
		if _, err := readSnapshotSpec(n, decodeTo[wire.SnapshotSpec](t, bad), now); failureOf(err).status != 400 {
			t.Errorf("%s: %v", bad, err)
		}
	}
	out := snapshotOf(tarn.Snapshot{SnapshotSpec: s, State: tarn.BranchReady, PointLSN: 7})
	if out.Name != "projects/p/snapshots/s" || out.Status.CurrentState != "AVAILABLE" || out.Status.SourceBranch != "projects/p/branches/b" || out.Status.SourceBranchLSN != "0/7" || out.Status.NoExpiry {
		t.Errorf("%+v %+v", out, out.Status)
	}
	b, err := readBranchSpec(tarn.BranchName{Project: "p", Branch: "b"}, decodeTo[wire.BranchSpec](t, `{"source_snapshot":"projects/p/snapshots/s","no_expiry":true}`), now)
	if err != nil || b.SourceSnapshot != "s" {
		t.Errorf("%+v %v", b, err)
	}
	if _, err := readBranchSpec(b.Name, decodeTo[wire.BranchSpec](t, `{"source_snapshot":"projects/p/snapshots/s","source_branch":"projects/p/branches/x"}`), now); err == nil {
		t.Error("a branch of a snapshot and a branch was taken")
	}
}

func TestProjectMasks(t *testing.T) {
	n := tarn.ProjectName{Project: "p"}
	// Terraform's fixed list; the create-only fields must do nothing.
	m := parseMask("initial_branch_spec,initial_endpoint_spec,spec")
	if err := m.check(projectFields[:]...); err != nil {
		t.Error(err)
	}
	p := tarn.Project{ProjectSpec: tarn.ProjectSpec{Name: n, PGVersion: 18, DisplayName: "old", CustomTags: map[string]string{"a": "1"}}}
	if err := changeProject(&p, m, decodeTo[wire.ProjectSpec](t, `{"display_name":"new","pg_version":18}`)); err != nil || p.DisplayName != "new" || len(p.CustomTags) != 1 {
		t.Errorf("%+v %v", p, err)
	}
	if err := changeProject(&p, parseMask("spec.custom_tags"), wire.ProjectSpec{}); err != nil || len(p.CustomTags) != 0 {
		t.Errorf("%+v %v", p, err)
	}
	if err := changeProject(&p, m, decodeTo[wire.ProjectSpec](t, `{"pg_version":17}`)); err == nil {
		t.Error("a major version was changed")
	}
}

func TestOperations(t *testing.T) {
	op := tarn.Operation{Name: "projects/p/operations/1", Verb: "delete", Done: true}
	for _, c := range []struct {
		op       tarn.Operation
		resource any
		want     string
	}{
		{op, nil, `{"name":"projects/p/operations/1","done":true,"response":{}}`},
		{tarn.Operation{Name: "o"}, nil, `{"name":"o","done":false}`},
		{tarn.Operation{Name: "o", Done: true}, wire.Project{Name: "projects/p"}, `{"name":"o","done":true,"response":{"name":"projects/p"}}`},
		{tarn.Operation{Name: "o", Done: true, ErrorKind: tarn.KindConflict, Error: "no room"}, nil,
			`{"name":"o","done":true,"error":{"error_code":"INVALID_STATE","message":"no room","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"INVALID_STATE","domain":"tarn"}]}}`},
	} {
		got, err := operationOf(c.op, c.resource)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := json.Marshal(got); string(b) != c.want {
			t.Errorf("got  %s\nwant %s", b, c.want)
		}
	}
}

func TestOperationsBornDone(t *testing.T) {
	here := func() (string, any, error) { return "u1", wire.CdfConfig{Catalog: "c"}, nil }
	gone := func() (string, any, error) { return "", nil, tarn.NotFound("gone") }
	broken := func() (string, any, error) { return "", nil, errors.New("disk") }
	for _, c := range []struct {
		id   string
		look func() (string, any, error)
		done string // true, false or the code of the refusal
	}{
		{"create-u1", here, "true"}, {"create-u2", here, "RESOURCE_DOES_NOT_EXIST"}, {"create-u1", gone, "RESOURCE_DOES_NOT_EXIST"},
		{"delete-u1", here, "false"}, {"delete-u1", gone, "true"}, {"delete-u0", here, "true"},
		{"what", here, "RESOURCE_DOES_NOT_EXIST"}, {"create-u1", broken, "INTERNAL_ERROR"},
	} {
		got := ""
		v, err := bornDone("x/operations/"+c.id, c.id, c.look)
		if err != nil {
			got = failureOf(err).code
		} else if op := v.(wire.Operation); op.Done {
			got = "true"
			if len(op.Response) == 0 {
				t.Errorf("%s: done without a response", c.id)
			}
		} else {
			got = "false"
		}
		if got != c.done {
			t.Errorf("%s: %s, want %s", c.id, got, c.done)
		}
	}
}

func TestCredentialLife(t *testing.T) {
	for body, want := range map[string]time.Duration{
		`{}`: time.Hour, `{"ttl":"300s"}`: 5 * time.Minute, `{"expire_time":"2026-01-02T12:30:00Z"}`: 30 * time.Minute,
	} {
		if got, err := readCredentialLife(decodeTo[wire.GenerateCredential](t, body), now); err != nil || got != want {
			t.Errorf("%s: %v %v", body, got, err)
		}
	}
	for _, bad := range []string{`{"ttl":"60s"}`, `{"ttl":"7200s"}`, `{"ttl":"600s","expire_time":"2026-01-02T12:30:00Z"}`, `{"claims":[{}]}`} {
		if _, err := readCredentialLife(decodeTo[wire.GenerateCredential](t, bad), now); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}
