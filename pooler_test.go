package tarn_test

import (
	"net/netip"
	"testing"

	"github.com/tarndb/tarn"
)

func TestPooledHost(t *testing.T) {
	for _, host := range []string{"127.64.0.0", "127.70.3.5", "127.127.255.255"} {
		pooler := tarn.Endpoint{Host: host}.PoolerHost()
		if got := tarn.PooledHost(netip.MustParseAddr(pooler)); got != host {
			t.Errorf("PooledHost(%s) = %q, want %s", pooler, got, host)
		}
	}
	for _, none := range []string{"127.0.0.1", "127.70.3.5", "127.192.0.1", "128.134.3.5", "10.0.0.1", "::1", "::ffff:127.134.3.5"} {
		if got := tarn.PooledHost(netip.MustParseAddr(none)); got != "" {
			t.Errorf("PooledHost(%s) = %q, want none", none, got)
		}
	}
}
