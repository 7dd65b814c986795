package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/client"
	"github.com/tarndb/tarn/internal/api/wire"
)

// loginPatience is how long a person may take to sign in.
const loginPatience = 10 * time.Minute

func loginCommand(sh *shell) *cobra.Command {
	var device, noBrowser bool
	var clientID, secretFile string
	c := &cobra.Command{
		Use: "login", Short: "Sign in and remember it in the profile",
		Long: `Sign in to the server that --host names, and remember it in the profile. Without flags a browser opens; --device
shows a code to type in on another device; --client-id signs a service principal in with its secret.

The first password is set by an admin, with: tarn principal password NAME. An access token works in its place.`,
		Example: "  tarn login --host https://tarn.example.com\n  tarn login --device\n  tarn login --client-id 5b0c... --client-secret-file secret --profile nightly",
		Args:    args(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			host, err := hostMeant(sh)
			if err != nil {
				return err
			}
			c, err := client.New(client.Options{Host: host, UserAgent: "tarn/" + version()})
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeoutCause(cmd.Context(), loginPatience, errors.New("nobody signed in within ten minutes"))
			defer cancel()
			var s signedIn
			switch {
			case clientID != "" && device:
				return usage(cmd, "--client-id signs a program in, --device a person: say one of them")
			case clientID != "":
				secret, err := clientSecret(sh, secretFile)
				if err != nil {
					return err
				}
				s, err = loginService(ctx, c, clientID, secret)
				if err != nil {
					return err
				}
			case device:
				s, err = loginDevice(sh, ctx, c)
			default:
				s, err = loginBrowser(sh, ctx, c, noBrowser)
			}
			if err != nil {
				return err
			}
			return remember(sh, cmd.Context(), c.Host(), s)
		},
	}
	c.Flags().BoolVar(&device, "device", false, "show a code to type in on another device, for a computer without a browser")
	c.Flags().BoolVar(&noBrowser, "no-browser", false, "print the address instead of opening a browser")
	c.Flags().StringVar(&clientID, "client-id", "", "application id of a service principal to sign in as")
	c.Flags().StringVar(&secretFile, "client-secret-file", "", "file with its secret, - for standard input (TARN_CLIENT_SECRET, DATABRICKS_CLIENT_SECRET)")
	return c
}

func loginService(ctx context.Context, c *client.Client, id string, secret tarn.Secret) (signedIn, error) {
	t, err := client.OAuthOf(c).Service(ctx, id, secret)
	return signedIn{Access: t.Access.Reveal(), Expiry: t.Expiry.Format(time.RFC3339), ClientID: id, ClientSecret: secret.Reveal()}, err
}

func signedInOf(t client.OAuthTokens) signedIn {
	return signedIn{Access: t.Access.Reveal(), Refresh: t.Refresh.Reveal(), Expiry: t.Expiry.Format(time.RFC3339)}
}

func loginDevice(sh *shell, ctx context.Context, c *client.Client) (signedIn, error) {
	d, err := client.OAuthOf(c).BeginDevice(ctx)
	if err != nil {
		return signedIn{}, err
	}
	sh.note("Open %s on any device and enter the code  %s", d.URL, d.UserCode)
	t, err := client.OAuthOf(c).AwaitDevice(ctx, d)
	return signedInOf(t), err
}

// The ports the answer of a browser may come to, as published SDKs use them.
const (
	firstLoginPort = 8020
	lastLoginPort  = 8040
)

func listenForLogin() (net.Listener, error) {
	var err error
	for port := firstLoginPort; port <= lastLoginPort; port++ {
		var l net.Listener
		if l, err = net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port)); err == nil {
			return l, nil
		}
	}
	return nil, tarn.Unavailable("listen for the browser's answer: %w", err).WithHint("ports 8020 to 8040 are taken; use tarn login --device")
}

func loginBrowser(sh *shell, ctx context.Context, c *client.Client, noBrowser bool) (signedIn, error) {
	l, err := listenForLogin()
	if err != nil {
		return signedIn{}, err
	}
	in := client.OAuthOf(c).Begin("http://" + l.Addr().String())
	type came struct{ code, problem string }
	back := make(chan came, 1)
	srv := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if q.Get("state") != in.State {
			http.Error(w, "This is not the answer that was waited for.", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintln(w, "Done. Go back to the terminal; this page can be closed.")
		select {
		case back <- came{q.Get("code"), first(q.Get("error_description"), q.Get("error"))}:
		default: // the same answer again
		}
	})}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	defer func() { <-served }()
	defer srv.Close()
	sh.note("Sign in at  %s", in.URL)
	if !noBrowser {
		openBrowser(in.URL) // the address stands above for whoever has none
	}
	select {
	case <-ctx.Done():
		return signedIn{}, context.Cause(ctx)
	case got := <-back:
		// Let the page be sent before the server goes.
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		_ = srv.Shutdown(end)
		if got.problem != "" || got.code == "" {
			return signedIn{}, tarn.Denied("sign in: %s", first(got.problem, "the browser came back without a code"))
		}
		t, err := client.OAuthOf(c).Finish(ctx, in, got.code)
		return signedInOf(t), err
	}
}

// openBrowser opens an address; that there is no browser is no error.
func openBrowser(url string) {
	for _, program := range []string{"xdg-open", "open", "wslview"} {
		if path, err := exec.LookPath(program); err == nil {
			cmd := exec.Command(path, url)
			if cmd.Start() == nil && cmd.Process.Release() == nil { // it ends when it likes
				return
			}
		}
	}
}

// remember keeps a sign-in in the profile and says who it is.
func remember(sh *shell, ctx context.Context, host string, s signedIn) error {
	c, err := client.New(client.Options{Host: host, Token: tarn.Secret(s.Access), UserAgent: "tarn/" + version()})
	if err != nil {
		return err
	}
	me, err := c.Me(ctx)
	if err != nil {
		return err
	}
	path, err := keepSignIn(sh.flags.profile, host, s)
	if err != nil {
		return err
	}
	return sh.show(me, func() { sh.say("Signed in to %s as %s (%s).", host, client.NameOf(me), path) })
}

func logoutCommand(sh *shell) *cobra.Command {
	return &cobra.Command{
		Use: "logout", Short: "End the profile's sign-in and forget its tokens", Args: args(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			host, s, err := dropSignIn(sh.flags.profile)
			if err != nil {
				return err
			}
			if s.Refresh != "" {
				c, err := client.New(client.Options{Host: host, UserAgent: "tarn/" + version()})
				if err != nil {
					return err
				}
				if err := client.OAuthOf(c).Revoke(cmd.Context(), tarn.Secret(s.Refresh)); err != nil {
					return fmt.Errorf("the tokens are forgotten here, but the server was not told: %w", err)
				}
			}
			return sh.show(wire.Empty{}, func() { sh.say("Signed out of %s.", host) })
		},
	}
}

func whoamiCommand(sh *shell) *cobra.Command {
	return &cobra.Command{
		Use: "whoami", Short: "Tell who you are to the server", Args: args(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := sh.client()
			if err != nil {
				return err
			}
			me, err := c.Me(cmd.Context())
			if err != nil {
				return err
			}
			return sh.show(me, func() {
				sh.rows([][]string{{"name", client.NameOf(me)}, {"type", typeWord(me)}, {"groups", dash(displays(me.Groups))}, {"server", c.Host()}})
			})
		},
	}
}

// hidden asks on the terminal without showing what is typed.
func hidden(sh *shell, prompt string) (string, error) {
	f, ok := sh.in.(interface{ Fd() uintptr })
	if !ok {
		return "", errors.New("standard input is no terminal")
	}
	fd := int(f.Fd())
	was, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return "", fmt.Errorf("read the terminal's state: %w", err)
	}
	quiet := *was
	quiet.Lflag &^= unix.ECHO
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &quiet); err != nil {
		return "", fmt.Errorf("hide what is typed: %w", err)
	}
	defer func() {
		_ = unix.IoctlSetTermios(fd, unix.TCSETS, was) // the terminal is the user's to mend with `stty sane`
		fmt.Fprintln(sh.err)
	}()
	fmt.Fprint(sh.err, prompt)
	var line strings.Builder
	b := make([]byte, 1)
	for line.Len() < 4<<10 {
		n, err := sh.in.Read(b)
		if n == 0 || err != nil || b[0] == '\n' {
			break
		}
		line.WriteByte(b[0])
	}
	return strings.TrimRight(line.String(), "\r"), nil
}
