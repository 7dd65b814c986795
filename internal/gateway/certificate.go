package gateway

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	serverLife    = 90 * 24 * time.Hour
	serverRenewal = 30 * 24 * time.Hour // a certificate older than this is replaced
	maxIssued     = 1024                // server certificates kept; one per local address
)

// authority is the gateway's own certificate authority and the server
// certificates it has issued, one for each local address a client connected
// to. A server certificate lives only in memory: clients trust the authority.
type authority struct {
	cert  *x509.Certificate
	key   *ecdsa.PrivateKey
	fake  []byte   // secret from which made-up salts of unknown roles come
	names []string // DNS names of every server certificate
	host  *ecdsa.PrivateKey

	mu     sync.Mutex
	issued map[netip.Addr]*issued
}

// issued is one server certificate.
type issued struct {
	tls  tls.Certificate
	hash []byte // tls-server-end-point: SHA-256 of the certificate
	made time.Time
}

// openAuthority reads the authority in dir, or makes one:
//
//  1. ca.key is written and synced (a crash before: nothing; after: a key
//     without a certificate)
//  2. ca.crt is written from the key (a crash before is mended by the next
//     start, which finds the key and goes on here)
func openAuthority(dir, domain string, names []string) (*authority, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("open certificate authority: %w", err)
	}
	keyPath, certPath := filepath.Join(dir, "ca.key"), filepath.Join(dir, "ca.crt")
	_, err := os.Stat(certPath)
	haveCert := err == nil
	keyPEM, err := os.ReadFile(keyPath)
	if errors.Is(err, fs.ErrNotExist) {
		if haveCert {
			return nil, fmt.Errorf("open certificate authority: %s is there but %s is gone; restore the key, or remove the certificate to start a new authority that clients must be given", certPath, keyPath)
		}
		keyPEM, err = makeKey(keyPath)
	}
	if err != nil {
		return nil, fmt.Errorf("open certificate authority: %w", err)
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("open certificate authority: %s: %w", keyPath, err)
	}
	if !haveCert {
		if err := makeCert(certPath, key); err != nil {
			return nil, fmt.Errorf("open certificate authority: %w", err)
		}
	}
	cert, err := readCert(certPath, key)
	if err != nil {
		return nil, fmt.Errorf("open certificate authority: %s: %w", certPath, err)
	}
	host, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("open certificate authority: %w", err)
	}
	all := append([]string{"localhost"}, names...)
	if domain != "" {
		all = append(all, domain, "*."+domain)
	}
	raw, err := key.Bytes()
	if err != nil {
		return nil, fmt.Errorf("open certificate authority: %s: %w", keyPath, err)
	}
	return &authority{
		cert: cert, key: key, names: all, host: host, issued: make(map[netip.Addr]*issued),
		fake: keyed(raw, []byte("tarn gateway: salts of unknown roles")),
	}, nil
}

func makeKey(path string) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	b := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return b, replaceFile(path, b, 0o600)
}

func parseKey(b []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("no PEM block PRIVATE KEY")
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	e, ok := k.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("not an ECDSA key")
	}
	return e, nil
}

func makeCert(path string, key *ecdsa.PrivateKey) error {
	now := time.Now()
	serial, err := serialNumber()
	if err != nil {
		return err
	}
	t := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "Tarn gateway authority"},
		NotBefore:             now.Add(-time.Hour), // clients' clocks may be behind
		NotAfter:              now.Add(authorityLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return err
	}
	return replaceFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

func readCert(path string, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("no PEM block CERTIFICATE")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err
	}
	if pub, ok := cert.PublicKey.(*ecdsa.PublicKey); !ok || !pub.Equal(&key.PublicKey) {
		return nil, errors.New("it does not belong to ca.key")
	}
	return cert, nil
}

// replaceFile writes a file so that its name never shows half of it.
func replaceFile(path string, b []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already when all went well
	if err := errors.Join(f.Chmod(mode), writeAll(f, b), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func writeAll(f *os.File, b []byte) error {
	_, err := f.Write(b)
	return err
}

func serialNumber() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	return n.Add(n, big.NewInt(1)), nil
}

// forAddr returns the certificate for clients that connected to a local
// address. One certificate for all addresses would have to be made anew with
// every endpoint and grow without end.
func (a *authority) forAddr(local netip.Addr) (*issued, error) {
	local = local.Unmap()
	a.mu.Lock()
	defer a.mu.Unlock() // signing takes 50 µs and does no I/O
	if c := a.issued[local]; c != nil && time.Since(c.made) < serverRenewal {
		return c, nil
	}
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: a.names[len(a.names)-1]},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(serverLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     a.names,
		IPAddresses:  []net.IP{local.AsSlice()},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, &a.host.PublicKey, a.key)
	if err != nil {
		return nil, fmt.Errorf("issue server certificate for %s: %w", local, err)
	}
	if len(a.issued) >= maxIssued {
		clear(a.issued)
	}
	hash := sha256.Sum256(der)
	c := &issued{
		tls:  tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: a.host},
		hash: hash[:],
		made: now,
	}
	a.issued[local] = c
	return c, nil
}

// config is the TLS side of one connection. The certificate is chosen before
// the handshake, because SCRAM may bind to it afterwards.
func (c *issued) config() *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{c.tls},
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{alpn},
		// Postgres issues no session tickets either: its clients never resume,
		// and channel binding needs the certificate of this very handshake.
		SessionTicketsDisabled: true,
	}
}

// alpn is the protocol name clients offer, and must offer when they begin with
// TLS at once.
const alpn = "postgresql"
