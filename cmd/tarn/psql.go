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
	var to door
	c := &cobra.Command{
		Use: "psql [BRANCH|ENDPOINT] [-- PSQL-ARGUMENTS]", Short: "Open psql on a branch",
		Long: "Open psql on a branch, waking it when it sleeps; or on one endpoint of it, as\n" +
			"PROJECT/BRANCH/ENDPOINT. The password is an access token of one hour, handed over in the\n" +
			"environment; open sessions outlive it.",
		Example: "  tarn psql\n  tarn psql shop/dev -c 'select 1'\n  tarn psql shop/production --read-only\n  tarn psql dev -- -At -f load.sql",
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
			return sh.psql(cmd.Context(), optional(own), to, theirs)
		},
	}
	c.Flags().StringArrayVarP(&commands, "command", "c", nil, "run a statement and exit; may be repeated")
	to.flags(c)
	return c
}

// door says which of a branch's ways in is meant.
type door struct {
	readOnly, pooled bool
	database         string // "" = the default
}

func (d *door) flags(c *cobra.Command) {
	c.Flags().BoolVar(&d.readOnly, "read-only", false, "the branch's read replica")
	c.Flags().BoolVar(&d.pooled, "pooled", false, "the address of the endpoint's pooler (see docs/gateway.md)")
	c.Flags().StringVarP(&d.database, "dbname", "d", "", "database (default "+tarn.DefaultDatabase+")")
}

// connection finds what a branch or an endpoint, as people name it, and a door
// lead to.
func (d door) connection(ctx context.Context, sh *shell, name string) (*client.Client, tarn.EndpointName, client.Connection, error) {
	none := client.Connection{}
	c, e, err := sh.endpointNamed(ctx, name)
	if err != nil {
		return nil, e, none, err
	}
	at, err := c.Connection(ctx, e.Parent())
	if err != nil {
		return nil, e, none, err
	}
	at.Database = first(d.database, at.Database)
	if d.readOnly || e.Endpoint != tarn.DefaultEndpoint {
		all, err := c.Endpoints(ctx, e.Parent())
		if err != nil {
			return nil, e, none, err
		}
		one, err := d.among(all, e)
		if err != nil {
			return nil, e, none, err
		}
		e = e.Parent().Endpoint(one.EndpointID)
		hosts := one.Status.Hosts
		at.Endpoint, at.Host, at.PooledHost = e.String(), hosts.Host, first(hosts.ReadWritePooledHost, hosts.ReadOnlyPooledHost)
	}
	if d.pooled {
		if at.PooledHost == "" {
			return nil, e, none, tarn.NotFound("endpoint %s has no pooler", e)
		}
		at.Host = at.PooledHost
	}
	return c, e, at, nil
}

// among finds the endpoint meant by e, or the read replica of its branch.
func (d door) among(all []client.Endpoint, e tarn.EndpointName) (client.Endpoint, error) {
	var found []client.Endpoint
	for _, one := range all {
		replica := one.Status.EndpointType == string(tarn.ReadOnly)
		if d.readOnly && replica && (e.Endpoint == tarn.DefaultEndpoint || e.Endpoint == one.EndpointID) || !d.readOnly && e.Endpoint == one.EndpointID {
			found = append(found, one)
		}
	}
	where := e.Project + "/" + e.Branch
	switch {
	case len(found) == 1 && found[0].Status.Hosts != nil:
		return found[0], nil
	case len(found) == 1:
		return client.Endpoint{}, tarn.Unavailable("endpoint %s has no address yet", e).WithHint("try again in a moment; see it with: tarn endpoint show " + where + "/" + found[0].EndpointID)
	case len(found) > 1:
		return client.Endpoint{}, tarn.Conflict("branch %s has %d read replicas", where, len(found)).WithHint("name one: " + where + "/" + found[0].EndpointID)
	case d.readOnly:
		return client.Endpoint{}, tarn.NotFound("branch %s has no such read replica", where).WithHint("make one: tarn endpoint create " + where + "/reader --read-only")
	}
	return client.Endpoint{}, tarn.NotFound("there is no endpoint %s/%s", where, e.Endpoint).WithHint("list them with: tarn endpoint list " + e.Project)
}

// psql replaces this process, so that signals and the terminal are psql's.
func (sh *shell) psql(ctx context.Context, name string, to door, args []string) error {
	path, err := exec.LookPath("psql")
	if err != nil {
		return tarn.NotFound("psql is not installed").
			WithHint("install a Postgres client (Debian: apt install postgresql-client), or use `tarn connection-string --credential` with another program")
	}
	c, e, at, err := to.connection(ctx, sh, name)
	if err != nil {
		return err
	}
	cred, err := c.Credential(ctx, e)
	if err != nil {
		return err
	}
	env := append(withoutPostgres(),
		"PGHOST="+at.Host, "PGPORT="+strconv.Itoa(at.Port), "PGDATABASE="+at.Database,
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
	var withCredential bool
	var to door
	c := &cobra.Command{
		Use: "connection-string [BRANCH|ENDPOINT]", Short: "Print the URL by which Postgres programs reach a branch",
		Long: "Print the URL by which Postgres programs reach a branch, or one endpoint of it. Without\n" +
			"--credential it holds no password. The user is you; a password set with ALTER ROLE works too.",
		Example: "  psql \"$(tarn connection-string shop/dev --credential)\"\n  tarn connection-string shop/production --read-only --pooled",
		Args:    args(0, 1, "at most a branch or an endpoint"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, e, at, err := to.connection(cmd.Context(), sh, optional(args))
			if err != nil {
				return err
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
	to.flags(c)
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
