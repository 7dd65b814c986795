package api

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
)

func decodeTo[T any](t *testing.T, s string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(s), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

const terraformMask = "capacity,custom_tags,enable_pg_native_login,enable_readable_secondaries,node_count,retention_window_in_days,stopped,usage_policy_id"

func TestInstanceMasks(t *testing.T) {
	start := tarn.Project{
		ProjectSpec: tarn.ProjectSpec{CustomTags: map[string]string{"a": "1"}, DisableNativeLogin: true},
		Instance:    tarn.InstanceSpec{Capacity: "CU_2", UsagePolicy: "pol"},
	}
	for _, c := range []struct {
		name, mask, body string
		stopped          string // what becomes of it: keep, true, false
		capacity         string
		tags             int
		login            bool
		policy           string
	}{
		{"the SDK's stop", "stopped", `{"name":"i","stopped":true}`, "true", "CU_2", 1, false, "pol"},
		{"named, omitted", "stopped", `{"name":"i"}`, "false", "CU_2", 1, false, "pol"},
		{"no mask: what is given", "", `{"name":"i","capacity":"CU_4"}`, "keep", "CU_4", 1, false, "pol"},
		{"star", "*", `{"stopped":false,"custom_tags":[{"key":"b","value":"2"},{"key":"c","value":"3"}]}`, "false", "CU_2", 2, false, "pol"},
		{"Terraform's list", terraformMask, `{"name":"i","capacity":"CU_1","node_count":1}`, "false", "CU_1", 0, true, ""},
		{"clear tags", "custom_tags", `{"name":"i"}`, "keep", "CU_2", 0, false, "pol"},
		{"not named", "capacity", `{"capacity":"CU_8","stopped":true}`, "keep", "CU_8", 1, false, "pol"},
	} {
		ch, err := readInstanceChange(parseMask(c.mask), decodeTo[wire.DatabaseInstance](t, c.body))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		p := start
		ch.apply(&p)
		stopped := "keep"
		if ch.stopped != nil {
			stopped = map[bool]string{true: "true", false: "false"}[*ch.stopped]
		}
		if stopped != c.stopped || p.Instance.Capacity != c.capacity || len(p.CustomTags) != c.tags || p.DisableNativeLogin == c.login || p.Instance.UsagePolicy != c.policy {
			t.Errorf("%s: stopped %s, %+v, tags %v, native login off %v", c.name, stopped, p.Instance, p.CustomTags, p.DisableNativeLogin)
		}
	}
	if _, err := readInstanceChange(parseMask("stoped"), wire.DatabaseInstance{}); err == nil {
		t.Error("a misspelt path was taken")
	}
	c, err := readInstanceChange(nil, decodeTo[wire.DatabaseInstance](t, `{"node_count":3,"enable_readable_secondaries":true}`))
	var have tarn.InstanceSpec
	if c.spec(&have); err != nil || have.NodeCount != 3 || !have.Readable || checkNodes(have) != nil {
		t.Errorf("three nodes: %+v, %v", have, err)
	}
}

func TestInstanceSpecs(t *testing.T) {
	s, inst, err := instanceSpecs(decodeTo[wire.DatabaseInstance](t, `{"name":"i","capacity":"CU_1","retention_window_in_days":14,"node_count":1,"enable_readable_secondaries":false,"enable_pg_native_login":false}`))
	if err != nil || s.History != 14*24*time.Hour || !s.DisableNativeLogin || inst.Capacity != "CU_1" || s.Endpoint.MaxCU != 8 {
		t.Errorf("%+v %+v %v", s, inst, err)
	}
	for _, bad := range []string{
		`{"capacity":"CU_3"}`, `{"retention_window_in_days":1}`, `{"node_count":4}`, `{"node_count":0}`, `{"enable_readable_secondaries":true}`,
		`{"stopped":true}`,
	} {
		if _, _, err := instanceSpecs(decodeTo[wire.DatabaseInstance](t, bad)); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
	for _, c := range capacities {
		if c.max-c.min > widestCU || c.max > highestCU || capacityOf(c.max) != c.name {
			t.Errorf("%v breaks the rule of ranges", c)
		}
	}
}

func TestInstanceStates(t *testing.T) {
	ready := tarn.Branch{State: tarn.BranchReady}
	ep := func(s tarn.EndpointState, disabled bool) tarn.Endpoint {
		e := tarn.Endpoint{UID: "ep-1", State: s}
		e.Disabled = disabled
		return e
	}
	for _, c := range []struct {
		b    tarn.Branch
		e    tarn.Endpoint
		want string
	}{
		{tarn.Branch{}, tarn.Endpoint{}, "STARTING"},
		{tarn.Branch{State: tarn.BranchInit}, ep(tarn.EndpointInit, false), "STARTING"},
		{ready, tarn.Endpoint{}, "STARTING"},
		{ready, ep(tarn.EndpointIdle, false), "AVAILABLE"},
		{ready, ep(tarn.EndpointInit, false), "AVAILABLE"},
		{ready, ep(tarn.EndpointActive, true), "UPDATING"},
		{ready, ep(tarn.EndpointIdle, true), "STOPPED"},
		{tarn.Branch{State: tarn.BranchDeleted}, ep(tarn.EndpointIdle, false), "DELETING"},
	} {
		if got := instanceState(c.b, c.e); got != c.want {
			t.Errorf("%s %s disabled=%v: %s, want %s", c.b.State, c.e.State, c.e.Disabled, got, c.want)
		}
	}
}

// Terraform wants every value back both as x and as effective_x.
func TestInstanceEchoesBothSpellings(t *testing.T) {
	n := tarn.ProjectName{Project: "shop"}
	p := tarn.Project{
		ProjectSpec: tarn.ProjectSpec{Name: n, PGVersion: 18, History: 9 * 24 * time.Hour, CustomTags: map[string]string{"b": "2", "a": "1"}},
		UID:         "u-1", Owner: "me@example.com", CreateTime: time.Date(2026, 1, 2, 3, 4, 5, 6789, time.UTC),
		Instance: tarn.InstanceSpec{Capacity: "CU_2", NodeCount: 1},
	}
	b := tarn.Branch{State: tarn.BranchReady}
	e := tarn.Endpoint{UID: "ep-1", Host: "127.1.2.3", State: tarn.EndpointIdle}
	out, err := json.Marshal(instanceOf(p, b, e))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"name":"shop","uid":"u-1","capacity":"CU_2","custom_tags":[{"key":"a","value":"1"},{"key":"b","value":"2"}],` +
		`"enable_pg_native_login":true,"enable_readable_secondaries":false,"node_count":1,"retention_window_in_days":9,"stopped":false,` +
		`"creation_time":"2026-01-02T03:04:05.000006Z","creator":"me@example.com","pg_version":"PG_VERSION_18","read_write_dns":"127.1.2.3","state":"AVAILABLE",` +
		`"effective_capacity":"CU_2","effective_custom_tags":[{"key":"a","value":"1"},{"key":"b","value":"2"}],"effective_enable_pg_native_login":true,` +
		`"effective_enable_readable_secondaries":false,"effective_node_count":1,"effective_retention_window_in_days":9,"effective_stopped":false}`
	if string(out) != want {
		t.Errorf("got  %s\nwant %s", out, want)
	}
}
