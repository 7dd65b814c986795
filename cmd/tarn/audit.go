package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/client"
)

// sqlAudit finds the newest events; an empty parameter asks for nothing.
const sqlAudit = `SELECT event_time, principal, service_name || '.' || action_name AS action, object, status_code, source_ip_address, detail, error
FROM (SELECT * FROM system.access.audit
	WHERE event_time >= :since AND event_date >= CAST(:since AS DATE)
		AND (:principal = '' OR principal = :principal)
		AND (:action = '' OR action_name = :action OR service_name || '.' || action_name = :action)
		AND (NOT :denied OR status_code IN (401, 403) OR service_name IN ('gateway', 'oauth') AND status_code BETWEEN 400 AND 499)
	ORDER BY event_time DESC, event_id LIMIT :most) AS newest
ORDER BY event_time, event_id`

func auditCommand(sh *shell) *cobra.Command {
	var since, principal, action string
	var denied bool
	o := sqlOptions{format: "table"}
	c := &cobra.Command{
		Use: "audit", Short: "Show who did what: changes, logins, tokens, refusals",
		Long: "Show events of system.access.audit: what was changed through the API and SQL, logins\n" +
			"to databases, tokens that were given, and what was refused. One needs SELECT on\n" +
			"that table, as for any.",
		Example: "  tarn audit --since -1h\n  tarn audit --denied --principal ann@example.com\n  tarn audit --action login --since '2 days ago' --json",
		Args:    args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if sh.flags.json {
				o.format = "json"
			}
			when, err := parseMoment(since, time.Now())
			switch {
			case err != nil:
				return err
			case when.time.IsZero():
				return tarn.Invalid("--since %s: events have times, not LSNs", since)
			case o.limit < 1:
				return tarn.Invalid("--limit %d: want at least 1", o.limit)
			}
			o.params = []string{
				"since:TIMESTAMP=" + when.time.UTC().Format("2006-01-02 15:04:05.999999Z07:00"), "principal=" + principal, "action=" + action,
				fmt.Sprintf("denied:BOOLEAN=%t", denied), fmt.Sprintf("most:LONG=%d", o.limit),
			}
			c, err := sh.client()
			if err != nil {
				return err
			}
			return (&sqlRun{sh: sh, sql: client.NewSQL(c), o: o}).one(cmd.Context(), sqlAudit)
		},
	}
	f := c.Flags()
	f.StringVar(&since, "since", "-24h", `events from then on (2026-01-02T15:04:05Z, -10m, "10 minutes ago")`)
	f.StringVar(&principal, "principal", "", "of this user, service principal or, of logins, role")
	f.StringVar(&action, "action", "", "action, such as updateGrants or gateway.login")
	f.BoolVar(&denied, "denied", false, "only what was refused")
	f.Int64Var(&o.limit, "limit", 1000, "show the newest so many")
	completeFlag(c, "action", cobra.FixedCompletions([]string{"login", "grantToken", "signIn", "generateDatabaseCredential", "updateGrants"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}
