// Package gateway is the door through which Postgres clients come in. It
// speaks the wire protocol up to the moment a session is open: TLS, which
// endpoint is meant, who asks, waking the endpoint's compute, logging in there
// on the client's behalf. From then on it moves bytes and looks at them only
// to know where messages end. It does not know how an endpoint is found or a
// compute is started (Router does), how tokens are signed (Verifier does), nor
// any SQL but the one lookup of a role.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/token"
)

// Router finds endpoints and wakes their computes.
type Router interface {
	// Resolve finds the endpoint a client means; tarn.KindNotFound when there
	// is none.
	Resolve(ctx context.Context, k RouteKey) (Route, error)
	// Wake returns the endpoint's compute once it accepts connections; many
	// callers share one start. It is also called for computes that run.
	Wake(ctx context.Context, n tarn.EndpointName) (tarn.ComputeStatus, error)
}

// RouteKey is one thing that says where a client wants to go. Exactly one
// field is set; a client that says it in several ways must mean one endpoint.
type RouteKey struct {
	Address  netip.Addr // local address the client connected to
	Endpoint string     // UID of an endpoint, from the TLS server name or from options=endpoint=…
	Project  string     // id of a project, whose default branch's endpoint is meant
}

// Route is an endpoint and how one may log in to it.
type Route struct {
	Endpoint tarn.Endpoint // State says whether a Wake will have to start something
	Logins   Logins
	Allowed  []netip.Prefix // where clients may come from; none = everywhere
	Pooled   bool           // through the pooler; the gateway itself reads it from names that end in -pooler
}

// Logins is which ways of proving oneself an endpoint takes.
type Logins uint8

// The ways to log in.
const (
	TokensAndPasswords Logins = iota
	TokensOnly                // native Postgres passwords are switched off
)

// Verifier checks access tokens; *token.Signer is one.
type Verifier interface {
	Verify(ctx context.Context, raw string) (token.Claims, error)
}

// Groups tells who is in which group of the workspace.
type Groups interface {
	MemberOf(ctx context.Context, member, group string) (bool, error)
}

// Config is what a Server is built from.
type Config struct {
	Router   Router
	Verifier Verifier
	Groups   Groups         // whose members may log in as a group's role; nil = nobody
	Issuer   string         // URL of the authorization server, for clients that fetch a token themselves
	Dir      string         // certificate authority; made at first start, its key with mode 0600
	Main     netip.AddrPort // shared address, routed by server name or options; zero = none
	Domain   string         // endpoints are also reached as <uid>.Domain; "" = no DNS
	Names    []string       // further DNS names in the server certificate
	Log      *slog.Logger   // nil = discarded
	Audit    Audit          // told of logins; nil = nobody is

	CertFile   string         // certificate for clients that name it, and for all on addresses beyond loopback; "" = the authority's
	KeyFile    string         // read again when either file changes
	Proxies    []netip.Prefix // load balancers, whose connections begin with a PROXY protocol v2 header
	Pool       Pool
	MaxClients int           // connections at once; 0 = 10 000
	Handshake  time.Duration // for a client to say what it wants and who it is; 0 = 20 s
	Wake       time.Duration // for a compute to start; 0 = 30 s
	Drain      time.Duration // for busy sessions to finish when Run ends; 0 = 5 s
	Retry      time.Duration // between attempts to bind an address that was taken; 0 = 5 s
}

// Pool is how many server connections clients of the pooler share.
type Pool struct {
	Servers int           // to one endpoint; 0 = 50
	PerRole int           // of one role to one database of it; 0 = as many
	Queue   time.Duration // how long a client waits for one; 0 = 2 min
}

// Server is the gateway. Its methods may be called from any goroutine, before
// and while Run works.
type Server struct {
	c         Config
	log       *slog.Logger
	cert      *certFile  // nil without Config.CertFile
	authority *authority // nil until Run has loaded it
	roles     *roleBook
	failures  *failures
	wakes     *wakeLimit
	sessions  *sessions
	touches   *touches
	pools     *pools
	metrics   *metrics
	doors     doors
	buffers   *sync.Pool

	mu      sync.Mutex // not held across I/O
	clients map[*client]struct{}
	ending  bool           // Run's context is over
	joined  sync.WaitGroup // every client's goroutine
}

// New builds a Server.
func New(c Config) *Server {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	orDefault(&c.MaxClients, 10_000)
	orDefault(&c.Handshake, 20*time.Second)
	orDefault(&c.Wake, 30*time.Second)
	orDefault(&c.Drain, 5*time.Second)
	orDefault(&c.Retry, 5*time.Second)
	orDefault(&c.Pool.Servers, 50)
	orDefault(&c.Pool.PerRole, c.Pool.Servers)
	orDefault(&c.Pool.Queue, 2*time.Minute)
	s := &Server{
		c: c, log: c.Log,
		roles: newRoleBook(), failures: newFailures(), wakes: newWakeLimit(), sessions: newSessions(), touches: newTouches(), buffers: newBuffers(),
		clients: make(map[*client]struct{}),
	}
	s.doors.init()
	s.pools = newPools(s)
	s.metrics = newMetrics(s.pools)
	if c.Main.IsValid() {
		s.SetAddresses(nil)
	}
	return s
}

func orDefault[T int | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

// CAPath is the file of the certificate that clients check the gateway
// against (sslrootcert). It exists once Run has begun.
func (s *Server) CAPath() string { return filepath.Join(s.c.Dir, "ca.crt") }

// Run takes connections until ctx ends, then lets idle sessions go at once and
// busy ones after Config.Drain. It returns an error only when it could not
// begin; an address that cannot be bound is logged and tried again.
func (s *Server) Run(ctx context.Context) error {
	a, err := openAuthority(s.c.Dir, s.c.Domain, s.c.Names)
	if err != nil {
		return fmt.Errorf("start gateway: %w", err)
	}
	s.authority = a
	if s.c.CertFile != "" {
		if s.cert, err = openCertFile(s.c.CertFile, s.c.KeyFile); err != nil {
			return fmt.Errorf("start gateway: %w", err)
		}
	}
	s.pools.ctx = ctx
	s.listen(ctx)
	s.drain()
	s.joined.Wait()
	s.pools.close()
	s.roles.close()
	return nil
}

// admit enters a client into the books; false when the gateway is full or
// ending.
func (s *Server) admit(c *client) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ending:
		return errEnding
	case len(s.clients) >= s.c.MaxClients:
		return &fatal{code: codeTooMany, msg: "sorry, too many clients already"}
	}
	s.clients[c] = struct{}{}
	s.joined.Add(1)
	return nil
}

func (s *Server) leave(c *client) {
	s.mu.Lock()
	delete(s.clients, c)
	s.mu.Unlock()
	s.joined.Done()
}

var errEnding = errors.New("the gateway is shutting down")

// drain tells every client that the end has come.
func (s *Server) drain() {
	s.mu.Lock()
	s.ending = true
	all := make([]*client, 0, len(s.clients))
	for c := range s.clients {
		all = append(all, c)
	}
	s.mu.Unlock()
	until := time.Now().Add(s.c.Drain)
	for _, c := range all {
		c.end(until)
	}
}
