package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api"
	"github.com/tarndb/tarn/internal/api/oauth"
	"github.com/tarndb/tarn/internal/catalog"
	"github.com/tarndb/tarn/internal/compute"
	"github.com/tarndb/tarn/internal/control"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/feed"
	"github.com/tarndb/tarn/internal/gateway"
	"github.com/tarndb/tarn/internal/node"
	"github.com/tarndb/tarn/internal/postgres"
	"github.com/tarndb/tarn/internal/syncedtable"
	"github.com/tarndb/tarn/internal/token"
	"github.com/tarndb/tarn/internal/volumefs"
)

// serveCommand is `tarn serve control|node`: one of the two processes that
// `tarn up` supervises.
func serveCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "serve", Short: "Run one process of Tarn (tarn up runs both)", Hidden: true, Args: cobra.NoArgs}
	for role, run := range map[string]func(context.Context, serverConfig, *slog.Logger) error{"control": serveControl, "node": serveNode} {
		var c serverConfig
		sub := &cobra.Command{
			Use: role, Short: "Run the " + role + " process", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				if err := c.complete(); err != nil {
					return err
				}
				ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
				defer stop()
				log := slog.New(slog.NewTextHandler(os.Stderr, nil)).With("process", role)
				if err := c.openRemote(ctx); err != nil {
					return err
				}
				return run(ctx, c, log)
			},
		}
		c.flags(sub.Flags())
		sub.Flags().IntVar(&c.handed, handedFlag, 0, "descriptor of what an earlier node left")
		cmd.AddCommand(sub)
	}
	cmd.AddCommand(serveWarehouseCommand())
	return cmd
}

// serveNode wires hosts and machines of this computer.
func serveNode(ctx context.Context, c serverConfig, log *slog.Logger) error {
	installs, err := postgres.Find(ctx, c.PGBin, extraPGBins()...)
	if err != nil {
		return err
	}
	runAs, err := postgres.DefaultRunAs()
	if err != nil {
		return err
	}
	volumes, err := c.volumes()
	if err != nil {
		return err
	}
	rings := volumefs.RingsNever
	if c.FUSEUring {
		rings = volumefs.RingsAsked
	}
	remote, err := c.remote(log)
	if err != nil {
		return err
	}
	handed, err := readHanded(c.handed)
	if err != nil {
		return err
	}
	for {
		opening := ctx
		if handed != nil {
			opening = context.WithoutCancel(ctx) // taken over, if only to be ended cleanly
		}
		fleet, err := compute.Open(opening, compute.Options{Dir: c.Data, Installs: installs, RunAs: runAs, Volumes: volumes, Handed: handed, Log: log, Remote: remote, Rings: rings})
		if err != nil {
			return fmt.Errorf("open the fleet: %w", err)
		}
		g, running := errgroup.WithContext(ctx)
		g.Go(func() error { return fleet.Run(running) })
		g.Go(func() error { return node.Serve(running, c.nodeSocket(), restartable{fleet}, log) })
		if err := g.Wait(); !errors.Is(err, compute.ErrRestart) {
			return orderly(err)
		}
		if handed, err = fleet.HandOver(); err != nil {
			log.Error("fleet not closed cleanly", "err", err)
		}
		if ctx.Err() == nil {
			log.Error("node goes on with its old program", "err", c.execute(handed))
		}
	}
}

// serveControl wires doors and keepers.
func serveControl(ctx context.Context, c serverConfig, log *slog.Logger) error {
	controlURL := c.ControlDB
	if controlURL == "" {
		installs, err := postgres.Find(ctx, c.PGBin, extraPGBins()...)
		if err != nil {
			return err
		}
		own, err := openControlPostgres(ctx, c, installs, log)
		if err != nil {
			return err
		}
		defer own.close(ctx, log)
		controlURL = own.url
		if err := c.restoreControl(ctx, own, log); err != nil {
			return err
		}
	}
	db, err := controldb.Open(ctx, controlURL)
	if err != nil {
		return fmt.Errorf("open the control database: %w", err)
	}
	defer db.Close()

	apiURL := apiURL(c.API, c)
	signer := token.NewSigner(db, apiURL+oauth.Prefix, audience, token.Options{})
	nodeClient := node.Dial(c.nodeSocket())
	defer nodeClient.Close()
	careful := &carefulNode{Client: nodeClient}
	ctl := control.New(control.Config{DB: db, Node: careful, Signer: signer, Verifier: signer, Owner: c.Owner, Port: c.GatewayPort, Domain: c.gate.Domain, Log: log})
	begun, err := ctl.Bootstrap(ctx)
	if err != nil {
		return err
	}
	if err := c.welcome(ctx, apiURL, ctl, begun); err != nil {
		return err
	}
	cat := catalog.New(db)
	tables := lakes{c.Data, c.storage.Place, c.Remote}
	lake, err := tables.begin(ctx, cat, log)
	if err != nil {
		return err
	}
	if err := c.restoreAuthority(ctx); err != nil {
		return err
	}
	audit := catalog.NewAudit(cat, tables.open, c.AuditKeep, log)
	gateConfig := c.gate.gateway(c.GatewayPort)
	gateConfig.Router, gateConfig.Verifier, gateConfig.Dir, gateConfig.Log = &router{control: ctl, db: db}, ctl.Identity, filepath.Join(c.Data, "ca"), log
	gateConfig.Groups, gateConfig.Issuer, gateConfig.Audit = ctl.Identity, apiURL+oauth.Prefix, audit
	gate := gateway.New(gateConfig)
	careful.gate = gate
	feeds := feed.New(feed.Config{DB: db, Catalog: cat, Computes: ctl, CameBack: ctl.Pasts.CameBack, OpenStore: tables.open, SpoolDir: filepath.Join(c.Data, "spool"), Log: log})
	synced := syncedtable.New(syncedtable.Config{DB: db, Catalog: cat, Computes: ctl, OpenStore: tables.open, Alerts: c.alerts, Log: log})
	signIn := oauth.New(oauth.Config{
		DB: db, Identity: ctl.Identity, Signer: signer, PublicURL: apiURL, AccountID: api.AccountID(ctl.Workspace()), AccessLife: c.TokenLife, Log: log, Audit: audit,
	})
	var backup *controldb.Backup
	var copied func() time.Duration
	if c.ControlDB == "" && c.Remote != nil {
		backup = controldb.NewBackup(db, c.Remote, controldb.BackupOptions{Log: log})
		copied = backup.Age
	}
	sql := c.openWarehouse(ctl, cat, db, tables, audit, gate.CAPath(), log)
	handler := api.New(api.Config{
		Audit: audit, Rate: c.APIRate,
		Control: ctl, SyncedTables: synced, Feeds: feeds, Catalog: cat, Workspace: ctl.Workspace(), OpenTable: tables.openTable,
		OAuth: signIn, PublicURL: apiURL, CAFile: gate.CAPath(), Version: version(), LakeURL: lake, Backup: api.Backup{Storage: c.storage.Place, Copied: copied}, Processes: c.processes, Volumes: c.volumesInUse, Sessions: sessionsOf(gate),
		PageStore: nodeClient, Warehouse: sql, Log: log,
	})

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return ctl.Run(ctx) })
	g.Go(func() error { return feeds.Run(ctx) })
	g.Go(func() error { return synced.Run(ctx) })
	g.Go(func() error { return cat.Follow(ctx, ctl, 5*time.Second, log) })
	g.Go(func() error { return sql.Run(ctx) })
	g.Go(func() error { return audit.Run(ctx, 30*time.Second) })
	g.Go(func() error { return gate.Run(ctx) })
	g.Go(func() error { return followEndpoints(ctx, ctl, gate) })
	g.Go(func() error { return serveHTTP(ctx, c, withMetrics(handler, gate), log) })
	g.Go(func() error { return c.copyAuthority(ctx, gate.CAPath(), log) })
	if backup != nil {
		g.Go(func() error { return backup.Run(ctx) })
		return orderly(lastCopy(ctx, g.Wait(), backup, log))
	}
	return orderly(g.Wait())
}

// orderly makes the end that was asked for a success.
func orderly(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// audience is whom our tokens are for: this Tarn's API and gateway. Their issuer
// is the authorization server's URL.
const audience = "tarn"

// followEndpoints keeps the gateway listening on every endpoint's address and
// its pooler's.
func followEndpoints(ctx context.Context, ctl *control.Control, gate *gateway.Server) error {
	for {
		// The channel first: a change while we list is then not missed.
		changed := ctl.EndpointsChanged()
		all, err := ctl.AllEndpoints(ctx)
		if err != nil {
			return err
		}
		addrs := make([]netip.AddrPort, 0, 2*len(all))
		for _, e := range all {
			a, err := netip.ParseAddr(e.Host)
			if err != nil {
				return fmt.Errorf("address of %s: %w", e.Name, err)
			}
			addrs = append(addrs, netip.AddrPortFrom(a, uint16(e.Port)))
			if a, err = netip.ParseAddr(e.PoolerHost()); err == nil {
				addrs = append(addrs, netip.AddrPortFrom(a, uint16(e.Port)))
			}
		}
		gate.SetAddresses(addrs)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// readyPath answers 200 once requests are served.
const readyPath = "/.well-known/databricks-config"

func serveHTTP(ctx context.Context, c serverConfig, h http.Handler, log *slog.Logger) error {
	l, err := net.Listen("tcp", c.API)
	if err != nil {
		return tarn.Unavailable("listen on %s: %w", c.API, err).WithHint("another program has the address: choose one with --listen")
	}
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog:    slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	if c.TLSCert != "" {
		cert, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
		if err != nil {
			return errors.Join(tarn.Invalid("load the API's certificate: %w", err), l.Close())
		}
		srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
		l = tls.NewListener(l, srv.TLSConfig)
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := srv.Shutdown(end); err != nil {
		return errors.Join(err, srv.Close())
	}
	<-done
	return nil
}

// router tells the gateway which endpoint a client means.
type router struct {
	control *control.Control
	db      *controldb.DB
}

func (r *router) Resolve(ctx context.Context, k gateway.RouteKey) (gateway.Route, error) {
	v, err := r.reach(ctx, k)
	if err != nil {
		return gateway.Route{}, err
	}
	to := gateway.Route{Endpoint: control.Observe(ctx, r.control, v.Endpoint), Allowed: v.Allowed}
	to.Pooled = k.Address.IsValid() && k.Address.String() == to.Endpoint.PoolerHost()
	if v.DisableNativeLogin {
		to.Logins = gateway.TokensOnly
	}
	return to, nil
}

// reach finds what k means. A project, or its UID, which stands in the host names
// of the Provisioned API, means its default branch's endpoint.
func (r *router) reach(ctx context.Context, k gateway.RouteKey) (controldb.Reached, error) {
	p := tarn.ProjectName{Project: k.Project}
	switch uid, instance := strings.CutPrefix(k.Endpoint, tarn.InstancePrefix); {
	case instance:
		of, err := controldb.ProjectOfUID(ctx, r.db, uid)
		if err != nil {
			return controldb.Reached{}, err
		}
		p = of.Name
	case k.Endpoint != "":
		return controldb.ReachUID(ctx, r.db, k.Endpoint)
	case k.Address.IsValid():
		return controldb.ReachHost(ctx, r.db, k.Address.String(), tarn.PooledHost(k.Address))
	}
	return controldb.ReachName(ctx, r.db, p.Branch(tarn.DefaultBranch).Endpoint(tarn.DefaultEndpoint))
}

func (r *router) Wake(ctx context.Context, n tarn.EndpointName) (tarn.ComputeStatus, error) {
	return r.control.WakeEndpoint(ctx, n)
}

// welcome makes sure that the command line of whoever started Tarn has a token
// that works: at the first start, and when its profile was lost.
func (c *serverConfig) welcome(ctx context.Context, apiURL string, ctl *control.Control, b control.Beginning) error {
	p, err := loadProfile("")
	if err != nil {
		return err
	}
	secret := b.Token
	if secret == "" {
		if sameHost(p.Host, apiURL) && p.Token != "" {
			if _, err := ctl.Authenticate(ctx, p.Token); err == nil {
				secret = tarn.Secret(p.Token)
			}
		}
		if secret == "" {
			if _, secret, err = ctl.CreateToken(ctx, b.Owner, "tarn up", 0); err != nil {
				return fmt.Errorf("make a token for the profile: %w", err)
			}
		}
	}
	now := profile{Host: apiURL, Token: secret.Reveal(), Project: p.Project, Data: c.Data}
	if sameHost(p.Host, apiURL) {
		now.SignIn = p.SignIn // whoever signed in goes on as that one
	}
	if now == p {
		return nil
	}
	_, err = saveProfile("", now)
	return err
}
