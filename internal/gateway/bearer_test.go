package gateway_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/gateway"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
	"github.com/tarndb/tarn/internal/token"
)

// club is a workspace's groups: group → members.
type club map[string][]string

func (c club) MemberOf(_ context.Context, member, group string) (bool, error) {
	if group == "broken" {
		return false, errors.New("the control database is away")
	}
	for _, m := range c[group] {
		if m == member {
			return true, nil
		}
	}
	return false, nil
}

// TestTokens is what OAuth adds to logins: groups, and clients that speak
// OAUTHBEARER.
func TestTokens(t *testing.T) {
	_, conn := pgtest.Start(t, pgtest.Newest(t))
	admin, err := pgx.Connect(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { admin.Close(context.Background()) })
	for _, q := range []string{
		`CREATE ROLE tarn_oauth NOLOGIN`, `CREATE ROLE "ada@example.com" LOGIN IN ROLE tarn_oauth`,
		`CREATE ROLE analysts LOGIN IN ROLE tarn_oauth`, `CREATE ROLE broken LOGIN IN ROLE tarn_oauth`,
		`CREATE ROLE plain LOGIN PASSWORD 'of plain'`,
	} {
		run(t, admin, q)
	}
	s := &site{admin: admin}
	a := admin.Config()
	status := tarn.ComputeStatus{SocketDir: a.Host, Port: int(a.Port), State: tarn.ComputeActive, StartTime: time.Now()}
	tw := &town{endpoints: []tarn.Endpoint{endpoint("shop")}, wake: func(context.Context, tarn.EndpointName) (tarn.ComputeStatus, error) { return status, nil }}
	s.gate = open(t, tw, func(c *gateway.Config) {
		c.Groups, c.Issuer = club{"analysts": {ada}, "plain": {ada}}, "http://127.0.0.1:8181/oidc"
	})
	mine, theirs := s.token(t, token.Claims{Subject: ada}), s.token(t, token.Claims{Subject: "eve@example.com"})

	t.Run("groups", func(t *testing.T) {
		c := s.connect(t, "analysts", mine)
		var who, session string
		if err := c.QueryRow(t.Context(), `SELECT current_user, session_user`).Scan(&who, &session); err != nil || who != "analysts" || session != "analysts" {
			t.Errorf("%s %s %v", who, session, err)
		}
		for user, password := range map[string]string{
			"analysts":      theirs, // no member
			"plain":         mine,   // a group of that name, but no OAuth role
			ada:             theirs,
			"nobody-at-all": mine,
		} {
			wantState(t, s.try(t, user, password), "28P01")
		}
		if e := s.try(t, "broken", mine); e == nil || e.Code == "28P01" {
			t.Errorf("groups that cannot be read: %+v", e)
		}
	})
	t.Run("bearer", func(t *testing.T) {
		with := func(user, raw string) (*pgx.Conn, error) {
			cfg := s.config(t, user, "", "options='-c auth=oauth -c statement_timeout=7s'")
			cfg.OAuthTokenProvider = func(context.Context) (string, error) { return raw, nil }
			return pgx.ConnectConfig(t.Context(), cfg)
		}
		for _, user := range []string{ada, "analysts"} {
			c, err := with(user, mine)
			if err != nil {
				t.Fatalf("%s: %v", user, err)
			}
			var who, timeout string
			if err := c.QueryRow(t.Context(), `SELECT current_user, current_setting('statement_timeout')`).Scan(&who, &timeout); err != nil || who != user || timeout != "7s" {
				t.Errorf("%s %s %v", who, timeout, err)
			}
			c.Close(context.Background())
		}
		if _, err := with(ada, theirs); err == nil {
			t.Error("another's token opened the role")
		}
		// A role with a password does not hear of tokens.
		cfg := s.config(t, "plain", "of plain", "options='auth=oauth'")
		c, err := pgx.ConnectConfig(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		c.Close(context.Background())
	})
	t.Run("bearer by hand", func(t *testing.T) {
		expired := s.token(t, token.Claims{Subject: ada, IssuedAt: time.Now().Add(-2 * time.Hour), Expiry: time.Now().Add(-90 * time.Minute)})
		for _, c := range []struct{ name, first, code, hint string }{
			{"no token yet", "n,,\x01auth=\x01\x01", "28P01", "workspace"},
			{"expired", "n,,\x01auth=Bearer " + expired + "\x01\x01", "28P01", "expired at"},
			{"with host", "n,,\x01host=h\x01port=1\x01auth=bearer " + theirs + "\x01\x01", "28P01", "belongs to"},
			{"authzid", "n,a=eve,\x01auth=Bearer x\x01\x01", "0A000", ""},
			{"binding", "p=tls-exporter,,\x01auth=Bearer x\x01\x01", "08P01", ""},
			{"two tokens", "n,,\x01auth=Bearer x\x01auth=Bearer y\x01\x01", "08P01", ""},
			{"no auth", "n,,\x01host=h\x01\x01", "08P01", ""},
			{"no end", "n,,\x01auth=Bearer x", "08P01", ""},
			{"basic", "n,,\x01auth=Basic x\x01\x01", "08P01", ""},
			{"empty", "", "08P01", ""},
		} {
			e, told := s.sasl(t, c.first)
			if e.Code != c.code || !strings.Contains(e.Hint, c.hint) {
				t.Errorf("%s: %s %q (%s), want %s", c.name, e.Code, e.Message, e.Hint, c.code)
			}
			var doc map[string]string
			if told != nil && (json.Unmarshal(told, &doc) != nil || doc["status"] != "invalid_token" || doc["openid-configuration"] != "http://127.0.0.1:8181/oidc/.well-known/openid-configuration") {
				t.Errorf("%s: told %s", c.name, told)
			}
			if (told != nil) != (c.code == "28P01") {
				t.Errorf("%s: told %q", c.name, told)
			}
		}
	})
}

// try wants a refusal.
func (s *site) try(t *testing.T, user, password string) *pgconn.PgError {
	t.Helper()
	c, err := pgx.ConnectConfig(t.Context(), s.config(t, user, password))
	if err == nil {
		c.Close(context.Background())
		t.Errorf("%s logged in", user)
		return nil
	}
	var e *pgconn.PgError
	errors.As(err, &e)
	return e
}

func wantState(t *testing.T, e *pgconn.PgError, code string) {
	t.Helper()
	if e == nil || e.Code != code {
		t.Errorf("refused with %+v, want %s", e, code)
	}
}

// sasl speaks OAUTHBEARER by hand and gives the error at its end and the JSON
// before it.
func (s *site) sasl(t *testing.T, first string) (e *pgproto3.ErrorResponse, told []byte) {
	t.Helper()
	raw, err := net.Dial("tcp", s.own.String())
	if err != nil {
		t.Fatal(err)
	}
	c := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"postgresql"}})
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	f := pgproto3.NewFrontend(c, c)
	send := func(m pgproto3.FrontendMessage) {
		f.Send(m)
		if err := f.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	send(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersionNumber, Parameters: map[string]string{"user": ada, "options": "auth=oauth"}})
	for {
		m, err := f.Receive()
		if err != nil {
			t.Fatal(err)
		}
		switch m := m.(type) {
		case *pgproto3.AuthenticationSASL:
			if len(m.AuthMechanisms) != 1 || m.AuthMechanisms[0] != "OAUTHBEARER" {
				t.Fatalf("offered %v", m.AuthMechanisms)
			}
			send(&pgproto3.SASLInitialResponse{AuthMechanism: "OAUTHBEARER", Data: []byte(first)})
		case *pgproto3.AuthenticationSASLContinue:
			told = append([]byte(nil), m.Data...)
			send(&pgproto3.SASLResponse{Data: []byte{1}})
		case *pgproto3.ErrorResponse:
			return m, told
		default:
			t.Fatalf("got %T", m)
		}
	}
}
