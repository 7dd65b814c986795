package api

import (
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
)

// The defaults and published bounds of an endpoint's limits.
const (
	defaultMinCU = 0.5
	defaultMaxCU = 2.0
	lowestCU     = 0.5
	highestCU    = 64.0
	widestCU     = 16.0 // max - min
	minSuspend   = time.Minute
	maxSuspend   = 7 * day
)

// readSettings writes what the wire gives into s and checks the result; field
// is the path of in, for errors.
func readSettings(field string, in wire.EndpointSettings, s *tarn.EndpointSpec) error {
	if in.AutoscalingLimitMinCU != nil {
		s.MinCU = *in.AutoscalingLimitMinCU
	}
	if in.AutoscalingLimitMaxCU != nil {
		s.MaxCU = *in.AutoscalingLimitMaxCU
	}
	if in.AutoscalingLimitMinCU != nil || in.AutoscalingLimitMaxCU != nil {
		lo, hi := limits(*s)
		// Only one bound given: the other follows when its default would not fit.
		if in.AutoscalingLimitMaxCU == nil && hi < lo {
			hi = lo
		}
		if in.AutoscalingLimitMinCU == nil && lo > hi {
			lo = hi
		}
		if lo < lowestCU || hi > highestCU || lo > hi || hi-lo > widestCU {
			return badField(field+".autoscaling_limit_max_cu", "got %g to %g CU, want %g to %g, at most %g apart", lo, hi, lowestCU, highestCU, widestCU)
		}
		s.MinCU, s.MaxCU = lo, hi
	}
	if in.PgSettings != nil {
		s.Settings = in.PgSettings
	}
	if in.NoSuspension != nil && !*in.NoSuspension {
		return badField(field+".no_suspension", "only true can be said; give suspend_timeout_duration otherwise")
	}
	switch {
	case in.NoSuspension != nil && in.SuspendTimeoutDuration != "":
		return badField(field+".suspension", "give suspend_timeout_duration or no_suspension, not both")
	case in.NoSuspension != nil:
		s.SuspendAfter = -1
	case in.SuspendTimeoutDuration != "":
		d, err := wire.ParseDuration(field+".suspend_timeout_duration", in.SuspendTimeoutDuration)
		if err != nil {
			return err
		}
		if d < minSuspend || d > maxSuspend {
			return badField(field+".suspend_timeout_duration", "got %s, want 60s to 604800s", in.SuspendTimeoutDuration)
		}
		s.SuspendAfter = d
	}
	return nil
}

// readGroup refuses endpoints of several computes.
func readGroup(field string, g *wire.EndpointGroup) error {
	if g == nil {
		return nil
	}
	if g.Min != 1 || g.Max != 1 || g.EnableReadableSecondaries != nil && *g.EnableReadableSecondaries {
		return unbuilt("%s: endpoints of several computes are not there yet; want min 1 and max 1", field)
	}
	return nil
}

// limits are the effective bounds of s in CU.
func limits(s tarn.EndpointSpec) (lo, hi float64) {
	lo, hi = s.MinCU, s.MaxCU
	if lo == 0 {
		lo = defaultMinCU
	}
	if hi == 0 {
		hi = defaultMaxCU
	}
	return lo, hi
}

// suspendOf prints the effective idle time; "" = never.
func suspendOf(s tarn.EndpointSpec) string {
	switch {
	case s.SuspendAfter < 0:
		return ""
	case s.SuspendAfter == 0:
		return wire.Duration(tarn.DefaultSuspendAfter)
	}
	return wire.Duration(s.SuspendAfter)
}

func typeOf(t tarn.EndpointType) tarn.EndpointType {
	if t == "" {
		return tarn.ReadWrite
	}
	return t
}

func endpointOf(e tarn.Endpoint) wire.Endpoint {
	lo, hi := limits(e.EndpointSpec)
	st := &wire.EndpointStatus{
		AutoscalingLimitMinCU: lo, AutoscalingLimitMaxCU: hi,
		CurrentState: string(e.State), Disabled: e.Disabled,
		EndpointID: e.Name.Endpoint, EndpointType: string(typeOf(e.Type)),
		Group:                  &wire.EndpointGroup{Min: 1, Max: 1},
		LastActiveTime:         wire.Time(e.LastActive),
		SuspendTimeoutDuration: suspendOf(e.EndpointSpec),
	}
	if e.SuspendAfter >= 0 && e.FreezeAfter > 0 {
		st.TarnFreezeTimeoutDuration = wire.Duration(e.FreezeAfter)
	}
	if e.Host != "" {
		st.Hosts = &wire.EndpointHosts{Host: e.Address(), ReadWritePooledHost: e.PoolerAddress()}
		if e.Type == tarn.ReadOnly {
			st.Hosts = &wire.EndpointHosts{Host: e.Address(), ReadOnlyHost: e.Address(), ReadOnlyPooledHost: e.PoolerAddress()}
		}
	}
	if len(e.Settings) > 0 {
		st.Settings = &wire.PgSettings{PgSettings: e.Settings}
	}
	if e.State == tarn.EndpointInit {
		st.PendingState = string(tarn.EndpointActive)
	}
	return wire.Endpoint{
		Name: e.Name.String(), EndpointID: e.Name.Endpoint, UID: e.UID, Parent: e.Name.Parent().String(),
		CreateTime: wire.Time(e.CreateTime), UpdateTime: wire.Time(e.UpdateTime), Status: st,
	}
}
