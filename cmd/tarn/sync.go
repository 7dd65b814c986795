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
	c.AddCommand(syncCreate(sh), syncList(sh), syncShow(sh), syncRefresh(sh, refreshNew), syncRefresh(sh, refreshAll), syncUpdate(sh),
		syncVerify(sh), syncDeadLetters(sh), syncReplay(sh), syncEvents(sh), syncStop(sh), syncDelete(sh))
	return c
}

// syncFlags are what is asked of a new synced table.
type syncFlags struct {
	source, name, mode, branch, database, timeseries string
	key, types                                       []string
	noWait                                           bool
	settings                                         syncSettingsFlags
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
	f.settings.add(c)
	c.Flags().StringVar(&f.timeseries, "timeseries-key", "", "column by which the newest of several rows of one key is kept")
	c.Flags().StringSliceVar(&f.types, "type", nil, "another Postgres type for a column, e.g. note=varchar(40) or embedding=vector(768)")
	c.Flags().StringVar(&f.source, "source", "", "Delta table, catalog.schema.table")
	c.Flags().StringVar(&f.name, "name", "", "synced table, catalog.schema.table")
	c.Flags().StringSliceVar(&f.key, "key", nil, "columns of the primary key, separated by commas")
	c.Flags().StringVar(&f.mode, "mode", "snapshot", "snapshot (all rows at each refresh), triggered (what changed, at each refresh) or continuous")
	completeFlag(c, "mode", words("snapshot", "triggered", "continuous"))
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
	if err != nil {
		return n, client.SyncedSpec{}, err
	}
	types, err := readTypes(cmd, f.types)
	return n, client.SyncedSpec{
		SourceTableFullName: f.source, PrimaryKeyColumns: f.key, TimeseriesKey: f.timeseries, TypeOverrides: types,
		SchedulingPolicy: strings.ToUpper(f.mode), PostgresDatabase: f.database, Settings: f.settings.read(client.SyncSettings{}, cmd),
	}, err
}

// The pace of waiting for a load.
const (
	syncPoll   = 200 * time.Millisecond
	syncReport = 2 * time.Second
)

// waitSynced waits until an update of the table has ended, or, when none is
// named, until the table is at rest.
func (sh *shell) waitSynced(ctx context.Context, c *client.Client, n tarn.TableName, update string) (client.SyncedTable, error) {
	tick := time.NewTicker(syncPoll)
	defer tick.Stop()
	bar := newBar(sh)
	defer bar.end()
	for {
		t, err := c.SyncedTables().Get(ctx, n)
		if err != nil {
			return t, err
		}
		done, err := updateEnded(ctx, c, t, update)
		if err != nil || done {
			return t, err
		}
		bar.show(loading(t))
		select {
		case <-ctx.Done():
			return t, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

func updateEnded(ctx context.Context, c *client.Client, t client.SyncedTable, update string) (bool, error) {
	state := tarn.SyncState(strings.TrimPrefix(t.Status.DetailedState, "SYNCED_TABLE_"))
	message := t.Status.Message
	if state == tarn.SyncContinuing {
		v := t.Status.LastProcessedCommitVersion
		return v != nil && t.Status.LagSeconds == 0, nil
	}
	if state.Due() {
		return false, nil
	}
	if update != "" {
		u, err := c.SyncedTables().Pipelines().Update(ctx, t.Status.PipelineID, update)
		if err != nil {
			return false, err
		}
		switch tarn.UpdateState(u.State) {
		case tarn.UpdateCompleted:
			return true, nil
		case tarn.UpdateCanceled:
			return true, tarn.Conflict("the update of synced table %s was cancelled: %s", t.SyncedTableID, first(u.Message, "it was stopped"))
		case tarn.UpdateFailed:
			message, state = u.Message, tarn.SyncPipelineFailed
		default:
			return false, nil
		}
	}
	if state.Failed() {
		return true, tarn.Conflict("synced table %s did not load: %s", t.SyncedTableID, first(message, string(state))).
			WithHint("mend the cause, then: tarn sync refresh " + t.SyncedTableID)
	}
	return true, nil
}

func loading(t client.SyncedTable) string {
	p := t.Status.OngoingSyncProgress
	switch {
	case p == nil:
		return "loading " + t.SyncedTableID
	case p.TotalRowCount == 0:
		return fmt.Sprintf("loading %s: %d rows", t.SyncedTableID, p.SyncedRowCount)
	}
	return fmt.Sprintf("loading %s: %s %.0f %%, %d of %d rows", t.SyncedTableID, drawn(p.SyncProgressCompletion), 100*p.SyncProgressCompletion, p.SyncedRowCount, p.TotalRowCount)
}

func (sh *shell) showSynced(t client.SyncedTable) error {
	return sh.show(t, func() {
		sh.say("%s from %s: %s", t.SyncedTableID, t.Spec.SourceTableFullName, strings.TrimPrefix(t.Status.DetailedState, "SYNCED_TABLE_"))
		if v := t.Status.LastProcessedCommitVersion; v != nil {
			sh.say("version %d, read since %s", *v, shortTime(t.Status.LastSyncTime))
		}
		if t.Status.RejectedRows > 0 {
			sh.say("%d rows could not be stored: tarn sync dead-letters %s", t.Status.RejectedRows, t.SyncedTableID)
		}
		if lag := t.Status.LagSeconds; lag > 0 && t.Status.SourceVersion != nil {
			sh.say("version %d of the source has been waiting for %s", *t.Status.SourceVersion, time.Duration(lag*float64(time.Second)).Round(time.Second))
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

func syncDelete(sh *shell) *cobra.Command {
	var purge bool
	c := &cobra.Command{
		Use: "delete NAME", Short: "Stop syncing; the Postgres table stays unless --purge", Args: args(1, 1, "the synced table's name"),
		ValidArgsFunction: completeSynced(sh),
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
