package control

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// Connect opens a superuser connection to a database of a branch through its
// compute's socket, waking it first. Keepers use it through their own
// one-method interface. database "" = the default one; cfg may be nil.
func (c *Control) Connect(ctx context.Context, b tarn.BranchName, database string, cfg func(*pgx.ConnConfig)) (*pgx.Conn, error) {
	e, err := controldb.GetReadWriteEndpoint(ctx, c.cfg.DB, b)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", b, err)
	}
	st, err := c.WakeEndpoint(ctx, e.Name)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", b, err)
	}
	conn, err := dial(ctx, st, database, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", b, err)
	}
	return conn, nil
}

// dial connects to a running compute as Tarn itself.
func dial(ctx context.Context, st tarn.ComputeStatus, database string, adjust func(*pgx.ConnConfig)) (*pgx.Conn, error) {
	if database == "" {
		database = tarn.DefaultDatabase
	}
	// What the string says keeps pgx from asking the environment; what could
	// need quoting is set after.
	cfg, err := pgx.ParseConfig("host=/ port=1 user=" + tarn.Superuser + " password=none dbname=none sslmode=disable target_session_attrs=any application_name=tarn")
	if err != nil {
		return nil, err
	}
	cfg.Host, cfg.Port, cfg.Database, cfg.Password, cfg.Fallbacks = st.SocketDir, uint16(st.Port), database, "", nil
	if adjust != nil {
		adjust(cfg)
	}
	return pgx.ConnectConfig(ctx, cfg)
}
