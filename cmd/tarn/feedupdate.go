package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tarndb/tarn/client"
)

// feedFlags are the settings that feed create and feed update share.
type feedFlags struct {
	include, exclude []string
	flush            string
	maxWAL           byteSize
	keep             []string
}

func (f *feedFlags) add(c *cobra.Command) {
	c.Flags().StringSliceVar(&f.include, "include", nil, "only these tables; * and ? are wildcards (default: all, present and future)")
	c.Flags().StringSliceVar(&f.exclude, "exclude", nil, "not these tables; stronger than --include")
	c.Flags().StringVar(&f.flush, "flush", "", "how long a change may wait before it is in Delta, 1s to 60s (default: the server's)")
	c.Flags().Var(&f.maxWAL, "max-wal", "write-ahead log that the feed may hold back in Postgres before it copies anew, e.g. 20GB (default 16GiB)")
	c.Flags().StringSliceVar(&f.keep, "keep", nil, "tables kept beside each history: current (lb_<table>), intervals (lb_<table>_scd2), or none")
}

// settings are those that were given.
func (f *feedFlags) settings(cmd *cobra.Command) client.FeedSettings {
	var s client.FeedSettings
	given := cmd.Flags().Changed
	if given("include") {
		s.Include = &f.include
	}
	if given("exclude") {
		s.Exclude = &f.exclude
	}
	s.Flush = f.flush
	if given("max-wal") {
		s.MaxWAL = (*int64)(&f.maxWAL)
	}
	if given("keep") {
		keep := strings.Join(f.keep, ",")
		switch keep {
		case "none":
			keep = ""
		case "intervals,current":
			keep = "current,intervals"
		}
		s.Derived = &keep
	}
	return s
}

func feedUpdate(sh *shell, p *place) *cobra.Command {
	var set feedFlags
	c := &cobra.Command{
		Use: "update ID", Short: "Change which tables a feed follows, and how", Args: args(1, 1, "the feed's id"),
		Example: "  tarn feed update public --exclude 'tmp_*' --flush 5s",
		RunE: func(cmd *cobra.Command, args []string) error {
			s := set.settings(cmd)
			if s == (client.FeedSettings{}) {
				return usage(cmd, "%s wants something to change", cmd.CommandPath())
			}
			return changeFeed(sh, cmd, p, args[0], s, "Updated feed %s.")
		},
	}
	set.add(c)
	return c
}

func feedPause(sh *shell, p *place) *cobra.Command {
	return &cobra.Command{
		Use: "pause ID", Short: "Stop following for now; Postgres holds the changes back", Args: args(1, 1, "the feed's id"),
		Long: "Stop following for now. Postgres holds the changes back in its write-ahead log, up to\n" +
			"--max-wal of the feed: beyond that the tables are copied anew when it goes on.",
		RunE: func(cmd *cobra.Command, args []string) error {
			yes := true
			return changeFeed(sh, cmd, p, args[0], client.FeedSettings{Paused: &yes}, "Paused feed %s. Go on: tarn feed resume %[1]s")
		},
	}
}

func feedResume(sh *shell, p *place) *cobra.Command {
	return &cobra.Command{
		Use: "resume ID", Short: "Go on with a paused feed", Args: args(1, 1, "the feed's id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			no := false
			return changeFeed(sh, cmd, p, args[0], client.FeedSettings{Paused: &no}, "Feed %s goes on.")
		},
	}
}

func changeFeed(sh *shell, cmd *cobra.Command, p *place, id string, s client.FeedSettings, done string) error {
	fs, err := sh.feeds(cmd.Context(), *p)
	if err != nil {
		return err
	}
	var f client.Feed
	err = sh.during("changing feed "+id, func() (err error) {
		f, err = fs.Update(cmd.Context(), id, s)
		return err
	})
	if err != nil {
		return err
	}
	return sh.show(f, func() { sh.say(done, id) })
}

// maxTables is more than a command line holds.
const maxTables = 1 << 20

func feedResync(sh *shell, p *place) *cobra.Command {
	return &cobra.Command{
		Use: "resync ID [TABLE]...", Short: "Copy tables anew; what their histories have stays", Args: args(1, maxTables, "the feed's id"),
		Long: "Copy tables anew, all when none is named. What their histories have stays: the new copy\n" +
			"comes behind a truncate row.",
		RunE: func(cmd *cobra.Command, args []string) error {
			fs, err := sh.feeds(cmd.Context(), *p)
			if err != nil {
				return err
			}
			f, err := fs.Resync(cmd.Context(), args[0], args[1:]...)
			if err != nil {
				return err
			}
			return sh.show(f, func() { sh.say("Feed %s copies anew. Follow it: tarn feed show %[1]s", args[0]) })
		},
	}
}

// describeFeed says what was chosen of a feed and how it is.
func describeFeed(f client.Feed) []string {
	var lines []string
	if f.Include != nil {
		lines = append(lines, "Only tables: "+strings.Join(*f.Include, ", "))
	}
	if f.Exclude != nil {
		lines = append(lines, "Not tables: "+strings.Join(*f.Exclude, ", "))
	}
	if f.Flush != "" {
		lines = append(lines, "Flushed every "+f.Flush)
	}
	if f.Derived != nil {
		lines = append(lines, "Kept beside each history: "+*f.Derived)
	}
	if f.WALHeld > 0 {
		lines = append(lines, fmt.Sprintf("Its slot holds back %s of write-ahead log", sizeText(f.WALHeld)))
	}
	switch {
	case f.Paused != nil && *f.Paused:
		lines = append(lines, "It is paused: "+f.StatusDetail)
	case f.StatusDetail != "":
		lines = append(lines, "Attention: "+f.StatusDetail)
	}
	return lines
}

// copying is a table's detail, or how far its copy is.
func copying(t client.FeedTable) string {
	d := t.StatusDetail
	switch {
	case t.CopyRows > 0:
		d = fmt.Sprintf("copied %d of about %d rows", t.Copied, t.CopyRows)
	case t.DeadLetters > 0 && d == "":
		d = fmt.Sprintf("%d values in lb_dead_letters", t.DeadLetters)
	}
	return d
}

// sizeText shows a number of bytes to people.
func sizeText(n int64) string {
	const units = "KMGT"
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/(1<<10), 0
	for v >= 1<<10 && i < len(units)-1 {
		v, i = v/(1<<10), i+1
	}
	return fmt.Sprintf("%.1f %ciB", v, units[i])
}
