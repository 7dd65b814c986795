package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"
)

// downCommand is `tarn down`: computes are suspended cleanly, mounts
// removed, every process ended. What does not end by itself is killed.
func downCommand() *cobra.Command {
	var c serverConfig
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Stop Tarn: suspend every compute and end every process",
		Long: `Stop the Tarn of a data directory: suspend every compute and end every process. Without --data and TARN_DATA it is the one
of ./tarn-data, or else the one your profile was written by.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.locateRunning(); err != nil {
				return err
			}
			return down(cmd.Context(), c, func(line string) { fmt.Fprintln(cmd.ErrOrStderr(), line) })
		},
	}
	cmd.Flags().StringVar(&c.Data, "data", "", "data directory (default $TARN_DATA, ./tarn-data or the profile's)")
	return cmd
}

// down ends what the record names and what killed processes left.
//
//  1. End the recorded processes.
//  2. Take the lock; who has it is a supervisor that has only begun and has no
//     record yet: go back to 1.
//  3. Sweep.
func down(ctx context.Context, c serverConfig, tell func(string)) error {
	began := time.Now()
	found := false
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		rec, err := readProcesses(c.Data)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		found = found || err == nil
		if err := stopProcesses(ctx, c.Data, rec, tell); err != nil {
			return fmt.Errorf("stop Tarn on %s: %w", c.Data, err)
		}
		lock, err := lockData(c.Data)
		if err == nil {
			defer lock.Close()
			break
		}
		if errors.Is(err, fs.ErrNotExist) {
			tell("no Tarn runs on " + c.Data)
			return nil
		}
		if !errors.Is(err, errHeld) {
			return fmt.Errorf("stop Tarn on %s: %w", c.Data, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if err := c.sweep(slog.New(slog.DiscardHandler)); err != nil {
		return fmt.Errorf("stop Tarn on %s: %w", c.Data, err)
	}
	if !found {
		tell("no Tarn runs on " + c.Data)
		return nil
	}
	tell(fmt.Sprintf("Tarn on %s stopped after %s", c.Data, time.Since(began).Round(time.Millisecond)))
	return nil
}

// locateRunning finds the data directory of the Tarn that is meant.
func (c *serverConfig) locateRunning() error {
	named := c.Data != "" || os.Getenv("TARN_DATA") != ""
	if err := c.locate(); err != nil || named {
		return err
	}
	if _, err := os.Stat(processesFile(c.Data)); err == nil {
		return nil
	}
	p, err := loadProfile("")
	if err != nil || p.Data == "" {
		return err
	}
	if _, err := os.Stat(processesFile(p.Data)); err == nil {
		c.Data = p.Data
	}
	return nil
}
