package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/catalog"
	"github.com/tarndb/tarn/internal/control"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/warehouse"
	"github.com/tarndb/tarn/internal/warehouse/engine"
)

// serveWarehouseCommand is `tarn serve warehouse`: the process that control
// starts for statements, and that ends with its standard input.
func serveWarehouseCommand() *cobra.Command {
	var o engine.Options
	c := &cobra.Command{
		Use: "warehouse", Short: "Run the process of a warehouse", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return engine.Serve(context.WithoutCancel(cmd.Context()), o, os.Stdin)
		},
	}
	c.Flags().StringVar(&o.Library, "library", "", "libduckdb")
	c.Flags().StringVar(&o.Dir, "dir", "", "directory of its socket")
	c.Flags().IntVar(&o.Threads, "threads", 0, "threads")
	return c
}

func engineCommand(o engine.Options) *exec.Cmd {
	exe, err := os.Executable()
	if err != nil {
		exe = os.Args[0]
	}
	cmd := exec.Command(exe, "serve", "warehouse", "--library", o.Library, "--dir", o.Dir, "--threads", fmt.Sprint(o.Threads))
	// It reads files and needs nothing of what this process is told.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/", "TZ=UTC"}
	return cmd
}

// openWarehouse wires the one warehouse.
func (c *serverConfig) openWarehouse(ctl *control.Control, cat *catalog.Catalog, db *controldb.DB, tables lakes, audit *catalog.Audit, caFile string, log *slog.Logger) *warehouse.Warehouse {
	return warehouse.New(warehouse.Config{
		Catalog: cat, OpenTable: tables.openTable, OpenStore: tables.open, Connect: principalConnect(ctl, caFile), Command: engineCommand, Journal: statementJournal{db}, Audit: audit,
		Dir: filepath.Join(c.Data, "sql"), Run: c.socketDir("sql"), Log: log,
	})
}

// principalConnect opens connections as the principal, through the gateway like
// everybody: what its role may not read there, no statement reads.
func principalConnect(ctl *control.Control, caFile string) func(context.Context, tarn.Principal, tarn.BranchName, string) (*pgx.Conn, error) {
	return func(ctx context.Context, who tarn.Principal, b tarn.BranchName, database string) (*pgx.Conn, error) {
		e, err := ctl.GetEndpoint(ctx, b.Endpoint(tarn.DefaultEndpoint))
		if err != nil {
			return nil, err
		}
		secret, _, err := ctl.IssueCredential(ctx, who, []tarn.EndpointName{e.Name}, 5*time.Minute)
		if err != nil {
			return nil, err
		}
		cfg, err := pgx.ParseConfig("host=/ port=1 user=none password=none dbname=none sslmode=disable target_session_attrs=any application_name='tarn sql'")
		if err != nil {
			return nil, err
		}
		cfg.Host, cfg.Port, cfg.User, cfg.Password, cfg.Database, cfg.Fallbacks = e.Host, uint16(e.Port), who.Name, secret.Reveal(), database, nil
		if cfg.TLSConfig, err = gatewayTLS(caFile); err != nil {
			return nil, err
		}
		conn, err := pgx.ConnectConfig(ctx, cfg)
		if err != nil {
			if strings.Contains(err.Error(), "does not exist") && strings.Contains(err.Error(), "role") {
				return nil, tarn.Denied("%s has no role in Postgres on %s", who.Name, b).WithHint("tarn psql " + b.Project + "/" + b.Branch + " -c \"SELECT databricks_create_role('" + who.Name + "', 'USER')\"")
			}
			return nil, tarn.Unavailable("connect to %s as %s: %w", b, who.Name, err)
		}
		return conn, nil
	}
}

// gatewayTLS trusts the gateway's own authority: the gateway is in this process,
// at an address that it listens on itself.
func gatewayTLS(caFile string) (*tls.Config, error) {
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("read the gateway's authority: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &tls.Config{
		MinVersion: tls.VersionTLS12, InsecureSkipVerify: true, // the name is not compared; the chain is, below
		VerifyConnection: func(s tls.ConnectionState) error {
			o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
			for _, c := range s.PeerCertificates[1:] {
				o.Intermediates.AddCert(c)
			}
			_, err := s.PeerCertificates[0].Verify(o)
			return err
		},
	}, nil
}

// statementJournal keeps statements in the control database.
type statementJournal struct{ db *controldb.DB }

func (j statementJournal) Record(ctx context.Context, r warehouse.Record) error {
	s := controldb.SQLStatement{
		ID: r.ID, Principal: r.Principal, Text: strings.ReplaceAll(strings.ToValidUTF8(r.Text, "?"), "\x00", "?"), Kind: r.Kind, State: string(r.State),
		Error: strings.ReplaceAll(strings.ToValidUTF8(r.Error, "?"), "\x00", "?"), Submitted: r.Submitted, Ended: r.Ended, Rows: r.Rows, Bytes: r.Bytes,
	}
	q := catalog.Query{
		ID: r.ID, Principal: r.Principal, Text: r.Text, Kind: r.Kind, Status: string(r.State), Error: r.Error, Start: r.Submitted, End: r.Ended,
		TotalMS: r.Ended.Sub(r.Submitted).Milliseconds(), WaitMS: r.Ended.Sub(r.Submitted).Milliseconds(), Rows: r.Rows,
	}
	if r.State == warehouse.Succeeded || r.State == warehouse.Closed {
		q.Status = "FINISHED"
	}
	if !r.Begun.IsZero() {
		s.Begun = &r.Begun
		q.WaitMS, q.RunMS = r.Begun.Sub(r.Submitted).Milliseconds(), r.Ended.Sub(r.Begun).Milliseconds()
	}
	return j.db.InTx(ctx, func(tx *controldb.Tx) error {
		if err := controldb.InsertStatement(ctx, tx, s); err != nil {
			return err
		}
		return catalog.RecordQuery(ctx, tx, q)
	})
}

func (j statementJournal) Records(ctx context.Context, principal string, before time.Time, limit int) ([]warehouse.Record, error) {
	all, err := controldb.ListStatements(ctx, j.db, principal, before, limit)
	out := make([]warehouse.Record, 0, len(all))
	for _, s := range all {
		r := warehouse.Record{
			ID: s.ID, Principal: s.Principal, Text: s.Text, Kind: s.Kind, State: warehouse.State(s.State), Error: s.Error,
			Submitted: s.Submitted, Ended: s.Ended, Rows: s.Rows, Bytes: s.Bytes,
		}
		if s.Begun != nil {
			r.Begun = *s.Begun
		}
		out = append(out, r)
	}
	return out, err
}
