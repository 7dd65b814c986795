package gateway_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"go.uber.org/goleak"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/gateway"
	"github.com/tarndb/tarn/internal/token"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const domain = "db.example.test"

// town is a router whose endpoints and computes a test decides.
type town struct {
	mu        sync.Mutex
	endpoints []tarn.Endpoint
	addrs     map[netip.Addr]string // → UID
	logins    gateway.Logins
	allowed   []netip.Prefix
	wakes     int
	wake      func(ctx context.Context, n tarn.EndpointName) (tarn.ComputeStatus, error)
}

func endpoint(project string) tarn.Endpoint {
	var e tarn.Endpoint
	e.Name = tarn.ProjectName{Project: project}.Branch("production").Endpoint("primary")
	e.UID = "ep-" + project
	e.State = tarn.EndpointActive
	return e
}

func (t *town) Resolve(_ context.Context, k gateway.RouteKey) (gateway.Route, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.endpoints {
		if k.Endpoint == e.UID || k.Project != "" && k.Project == e.Name.Project || k.Address.IsValid() && t.addrs[k.Address] == e.UID {
			return gateway.Route{Endpoint: e, Logins: t.logins, Allowed: t.allowed}, nil
		}
	}
	return gateway.Route{}, tarn.NotFound("no endpoint %+v", k)
}

func (t *town) Wake(ctx context.Context, n tarn.EndpointName) (tarn.ComputeStatus, error) {
	t.mu.Lock()
	t.wakes++
	wake := t.wake
	t.mu.Unlock()
	return wake(ctx, n)
}

// set changes the town under its lock.
func (t *town) set(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f()
}

func (t *town) woken() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.wakes
}

// memory is a key store that lives as long as its test.
type memory struct {
	mu   sync.Mutex
	keys []token.Key
}

func (m *memory) SigningKeys(context.Context) ([]token.Key, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]token.Key(nil), m.keys...), nil
}

func (m *memory) AddSigningKey(_ context.Context, k token.Key) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keys = append(m.keys, k)
	return nil
}

// gate is a running gateway.
type gate struct {
	*gateway.Server
	town   *town
	signer *token.Signer
	main   netip.AddrPort // shared
	own    netip.AddrPort // of the first endpoint
	stop   func()         // ends Run and waits for it
}

// open runs a gateway with a shared address and one for the town's first
// endpoint.
func open(t *testing.T, tw *town, change func(*gateway.Config)) *gate {
	t.Helper()
	g := &gate{town: tw, signer: token.NewSigner(&memory{}, "http://tarn.test", "42", token.Options{})}
	home := netip.MustParseAddr("127.9.0.1")
	tw.addrs = map[netip.Addr]string{home: tw.endpoints[0].UID}
	c := gateway.Config{
		Router: tw, Verifier: g.signer, Dir: filepath.Join(t.TempDir(), "gateway"), Domain: domain,
		Main: netip.MustParseAddrPort("127.0.0.1:0"),
		Log:  slog.New(slog.NewTextHandler(lines{t}, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: listed(t)})),
	}
	if change != nil {
		change(&c)
	}
	g.Server = gateway.New(c)
	g.SetAddresses([]netip.AddrPort{netip.AddrPortFrom(home, 0)})
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- g.Run(ctx) }()
	g.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("gateway: %v", err)
		}
	})
	t.Cleanup(g.stop)
	if err := g.WaitListening(t.Context()); err != nil {
		t.Fatal(err)
	}
	l := g.Listening()
	g.main, g.own = l[0], l[len(l)-1]
	return g
}

// listed checks that the log's keys are those of ARCHITECTURE.md.
func listed(t *testing.T) func([]string, slog.Attr) slog.Attr {
	return func(groups []string, a slog.Attr) slog.Attr {
		switch key := cmp.Or(strings.Join(groups, "."), a.Key); key {
		case slog.TimeKey, slog.LevelKey, slog.MessageKey:
		case "project", "branch", "endpoint", "timeline", "lsn", "seq", "table", "took", "err", "addr", "path":
		case "role", "database", "app", "how", "in", "out", "statements", "wake", "steps", "start":
		default:
			t.Errorf("%q is not in the list of the log's keys", key)
		}
		return a
	}
}

// lines writes a log to a test.
type lines struct{ t *testing.T }

func (l lines) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("eyJ")) || bytes.Contains(p, []byte("of app")) {
		l.t.Errorf("a secret in the log: %s", p)
	}
	l.t.Logf("%s", p[:len(p)-1])
	return len(p), nil
}

func (g *gate) roots(t *testing.T) *x509.CertPool {
	t.Helper()
	b, err := os.ReadFile(g.CAPath())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		t.Fatalf("no certificate in %s", b)
	}
	return pool
}

// wire is a client that speaks bytes.
type wire struct {
	t *testing.T
	net.Conn
}

func dial(t *testing.T, a netip.AddrPort) *wire {
	t.Helper()
	c, err := net.Dial("tcp", a.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return &wire{t, c}
}

const (
	codeCancel = 80877102
	codeSSL    = 80877103
	codeGSS    = 80877104
	v30        = 3 << 16
	v32        = 3<<16 | 2
)

func packet(code uint32, body string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
	return append(binary.BigEndian.AppendUint32(b, code), body...)
}

func startup(code uint32, params ...string) []byte {
	body := ""
	for _, p := range params {
		body += p + "\x00"
	}
	return packet(code, body+"\x00")
}

func (w *wire) say(b ...[]byte) {
	w.t.Helper()
	var all []byte
	for _, p := range b {
		all = append(all, p...)
	}
	if _, err := w.Write(all); err != nil {
		w.t.Fatal(err)
	}
}

func (w *wire) byte() byte {
	w.t.Helper()
	var b [1]byte
	if _, err := io.ReadFull(w, b[:]); err != nil {
		w.t.Fatal(err)
	}
	return b[0]
}

// upgrade does what a client does after 'S', or at once.
func (w *wire) upgrade(c *tls.Config) *wire {
	w.t.Helper()
	if c == nil {
		c = &tls.Config{}
	}
	c.InsecureSkipVerify = true
	s := tls.Client(w.Conn, c)
	if err := s.Handshake(); err != nil {
		w.t.Fatal(err)
	}
	return &wire{w.t, s}
}

// secure goes through SSLRequest.
func secure(t *testing.T, a netip.AddrPort, serverName string) *wire {
	t.Helper()
	w := dial(t, a)
	w.say(packet(codeSSL, ""))
	if b := w.byte(); b != 'S' {
		t.Fatalf("SSLRequest answered %q", b)
	}
	return w.upgrade(&tls.Config{ServerName: serverName})
}

// message reads one message.
func (w *wire) message() (byte, []byte) {
	w.t.Helper()
	var h [5]byte
	if _, err := io.ReadFull(w, h[:]); err != nil {
		w.t.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint32(h[1:])-4)
	if _, err := io.ReadFull(w, body); err != nil {
		w.t.Fatal(err)
	}
	return h[0], body
}

// refused reads an error that ends the connection; every field Postgres
// promises must be there.
func (w *wire) refused(code string) *pgproto3.ErrorResponse {
	w.t.Helper()
	kind, body := w.message()
	if kind != 'E' {
		w.t.Fatalf("message %q %q, want an error %s", kind, body, code)
	}
	var e pgproto3.ErrorResponse
	if err := e.Decode(body); err != nil {
		w.t.Fatal(err)
	}
	if e.Severity != "FATAL" || e.SeverityUnlocalized != "FATAL" || e.Code != code || e.Message == "" {
		w.t.Errorf("error %+v, want FATAL %s", e, code)
	}
	w.closed()
	return &e
}

// closed reads the end of the connection.
func (w *wire) closed() {
	w.t.Helper()
	var b [1]byte
	if n, err := w.Read(b[:]); err == nil {
		w.t.Errorf("read %q, want the end", b[:n])
	} else if e, ok := err.(net.Error); ok && e.Timeout() {
		w.t.Error("the connection was not closed")
	}
}
