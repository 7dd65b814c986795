package gateway_test

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/gateway"
)

// asleep is a town of two endpoints whose computes cannot be woken.
func asleep() *town {
	return &town{
		endpoints: []tarn.Endpoint{endpoint("shop"), endpoint("lab")},
		wake: func(context.Context, tarn.EndpointName) (tarn.ComputeStatus, error) {
			return tarn.ComputeStatus{}, tarn.Unavailable("no room").WithHint("Make room.")
		},
	}
}

func TestGreetings(t *testing.T) {
	g := open(t, asleep(), nil)
	hello := startup(v30, "user", "ada")

	t.Run("GSS then SSL", func(t *testing.T) {
		w := dial(t, g.own)
		w.say(packet(codeGSS, ""))
		if b := w.byte(); b != 'N' {
			t.Fatalf("GSSENCRequest answered %q", b)
		}
		w.say(packet(codeSSL, ""))
		if b := w.byte(); b != 'S' {
			t.Fatalf("SSLRequest answered %q", b)
		}
		w = w.upgrade(nil)
		w.say(hello)
		if e := w.refused("57P03"); e.Hint != "Make room." {
			t.Errorf("hint %q", e.Hint)
		}
	})
	t.Run("GSS twice", func(t *testing.T) {
		w := dial(t, g.own)
		w.say(packet(codeGSS, ""))
		w.byte()
		w.say(packet(codeGSS, ""))
		w.refused("08P01")
	})
	t.Run("bytes behind SSLRequest", func(t *testing.T) {
		w := dial(t, g.own)
		w.say(packet(codeSSL, ""), hello)
		w.refused("08P01")
	})
	t.Run("bytes behind GSSENCRequest", func(t *testing.T) {
		w := dial(t, g.own)
		w.say(packet(codeGSS, ""), packet(codeSSL, ""))
		w.refused("08P01")
	})
	t.Run("SSL twice", func(t *testing.T) {
		w := dial(t, g.own)
		w.say(packet(codeSSL, ""))
		w.byte()
		w.say(packet(codeSSL, ""), hello)
		for { // a TLS alert may come, never another 'S' or a session
			var b [64]byte
			n, err := w.Read(b[:])
			if err != nil {
				break
			}
			if b[0] != 0x15 {
				t.Fatalf("answered %q", b[:n])
			}
		}
	})
	t.Run("SSL inside TLS", func(t *testing.T) {
		w := secure(t, g.own, "")
		w.say(packet(codeSSL, ""))
		w.refused("08P01")
	})
	t.Run("plain", func(t *testing.T) {
		w := dial(t, g.own)
		w.say(hello)
		if e := w.refused("28000"); !strings.Contains(e.Hint, "sslmode=require") {
			t.Errorf("hint %q", e.Hint)
		}
	})
	t.Run("protocol 2", func(t *testing.T) {
		w := dial(t, g.own)
		w.say(packet(2<<16, "rest"))
		w.refused("0A000")
		w = secure(t, g.own, "")
		w.say(packet(4<<16, "rest"))
		w.refused("0A000")
	})
	for name, b := range map[string][]byte{
		"too short": {0, 0, 0, 7, 0, 3, 0, 0}, "too long": binary.BigEndian.AppendUint32(nil, 10_001),
		"negative": {0xff, 0xff, 0xff, 0xff}, "http": []byte("GET / HTTP/1.1\r\n\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			w := dial(t, g.own)
			w.say(b)
			w.refused("08P01")
		})
	}
	t.Run("layout", func(t *testing.T) {
		for _, body := range []string{"", "user", "user\x00", "user\x00ada", "user\x00ada\x00", "user\x00ada\x00\x00more"} {
			w := secure(t, g.own, "")
			w.say(packet(v30, body))
			w.refused("08P01")
		}
	})
	t.Run("no user", func(t *testing.T) {
		w := secure(t, g.own, "")
		w.say(startup(v30, "database", "db"))
		w.refused("28000")
	})
	t.Run("gone at once", func(t *testing.T) {
		dial(t, g.own).Close()
		secure(t, g.own, "").Close()
	})
	t.Run("unknown cancel key", func(t *testing.T) {
		for _, body := range []string{"", "1234", "12345678", strings.Repeat("x", 260), strings.Repeat("x", 261)} {
			w := dial(t, g.own)
			w.say(packet(codeCancel, body))
			w.closed()
			w = secure(t, g.own, "")
			w.say(packet(codeCancel, body))
			w.closed()
		}
	})
}

func TestDirectTLS(t *testing.T) {
	g := open(t, asleep(), nil)
	w := dial(t, g.main).upgrade(&tls.Config{NextProtos: []string{"postgresql"}, ServerName: "ep-shop." + domain})
	w.say(startup(v30, "user", "ada"))
	w.refused("57P03")

	w = dial(t, g.main).upgrade(&tls.Config{ServerName: "ep-shop"})
	w.say(startup(v30, "user", "ada"))
	w.refused("08P01")

	for _, c := range []*tls.Config{{NextProtos: []string{"h2"}}, {MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}} {
		c.InsecureSkipVerify = true
		if err := tls.Client(dial(t, g.main), c).Handshake(); err == nil {
			t.Errorf("handshake with %v, TLS %x went well", c.NextProtos, c.MaxVersion)
		}
	}
}

func TestNegotiation(t *testing.T) {
	g := open(t, asleep(), nil)
	for _, c := range []struct {
		code    uint32
		version uint32 // 0 = not negotiated
		options []string
	}{
		{code: v30}, {code: v32}, {code: 3<<16 | 1},
		{code: 3<<16 | 9999, version: v32},
		{code: v30, version: v30, options: []string{"_pq_.x", "_pq_.y"}},
		{code: v32, version: v32, options: []string{"_pq_.x"}},
	} {
		w := secure(t, g.own, "")
		params := []string{"user", "ada"}
		for _, o := range c.options {
			params = append(params, o, "on")
		}
		w.say(startup(c.code, params...))
		if c.version != 0 {
			kind, body := w.message()
			want := binary.BigEndian.AppendUint32(nil, c.version)
			want = binary.BigEndian.AppendUint32(want, uint32(len(c.options)))
			for _, o := range c.options {
				want = append(want, o+"\x00"...)
			}
			if kind != 'v' || string(body) != string(want) {
				t.Errorf("%x: %q %q, want 'v' %q", c.code, kind, body, want)
			}
		}
		w.refused("57P03")
	}
}

func TestRoutes(t *testing.T) {
	g := open(t, asleep(), nil)
	for _, c := range []struct {
		name, server, options string
		at                    netip.AddrPort
		code, says            string
	}{
		{"own address", "", "", g.own, "57P03", "ep-shop"},
		{"server name", "ep-lab." + domain, "", g.main, "57P03", "ep-lab"},
		{"server name, other domain", "ep-lab.elsewhere.test", "", g.main, "57P03", "ep-lab"},
		{"server name in capitals", "EP-LAB." + strings.ToUpper(domain), "", g.main, "57P03", "ep-lab"},
		{"option", "", "endpoint=ep-lab", g.main, "57P03", "ep-lab"},
		{"option among others", "localhost", "-c geqo=off -c endpoint=ep-lab", g.main, "57P03", "ep-lab"},
		{"project", "", "--project=lab", g.main, "57P03", "ep-lab"},
		{"all agree", "ep-shop." + domain, "endpoint=ep-shop project=shop", g.own, "57P03", "ep-shop"},
		{"none", "localhost", "", g.main, "08004", "no endpoint was named"},
		{"unknown option", "", "endpoint=ep-none", g.main, "08004", `"ep-none"`},
		{"unknown option at an address", "", "endpoint=ep-none", g.own, "08004", `"ep-none"`},
		{"unknown server name", "none." + domain, "", g.main, "08004", `"none"`},
		{"unknown project", "", "project=none", g.main, "08004", `"none"`},
		{"address and option", "", "endpoint=ep-lab", g.own, "08004", "ep-shop but option endpoint=ep-lab means endpoint ep-lab"},
		{"name and option", "ep-shop." + domain, "endpoint=ep-lab", g.main, "08004", "ep-shop"},
		{"two options", "", "endpoint=ep-lab endpoint=ep-shop", g.main, "08004", "two different"},
		{"project and option", "", "endpoint=ep-lab project=shop", g.main, "08004", "ep-shop"},
		{"empty option", "", "endpoint=", g.main, "08004", "no value"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := secure(t, c.at, c.server)
			w.say(startup(v30, "user", "ada", "options", c.options))
			e := w.refused(c.code)
			if !strings.Contains(e.Message, c.says) || e.Hint == "" {
				t.Errorf("%q (%q), want %q and a hint", e.Message, e.Hint, c.says)
			}
		})
	}
}

func TestWakeErrors(t *testing.T) {
	tw := asleep()
	g := open(t, tw, func(c *gateway.Config) { c.Wake = 200 * time.Millisecond })
	for code, err := range map[string]error{
		"55000": tarn.Conflict("endpoint is disabled").WithHint("Enable it."),
		"08004": tarn.NotFound("endpoint is gone"),
		"57P03": context.DeadlineExceeded, // anything else
	} {
		tw.set(func() {
			tw.wake = func(context.Context, tarn.EndpointName) (tarn.ComputeStatus, error) {
				return tarn.ComputeStatus{}, err
			}
		})
		w := secure(t, g.own, "")
		w.say(startup(v30, "user", "ada"))
		if e := w.refused(code); e.Hint == "" {
			t.Errorf("%s without a hint", code)
		}
	}
	// A compute that never comes costs the budget, not more.
	tw.set(func() {
		tw.wake = func(ctx context.Context, _ tarn.EndpointName) (tarn.ComputeStatus, error) {
			<-ctx.Done()
			return tarn.ComputeStatus{}, ctx.Err()
		}
	})
	w := secure(t, g.own, "")
	w.say(startup(v30, "user", "ada"))
	if e := w.refused("57P03"); !strings.Contains(e.Message, "200ms") {
		t.Errorf("message %q", e.Message)
	}
}

func TestStrangersCannotWakeWithoutEnd(t *testing.T) {
	tw := asleep()
	tw.endpoints[0].State = tarn.EndpointIdle
	g := open(t, tw, func(c *gateway.Config) { c.Wake = 50 * time.Millisecond })
	for range 40 {
		w := secure(t, g.own, "")
		w.say(startup(v30, "user", "postgres"))
		w.refused("57P03")
	}
	if n := tw.woken(); n != 20 {
		t.Errorf("40 strangers caused %d wakes", n)
	}
}

func TestHandshakeDeadline(t *testing.T) {
	g := open(t, asleep(), func(c *gateway.Config) { c.Handshake = 50 * time.Millisecond })
	for _, said := range [][]byte{nil, {0}, packet(codeSSL, "")[:7], packet(codeGSS, "")} {
		w := dial(t, g.own)
		if said != nil {
			w.say(said)
		}
		if len(said) == 8 {
			w.byte()
		}
		w.closed()
	}
}

func TestTooManyClients(t *testing.T) {
	g := open(t, asleep(), func(c *gateway.Config) { c.MaxClients = 1 })
	first := dial(t, g.own)
	first.say(packet(codeGSS, ""))
	first.byte() // it is admitted
	w := dial(t, g.own)
	w.refused("53300")
}

func TestStopInterruptsHandshakes(t *testing.T) {
	tw := asleep()
	asked := make(chan struct{})
	tw.wake = func(ctx context.Context, _ tarn.EndpointName) (tarn.ComputeStatus, error) {
		close(asked)
		<-ctx.Done()
		return tarn.ComputeStatus{}, ctx.Err()
	}
	g := open(t, tw, nil)
	silent := dial(t, g.own)
	silent.say(packet(codeGSS, ""))
	silent.byte()
	waiting := secure(t, g.own, "")
	waiting.say(startup(v30, "user", "ada"))
	<-asked
	g.stop()
	silent.closed()
	if _, err := net.DialTimeout("tcp", g.own.String(), time.Second); err == nil {
		t.Error("the address is still open")
	}
}

func TestAddresses(t *testing.T) {
	taken, err := net.Listen("tcp", "127.9.0.3:0")
	if err != nil {
		t.Fatal(err)
	}
	busy := taken.Addr().(*net.TCPAddr).AddrPort()
	other := netip.MustParseAddrPort("127.9.0.4:0")
	g := open(t, asleep(), func(c *gateway.Config) { c.Retry = 10 * time.Millisecond })

	g.SetAddresses([]netip.AddrPort{busy, other})
	err = g.WaitListening(t.Context())
	if tarn.KindOf(err) != tarn.KindUnavailable || !strings.Contains(err.Error(), busy.String()) || tarn.HintOf(err) == "" {
		t.Errorf("a taken address: %v", err)
	}
	if _, err := net.Dial("tcp", g.own.String()); err == nil {
		t.Error("an address that is no longer wanted is open")
	}
	w := secure(t, g.main, "ep-shop") // the shared address stays
	w.say(startup(v30, "user", "ada"))
	w.refused("57P03")

	taken.Close() // now it can be had
	for {
		if l := g.Listening(); len(l) == 3 && l[1] == busy {
			break
		}
		tick(t)
	}
	w = secure(t, busy, "ep-shop")
	w.say(startup(v30, "user", "ada"))
	w.refused("57P03")
}

// TestEveryAddress: on a listener for all addresses the one a client chose
// still leads to its endpoint.
func TestEveryAddress(t *testing.T) {
	g := open(t, asleep(), func(c *gateway.Config) { c.Main = netip.MustParseAddrPort("0.0.0.0:0") })
	if l := g.Listening(); len(l) != 1 {
		t.Fatalf("listening on %v", l)
	}
	for host, code := range map[string]string{"127.9.0.1": "57P03", "127.9.0.2": "08004"} {
		w := secure(t, netip.AddrPortFrom(netip.MustParseAddr(host), g.main.Port()), "")
		w.say(startup(v30, "user", "ada"))
		w.refused(code)
	}
}

// tick waits a moment between two looks at something that will be.
func tick(t *testing.T) {
	t.Helper()
	select {
	case <-time.After(2 * time.Millisecond):
	case <-t.Context().Done():
		t.Fatal("it never was")
	}
}

func TestAuthorityStays(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	use := func(c *gateway.Config) { c.Dir = dir }
	a := open(t, asleep(), use)
	roots := a.roots(t)
	a.stop()
	b := open(t, asleep(), use)
	for name, at := range map[string]netip.AddrPort{
		"127.9.0.1": b.own, "localhost": b.own, "ep-x." + domain: b.main, domain: b.main, "127.0.0.1": b.main,
	} {
		w := dial(t, at)
		w.say(packet(codeSSL, ""))
		w.byte()
		c := tls.Client(w.Conn, &tls.Config{RootCAs: roots, ServerName: name})
		if err := c.Handshake(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
