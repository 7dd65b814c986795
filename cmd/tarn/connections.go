package main

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"

	"github.com/tarndb/tarn/client"
	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/gateway"
)

func connectionsCommand(sh *shell) *cobra.Command {
	return &cobra.Command{
		Use: "connections", Short: "List who is connected to Postgres through the gateway",
		Long: "List the open sessions of the Postgres gateway, oldest first. A session of the pooler has\n" +
			"a connection to Postgres only while it is busy. The compute of one that is parked was stopped; its next\n" +
			"statement wakes it and finds the session as it was.",
		Args: args(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := sh.client()
			if err != nil {
				return err
			}
			all, err := client.Connections(cmd.Context(), c)
			if err != nil {
				return err
			}
			return sh.show(all, func() {
				if len(all.Connections) == 0 {
					sh.say("Nobody is connected.")
					return
				}
				var rows [][]string
				for _, s := range all.Connections {
					state := "idle"
					if s.Busy {
						state = "busy"
					}
					if s.Parked {
						state = "parked"
					}
					how := "direct"
					if s.Pooled {
						how = "pooled"
					}
					rows = append(rows, []string{s.EndpointName, s.Role, s.Database, s.ApplicationName, s.ClientAddr, how, state, s.Started,
						strconv.FormatUint(s.Statements, 10), strconv.FormatUint(s.BytesIn, 10), strconv.FormatUint(s.BytesOut, 10)})
				}
				sh.table("ENDPOINT ROLE DATABASE APPLICATION CLIENT HOW STATE SINCE STATEMENTS IN OUT", rows)
			})
		},
	}
}

// sessionsOf shows the gateway's sessions as the API does.
func sessionsOf(gate *gateway.Server) func() []wire.GatewaySession {
	return func() []wire.GatewaySession {
		var out []wire.GatewaySession
		for _, s := range gate.Sessions() {
			out = append(out, wire.GatewaySession{
				Endpoint: s.Endpoint, PID: s.PID, Role: s.Role, Database: s.Database, ApplicationName: s.ApplicationName,
				ClientAddr: s.ClientAddr.String(), Pooled: s.Pooled, Busy: s.Busy, Parked: s.Parked, Started: s.Started.Format(time.RFC3339),
				WakeSecs: s.Wake.Seconds(), BytesIn: s.BytesIn, BytesOut: s.BytesOut, Statements: s.Statements,
			})
		}
		return out
	}
}

// withMetrics serves GET /metrics beside h, for Prometheus.
func withMetrics(h http.Handler, gate *gateway.Server) http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	r.MustRegister(gate.Collectors()...)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(r, promhttp.HandlerOpts{}))
	mux.Handle("/", h)
	return mux
}
