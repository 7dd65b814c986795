package main

import (
	"strconv"
	"time"

	"github.com/spf13/pflag"

	"github.com/tarndb/tarn"
)

// gatewayConfig is what `tarn up` is told about the gateway. Its zero value is
// the documented default.
type gatewayConfig struct {
	PoolSize  int           // server connections of an endpoint's pooler; 0 = 50
	PoolRole  int           // of one role to one database of it; 0 = as many
	PoolQueue time.Duration // how long a client of the pooler waits for one; 0 = 2 min
}

func (c *gatewayConfig) flags(f *pflag.FlagSet) {
	f.IntVar(&c.PoolSize, "pool-size", 0, "connections to Postgres that the clients of an endpoint's pooler share (default 50)")
	f.IntVar(&c.PoolRole, "pool-role-size", 0, "connections to Postgres of one role to one database in the pooler (default: as --pool-size)")
	f.DurationVar(&c.PoolQueue, "pool-wait", 0, "how long a client of the pooler waits for a connection to Postgres (default 2m0s)")
}

func (c *gatewayConfig) complete() error {
	for flag, n := range map[string]int{"--pool-size": c.PoolSize, "--pool-role-size": c.PoolRole} {
		if n < 0 || n > 10_000 {
			return tarn.Invalid("%s %d: want 1 to 10000, or 0 for the default", flag, n)
		}
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
	if c.PoolQueue != 0 {
		a = append(a, "--pool-wait", c.PoolQueue.String())
	}
	return a
}
