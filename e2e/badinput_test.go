package e2e

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

func TestBadInputAtTheGateway(t *testing.T) {
	in := start(t)
	ctx := testContext(t, 3*time.Minute)
	in.tarn("project", "create", "shop")
	in.tarn("project", "create", "other")
	good := in.url("shop/production")
	in.connect(ctx, good)

	for name, c := range map[string]struct {
		change func(*pgx.ConnConfig)
		code   string
		says   string
	}{
		"wrong password":             {func(c *pgx.ConnConfig) { c.Password = "wrong" }, "28P01", "password authentication failed"},
		"another project's token":    {func(c *pgx.ConnConfig) { c.Password = mustConfig(t, in.url("other/production")).Password }, "28P01", "password authentication failed"},
		"a role that does not exist": {func(c *pgx.ConnConfig) { c.User = "nobody-here" }, "28P01", "password authentication failed"},
		"the superuser":              {func(c *pgx.ConnConfig) { c.User = "tarn_admin" }, "28P01", "password authentication failed"},
		"an unknown database":        {func(c *pgx.ConnConfig) { c.Database = "nowhere" }, "3D000", "does not exist"},
		"an unknown endpoint": {func(c *pgx.ConnConfig) {
			c.RuntimeParams["options"] = "endpoint=ep-nowhere"
		}, "08004", "endpoint"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := mustConfig(t, good)
			c.change(cfg)
			conn, err := pgx.ConnectConfig(ctx, cfg)
			if err == nil {
				conn.Close(ctx)
				t.Fatal("the connection was accepted")
			}
			var pg *pgconn.PgError
			if !errors.As(err, &pg) {
				t.Fatalf("no Postgres error: %v", err)
			}
			if pg.Code != c.code || !strings.Contains(pg.Message, c.says) || pg.Severity != "FATAL" {
				t.Errorf("got %s %s %q, want FATAL %s …%s…", pg.Severity, pg.Code, pg.Message, c.code, c.says)
			}
		})
	}
}

func mustConfig(t *testing.T, url string) *pgx.ConnConfig {
	t.Helper()
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestBadInputAtTheAPI(t *testing.T) {
	in := start(t)
	in.tarn("project", "create", "shop")
	if said := in.refused(1, "project", "create", "shop"); !strings.Contains(said, "exists") {
		t.Errorf("a project name that is taken: %s", said)
	}
	for status, c := range map[int][2]string{
		http.StatusConflict:     {"POST", "/api/2.0/postgres/projects?project_id=shop"},
		http.StatusNotFound:     {"GET", "/api/2.0/postgres/projects/nowhere"},
		http.StatusBadRequest:   {"POST", "/api/2.0/postgres/projects?project_id=Not+A+Name"},
		http.StatusUnauthorized: {"GET", "/api/2.0/postgres/projects"},
	} {
		p := in.profile()
		req, err := http.NewRequestWithContext(context.Background(), c[0], p.Host+c[1], strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		if status != http.StatusUnauthorized {
			req.Header.Set("Authorization", "Bearer "+p.Token)
		}
		body, got := fetch(t, req)
		if got != status || !strings.Contains(body, `"error_code"`) || !strings.Contains(body, `"message"`) {
			t.Errorf("%s %s: %d %s, want %d in the published format", c[0], c[1], got, body, status)
		}
	}
}
