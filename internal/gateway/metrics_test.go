package gateway_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the gateway's metrics as text: name{labels} value.
func (g *gate) metrics(t *testing.T) map[string]float64 {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(g.Collectors()...)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			v := m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			all[fmt.Sprintf("%s{%s}", strings.TrimPrefix(f.GetName(), "tarn_gateway_"), strings.Join(labels, ","))] = v
		}
	}
	return all
}

// testTelemetry: what a session was is told in the list while it lasts, and in
// the metrics afterwards; names never become labels.
func testTelemetry(t *testing.T, s *site) {
	s = s.another(t, nil)
	s.town.set(func() { st := s.status; st.StartTime = time.Now().Add(time.Hour); s.town.wake = awake(st) }) // it starts for us
	direct := s.connect(t, "app", "sécret of app", "application_name=shop/1.0")
	pooled := s.app(t, "application_name=shop/2.0")
	for range 3 {
		run(t, direct, "SELECT 1")
		run(t, pooled, "SELECT repeat('x', 100000)")
	}
	run(t, direct, "SET application_name = 'renamed/3'") // as drivers do that connect first
	until(t, "the list shows both", func() bool {
		all := s.Sessions()
		if len(all) != 2 {
			return false
		}
		d, p := all[0], all[1]
		return d.ApplicationName == "renamed/3" && !d.Pooled && d.Role == "app" && d.Database == "postgres" && d.Wake > 0 && d.Statements >= 4 &&
			d.BytesIn > 0 && d.BytesOut > 0 && d.ClientAddr.Addr().IsLoopback() &&
			p.ApplicationName == "shop/2.0" && p.Pooled && p.Statements == 3 && p.BytesOut > 300_000 && !p.Busy
	})
	s.fails(t, "app", "wrong", "28P01")
	m := s.metrics(t)
	for name, want := range map[string]float64{
		"sessions{how=session}": 1, "sessions{how=pooled}": 1, "connections_total{how=session}": 1, "connections_total{how=pooled}": 1,
		"connections_total{how=refused}": 1, "refusals_total{code=28P01}": 1, "pool_servers{}": 1, "pool_waiting{}": 0, "login_seconds{}": 2,
	} {
		if m[name] != want {
			t.Errorf("%s is %v, want %v", name, m[name], want)
		}
	}
	direct.Close(t.Context())
	pooled.Close(t.Context())
	until(t, "the ended sessions are counted", func() bool {
		m := s.metrics(t)
		return m["sessions{how=session}"] == 0 && m["statements_total{how=pooled}"] == 3 && m["bytes_total{direction=out}"] > 300_000 && m["wake_seconds{}"] > 0
	})
	for name := range s.metrics(t) {
		if strings.Contains(name, "ep-") || strings.Contains(name, "app") {
			t.Errorf("a name in a label: %s", name)
		}
	}
}
