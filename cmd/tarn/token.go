package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/tarndb/tarn/client"
	"github.com/tarndb/tarn/internal/api/wire"
)

func tokenCommand(sh *shell) *cobra.Command {
	c := group("token", "Access tokens for the API")
	c.AddCommand(tokenCreate(sh), tokenList(sh), tokenRevoke(sh))
	return c
}

func tokenCreate(sh *shell) *cobra.Command {
	var comment, ttl string
	c := &cobra.Command{
		Use: "create", Short: "Create a token and print it, this once",
		Example: "  export DATABRICKS_TOKEN=$(tarn token create --comment notebook --ttl 30d)",
		Args:    args(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := sh.client()
			if err != nil {
				return err
			}
			var life time.Duration
			if ttl != "" {
				if life, err = parseSpan(ttl); err != nil {
					return err
				}
			}
			t, err := c.Tokens().Create(cmd.Context(), comment, life)
			if err != nil {
				return err
			}
			return sh.show(t, func() { sh.say("%s", t.TokenValue) })
		},
	}
	c.Flags().StringVar(&comment, "comment", "", "what the token is for")
	c.Flags().StringVar(&ttl, "ttl", "", "how long it works, e.g. 30d (default: until revoked)")
	return c
}

func tokenList(sh *shell) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List your tokens, without their secrets", Args: args(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := sh.client()
			if err != nil {
				return err
			}
			ts, err := c.Tokens().List(cmd.Context())
			if err != nil {
				return err
			}
			if ts == nil {
				ts = []client.Token{}
			}
			return sh.show(ts, func() {
				var rows [][]string
				for _, t := range ts {
					expires := "never"
					if t.ExpiryTime >= 0 {
						expires = shortTime(wire.Time(time.UnixMilli(t.ExpiryTime)))
					}
					rows = append(rows, []string{t.TokenID, shortTime(wire.Time(time.UnixMilli(t.CreationTime))), expires, dash(t.Comment)})
				}
				sh.table("ID CREATED EXPIRES COMMENT", rows)
			})
		},
	}
}

func tokenRevoke(sh *shell) *cobra.Command {
	return &cobra.Command{
		Use: "revoke ID", Short: "End a token", Args: args(1, 1, "the token's id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := sh.client()
			if err != nil {
				return err
			}
			if err := c.Tokens().Revoke(cmd.Context(), args[0]); err != nil {
				return err
			}
			return sh.show(wire.Empty{}, func() { sh.say("Revoked token %s.", args[0]) })
		},
	}
}
