package gateway_test

import (
	"context"
	"crypto/rand"
	"net"
	"os"
	"runtime"
	"testing"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/tarndb/tarn"
)

// testSiege: clients that send garbage, or nothing more, or wrong passwords, or
// leave in the middle, hinder nobody and leave nothing behind; all who arrive
// at a sleeping compute are answered.
func testSiege(t *testing.T, s *site) {
	s = s.another(t, nil)
	s.app(t).Close(t.Context()) // what stays for good is there: pools, lookups
	files := func() int {
		d, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(d)
	}
	goroutines, before := runtime.NumGoroutine(), files()

	var bad []net.Conn
	for i := range 150 {
		c, err := net.Dial("tcp", s.own.String())
		if err != nil {
			t.Fatal(err)
		}
		bad = append(bad, c)
		switch i % 3 {
		case 0: // garbage
			b := make([]byte, 2000)
			rand.Read(b)
			c.Write(b) // it may have been cut off already
		case 1: // a little, and then nothing
			c.Write(packet(codeSSL, "")[:1+i%7])
		case 2: // leaves in the handshake
			c.Write(packet(codeSSL, ""))
			c.Write([]byte{0x16, 3, 1})
		}
	}
	arrived := make(chan struct{}, 1000)
	open := make(chan struct{})
	s.town.set(func() {
		s.town.wake = func(ctx context.Context, _ tarn.EndpointName) (tarn.ComputeStatus, error) {
			arrived <- struct{}{}
			select {
			case <-open:
				return s.status, nil
			case <-ctx.Done():
				return tarn.ComputeStatus{}, context.Cause(ctx)
			}
		}
	})
	var g errgroup.Group
	for i := range 60 {
		cfg := s.config(t, "app", "sécret of app")
		if i%2 == 0 {
			cfg = s.pooledConfig(t, "app", "sécret of app")
		}
		if i%3 == 2 { // max_connections is no more than 60
			cfg.Password = "wrong"
		}
		g.Go(func() error {
			c, err := pgx.ConnectConfig(t.Context(), cfg)
			if cfg.Password == "wrong" {
				if err == nil {
					t.Error("a wrong password was let in")
				}
				return nil
			}
			if err != nil {
				return err
			}
			defer c.Close(context.Background())
			_, err = c.Exec(t.Context(), "SELECT 1")
			return err
		})
	}
	<-arrived
	close(open)
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	for _, c := range bad {
		c.Close()
	}
	until(t, "nothing is left of them", func() bool {
		return len(s.Sessions()) == 0 && runtime.NumGoroutine() <= goroutines+60 && files() <= before+60
	})
	run(t, s.admin, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'`) // the pool's own
	until(t, "no goroutine and no file is left", func() bool {
		return runtime.NumGoroutine() <= goroutines+2 && files() <= before+2
	})
}
