package gateway

import (
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

// certFile is a certificate and its key in files that somebody else renews.
type certFile struct {
	cert, key string
	now       atomic.Pointer[issued]
	seen      [2]fileState // of refresh alone
}

type fileState struct {
	size int64
	at   time.Time
}

func openCertFile(cert, key string) (*certFile, error) {
	f := &certFile{cert: cert, key: key}
	f.seen = f.state()
	c, err := f.load()
	if err != nil {
		return nil, err
	}
	f.now.Store(c)
	return f, nil
}

func (f *certFile) current() *issued { return f.now.Load() }

func (f *certFile) state() (s [2]fileState) {
	for i, name := range []string{f.cert, f.key} {
		if st, err := os.Stat(name); err == nil {
			s[i] = fileState{st.Size(), st.ModTime()}
		}
	}
	return s
}

// refresh loads the files again when one has changed. Until both belong
// together the certificate before stays in use.
func (f *certFile) refresh(log *slog.Logger) {
	if f == nil {
		return
	}
	s := f.state()
	if s == f.seen {
		return
	}
	f.seen = s
	c, err := f.load()
	if err != nil {
		log.Warn("gateway certificate not renewed", "path", f.cert, "err", err)
		return
	}
	f.now.Store(c)
	log.Info("gateway certificate renewed", "path", f.cert)
}

func (f *certFile) load() (*issued, error) {
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return nil, fmt.Errorf("load certificate %s and key %s: %w", f.cert, f.key, err)
	}
	if pair.Leaf == nil {
		return nil, errors.New("load certificate: no leaf")
	}
	return &issued{tls: pair, hash: endPointHash(pair.Leaf), made: time.Now()}, nil
}

// endPointHash is tls-server-end-point (RFC 5929): the certificate's hash by
// the hash function of its signature, SHA-256 in place of weaker ones. nil
// when the signature has none: channel binding is then not possible.
func endPointHash(c *x509.Certificate) []byte {
	switch c.SignatureAlgorithm {
	case x509.SHA384WithRSA, x509.ECDSAWithSHA384, x509.SHA384WithRSAPSS:
		h := sha512.Sum384(c.Raw)
		return h[:]
	case x509.SHA512WithRSA, x509.ECDSAWithSHA512, x509.SHA512WithRSAPSS:
		h := sha512.Sum512(c.Raw)
		return h[:]
	case x509.PureEd25519:
		return nil
	}
	h := sha256.Sum256(c.Raw)
	return h[:]
}
