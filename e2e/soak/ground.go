package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// conn is a connection to a branch.
type conn = *pgx.Conn

// urlOf gives connection strings with fresh credentials, which are good for an
// hour.
func (s *ground) urlOf(b *branch) func(context.Context) (string, error) {
	name := s.project + "/" + b.name
	return func(ctx context.Context) (string, error) {
		out, err := s.in.tarn(ctx, "connection-string", name, "--credential")
		return strings.TrimSpace(out), err
	}
}

// connect waits for a branch to answer.
func (s *ground) connect(ctx context.Context, b *branch) (c conn, err error) {
	url := s.urlOf(b)
	err = await(ctx, "branch "+b.name+" to answer", func() error {
		to, err := url(ctx)
		if err != nil {
			return err
		}
		c, err = pgx.Connect(ctx, to)
		return err
	})
	return c, err
}

// query runs f on a connection to a branch. What was killed shortly before may
// cut it off, so it is tried again.
func (s *ground) query(ctx context.Context, b *branch, f func(context.Context, conn) error) error {
	return await(ctx, "an answer of branch "+b.name, func() error {
		c, err := s.connect(ctx, b)
		if err != nil {
			return err
		}
		defer c.Close(context.WithoutCancel(ctx))
		return damage(f(ctx, c))
	})
}

// damage makes a finding of the errors by which Postgres tells of damaged or
// missing files.
func damage(err error) error {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch pg.Code {
		case "XX000", "XX001", "XX002", "58P01", "42P01":
			return finding(fmt.Sprintf("%s (SQLSTATE %s; %s)", pg.Message, pg.Code, pg.Detail))
		}
	}
	return err
}

// admin runs f as the superuser, past the gateway.
func (s *ground) admin(ctx context.Context, b *branch, f func(context.Context, conn) error) error {
	return s.query(ctx, b, func(ctx context.Context, _ conn) error {
		p, err := s.in.compute(ctx, b.name)
		if err != nil {
			return err
		}
		c, err := pgx.Connect(ctx, fmt.Sprintf("host=%s port=%d user=tarn_admin dbname=databricks_postgres", p.SocketDir, p.Port))
		if err != nil {
			return err
		}
		defer c.Close(context.WithoutCancel(ctx))
		return damage(f(ctx, c))
	})
}

// judge reads a branch and says what is wrong with it.
func (s *ground) judge(ctx context.Context, b *branch) error {
	var c content
	err := s.query(ctx, b, func(ctx context.Context, conn conn) (err error) {
		c, err = read(ctx, conn)
		return err
	})
	if err != nil {
		return err
	}
	s.seen++
	if wrong := b.judge(c, s.ledger); len(wrong) > 0 {
		how := ""
		if b.from != nil {
			how = fmt.Sprintf(" (from %s, %s)", b.from.parent.name, b.from.how)
		}
		return finding(fmt.Sprintf("branch %s%s is wrong:\n  %s", b.name, how, strings.Join(wrong, "\n  ")))
	}
	return nil
}

var alreadyThere = regexp.MustCompile(`(?m)^NOTICE:  extension "amcheck" already exists, skipping$`)

// amcheck has pg_amcheck compare every table of a branch with its indexes.
func (s *ground) amcheck(ctx context.Context, b *branch) error {
	tools, _ := filepath.Glob("/usr/lib/postgresql/*/bin/pg_amcheck")
	if len(tools) == 0 {
		return fmt.Errorf("pg_amcheck is not installed: make setup-test")
	}
	return s.admin(ctx, b, func(ctx context.Context, c conn) error {
		args := []string{"-h", c.Config().Host, "-p", strconv.Itoa(int(c.Config().Port)), "-U", "tarn_admin",
			"--install-missing", "--heapallindexed", "-d", "databricks_postgres"}
		cmd := exec.CommandContext(ctx, tools[len(tools)-1], args...)
		cmd.Dir = "/"
		out, err := cmd.CombinedOutput()
		// A child has the extension of its parent.
		if out = bytes.TrimSpace(alreadyThere.ReplaceAll(out, nil)); err != nil || len(out) > 0 {
			if ctx.Err() == nil && !bytes.Contains(out, []byte("connection")) {
				return finding(fmt.Sprintf("pg_amcheck of branch %s: %v: %s", b.name, err, out))
			}
			return fmt.Errorf("pg_amcheck of branch %s: %w: %s", b.name, err, out)
		}
		return nil
	})
}

// state is what a branch is listed as; "" = it is not.
func (s *ground) state(ctx context.Context, name string) (string, error) {
	out, err := s.in.tarn(ctx, "branch", "list", s.project, "--json")
	if err != nil {
		return "", err
	}
	var all []struct {
		Name   string `json:"name"`
		Status struct {
			State string `json:"current_state"`
		} `json:"status"`
	}
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		return "", err
	}
	for _, b := range all {
		if strings.HasSuffix(b.Name, "/branches/"+name) {
			return b.Status.State, nil
		}
	}
	return "", nil
}
