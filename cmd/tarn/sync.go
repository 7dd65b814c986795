package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/client"
	"github.com/tarndb/tarn/internal/api/wire"
)

func syncCommand(sh *shell) *cobra.Command {
	c := group("sync", "Synced tables: Postgres tables kept equal to Delta tables")
	c.AddCommand(syncCreate(sh), syncList(sh), syncGet(sh), syncRefresh(sh), syncDelete(sh))
	return c
}

// syncFlags are what is asked of a new synced table.
type syncFlags struct {
	source, name, mode, branch, database string
	key                                  []string
	noWait                               bool
}

func syncCreate(sh *shell) *cobra.Command {
	var f syncFlags
	c := &cobra.Command{
		Use: "create --source C.S.T --name C.S.T --key COLUMN", Short: "Load a Delta table into Postgres and keep it equal",
		Long: "Load a Delta table into Postgres and keep it equal. The schema and table of --name\n" +
			"name the Postgres table. The command waits until the table can be read.",
		Example: "  tarn sync create --source lake.gold.users --name shop.public.users --key user_id",
		Args:    args(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := sh.client()
			if err != nil {
				return err
			}
			n, spec, err := f.spec(cmd)
			if err != nil {
				return err
			}
			b, err := sh.branchNamed(cmd.Context(), c, f.branch)
			if err != nil {
				return err
			}
			spec.Branch = b.String()
			t, err := c.SyncedTables().Create(cmd.Context(), n, spec)
			if err == nil && !f.noWait {
				t, err = sh.waitSynced(cmd.Context(), c, n, "")
			}
			if err != nil {
				return err
			}
			return sh.showSynced(t)
		},
	}
	c.Flags().StringVar(&f.source, "source", "", "Delta table, catalog.schema.table")
	c.Flags().StringVar(&f.name, "name", "", "synced table, catalog.schema.table")
	c.Flags().StringSliceVar(&f.key, "key", nil, "columns of the primary key, separated by commas")
	c.Flags().StringVar(&f.mode, "mode", "snapshot", "snapshot, triggered or continuous")
	c.Flags().StringVar(&f.branch, "branch", "", "branch to write to (default: the project's default branch)")
	c.Flags().StringVar(&f.database, "dbname", "", "Postgres database (default "+tarn.DefaultDatabase+")")
	c.Flags().BoolVar(&f.noWait, "no-wait", false, "return while the table is still loading")
	return c
}

func (f syncFlags) spec(cmd *cobra.Command) (tarn.TableName, client.SyncedSpec, error) {
	var missing []string
	for _, m := range []struct{ flag, value string }{{"--source", f.source}, {"--name", f.name}, {"--key", strings.Join(f.key, ",")}} {
		if m.value == "" {
			missing = append(missing, m.flag)
		}
	}
	if len(missing) > 0 {
		return tarn.TableName{}, client.SyncedSpec{}, usage(cmd, "%s wants %s", cmd.CommandPath(), strings.Join(missing, " and "))
	}
	if _, err := tarn.ParseTableName(f.source); err != nil {
		return tarn.TableName{}, client.SyncedSpec{}, err
	}
	n, err := tarn.ParseTableName(f.name)
	return n, client.SyncedSpec{
		SourceTableFullName: f.source, PrimaryKeyColumns: f.key,
		SchedulingPolicy: strings.ToUpper(f.mode), PostgresDatabase: f.database,
	}, err
}

// The pace of waiting for a load.
const (
	syncPoll   = 200 * time.Millisecond
	syncReport = 2 * time.Second
	// A refresh that has changed nothing for this long had nothing to change.
	syncQuiet = 10 * time.Second
)

// waitSynced waits until the table is loaded: readable, and with another last
// sync than before ("" = any).
func (sh *shell) waitSynced(ctx context.Context, c *client.Client, n tarn.TableName, before string) (client.SyncedTable, error) {
	tick := time.NewTicker(syncPoll)
	defer tick.Stop()
	began, reported, said := time.Now(), time.Now(), ""
	quiet := time.Now()
	for {
		t, err := c.SyncedTables().Get(ctx, n)
		if err != nil {
			return t, err
		}
		state := strings.TrimPrefix(t.Status.DetailedState, "SYNCED_TABLE_")
		switch tarn.SyncState(state) {
		case tarn.SyncOfflineFailed, tarn.SyncPipelineFailed:
			return t, tarn.Conflict("synced table %s did not load: %s", n, first(t.Status.Message, state)).
				WithHint("mend the cause, then: tarn sync refresh " + n.String())
		case tarn.SyncOnline:
			if syncedAt(t) != before || time.Since(quiet) > syncQuiet {
				return t, nil
			}
		default:
			quiet = time.Now()
		}
		if time.Since(reported) >= syncReport {
			if line := loading(t); line != said {
				sh.note("%s (%s)", line, time.Since(began).Round(time.Second))
				said = line
			}
			reported = time.Now()
		}
		select {
		case <-ctx.Done():
			return t, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

func syncedAt(t client.SyncedTable) string {
	if t.Status.LastSync == nil {
		return ""
	}
	return t.Status.LastSync.SyncStartTime + " " + t.Status.LastSync.SyncEndTime
}

func loading(t client.SyncedTable) string {
	p := t.Status.OngoingSyncProgress
	switch {
	case p == nil:
		return "loading " + t.SyncedTableID
	case p.TotalRowCount == 0:
		return fmt.Sprintf("loading %s: %d rows", t.SyncedTableID, p.SyncedRowCount)
	}
	return fmt.Sprintf("loading %s: %d of %d rows, %.0f %%", t.SyncedTableID, p.SyncedRowCount, p.TotalRowCount, 100*p.SyncProgressCompletion)
}

func (sh *shell) showSynced(t client.SyncedTable) error {
	return sh.show(t, func() {
		sh.say("%s from %s: %s", t.SyncedTableID, t.Spec.SourceTableFullName, strings.TrimPrefix(t.Status.DetailedState, "SYNCED_TABLE_"))
		if v := t.Status.LastProcessedCommitVersion; v != nil {
			sh.say("version %d, read since %s", *v, shortTime(t.Status.LastSyncTime))
		}
		if t.Status.Message != "" {
			sh.say("%s", t.Status.Message)
		}
	})
}

func syncList(sh *shell) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List synced tables (of all projects, or of --project)", Args: args(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := sh.client()
			if err != nil {
				return err
			}
			ts, err := c.SyncedTables().List(cmd.Context(), sh.flags.project)
			if err != nil {
				return err
			}
			if ts == nil {
				ts = []client.SyncedTable{}
			}
			return sh.show(ts, func() {
				var rows [][]string
				for _, t := range ts {
					v := "-"
					if t.Status.LastProcessedCommitVersion != nil {
						v = fmt.Sprint(*t.Status.LastProcessedCommitVersion)
					}
					rows = append(rows, []string{
						t.SyncedTableID, t.Spec.SourceTableFullName, t.Spec.SchedulingPolicy,
						strings.TrimPrefix(t.Status.DetailedState, "SYNCED_TABLE_"), v, shortTime(t.Status.LastSyncTime),
					})
				}
				sh.table("NAME SOURCE MODE STATE VERSION SYNCED", rows)
			})
		},
	}
}

func syncGet(sh *shell) *cobra.Command {
	return &cobra.Command{
		Use: "get NAME", Short: "Show one synced table", Args: args(1, 1, "the synced table's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, n, err := sh.tableNamed(args[0])
			if err != nil {
				return err
			}
			t, err := c.SyncedTables().Get(cmd.Context(), n)
			if err != nil {
				return err
			}
			return sh.showSynced(t)
		},
	}
}

func syncRefresh(sh *shell) *cobra.Command {
	var noWait bool
	c := &cobra.Command{
		Use: "refresh NAME", Short: "Bring a synced table to the source's newest version", Args: args(1, 1, "the synced table's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, n, err := sh.tableNamed(args[0])
			if err != nil {
				return err
			}
			t, err := c.SyncedTables().Get(cmd.Context(), n)
			if err != nil {
				return err
			}
			before := syncedAt(t)
			if err := c.SyncedTables().Refresh(cmd.Context(), t); err != nil {
				return err
			}
			if noWait {
				t, err = c.SyncedTables().Get(cmd.Context(), n)
			} else {
				t, err = sh.waitSynced(cmd.Context(), c, n, before)
			}
			if err != nil {
				return err
			}
			return sh.showSynced(t)
		},
	}
	c.Flags().BoolVar(&noWait, "no-wait", false, "return while the table is still loading")
	return c
}

func syncDelete(sh *shell) *cobra.Command {
	var purge bool
	c := &cobra.Command{
		Use: "delete NAME", Short: "Stop syncing; the Postgres table stays unless --purge", Args: args(1, 1, "the synced table's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, n, err := sh.tableNamed(args[0])
			if err != nil {
				return err
			}
			leftover := client.Keep
			if purge {
				leftover = client.Purge
			}
			if err := c.SyncedTables().Delete(cmd.Context(), n, leftover); err != nil {
				return err
			}
			return sh.show(wire.Empty{}, func() { sh.say("Deleted synced table %s.", n) })
		},
	}
	c.Flags().BoolVar(&purge, "purge", false, "drop the Postgres table too")
	return c
}

func (sh *shell) tableNamed(arg string) (*client.Client, tarn.TableName, error) {
	n, err := tarn.ParseTableName(arg)
	if err != nil {
		return nil, n, err
	}
	c, err := sh.client()
	return c, n, err
}
