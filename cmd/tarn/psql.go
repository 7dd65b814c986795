package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os/exec"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/client"
)

func psqlCommand(sh *shell) *cobra.Command {
	var commands []string
	var database string
	c := &cobra.Command{
		Use: "psql [BRANCH] [-- PSQL-ARGUMENTS]", Short: "Open psql on a branch",
		Long: "Open psql on a branch, waking it when it sleeps. The password is an access token of\n" +
			"one hour, handed over in the environment; open sessions outlive it.",
		Example: "  tarn psql\n  tarn psql shop/dev -c 'select 1'\n  tarn psql dev -- -At -f load.sql",
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			own, theirs := args, []string(nil)
			if at := cmd.ArgsLenAtDash(); at >= 0 {
				own, theirs = args[:at], args[at:]
			}
			if len(own) > 1 {
				return usage(cmd, "tarn psql takes one branch; put psql's own arguments after --")
			}
			for _, sql := range commands {
				theirs = append(theirs, "-c", sql)
			}
			return sh.psql(cmd.Context(), optional(own), database, theirs)
		},
	}
	c.Flags().StringArrayVarP(&commands, "command", "c", nil, "run a statement and exit; may be repeated")
	c.Flags().StringVarP(&database, "dbname", "d", "", "database (default "+tarn.DefaultDatabase+")")
	return c
}

// psql replaces this process, so that signals and the terminal are psql's.
func (sh *shell) psql(ctx context.Context, branch, database string, args []string) error {
	path, err := exec.LookPath("psql")
	if err != nil {
		return tarn.NotFound("psql is not installed").
			WithHint("install a Postgres client (Debian: apt install postgresql-client), or use `tarn connection-string --credential` with another program")
	}
	c, e, err := sh.primaryOf(ctx, branch)
	if err != nil {
		return err
	}
	at, err := c.Connection(ctx, e.Parent())
	if err != nil {
		return err
	}
	cred, err := c.Credential(ctx, e)
	if err != nil {
		return err
	}
	env := append(withoutPostgres(),
		"PGHOST="+at.Host, "PGPORT="+strconv.Itoa(at.Port), "PGDATABASE="+first(database, at.Database),
		"PGUSER="+at.User, "PGPASSWORD="+cred.Token, "PGSSLMODE=require")
	if readable(at.CAFile) {
		env = append(env, "PGSSLROOTCERT="+at.CAFile) // require with a root certificate verifies it
	}
	if err := syscall.Exec(path, append([]string{"psql"}, args...), env); err != nil {
		return fmt.Errorf("run %s: %w", path, err)
	}
	return errors.New("psql returned") // Exec does not return
}

// link is what connection-string prints with --json.
type link struct {
	client.Connection
	URL string `json:"url"`
}

func connectionStringCommand(sh *shell) *cobra.Command {
	var withCredential, pooled bool
	var database string
	c := &cobra.Command{
		Use: "connection-string [BRANCH]", Short: "Print the URL by which Postgres programs reach a branch",
		Long: "Print the URL by which Postgres programs reach a branch. Without --credential it\n" +
			"holds no password. The user is you; a password set with ALTER ROLE works too.",
		Example: "  psql \"$(tarn connection-string shop/dev --credential)\"",
		Args:    args(0, 1, "at most a branch"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, e, err := sh.primaryOf(cmd.Context(), optional(args))
			if err != nil {
				return err
			}
			at, err := c.Connection(cmd.Context(), e.Parent())
			if err != nil {
				return err
			}
			at.Database = first(database, at.Database)
			if pooled {
				at.Host = at.PooledHost
			}
			user := url.User(at.User)
			if withCredential {
				cred, err := c.Credential(cmd.Context(), e)
				if err != nil {
					return err
				}
				user = url.UserPassword(at.User, cred.Token)
			}
			u := connectionURL(at, user)
			return sh.show(link{Connection: at, URL: u}, func() { sh.say("%s", u) })
		},
	}
	c.Flags().BoolVar(&withCredential, "credential", false, "add a password that is good for one hour")
	c.Flags().BoolVar(&withCredential, "with-password", false, "the same as --credential")
	c.Flags().BoolVar(&pooled, "pooled", false, "the address of the endpoint's pooler (see docs/gateway.md)")
	c.Flags().StringVarP(&database, "dbname", "d", "", "database (default "+tarn.DefaultDatabase+")")
	return c
}

func connectionURL(at client.Connection, user *url.Userinfo) string {
	q := "sslmode=require"
	if readable(at.CAFile) {
		q += "&sslrootcert=" + url.PathEscape(at.CAFile)
	}
	u := url.URL{Scheme: "postgresql", User: user, Host: net.JoinHostPort(at.Host, strconv.Itoa(at.Port)), Path: "/" + at.Database, RawQuery: q}
	return u.String()
}

func credentialCommand(sh *shell) *cobra.Command {
	return &cobra.Command{
		Use: "credential [ENDPOINT]", Short: "Print a Postgres password for an endpoint, good for one hour",
		Example: "  export PGPASSWORD=$(tarn credential shop/dev)",
		Args:    args(0, 1, "at most an endpoint"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, e, err := sh.endpointNamed(cmd.Context(), optional(args))
			if err != nil {
				return err
			}
			cred, err := c.Credential(cmd.Context(), e)
			if err != nil {
				return err
			}
			return sh.show(cred, func() { sh.say("%s", cred.Token) })
		},
	}
}
