package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/node"
)

// restartPatience is how long `tarn restart` waits for the new process.
const restartPatience = 3 * time.Minute

// restartCommand is `tarn restart node|control`: the program at its path takes
// the place of the one that runs.
func restartCommand() *cobra.Command {
	var c serverConfig
	cmd := group("restart", "Restart one process of a running Tarn, for example with a newer program")
	cmd.Long = `Restart one process of a running Tarn: put the newer program where the old one is (by renaming it over that),
then restart the node and after it control. Databases and their sessions go on while the node restarts; their
file operations wait for it. A restart of control ends the connections that go through the gateway.`
	cmd.PersistentFlags().StringVar(&c.Data, "data", "", "data directory (default $TARN_DATA, ./tarn-data or the profile's)")
	for role, restart := range map[string]func(context.Context, serverConfig, processes) error{"node": restartNode, "control": restartControl} {
		cmd.AddCommand(&cobra.Command{
			Use: role, Short: "Restart the " + role + " process", Args: args(0, 0, ""),
			RunE: func(cmd *cobra.Command, _ []string) error {
				if err := c.locateRunning(); err != nil {
					return err
				}
				rec, err := readProcesses(c.Data)
				if errors.Is(err, fs.ErrNotExist) || err == nil && !rec.Up.alive() {
					return tarn.Conflict("restart %s: no Tarn runs on %s", role, c.Data).WithHint("start it: tarn up")
				}
				if err != nil {
					return fmt.Errorf("restart %s: %w", role, err)
				}
				ctx, cancel := context.WithTimeoutCause(cmd.Context(), restartPatience, fmt.Errorf("no answer within %s", restartPatience))
				defer cancel()
				began := time.Now()
				tell := func(line string) { fmt.Fprintln(cmd.ErrOrStderr(), line) }
				if err := telling(tell, "waiting for the new "+role, nil, func() error { return restart(ctx, c, rec) }); err != nil {
					return fmt.Errorf("restart %s: %w", role, err)
				}
				tell(fmt.Sprintf("%s restarted after %s", role, time.Since(began).Round(time.Millisecond)))
				return nil
			},
		})
	}
	return cmd
}

func restartNode(ctx context.Context, c serverConfig, _ processes) error {
	n := node.Dial(c.nodeSocket())
	defer n.Close()
	return n.Restart(ctx)
}

// restartControl lets control end; its supervisor starts it again.
func restartControl(ctx context.Context, c serverConfig, before processes) error {
	before.Control.signal(syscall.SIGTERM)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		now, err := readProcesses(c.Data)
		if err == nil && now.Control != before.Control && now.Control.alive() && ready(ctx, now.API) {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}
