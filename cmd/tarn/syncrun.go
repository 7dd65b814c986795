package main

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/client"
	"github.com/tarndb/tarn/internal/api/wire"
)

// bar shows one line of progress: in place on a terminal, else now and then a
// line of its own.
type bar struct {
	sh       *shell
	terminal bool
	began    time.Time
	reported time.Time
	said     string
	shown    bool
}

func newBar(sh *shell) *bar {
	b := &bar{sh: sh, began: time.Now(), reported: time.Now()}
	if f, ok := sh.err.(interface{ Fd() uintptr }); ok {
		_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
		b.terminal = err == nil
	}
	return b
}

func (b *bar) show(line string) {
	since := time.Since(b.began).Round(time.Second)
	switch {
	case b.terminal && time.Since(b.began) > syncPoll:
		fmt.Fprintf(b.sh.err, "\r\x1b[K%s (%s)", line, since)
		b.shown = true
	case !b.terminal && time.Since(b.reported) >= syncReport:
		if line != b.said {
			b.sh.note("%s (%s)", line, since)
			b.said = line
		}
		b.reported = time.Now()
	}
}

// end leaves the terminal's line empty.
func (b *bar) end() {
	if b.shown {
		fmt.Fprint(b.sh.err, "\r\x1b[K")
	}
}

// drawn is a bar of 20 places.
func drawn(part float64) string {
	n := int(20 * min(1, max(0, part)))
	return "[" + strings.Repeat("#", n) + strings.Repeat(".", 20-n) + "]"
}

// during runs f and shows that something goes on.
func during[T any](sh *shell, line string, f func() (T, error)) (T, error) {
	b := newBar(sh)
	defer b.end()
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		v, err := f()
		done <- result{v, err}
	}()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case r := <-done:
			return r.v, r.err
		case <-tick.C:
			b.show(line)
		}
	}
}

func completeSynced(sh *shell) completion {
	return firstOnly(completing(sh, func(ctx context.Context, c *client.Client, _ string) ([]string, error) {
		ts, err := c.SyncedTables().List(ctx, sh.flags.project)
		var names []string
		for _, t := range ts {
			names = append(names, t.SyncedTableID)
		}
		return names, err
	}))
}

func words(list ...string) completion {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return list, cobra.ShellCompDirectiveNoFileComp
	}
}

// ofSynced is a command about one synced table.
func ofSynced(sh *shell, use, short string, run func(ctx context.Context, c *client.Client, n tarn.TableName) error) *cobra.Command {
	return &cobra.Command{
		Use: use + " NAME", Short: short, Args: args(1, 1, "the synced table's name"), ValidArgsFunction: completeSynced(sh),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, n, err := sh.tableNamed(args[0])
			if err != nil {
				return err
			}
			return run(cmd.Context(), c, n)
		},
	}
}

func syncShow(sh *shell) *cobra.Command {
	c := ofSynced(sh, "show", "Show one synced table: state, version, lag, dead letters", func(ctx context.Context, c *client.Client, n tarn.TableName) error {
		t, err := c.SyncedTables().Get(ctx, n)
		if err != nil {
			return err
		}
		return sh.showSynced(t)
	})
	c.Aliases = []string{"get"}
	return c
}

// refreshKind says how much a refresh reads.
type refreshKind int

const (
	refreshNew refreshKind = iota
	refreshAll
)

func syncRefresh(sh *shell, kind refreshKind) *cobra.Command {
	var noWait bool
	use, short := "refresh", "Bring a synced table to the source's newest version"
	if kind == refreshAll {
		use, short = "resync", "Load all rows again, with the columns the source has now; readers keep the old rows meanwhile"
	}
	c := ofSynced(sh, use, short, func(ctx context.Context, c *client.Client, n tarn.TableName) error {
		t, err := c.SyncedTables().Get(ctx, n)
		if err != nil {
			return err
		}
		start := c.SyncedTables().Refresh
		if kind == refreshAll {
			start = c.SyncedTables().Resync
		}
		update, err := start(ctx, t)
		if err != nil {
			return err
		}
		if noWait {
			t, err = c.SyncedTables().Get(ctx, n)
		} else {
			t, err = sh.waitSynced(ctx, c, n, update)
		}
		if err != nil {
			return err
		}
		return sh.showSynced(t)
	})
	c.Flags().BoolVar(&noWait, "no-wait", false, "return while the table is still loading")
	return c
}

// syncSettingsFlags are the settings that can be changed in place.
type syncSettingsFlags struct {
	interval, lag           time.Duration
	cron, zone, reject, web string
	letters                 int64
}

func (f *syncSettingsFlags) add(c *cobra.Command) {
	c.Flags().DurationVar(&f.interval, "interval", 0, "how often a continuous table looks at its source, 1s or more (default 15s)")
	c.Flags().StringVar(&f.cron, "cron", "", "when a snapshot or triggered table is refreshed, e.g. \"0 2 * * *\" (default: on demand)")
	c.Flags().StringVar(&f.zone, "time-zone", "", "time zone of --cron, e.g. Europe/Berlin (default UTC)")
	c.Flags().StringVar(&f.reject, "on-reject", "", "rows that Postgres cannot store: continue (they become dead letters) or stop (default continue)")
	c.Flags().StringVar(&f.web, "alert-webhook", "", "URL that is told of failures, lag and dead letters")
	c.Flags().DurationVar(&f.lag, "alert-lag", 0, "tell when a continuous table is further behind (default: never)")
	c.Flags().Int64Var(&f.letters, "alert-dead-letters", 0, "tell when an update brings that many dead letters (default 1)")
	completeFlag(c, "on-reject", words("continue", "stop"))
}

// read gives what was with the flags that were given; nil = nothing is set.
func (f *syncSettingsFlags) read(was client.SyncSettings, cmd *cobra.Command) *client.SyncSettings {
	given := cmd.Flags().Changed
	if given("interval") {
		was.IntervalSeconds = f.interval.Seconds()
	}
	if given("cron") {
		was.Cron = f.cron
	}
	if given("time-zone") {
		was.TimeZone = f.zone
	}
	if given("on-reject") {
		was.OnReject = strings.ToUpper(f.reject)
	}
	if given("alert-webhook") {
		was.AlertWebhook = f.web
	}
	if given("alert-lag") {
		was.AlertLagSeconds = f.lag.Seconds()
	}
	if given("alert-dead-letters") {
		was.AlertDeadLetters = f.letters
	}
	if was == (client.SyncSettings{}) {
		return nil
	}
	return &was
}

func syncUpdate(sh *shell) *cobra.Command {
	var f syncSettingsFlags
	var mode string
	c := &cobra.Command{
		Use: "update NAME", Short: "Change mode, pace, schedule or alerts of a synced table in place", Args: args(1, 1, "the synced table's name"),
		ValidArgsFunction: completeSynced(sh),
		Example:           "  tarn sync update shop.public.users --mode continuous --interval 5s\n  tarn sync update shop.public.users --mode triggered --cron \"*/10 * * * *\"",
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().NFlag() == 0 {
				return usage(cmd, "%s wants at least one flag that says what to change", cmd.CommandPath())
			}
			c, n, err := sh.tableNamed(args[0])
			if err != nil {
				return err
			}
			t, err := c.SyncedTables().Get(cmd.Context(), n)
			if err != nil {
				return err
			}
			var policy *string
			was := client.SyncSettings{}
			if t.Spec.Settings != nil {
				was = *t.Spec.Settings
			}
			if cmd.Flags().Changed("mode") {
				p := strings.ToUpper(mode)
				policy = &p
				if p == string(tarn.SyncContinuous) { // what does not go with the new mode is dropped
					was.Cron, was.TimeZone = "", ""
				} else {
					was.IntervalSeconds = 0
				}
			}
			settings := f.read(was, cmd)
			if settings == nil {
				settings = &client.SyncSettings{}
			}
			if t, err = c.SyncedTables().Change(cmd.Context(), n, policy, settings); err != nil {
				return err
			}
			return sh.showSynced(t)
		},
	}
	f.add(c)
	c.Flags().StringVar(&mode, "mode", "", "snapshot, triggered or continuous")
	completeFlag(c, "mode", words("snapshot", "triggered", "continuous"))
	return c
}

func syncVerify(sh *shell) *cobra.Command {
	c := ofSynced(sh, "verify", "Compare both sides by checksum and name the keys that differ", func(ctx context.Context, c *client.Client, n tarn.TableName) error {
		v, err := during(sh, "comparing "+n.String(), func() (client.Verification, error) { return c.SyncedTables().Verify(ctx, n) })
		if err != nil {
			return err
		}
		if err := sh.show(v, func() { showVerification(sh, v) }); err != nil {
			return err
		}
		if !v.Equal {
			return tarn.Conflict("%s differs from its source at version %d", n, v.Version).WithHint("load it again: tarn sync resync " + n.String())
		}
		return nil
	})
	c.Long = "Compare the source, at the version that Postgres holds, with the Postgres table: by\n" +
		"checksums of 4096 buckets of keys, and by key where those differ. Exits 1 when they do."
	return c
}

func showVerification(sh *shell, v client.Verification) {
	word := "equal"
	if !v.Equal {
		word = fmt.Sprintf("different in %d of %d buckets", v.Different, v.Buckets)
	}
	sh.say("version %d: %s; %d rows in the source, %d in Postgres", v.Version, word, v.SourceRows, v.TargetRows)
	if v.Rejected > 0 {
		sh.say("%d rows of the source cannot be stored and were left out", v.Rejected)
	}
	for _, k := range v.Keys {
		sh.say("%s: %s", k.Key, k.What)
	}
}

func syncDeadLetters(sh *shell) *cobra.Command {
	var limit int
	c := ofSynced(sh, "dead-letters", "List rows that Postgres cannot store, with the reason", func(ctx context.Context, c *client.Client, n tarn.TableName) error {
		ls, err := c.SyncedTables().DeadLetters(ctx, n, limit)
		if err != nil {
			return err
		}
		if ls == nil {
			ls = []client.DeadLetter{}
		}
		return sh.show(ls, func() {
			var rows [][]string
			for _, l := range ls {
				rows = append(rows, []string{strconv.FormatInt(l.ID, 10), strconv.FormatInt(l.Version, 10), l.Reason, string(l.Row)})
			}
			sh.table("ID VERSION REASON ROW", rows)
		})
	})
	c.Flags().IntVar(&limit, "limit", 100, "at most so many; 0 = all")
	return c
}

func syncReplay(sh *shell) *cobra.Command {
	var replace bool
	c := ofSynced(sh, "replay", "Try to store dead letters again", func(ctx context.Context, c *client.Client, n tarn.TableName) error {
		r, err := during(sh, "replaying dead letters of "+n.String(), func() (client.Replayed, error) { return c.SyncedTables().Replay(ctx, n, replace) })
		if err != nil {
			return err
		}
		return sh.show(r, func() { sh.say("%d rows stored, %d left.", r.Stored, r.Left) })
	})
	c.Flags().BoolVar(&replace, "replace-text", false, "store U+FFFD in place of what Postgres has no form for, like NUL")
	return c
}

func syncEvents(sh *shell) *cobra.Command {
	return ofSynced(sh, "events", "Show what the pipeline of a synced table did, newest first", func(ctx context.Context, c *client.Client, n tarn.TableName) error {
		t, err := c.SyncedTables().Get(ctx, n)
		if err != nil {
			return err
		}
		es, err := c.SyncedTables().Pipelines().Events(ctx, t.Status.PipelineID)
		if err != nil {
			return err
		}
		return sh.show(es, func() {
			var rows [][]string
			for _, e := range es {
				rows = append(rows, []string{shortTime(e.Timestamp), e.Level, e.EventType, e.Message})
			}
			sh.table("TIME LEVEL TYPE MESSAGE", rows)
		})
	})
}

func syncStop(sh *shell) *cobra.Command {
	return ofSynced(sh, "stop", "End the update that runs; a continuous table stays as it is until it is refreshed", func(ctx context.Context, c *client.Client, n tarn.TableName) error {
		t, err := c.SyncedTables().Get(ctx, n)
		if err != nil {
			return err
		}
		if err := c.SyncedTables().Pipelines().Stop(ctx, t.Status.PipelineID); err != nil {
			return err
		}
		return sh.show(wire.Empty{}, func() { sh.say("Stopped the pipeline of %s.", n) })
	})
}

var typeText = regexp.MustCompile(`^([^=]+)=(varchar|vector|halfvec)\((\d+)\)$`)

// readTypes reads overrides like note=varchar(40).
func readTypes(cmd *cobra.Command, texts []string) ([]client.TypeOverride, error) {
	var out []client.TypeOverride
	for _, text := range texts {
		m := typeText.FindStringSubmatch(text)
		if m == nil {
			return nil, usage(cmd, "--type %s: want COLUMN=varchar(N), =vector(N) or =halfvec(N)", text)
		}
		n, err := strconv.Atoi(m[3])
		if err != nil {
			return nil, usage(cmd, "--type %s: the size is too large", text)
		}
		out = append(out, client.TypeOverride{ColumnName: m[1], PgType: "PG_SPECIFIC_TYPE_" + strings.ToUpper(m[2]), Size: n})
	}
	return out, nil
}
