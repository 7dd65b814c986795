package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/client"
)

func feedVerify(sh *shell, p *place) *cobra.Command {
	var wait time.Duration
	c := &cobra.Command{
		Use: "verify ID [TABLE]...", Short: "Compare tables with what their histories add up to, row by row", Args: args(1, maxTables, "the feed's id"),
		Long: "Compare tables, all that are followed when none is named, with what their histories add up\n" +
			"to, row by row, as both are at one position of the write-ahead log. Exit code 1 when they differ.",
		RunE: func(cmd *cobra.Command, args []string) error {
			fs, err := sh.feeds(cmd.Context(), *p)
			if err != nil {
				return err
			}
			tables := args[1:]
			if len(tables) == 0 {
				err := sh.during("waiting for the first copies", func() (err error) {
					tables, err = followed(cmd.Context(), fs, args[0], wait)
					return err
				})
				if err != nil {
					return err
				}
			}
			verdicts, differ := []client.FeedVerdict{}, 0
			for _, t := range tables {
				var v client.FeedVerdict
				err := sh.during("comparing "+t, func() (err error) {
					v, err = fs.Verify(cmd.Context(), args[0], t)
					return err
				})
				if err != nil {
					return err
				}
				if !v.Equal {
					differ++
				}
				verdicts = append(verdicts, v)
			}
			err = sh.show(verdicts, func() {
				var rows [][]string
				for _, v := range verdicts {
					result := "equal"
					if !v.Equal {
						result = "DIFFERENT"
					}
					rows = append(rows, []string{v.Table, result, fmt.Sprint(v.PostgresRows), fmt.Sprint(v.HistoryRows), v.LSN})
				}
				sh.table("TABLE RESULT POSTGRES HISTORY LSN", rows)
			})
			if err == nil && differ > 0 {
				err = tarn.Conflict("%d of %d tables differ from their histories", differ, len(verdicts)).
					WithHint("copy them anew: tarn feed resync " + args[0])
			}
			return err
		},
	}
	c.Flags().DurationVar(&wait, "wait", 0, "wait so long for tables that are being copied")
	return c
}

// followed are the tables of a feed that are copied and followed, as soon as no
// other is being copied or wait is over.
func followed(ctx context.Context, fs *client.Feeds, feed string, wait time.Duration) ([]string, error) {
	late, tick := time.After(wait), time.NewTicker(100*time.Millisecond)
	defer tick.Stop()
	for over := wait <= 0; ; {
		all, err := fs.Tables(ctx, feed)
		if err != nil {
			return nil, err
		}
		var ready []string
		copying := false
		for _, t := range all {
			switch tarn.FeedState(t.State) {
			case tarn.FeedStreaming:
				ready = append(ready, t.PostgresTable)
			case tarn.FeedSnapshotting:
				copying = true
			}
		}
		switch {
		case len(ready) > 0 && (over || !copying):
			return ready, nil
		case over:
			return nil, tarn.Unavailable("no table of feed %s is copied and followed yet", feed).WithHint("tarn feed show " + feed + ", or verify with --wait 1m")
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-late:
			over = true
		case <-tick.C:
		}
	}
}
