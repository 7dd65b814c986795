// Command tarn runs Tarn and is its command line. This package wires the rooms
// of internal/ together (serve) and otherwise speaks to a running server
// through package client only; the one exception is `tarn table --path`, which
// reads a Delta table where it lies.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/client"
	"github.com/tarndb/tarn/internal/delta"
)

func main() { os.Exit(run()) }

// run is main with an exit code.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	sh := newShell(os.Stdin, os.Stdout, os.Stderr)
	err := newRoot(sh).ExecuteContext(ctx)
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return exitInterrupted
	}
	return sh.fail(err)
}

// The exit codes, documented in `tarn help`.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitRefused     = 3
	exitNotFound    = 4
	exitInterrupted = 130
)

const rootHelp = `Tarn is an open Lakebase: serverless Postgres on copy-on-write branches, native
to a Delta lakehouse.

Start it with "tarn up", then make a project and talk to it:

  tarn project create shop
  tarn psql shop

A branch is written project/branch, or just branch when there is one project.
--json prints the objects of the HTTP API.

Exit codes: 0 done, 1 error, 2 wrong usage, 3 refused because it is not
supported, 4 not found, 130 interrupted.`

// newRoot builds the whole command. Commands that run servers are added by
// their own files.
func newRoot(sh *shell) *cobra.Command {
	root := group("tarn", "An open Lakebase that runs anywhere")
	root.Long = rootHelp
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetIn(sh.in)
	root.SetOut(sh.out)
	root.SetErr(sh.err)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return usage(c, "%s", err) })
	root.SetHelpCommand(helpCommand())
	sh.flags.register(root.PersistentFlags())
	root.AddCommand(catalogCommand(sh), schemaCommand(sh), grantCommand(sh), revokeCommand(sh), grantsCommand(sh), auditCommand(sh), lineageCommand(sh))
	root.AddCommand(loginCommand(sh), logoutCommand(sh), whoamiCommand(sh), principalCommand(sh), groupCommand(sh), permissionCommand(sh))
	root.AddCommand(
		upCommand(), downCommand(), restartCommand(), serveCommand(), demoCommand(sh),
		projectCommand(sh), branchCommand(sh), snapshotCommand(sh), endpointCommand(sh),
		psqlCommand(sh), connectionStringCommand(sh), credentialCommand(sh),
		syncCommand(sh), feedCommand(sh), ingestCommand(sh), tableCommand(sh), sqlCommand(sh),
		tokenCommand(sh), storeCommand(sh), statusCommand(sh), connectionsCommand(sh), versionCommand(sh),
	)
	return root
}

// group is a command that only holds others.
func group(use, short string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, SuggestionsMinimumDistance: 2,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			msg := fmt.Sprintf("no command %q", args[0])
			if near := c.SuggestionsFor(args[0]); len(near) > 0 {
				msg += "; did you mean " + strings.Join(near, " or ") + "?"
			}
			return usage(c, "%s", msg)
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
}

func helpCommand() *cobra.Command {
	var page string
	cmd := &cobra.Command{
		Use: "help [COMMAND]", Short: "Help about a command",
		RunE: func(c *cobra.Command, args []string) error {
			if page != "" {
				text, err := reference(c.Root(), page)
				fmt.Fprint(c.OutOrStdout(), text)
				return err
			}
			target, rest, err := c.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return usage(c.Root(), "no command %q", strings.Join(args, " "))
			}
			return target.Help()
		},
	}
	cmd.Flags().StringVar(&page, "reference", "", "print a page of the documentation in Markdown: cli or configuration")
	return cmd
}

// usageError is a command that cannot be right as typed.
type usageError struct {
	msg  string
	hint string
}

func (e *usageError) Error() string { return e.msg }

func usage(c *cobra.Command, format string, args ...any) error {
	return &usageError{msg: fmt.Sprintf(format, args...), hint: "see " + c.CommandPath() + " --help"}
}

// args wants between lo and hi arguments; what names them in the error.
func args(lo, hi int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, got []string) error {
		if len(got) < lo || len(got) > hi {
			want := what
			if hi == 0 {
				want = "no argument"
			}
			return usage(c, "%s wants %s, got %d arguments", c.CommandPath(), want, len(got))
		}
		return nil
	}
}

// fail says on standard error what happened, why, and what to type next, and
// returns the exit code.
func (sh *shell) fail(err error) int {
	if err == nil {
		return exitOK
	}
	var (
		wrong       *usageError
		refusal     *client.Error
		unreachable *client.UnreachableError
		hint        = tarn.HintOf(err)
		code        = exitError
	)
	switch {
	case errors.As(err, &wrong):
		hint, code = wrong.hint, exitUsage
	case delta.IsRefusal(err):
		code = exitRefused
	case errors.As(err, &refusal):
		hint = refusal.Hint
		switch {
		case refusal.Unsupported():
			code = exitRefused
		case refusal.NotFound():
			code = exitNotFound
		}
		if refusal.Code == "INTERNAL_ERROR" && refusal.RequestID != "" {
			hint = "look for request " + refusal.RequestID + " in the server's log"
		}
	case errors.As(err, &unreachable):
		hint = "start Tarn with `tarn up`, or name another server with --host or TARN_HOST"
	case errors.Is(err, delta.ErrNotTable), errors.Is(err, delta.ErrNoVersion), tarn.KindOf(err) == tarn.KindNotFound:
		code = exitNotFound
	case tarn.KindOf(err) == tarn.KindInvalid:
		code = exitUsage
	}
	fmt.Fprintln(sh.err, "tarn: "+err.Error())
	if hint != "" {
		fmt.Fprintln(sh.err, "hint: "+hint)
	}
	return code
}
