package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/google/uuid"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/compute"
	"github.com/tarndb/tarn/internal/postgres"
)

// storeSide is us: a compute of a fleet of its own, as `tarn up` runs one, with
// the peer's shared_buffers.
type storeSide struct {
	fleet  *compute.Fleet
	spec   tarn.ComputeSpec
	status tarn.ComputeStatus
	stop   context.CancelFunc
	ended  chan error
}

// openStoreSide opens a fleet with these options, and one compute.
func openStoreSide(ctx context.Context, dir string, o compute.Options) (*storeSide, error) {
	s, err := openFleetSide(ctx, dir, o)
	if err != nil {
		return nil, err
	}
	if _, err := s.fleet.CreateTimeline(ctx, tarn.TimelineSpec{ID: s.spec.Timeline, PGVersion: s.spec.PGVersion}); err != nil {
		return nil, fmt.Errorf("create timeline: %w", err)
	}
	s.status, err = s.fleet.Wake(ctx, s.spec)
	return s, err
}

// openFleetSide opens a fleet with these options, of which it fills in those
// every side has.
func openFleetSide(ctx context.Context, dir string, o compute.Options) (*storeSide, error) {
	installs, err := findPostgres(ctx)
	if err != nil {
		return nil, err
	}
	runAs, err := postgres.DefaultRunAs()
	if err != nil {
		return nil, err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	o.Dir, o.Installs, o.RunAs, o.Log = dir, installs[:1], runAs, log
	fleet, err := compute.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	keep, stop := context.WithCancel(context.WithoutCancel(ctx))
	s := &storeSide{fleet: fleet, stop: stop, ended: make(chan error, 1)}
	go func() { s.ended <- fleet.Run(keep) }()
	s.spec = tarn.ComputeSpec{
		Endpoint: "ep-bench", Branch: tarn.BranchName{Project: "bench", Branch: tarn.DefaultBranch}, Timeline: newTimeline(),
		PGVersion: installs[0].Major, MinCU: 2, MaxCU: 2, Settings: map[string]string{"shared_buffers": sharedBuffers},
	}
	return s, nil
}

func newTimeline() tarn.TimelineID {
	return tarn.TimelineID(strings.ReplaceAll(uuid.NewString(), "-", ""))
}

func (s *storeSide) socket() (string, int) { return s.status.SocketDir, s.status.Port }

func (s *storeSide) restart(ctx context.Context) error {
	if err := s.fleet.Suspend(ctx, s.spec.Endpoint); err != nil {
		return err
	}
	if err := dropCaches(); err != nil {
		return err
	}
	var err error
	s.status, err = s.fleet.Wake(ctx, s.spec)
	return err
}

// close suspends the compute and ends the fleet.
func (s *storeSide) close(context.Context) error {
	s.stop()
	return <-s.ended
}
