package main

import (
	"crypto/tls"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/gateway"
)

// gatewayConfig is what `tarn up` is told about the gateway. Its zero value is
// the documented default.
type gatewayConfig struct {
	PoolSize  int           // server connections of an endpoint's pooler; 0 = 50
	PoolRole  int           // of one role to one database of it; 0 = as many
	PoolQueue time.Duration // how long a client of the pooler waits for one; 0 = 2 min
	Listen    string        // address shared by all endpoints; "" = 127.0.0.1
	Domain    string        // endpoints are also <uid>.Domain; "" = no DNS
	Cert      string        // certificate and key files; "" = the gateway's own authority
	Key       string
	Proxies   []string      // networks of load balancers that speak the PROXY protocol
	Drain     time.Duration // for busy sessions at the end; 0 = 5 s
}

func (c *gatewayConfig) flags(f *pflag.FlagSet) {
	f.IntVar(&c.PoolSize, "pool-size", 0, "connections to Postgres that the clients of an endpoint's pooler share (default 50)")
	f.IntVar(&c.PoolRole, "pool-role-size", 0, "connections to Postgres of one role to one database in the pooler (default: as --pool-size)")
	f.DurationVar(&c.PoolQueue, "pool-wait", 0, "how long a client of the pooler waits for a connection to Postgres (default 2m0s)")
	f.StringVar(&c.Listen, "gateway-listen", "", "IP address on which all endpoints are reached by name or option (default 127.0.0.1; 0.0.0.0 = every address)")
	f.StringVar(&c.Domain, "domain", "", "domain under which DNS leads to the gateway: endpoints are <uid>.DOMAIN, their poolers <uid>-pooler.DOMAIN")
	f.StringVar(&c.Cert, "gateway-cert", "", "certificate file of the gateway, read again when it changes (default: certificates of its own authority)")
	f.StringVar(&c.Key, "gateway-key", "", "key file of the gateway's certificate")
	f.StringSliceVar(&c.Proxies, "proxy-from", nil, "networks of load balancers, whose connections must begin with a PROXY protocol v2 header")
	f.DurationVar(&c.Drain, "drain-timeout", 0, "how long busy sessions may go on when the gateway stops (default 5s)")
}

func (c *gatewayConfig) complete() error {
	for flag, n := range map[string]int{"--pool-size": c.PoolSize, "--pool-role-size": c.PoolRole} {
		if n < 0 || n > 10_000 {
			return tarn.Invalid("%s %d: want 1 to 10000, or 0 for the default", flag, n)
		}
	}
	if _, err := netip.ParseAddr(c.Listen); err != nil && c.Listen != "" {
		return tarn.Invalid("--gateway-listen %q: want an IP address", c.Listen)
	}
	if (c.Cert == "") != (c.Key == "") {
		return tarn.Invalid("--gateway-cert and --gateway-key belong together")
	}
	if c.Cert != "" {
		if _, err := tls.LoadX509KeyPair(c.Cert, c.Key); err != nil {
			return tarn.Invalid("--gateway-cert: %w", err)
		}
	}
	if _, err := tarn.ParseAllowed(c.Proxies); err != nil {
		return tarn.Invalid("--proxy-from: %w", err)
	}
	if c.Domain != strings.Trim(c.Domain, ".") || strings.ContainsAny(c.Domain, "/: *") {
		return tarn.Invalid("--domain %q: want a DNS name such as db.example.com", c.Domain)
	}
	if c.Drain < 0 || c.Drain > maxDrain {
		return tarn.Invalid("--drain-timeout %s: want 0s to %s", c.Drain, maxDrain)
	}
	if c.PoolQueue < 0 {
		return tarn.Invalid("--pool-wait %s: want a positive duration", c.PoolQueue)
	}
	return nil
}

// args gives the flags that were set.
func (c *gatewayConfig) args() []string {
	var a []string
	for flag, n := range map[string]int{"--pool-size": c.PoolSize, "--pool-role-size": c.PoolRole} {
		if n != 0 {
			a = append(a, flag, strconv.Itoa(n))
		}
	}
	for flag, v := range map[string]string{"--gateway-listen": c.Listen, "--domain": c.Domain, "--gateway-cert": c.Cert, "--gateway-key": c.Key,
		"--proxy-from": strings.Join(c.Proxies, ",")} {
		if v != "" {
			a = append(a, flag, v)
		}
	}
	if c.Drain != 0 {
		a = append(a, "--drain-timeout", c.Drain.String())
	}
	if c.PoolQueue != 0 {
		a = append(a, "--pool-wait", c.PoolQueue.String())
	}
	return a
}

// shared is the address all endpoints are reached on.
func (c *gatewayConfig) shared(port int) netip.AddrPort {
	a, err := netip.ParseAddr(c.Listen)
	if err != nil { // "", as complete has seen
		a = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.AddrPortFrom(a, uint16(port))
}

// gateway is what the gateway room is told; the rest is serve's.
func (c *gatewayConfig) gateway(port int) gateway.Config {
	proxies, _ := tarn.ParseAllowed(c.Proxies) // complete has seen them
	return gateway.Config{
		Main: c.shared(port), Domain: c.Domain, CertFile: c.Cert, KeyFile: c.Key, Proxies: proxies, Drain: c.Drain,
		Pool: gateway.Pool{Servers: c.PoolSize, PerRole: c.PoolRole, Queue: c.PoolQueue},
	}
}
