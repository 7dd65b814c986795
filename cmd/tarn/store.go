package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/client"
	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/compute"
)

func storeCommand(sh *shell) *cobra.Command {
	c := group("store", "The page store: what it takes, and whether it is sound")
	c.AddCommand(storeStats(sh), storeCheck(sh))
	return c
}

func storeStats(sh *shell) *cobra.Command {
	return &cobra.Command{
		Use: "stats", Short: "Show what every branch takes on disk and in memory",
		Long: `Show what every branch takes on disk and in memory, itself and not what it shares with its parent. The numbers are
estimates.

  VISIBLE    bytes of its files, those it shares with its parent too
  LOG        its pages and changes on disk: log segments and images
  MAPS       where they are
  WAL        of Postgres; segments shared by branches are counted with each
  GARBAGE    what the next collection gives back
  MEMORY     its index
  MARKS      moments it can be branched from without replaying, within HISTORY
  COLLECTED  when garbage was last collected`,
		Example: "  tarn store stats\n  tarn store stats --json",
		Args:    args(0, 0, ""), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := sh.client()
			if err != nil {
				return err
			}
			var s client.StoreStats
			err = sh.during("looking at the page store", func() error {
				s, err = c.Store().Stats(cmd.Context())
				return err
			})
			if err != nil {
				return err
			}
			return sh.show(s, func() { sh.sayStats(s) })
		},
	}
}

func (sh *shell) sayStats(s client.StoreStats) {
	var rows [][]string
	var all client.StoreTimeline
	for _, t := range s.Timelines {
		rows = append(rows, statsRow(storeName(t.Branch, t), t))
		all.LogBytes, all.MapBytes, all.WALBytes = all.LogBytes+t.LogBytes, all.MapBytes+t.MapBytes, all.WALBytes+t.WALBytes
		all.GarbageBytes, all.MemoryBytes = all.GarbageBytes+t.GarbageBytes, all.MemoryBytes+t.MemoryBytes
		all.Marks += t.Marks
	}
	total := statsRow("total", all)
	total[1] = "-" // branches share what they show
	sh.table("BRANCH VISIBLE LOG MAPS WAL GARBAGE MEMORY MARKS HISTORY COLLECTED", append(rows, total))
	sh.say("")
	sh.say("%s of %s are free on the disk; %s of page tables in memory can be dropped", size(s.FreeBytes), size(s.TotalBytes), size(s.TableBytes))
}

func statsRow(name string, t client.StoreTimeline) []string {
	return []string{name, size(t.VisibleBytes), size(t.LogBytes), size(t.MapBytes), size(t.WALBytes), size(t.GarbageBytes), size(t.MemoryBytes),
		strconv.Itoa(t.Marks), window(t.HistoryRetentionDuration), shortTime(t.CollectTime)}
}

// window shows how far back a branch's history goes.
func window(s string) string {
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		return dash(s)
	case d <= 0:
		return "none"
	case d%(24*time.Hour) == 0:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	}
	return d.String()
}

// storeName is what people call a timeline.
func storeName(branch string, t client.StoreTimeline) string {
	switch {
	case branch != "":
		return branchWord(branch)
	case t.Template != 0:
		return fmt.Sprintf("(template of Postgres %d)", t.Template)
	case t.Deleted:
		return "(deleted, others began in it: " + t.Timeline + ")"
	}
	return "(" + t.Timeline + ")"
}

// branchWord is project/branch.
func branchWord(name string) string {
	return strings.Replace(strings.TrimPrefix(name, "projects/"), "/branches/", "/", 1)
}

func storeCheck(sh *shell) *cobra.Command {
	var data string
	var o client.CheckOptions
	c := &cobra.Command{
		Use: "check", Short: "Verify everything that is stored, here and in the object store",
		Long: `Verify the page store: every manifest and map, the logs that a start would read, and every page of every branch, as
it is and as it was at every moment that can be branched from. Tarn goes on meanwhile; --data checks a data
directory on which none runs. It reads everything and may take minutes.

With a storage, the bucket is verified too, past all copies on this computer: that every manifest reads, that every
object it names is there and has its size, every page and record in them, and every object of WAL. What is damaged
there is told by key and offset (in a packed object: of the layer in it). --repair puts an object again of which there is a
whole copy here; what is damaged here and whole there is repaired whenever it is read. --local leaves the bucket out, and so
does --data.

The exit code is 1 when something is wrong.`,
		Example: "  tarn store check\n  tarn store check --repair\n  tarn store check --local --json\n  tarn down && tarn store check --data ./tarn-data",
		Args:    args(0, 0, ""), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var s client.StoreCheck
			var err error
			if data != "" && o != (client.CheckOptions{}) {
				return tarn.Invalid("--data checks a data directory alone").WithHint("leave --local and --repair out, or check while Tarn runs")
			}
			if data != "" {
				s, err = checkOffline(cmd.Context(), sh, data)
			} else {
				s, err = checkOnline(cmd.Context(), sh, o)
			}
			if err != nil {
				return err
			}
			if err := sh.show(s, func() { sh.sayCheck(s) }); err != nil {
				return err
			}
			switch {
			case s.Error != "":
				return tarn.Unavailable("the check could not go on: %s", s.Error)
			case len(s.Findings) > 0:
				return fmt.Errorf("the page store is damaged: %s", count(len(s.Findings), "finding"))
			}
			return nil
		},
	}
	c.Flags().BoolVar(&o.Local, "local", false, "leave the object store out")
	c.Flags().BoolVar(&o.Repair, "repair", false, "put objects again in the storage that are damaged there and whole here")
	c.Flags().StringVar(&data, "data", "", "check this data directory, on which no Tarn runs")
	return c
}

func checkOnline(ctx context.Context, sh *shell, o client.CheckOptions) (client.StoreCheck, error) {
	c, err := sh.client()
	if err != nil {
		return client.StoreCheck{}, err
	}
	last := make(chan client.StoreCheck, 1)
	last <- client.StoreCheck{}
	far := func() string {
		s := <-last
		last <- s
		doing := ""
		if s.Doing != "" {
			doing = s.Doing + "; "
		}
		if len(s.Findings) == 0 {
			return doing + "nothing wrong so far"
		}
		return doing + count(len(s.Findings), "finding") + " so far, the first: " + s.Findings[0].Message
	}
	var s client.StoreCheck
	err = telling(func(line string) { sh.note("%s", line) }, "checking the page store", far, func() error {
		s, err = c.Store().Check(ctx, o, func(now client.StoreCheck) {
			<-last
			last <- now
		})
		return err
	})
	return s, err
}

// checkOffline takes the data directory as `tarn up` does, so that none begins
// meanwhile.
func checkOffline(ctx context.Context, sh *shell, data string) (client.StoreCheck, error) {
	data, err := filepath.Abs(data)
	if err != nil {
		return client.StoreCheck{}, err
	}
	// A lock is not left where no data is.
	if _, err := os.Stat(filepath.Join(data, "store")); errors.Is(err, fs.ErrNotExist) {
		return client.StoreCheck{}, tarn.NotFound("check %s: it has no page store", data).WithHint("name the directory that tarn up was given with --data")
	}
	lock, err := lockData(data)
	if errors.Is(err, errHeld) {
		return client.StoreCheck{}, tarn.Conflict("check %s: %w", data, err).WithHint("leave --data out to check it while Tarn runs, or stop it: tarn down --data " + data)
	}
	if err != nil {
		return client.StoreCheck{}, err
	}
	defer lock.Close()
	var s tarn.StoreCheck
	err = sh.during("checking the page store of "+data, func() error {
		s, err = compute.CheckStore(ctx, data, slog.New(slog.DiscardHandler))
		return err
	})
	return wire.StoreCheckOf(s, nil), err
}

func (sh *shell) sayCheck(s client.StoreCheck) {
	for _, f := range s.Findings {
		if f.File != "" {
			sh.say("%s at byte %d", f.File, f.Offset)
		}
		of := "timeline " + f.Timeline
		if f.Branch != "" {
			of = "branch " + branchWord(f.Branch) + ", " + of
		}
		sh.say("  %s", f.Message)
		sh.say("  of %s", of)
		sh.say("  %s", f.Hint)
	}
	result := "nothing is wrong"
	if len(s.Findings) > 0 {
		result = count(len(s.Findings), "finding")
	}
	if b := s.Bucket; b != nil {
		sh.say("Checked in %s %s, %s (%s) that they name, %s with %s from there, %s of WAL (%s)", b.URL, count(b.Manifests, "manifest"),
			count(b.Objects, "object"), size(b.Bytes), count(b.Points, "point"), count(int(b.Pages), "page"), count(b.WAL, "object"), size(b.WALBytes))
		if b.Repaired > 0 {
			sh.say("Repaired %s from the copies on this computer", count(b.Repaired, "object"))
		}
	}
	sh.say("Checked %s, %s in them, %s with %s, %s of logs, %s (%s) in %s: %s",
		count(s.Timelines, "timeline"), count(s.Points, "point"), count(s.Maps, "map"), count(int(s.Tables), "page table"),
		count(int(s.Heads), "batch"), count(int(s.Pages), "page"), size(s.Bytes), s.Duration, result)
}

// count is a number with its noun.
func count(n int, noun string) string {
	switch {
	case n == 1:
	case strings.HasSuffix(noun, "ch"):
		noun += "es"
	default:
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}
