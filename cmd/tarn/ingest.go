package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/url"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/client"
	"github.com/tarndb/tarn/internal/delta"
	"github.com/tarndb/tarn/internal/ingest"
)

// ingestFlags say what is read and where it goes.
type ingestFlags struct {
	options                   ingest.Options
	branch, database, dsn     string
	to, checkpoints, rejected string
	every                     time.Duration
	track, merge              bool
}

func ingestCommand(sh *shell) *cobra.Command {
	var f ingestFlags
	c := &cobra.Command{
		Use: "ingest TABLE --column COLUMN --to CATALOG.SCHEMA.TABLE", Short: "Append what is new in a Postgres table to a Delta table, in micro-batches",
		Long: "Append what is new in a Postgres table to a Delta table, along a checkpoint column, over\n" +
			"one connection and without replication. Rows that commit late, equal and NULL checkpoint\n" +
			"values and changes that do not move the column are found, each version once; deletions are\n" +
			"not (a feed sees those). Without --every it ends when there is nothing new. The column _round\n" +
			"numbers the batches: of the versions of a row the one with the highest is the newest.",
		Example: "  tarn ingest public.orders --column updated_at --to lake.bronze.orders\n" +
			"  tarn ingest public.orders --column id --to lake.bronze.orders --every 5s --track\n" +
			"  tarn ingest orders --column id --to lake.bronze.orders --dsn postgresql://reader@db.example.com/app",
		Args: args(1, 1, "the Postgres table"),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.options.Table = args[0]
			for flag, value := range map[string]string{"--column": f.options.Column, "--to": f.to} {
				if value == "" {
					return usage(cmd, "%s wants %s", cmd.CommandPath(), flag)
				}
			}
			if f.merge {
				f.options.Mode = ingest.MergeRows
			}
			return runIngest(cmd.Context(), sh, f)
		},
	}
	c.Flags().StringVar(&f.options.Column, "column", "", "checkpoint column to read along: a sequence, a time")
	c.Flags().StringVar(&f.to, "to", "", "Delta table, catalog.schema.table; made when it does not exist")
	c.Flags().StringSliceVar(&f.options.Key, "key", nil, "columns that tell rows apart (default: the primary key)")
	c.Flags().IntVar(&f.options.Limit, "limit", 10_000, "most rows of a batch")
	c.Flags().DurationVar(&f.every, "every", 0, "go on, looking again this often")
	c.Flags().DurationVar(&f.options.LateEvery, "late-every", 0, "how often late rows are looked for; each look reads the whole table unless --track was used (default: whenever the end is reached)")
	c.Flags().BoolVar(&f.track, "track", false, "first give the table a column _xid with trigger and index, by which late rows are found quickly")
	c.Flags().BoolVar(&f.merge, "merge", false, "keep the newest version of each row by its key, instead of every version")
	c.Flags().BoolVar(&f.options.Reset, "reset", false, "read the table from its beginning")
	c.Flags().StringVar(&f.options.SourceID, "source-id", "", "name of this reader in the checkpoint table (default: branch, table and column)")
	c.Flags().StringVar(&f.checkpoints, "checkpoints", "", "checkpoint table (default: tarn_checkpoints beside the target)")
	c.Flags().StringVar(&f.rejected, "rejected", "", "table of values that Delta has no form for (default: TARGET_rejected)")
	c.Flags().StringVar(&f.branch, "branch", "", "branch of the table (default: the project's default branch)")
	c.Flags().StringVar(&f.database, "dbname", "", "Postgres database (default "+tarn.DefaultDatabase+")")
	c.Flags().StringVar(&f.dsn, "dsn", "", "read another Postgres, by its connection string")
	return c
}

// ingestTotal is what tarn ingest prints with --json, one object for a batch.
type ingestTotal struct {
	Rows           int64  `json:"rows"`
	Rejected       int    `json:"rejected_values"`
	Version        int64  `json:"table_version"`
	LastCheckpoint string `json:"last_checkpoint"`
}

func runIngest(ctx context.Context, sh *shell, f ingestFlags) error {
	c, err := sh.client()
	if err != nil {
		return err
	}
	places, err := ingestPlaces(ctx, sh, c, &f)
	if err != nil {
		return err
	}
	if f.track {
		if err := trackChanges(ctx, places, f.options.Table); err != nil {
			return err
		}
	}
	in := ingest.New(f.options, places, slog.New(slog.NewTextHandler(sh.err, &slog.HandlerOptions{Level: slog.LevelWarn})))
	defer in.Close(ctx)
	var total int64
	told := time.Now()
	for {
		p, err := in.Next(ctx)
		switch {
		case errors.Is(err, context.Canceled):
			return nil // Ctrl-C: every batch that was told of is durable
		case err != nil:
			return err
		case p.Rows > 0:
			total += p.Rows
			if sh.flags.json {
				if err := json.NewEncoder(sh.out).Encode(ingestTotal{p.Rows, p.Problems, p.Version, p.LastCheckpoint}); err != nil {
					return err
				}
			} else if time.Since(told) > patience {
				told = time.Now()
				sh.note("%d rows, up to %s = %s", total, f.options.Column, p.LastCheckpoint)
			}
			if p.Problems > 0 {
				sh.note("%d values have no form in Delta: they are NULL in %s, and in %s as they were", p.Problems, f.to, f.rejected)
			}
		case f.every == 0:
			if !sh.flags.json {
				sh.say("%d new rows in %s; nothing more is new.", total, f.to)
			}
			return nil
		default:
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(f.every):
			}
		}
	}
}

// ingestPlaces says how to connect, with a credential made anew each time, and
// where the three Delta tables are.
func ingestPlaces(ctx context.Context, sh *shell, c *client.Client, f *ingestFlags) (ingest.Places, error) {
	to, err := tarn.ParseTableName(f.to)
	if err != nil {
		return ingest.Places{}, err
	}
	f.checkpoints = first(f.checkpoints, tarn.TableName{Catalog: to.Catalog, Schema: to.Schema, Table: "tarn_checkpoints"}.String())
	f.rejected = first(f.rejected, f.to+"_rejected")
	var where string
	connect := func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, f.dsn) }
	if f.dsn == "" {
		b, err := sh.branchNamed(ctx, c, f.branch)
		if err != nil {
			return ingest.Places{}, err
		}
		where = b.String() + "/" + first(f.database, tarn.DefaultDatabase)
		connect = func(ctx context.Context) (*pgx.Conn, error) { return connectBranch(ctx, c, b, f.database) }
	} else if cfg, err := pgx.ParseConfig(f.dsn); err != nil {
		return ingest.Places{}, tarn.Invalid("read --dsn: %w", err)
	} else {
		where = cfg.Host + "/" + cfg.Database // without the password
	}
	f.options.SourceID = first(f.options.SourceID, where+"/"+f.options.Table+"."+f.options.Column)
	table := func(name string) func(context.Context, delta.Schema) (*delta.Table, error) {
		return func(ctx context.Context, s delta.Schema) (*delta.Table, error) { return managedTable(ctx, c, name, s) }
	}
	return ingest.Places{
		Connect: connect, Target: table(f.to),
		Checkpoints: func(ctx context.Context) (*delta.Table, error) {
			return table(f.checkpoints)(ctx, ingest.CheckpointSchema())
		},
		Rejected: func(ctx context.Context) (*delta.Table, error) {
			return table(f.rejected)(ctx, ingest.RejectedSchema())
		},
	}, nil
}

// connectBranch connects to a branch as the principal of the command line.
func connectBranch(ctx context.Context, c *client.Client, b tarn.BranchName, database string) (*pgx.Conn, error) {
	at, err := c.Connection(ctx, b)
	if err != nil {
		return nil, err
	}
	cred, err := c.Credential(ctx, b.Endpoint(tarn.DefaultEndpoint))
	if err != nil {
		return nil, err
	}
	at.Database = first(database, at.Database)
	cfg, err := pgx.ParseConfig(connectionURL(at, url.UserPassword(at.User, cred.Token)))
	if err != nil {
		return nil, err
	}
	cfg.RuntimeParams["application_name"] = "tarn ingest"
	return pgx.ConnectConfig(ctx, cfg)
}

// managedTable opens a table of the catalog, or makes it.
//
//  1. the catalog gets the entry     a crash leaves an entry without a log, made here the next time
//  2. version 0 is written
func managedTable(ctx context.Context, c *client.Client, name string, s delta.Schema) (*delta.Table, error) {
	n, err := tarn.ParseTableName(name)
	if err != nil {
		return nil, err
	}
	entry, err := c.Tables().Get(ctx, n)
	if tarn.KindOf(err) == tarn.KindNotFound {
		entry, err = c.Tables().CreateManaged(ctx, n)
	}
	if err != nil {
		return nil, err
	}
	store, err := tableStore(ctx, entry.StorageLocation)
	if err != nil {
		return nil, err
	}
	t, err := delta.Open(ctx, store, "")
	if errors.Is(err, delta.ErrNotTable) {
		return delta.Create(ctx, store, "", delta.Metadata{Name: n.Table, Schema: s})
	}
	return t, err
}

func trackChanges(ctx context.Context, p ingest.Places, table string) error {
	conn, err := p.Connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return ingest.TrackChanges(ctx, conn, table)
}
