package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/spf13/cobra"
)

// downCommand is `tarn down`: computes are suspended cleanly, mounts
// removed, every process ended.
func downCommand() *cobra.Command {
	var c serverConfig
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Stop Tarn: suspend every compute and end every process",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.complete(); err != nil {
				return err
			}
			rec, err := readProcesses(c.Data)
			if errors.Is(err, fs.ErrNotExist) {
				fmt.Fprintf(cmd.ErrOrStderr(), "no Tarn runs on %s\n", c.Data)
				return nil
			}
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeoutCause(cmd.Context(), 2*time.Minute, errors.New("still running after 2 minutes"))
			defer cancel()
			began := time.Now()
			if err := stopProcesses(ctx, rec); err != nil {
				return fmt.Errorf("stop Tarn on %s: %w", c.Data, err)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "Tarn on %s stopped after %s\n", c.Data, time.Since(began).Round(time.Millisecond))
			return nil
		},
	}
	cmd.Flags().StringVar(&c.Data, "data", "", dataFlagHelp)
	return cmd
}
