package gateway_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tarndb/tarn/internal/gateway"
)

// writePair writes a self-signed certificate for a name.
func writePair(t *testing.T, dir, name string, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	k, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, b := range map[string]*pem.Block{"tls.crt": {Type: "CERTIFICATE", Bytes: der}, "tls.key": {Type: "PRIVATE KEY", Bytes: k}} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCertificateFiles(t *testing.T) {
	dir := t.TempDir()
	writePair(t, dir, "*."+domain, 1)
	g := open(t, asleep(), func(c *gateway.Config) {
		c.CertFile, c.KeyFile = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	})
	serial := func(name string) string {
		w := secure(t, g.main, name)
		c := w.Conn.(*tls.Conn).ConnectionState().PeerCertificates[0]
		w.Close()
		if c.Issuer.CommonName == "Tarn gateway authority" {
			return "authority"
		}
		return c.SerialNumber.String()
	}
	if got := serial("ep-shop."+domain) + serial("") + serial("localhost"); got != "1authorityauthority" {
		t.Errorf("certificates %q", got)
	}
	// Half of a new pair changes nothing, the whole one does without a restart.
	if err := os.WriteFile(filepath.Join(dir, "tls.crt"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := serial("ep-shop." + domain); got != "1" {
		t.Errorf("certificate %q", got)
	}
	writePair(t, dir, "*."+domain, 22)
	until(t, "the new certificate is used", func() bool { return serial("ep-shop."+domain) == "22" })
}

// proxyHeader is a header of the PROXY protocol.
func proxyHeader(command, family byte, addrs ...byte) []byte {
	b := append([]byte("\r\n\r\n\x00\r\nQUIT\n"), command, family)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(addrs))), addrs...)
}

func TestProxyProtocol(t *testing.T) {
	g := open(t, asleep(), func(c *gateway.Config) { c.Proxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	g.town.set(func() {
		g.town.allowed = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}
	})
	six := append(append(netip.MustParseAddr("2001:db8::1").AsSlice(), make([]byte, 16)...), 1, 2, 3, 4)
	for name, c := range map[string]struct {
		head []byte
		want string
	}{
		"allowed":        {proxyHeader(0x21, 0x11, 192, 0, 2, 7, 127, 0, 0, 1, 4, 210, 21, 56), ""},
		"with extension": {proxyHeader(0x21, 0x11, 192, 0, 2, 7, 127, 0, 0, 1, 4, 210, 21, 56, 4, 0, 1, 9), ""},
		"IPv6":           {proxyHeader(0x21, 0x21, six...), ""},
		"elsewhere":      {proxyHeader(0x21, 0x11, 198, 51, 100, 7, 127, 0, 0, 1, 4, 210, 21, 56), "198.51.100.7"},
		"a check":        {proxyHeader(0x20, 0), "127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			w := dial(t, g.own)
			w.say(c.head, packet(codeSSL, ""))
			if b := w.byte(); b != 'S' {
				t.Fatalf("%q", b)
			}
			w = w.upgrade(nil)
			w.say(startup(v30, "user", "app"))
			if c.want == "" {
				w.refused("57P03") // it was let in as far as the compute, which does not come
			} else if e := w.refused("28000"); !strings.Contains(e.Message, c.want) {
				t.Error(e.Message)
			}
		})
	}
	for name, head := range map[string][]byte{
		"none":      bytes.Repeat(packet(codeSSL, ""), 3),
		"version 1": []byte("PROXY TCP4 192.0.2.7 127.0.0.1 1234 5432\r\n"),
		"UDP":       proxyHeader(0x21, 0x12, 192, 0, 2, 7, 127, 0, 0, 1, 4, 210, 21, 56),
		"short":     proxyHeader(0x21, 0x11, 192, 0, 2, 7),
		"too long":  proxyHeader(0x21, 0x11, make([]byte, 4000)...),
	} {
		t.Run(name, func(t *testing.T) {
			w := dial(t, g.own)
			w.say(head)
			w.refused("08P01")
		})
	}
}

// TestAllowedNetworks: also for cancel requests, and before any wake.
func TestAllowedNetworks(t *testing.T) {
	g := open(t, asleep(), nil)
	g.town.set(func() { g.town.allowed = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} })
	w := secure(t, g.own, "")
	w.say(startup(v30, "user", "app"))
	if e := w.refused("28000"); !strings.Contains(e.Hint, "--allow-ip") {
		t.Errorf("hint %q", e.Hint)
	}
	if n := g.town.woken(); n != 0 {
		t.Errorf("%d wakes", n)
	}
}
