package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/compute"
	"github.com/tarndb/tarn/internal/postgres"
	"github.com/tarndb/tarn/internal/volumefs"
)

// preflight tries what every later step stands on, so that a machine that
// cannot run Tarn says so at once and says what to do.
func preflight(ctx context.Context, c serverConfig) error {
	installs, err := postgres.Find(ctx, c.PGBin, extraPGBins()...)
	if err != nil {
		return err
	}
	runAs, err := postgres.DefaultRunAs()
	if err != nil {
		return err
	}
	for _, in := range installs {
		if err := postgres.CheckAccess(ctx, in, runAs, c.Data); err != nil {
			return err
		}
	}
	asked, err := c.volumes()
	if err != nil {
		return err
	}
	kind, _, err := compute.ChooseVolumes(ctx, c.Data, asked)
	if err != nil {
		return err
	}
	if kind == compute.Directories && c.storage.Place != "" {
		return tarn.Unavailable("copy plain directories to %s: only the page store is copied to an object store, and it needs FUSE", c.storage.Place).
			WithHint("start without --storage, or on a computer with FUSE (--volumes fuse) and a new data directory")
	}
	if kind == compute.FUSEVolumes {
		if err := volumefs.Probe(ctx, c.Data); err != nil {
			return err
		}
	}
	if err := checkPort(ctx, "API", c.API, "--listen"); err != nil {
		return err
	}
	// The shared address may be another Postgres's: endpoints have their own.
	// Nothing works when the port is taken on every address.
	return checkPort(ctx, "gateway", net.JoinHostPort(spareLoopback, strconv.Itoa(c.GatewayPort)), "--gateway-port")
}

// spareLoopback is a loopback address that no endpoint gets.
const spareLoopback = "127.255.255.254"

// checkPort refuses an address that another program has.
func checkPort(ctx context.Context, door, addr, flag string) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err == nil {
		return l.Close()
	}
	_, port, _ := net.SplitHostPort(addr)
	other := "another program has it"
	if flag == "--listen" && ready(ctx, addr) {
		other = "another Tarn answers there"
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return tarn.Unavailable("listen on port %s for the %s: %s", port, door, other).
			WithHint(fmt.Sprintf("stop it (who it is: ss -ltnp 'sport = :%s'), or choose another port with %s", port, flag))
	case errors.Is(err, syscall.EACCES):
		return tarn.Unavailable("listen on port %s for the %s: %w", port, door, err).
			WithHint("ports below 1024 are root's: choose another with " + flag)
	}
	return tarn.Unavailable("listen on %s for the %s: %w", addr, door, err).WithHint("choose an address of this computer with " + flag)
}

// sharedAddressTaken says that 127.0.0.1 is no way to the gateway; "" when it
// is one. Tarn runs without.
func (c *serverConfig) sharedAddressTaken(ctx context.Context) string {
	port := strconv.Itoa(c.GatewayPort)
	addr := net.JoinHostPort("127.0.0.1", port)
	shared := checkPort(ctx, "gateway", addr, "--gateway-port")
	every := checkPort(ctx, "gateway", net.JoinHostPort(spareLoopback, port), "--gateway-port")
	if shared == nil || every != nil { // preflight refuses the latter
		return ""
	}
	return fmt.Sprintf("note: another program (a Postgres?) has %s; endpoints are reached on their own addresses, see tarn status", addr)
}
