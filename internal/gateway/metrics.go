package gateway

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tarndb/tarn"
)

// metrics is what the gateway counts. Labels have a handful of values each:
// no name of an endpoint, a role or an address is one, or a busy workspace
// would make series without end.
type metrics struct {
	connections *prometheus.CounterVec   // how: session, pooled, cancel, refused, left
	refusals    *prometheus.CounterVec   // SQLSTATEs of the gateway's own errors, "other" for Postgres's
	sessions    *prometheus.GaugeVec     // how: session, pooled
	bytes       *prometheus.CounterVec   // direction: in, out
	statements  *prometheus.CounterVec   // how
	carried     *prometheus.CounterVec   // outcome: parked, resumed, failed
	logins      prometheus.Histogram     // seconds from the first byte to an open session
	wakes       prometheus.Histogram     // seconds a client waited for its compute, when it was not running
	wakeSteps   *prometheus.HistogramVec // the same, by step
	queue       prometheus.Histogram     // seconds a client of the pooler waited for a server connection
	servers     prometheus.GaugeFunc     // server connections of all pools
	waiting     prometheus.GaugeFunc     // clients in their queues
	all         []prometheus.Collector   // every one of these
}

func newMetrics(p *pools) *metrics {
	name := func(s string) string { return "tarn_gateway_" + s }
	wakeBuckets := prometheus.ExponentialBuckets(0.001, 2, 16)
	counter := func(n, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name(n), Help: help}, labels)
	}
	histogram := func(n, help string) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name(n), Help: help, Buckets: wakeBuckets})
	}
	m := &metrics{
		connections: counter("connections_total", "Connections of clients, by what became of them.", "how"),
		refusals:    counter("refusals_total", "Errors that ended a connection before its session, by SQLSTATE.", "code"),
		sessions:    prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name("sessions"), Help: "Open sessions."}, []string{"how"}),
		bytes:       counter("bytes_total", "Bytes of sessions, from clients (in) and to them (out).", "direction"),
		statements:  counter("statements_total", "Statements completed.", "how"),
		carried:     counter("carried_total", "Direct sessions whose compute went away under them: parked, resumed on another, failed to.", "outcome"),
		logins:      histogram("login_seconds", "From a connection's first byte to its open session."),
		wakes:       histogram("wake_seconds", "How long clients waited for a compute that did not run."),
		wakeSteps: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name("wake_step_seconds"),
			Help: "What logins that waited for a compute to start consisted of; steps of the compute's own start begin with start_.", Buckets: wakeBuckets},
			[]string{"step"}),
		queue: histogram("pool_wait_seconds", "How long clients of the pooler waited for a server connection."),
		servers: prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name("pool_servers"), Help: "Server connections of all poolers."},
			func() float64 { n, _ := p.count(); return float64(n) }),
		waiting: prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name("pool_waiting"), Help: "Clients that wait for a server connection."},
			func() float64 { _, n := p.count(); return float64(n) }),
	}
	m.all = []prometheus.Collector{m.connections, m.refusals, m.sessions, m.bytes, m.statements, m.carried, m.logins, m.wakes, m.wakeSteps, m.queue, m.servers, m.waiting}
	return m
}

// Collectors are the gateway's metrics, for a registry.
func (s *Server) Collectors() []prometheus.Collector { return s.metrics.all }

// count returns the server connections and the clients that wait for one.
func (p *pools) count() (servers, waiting int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, of := range p.by {
		servers += of.servers
		waiting += len(of.waiters)
	}
	return servers, waiting
}

// refused counts an error before the session.
func (m *metrics) refused(f *fatal) {
	m.connections.WithLabelValues("refused").Inc()
	code := f.code
	if f.raw != nil || !slices.Contains(ownCodes, code) { // Postgres's: a function can make up its own
		code = "other"
	}
	m.refusals.WithLabelValues(code).Inc()
}

const (
	howSession = "session"
	howPooled  = "pooled"
)

func (x *session) how() string {
	if x.guest != nil {
		return howPooled
	}
	return howSession
}

// opened counts a session that begins.
func (s *Server) opened(x *session) {
	s.metrics.connections.WithLabelValues(x.how()).Inc()
	s.metrics.sessions.WithLabelValues(x.how()).Inc()
	c := x.client
	c.steps.Done("open")
	took := time.Since(c.arrived)
	s.metrics.logins.Observe(took.Seconds())
	if c.woke > 0 {
		for _, p := range c.steps.All() {
			s.metrics.wakeSteps.WithLabelValues(p.Name).Observe(p.Took.Seconds())
		}
		for _, p := range c.started {
			s.metrics.wakeSteps.WithLabelValues("start_" + p.Name).Observe(p.Took.Seconds())
		}
		s.log.Info("gateway wake", "endpoint", x.what.Endpoint, "took", took, "steps", c.steps, "start", tarn.StepsOf(c.started))
	}
	c.steps, c.started = nil, nil // a session has no use for them
}

// closed counts a session that ended and writes its line to the log.
func (s *Server) closed(x *session) {
	w := x.snapshot()
	m := s.metrics
	m.sessions.WithLabelValues(x.how()).Dec()
	m.bytes.WithLabelValues("in").Add(float64(w.BytesIn))
	m.bytes.WithLabelValues("out").Add(float64(w.BytesOut))
	m.statements.WithLabelValues(x.how()).Add(float64(w.Statements))
	s.log.LogAttrs(context.Background(), slog.LevelInfo, "gateway session closed",
		slog.String("endpoint", w.Endpoint), slog.String("role", w.Role), slog.String("database", w.Database),
		slog.String("addr", w.ClientAddr.String()), slog.String("app", w.ApplicationName), slog.String("how", x.how()),
		slog.Uint64("in", w.BytesIn), slog.Uint64("out", w.BytesOut), slog.Uint64("statements", w.Statements),
		slog.Duration("wake", w.Wake), slog.Duration("took", time.Since(w.Started)))
}

// ended counts a connection that came to no session.
func (m *metrics) ended(err error) {
	if f := (*fatal)(nil); errors.As(err, &f) {
		m.refused(f)
		return
	}
	m.connections.WithLabelValues("left").Inc()
}
