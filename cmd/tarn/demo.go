package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/client"
)

// The demonstration's names.
const (
	demoProject = "aviation"
	demoBranch  = "before-cancellations"
	demoCatalog = "lake"
	demoSchema  = "aviation"
	demoFeed    = "public"
)

// demoCommand is `tarn demo`: the main job on real input. Each step checks
// itself; the first that does not hold ends the command.
func demoCommand(sh *shell) *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Run the main job on real flights: lake → Postgres → app → lake → branch → sleep and wake",
		Long: `Run the main job on real input (300,000 US flights of 2001): write Delta tables, sync them into a new project, book and
cancel seats in transactions, follow the changes back into the lake, branch at a past point, suspend and wake.
Each step verifies itself; the command ends with an error if one does not hold. Running it again works.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := sh.client()
			if err != nil {
				return err
			}
			return runDemo(cmd.Context(), c, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
}

// demo is one run of the demonstration.
type demo struct {
	c      *client.Client
	branch tarn.BranchName // production
	files  *flightFile
	ledger *ledger
	past   time.Time // after the changes, before the cancellations
	// pastBookings stood at past.
	pastBookings map[int64]booking
}

// demoStep does one thing, checks it, and says what held.
type demoStep struct {
	title string
	run   func(context.Context) (held string, err error)
}

type demoLine struct {
	title, held string
	took        time.Duration
}

func runDemo(ctx context.Context, c *client.Client, out, progress io.Writer) error {
	d := &demo{c: c, branch: tarn.BranchName{Project: demoProject, Branch: tarn.DefaultBranch}, ledger: &ledger{}}
	steps := []demoStep{
		{"read the real data", d.readFiles},
		{"write Delta tables in the lake", d.writeLake},
		{"create project aviation", d.createProject},
		{"sync airports and flights into Postgres", d.syncTables},
		{"follow Postgres into the lake", d.createFeed},
		{"book and change in transactions", d.runBookings},
		{"cancel in transactions", d.runCancellations},
		{"check the history in the lake", d.checkFeed},
		{"branch before the cancellations", d.branchAtPast},
		{"suspend, then wake by connecting", d.suspendAndWake},
	}
	var lines []demoLine
	for i, s := range steps {
		fmt.Fprintf(progress, "%2d/%d %s …\n", i+1, len(steps), s.title)
		began := time.Now()
		held, err := s.run(ctx)
		if err != nil {
			return fmt.Errorf("demo step %d (%s): %w", i+1, s.title, err)
		}
		lines = append(lines, demoLine{s.title, held, time.Since(began)})
	}
	t := tabwriter.NewWriter(out, 2, 0, 2, ' ', 0)
	fmt.Fprintln(t, "STEP\tTOOK\tHELD")
	for _, l := range lines {
		fmt.Fprintf(t, "%s\t%s\t%s\n", l.title, l.took.Round(time.Millisecond), l.held)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	return d.printConnection(out)
}
