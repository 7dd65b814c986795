package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/client"
)

func feedVerify(sh *shell, p *place) *cobra.Command {
	return &cobra.Command{
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
				all, err := fs.Tables(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				for _, t := range all {
					if t.State == string(tarn.FeedStreaming) {
						tables = append(tables, t.PostgresTable)
					}
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
}
