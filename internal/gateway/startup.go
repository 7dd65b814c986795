package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
)

const (
	requestCancel = 1234<<16 | 5678
	requestSSL    = 1234<<16 | 5679
	requestGSS    = 1234<<16 | 5680

	maxStartup   = 10_000 // Postgres's own limit of a startup packet
	newestMinor  = 2      // protocol 3.2: long cancel keys
	versionMajor = 3
)

// packet is a message without a type byte, as they come before the session.
type packet struct {
	code uint32
	body []byte // after the code
}

// readPacket reads one packet; its length is checked before its body is
// allocated.
func readPacket(r io.Reader) (packet, error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:4]); err != nil {
		return packet{}, err
	}
	n := binary.BigEndian.Uint32(head[:4])
	if n < 8 || n > maxStartup {
		return packet{}, violation("invalid length of startup packet")
	}
	if _, err := io.ReadFull(r, head[4:]); err != nil {
		return packet{}, err
	}
	p := packet{code: binary.BigEndian.Uint32(head[4:]), body: make([]byte, n-8)}
	_, err := io.ReadFull(r, p.body)
	return p, err
}

// greet brings the connection to the first packet that means something: the
// startup or a cancel request. What may come before it, each at most once:
//
//	TLS at once (ALPN) ─────────────────────────┐
//	GSSENCRequest ─▶ 'N' ─┐                     ▼
//	                      └▶ SSLRequest ─▶ 'S', TLS ─▶ startup | cancel
//	                                          plain ─▶ cancel (startup is refused)
func (c *client) greet(ctx context.Context) (packet, error) {
	// A packet is read through a buffer so that bytes a client sent too early
	// are noticed: what stands in it when TLS begins was never encrypted.
	if slices.ContainsFunc(c.s.c.Proxies, func(p netip.Prefix) bool { return p.Contains(c.remote.Addr()) }) {
		from, err := readProxyHeader(c.raw)
		if err != nil {
			return packet{}, err
		}
		if from.IsValid() {
			c.remote = from
		}
	}
	r := bufio.NewReaderSize(c.raw, 16)
	first, err := r.Peek(1)
	if err != nil {
		return packet{}, err
	}
	if first[0] == recordHandshake {
		if err := c.upgrade(ctx, &buffered{TCPConn: c.raw, r: r}); err != nil {
			return packet{}, err
		}
		if c.tls.ConnectionState().NegotiatedProtocol != alpn {
			return packet{}, violation("direct TLS connection without ALPN protocol %q", alpn)
		}
		return c.inside()
	}
	triedGSS := false
	for {
		p, err := readPacket(r)
		if err != nil {
			return packet{}, err
		}
		switch {
		case p.code == requestCancel:
			return p, nil
		case p.code == requestSSL || p.code == requestGSS && !triedGSS:
			if len(p.body) != 0 {
				return packet{}, violation("invalid length of encryption request")
			}
			if r.Buffered() > 0 {
				return packet{}, violation("received unencrypted data after encryption request")
			}
			if p.code == requestGSS {
				triedGSS = true
				if _, err := c.raw.Write([]byte{'N'}); err != nil {
					return packet{}, err
				}
				continue
			}
			if _, err := c.raw.Write([]byte{'S'}); err != nil {
				return packet{}, err
			}
			if err := c.upgrade(ctx, c.raw); err != nil {
				return packet{}, err
			}
			return c.inside()
		case p.code == requestGSS:
			return packet{}, violation("GSSAPI encryption was refused already")
		case p.code>>16 != versionMajor:
			return packet{}, unsupportedVersion(p.code)
		default:
			return packet{}, &fatal{
				code: codeAuthSpec, msg: "SSL required: the gateway takes only encrypted connections",
				hint: "Add sslmode=require to the connection settings.",
			}
		}
	}
}

const recordHandshake = 0x16 // first byte of a TLS ClientHello record

// upgrade runs the TLS handshake.
func (c *client) upgrade(ctx context.Context, conn net.Conn) error {
	cert, err := c.s.authority.forAddr(c.local.Addr())
	if err != nil {
		return &fatal{code: codeInternal, msg: "no server certificate", err: err}
	}
	config := cert.config()
	if c.s.cert != nil {
		own := config.Certificates[0]
		config.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if f := c.s.cert.current(); !c.local.Addr().IsLoopback() || hello.ServerName != "" && f.tls.Leaf.VerifyHostname(hello.ServerName) == nil {
				cert = f
				return &f.tls, nil
			}
			return &own, nil
		}
	}
	t := tls.Server(conn, config)
	if err := t.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	c.tls, c.binding = t, cert.hash
	c.serverName = t.ConnectionState().ServerName
	return nil
}

// inside reads the first packet under TLS, where no further encryption can be
// asked for.
func (c *client) inside() (packet, error) {
	p, err := readPacket(c.tls)
	if err != nil {
		return packet{}, err
	}
	switch {
	case p.code == requestSSL || p.code == requestGSS:
		return packet{}, violation("encryption was negotiated already")
	case p.code != requestCancel && p.code>>16 != versionMajor:
		return packet{}, unsupportedVersion(p.code)
	}
	return p, nil
}

func unsupportedVersion(code uint32) error {
	return &fatal{code: codeUnsupported, msg: fmt.Sprintf(
		"unsupported frontend protocol %d.%d: server supports %d.0 to %d.%d",
		code>>16, code&0xffff, versionMajor, versionMajor, newestMinor)}
}

// buffered is a connection of which some bytes were read already.
type buffered struct {
	*net.TCPConn
	r *bufio.Reader
}

func (b *buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

// startup is what a client wants.
type startup struct {
	minor   uint32 // of the protocol from here on
	user    string
	params  []param  // everything to pass on, user left out
	unknown []string // protocol extensions (_pq_.…) we do not know
	older   bool     // the client asked for a newer protocol than minor
	route   routeOptions
}

type param struct{ name, value string }

func (s *startup) param(name string) string {
	for _, p := range s.params {
		if p.name == name {
			return p.value
		}
	}
	return ""
}

var errLayout = violation("invalid startup packet layout: expected terminator as last byte")

func parseStartup(p packet) (*startup, error) {
	s := &startup{minor: p.code & 0xffff}
	if s.minor > newestMinor {
		s.minor, s.older = newestMinor, true
	}
	b := string(p.body)
	for {
		name, rest, ok := strings.Cut(b, "\x00")
		if !ok {
			return nil, errLayout
		}
		if name == "" {
			if rest != "" {
				return nil, errLayout
			}
			break
		}
		value, rest, ok := strings.Cut(rest, "\x00")
		if !ok {
			return nil, errLayout
		}
		b = rest
		switch {
		case name == "user":
			s.user = value
		case strings.HasPrefix(name, "_pq_."):
			s.unknown = append(s.unknown, name)
		case name == "options":
			left, route, err := takeRoute(value)
			if err != nil {
				return nil, err
			}
			s.route = route
			if left != "" {
				s.set(name, left)
			}
		default:
			s.set(name, value)
		}
	}
	if s.user == "" {
		return nil, &fatal{code: codeAuthSpec, msg: "no PostgreSQL user name specified in startup packet"}
	}
	return s, nil
}

// set keeps the last value of a parameter, as Postgres does.
func (s *startup) set(name, value string) {
	for i := range s.params {
		if s.params[i].name == name {
			s.params[i].value = value
			return
		}
	}
	s.params = append(s.params, param{name, value})
}

// quiet says whether an error of reading is only a client that left, a port
// scan or a probe of a load balancer.
func quiet(err error) bool {
	var n net.Error
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &n)
}
