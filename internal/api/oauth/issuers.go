package oauth

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/tarndb/tarn"
)

// issuers fetches and remembers the keys of other issuers. Only URLs that an
// admin wrote into a policy, or that such an issuer's own document names, are
// asked.
type issuers struct {
	http *http.Client

	mu sync.Mutex // not held across I/O
	by map[string]keySet
}

type keySet struct {
	keys jose.JSONWebKeySet
	at   time.Time
}

const (
	keysAge     = 5 * time.Minute  // how old keys may be
	keysReread  = 10 * time.Second // how soon an unknown key id makes us look again
	maxDocument = 1 << 20          // bytes
	askPatience = 5 * time.Second
	maxIssuers  = 256 // key sets remembered
)

func newIssuers() *issuers {
	return &issuers{by: make(map[string]keySet), http: &http.Client{
		Timeout:       askPatience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// key gives the public key an issuer signs with under kid.
func (i *issuers) key(ctx context.Context, p tarn.FederationPolicy, kid string) (any, error) {
	if p.JWKSJSON != "" {
		set, err := readKeys([]byte(p.JWKSJSON))
		if err != nil {
			return nil, tarn.Denied("policy %s: %w", p.ID, err)
		}
		if k, ok := pick(set, kid); ok {
			return k, nil
		}
		return nil, noKey(p, kid)
	}
	for _, age := range []time.Duration{keysAge, keysReread} {
		set, err := i.keys(ctx, p, age)
		if err != nil {
			return nil, tarn.Unavailable("ask issuer %q for its keys: %w", p.Issuer, err)
		}
		if k, ok := pick(set, kid); ok {
			return k, nil
		}
	}
	return nil, noKey(p, kid)
}

func (i *issuers) keys(ctx context.Context, p tarn.FederationPolicy, age time.Duration) (jose.JSONWebKeySet, error) {
	name := p.Issuer + "\x00" + p.JWKSURI
	i.mu.Lock()
	have, ok := i.by[name]
	i.mu.Unlock()
	if ok && time.Since(have.at) < age {
		return have.keys, nil
	}
	at := p.JWKSURI
	if at == "" {
		var err error
		if at, err = i.discover(ctx, p.Issuer); err != nil {
			return jose.JSONWebKeySet{}, err
		}
	}
	b, err := i.fetch(ctx, at)
	if err != nil {
		return jose.JSONWebKeySet{}, err
	}
	set, err := readKeys(b)
	if err != nil {
		return set, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.by) >= maxIssuers {
		clear(i.by)
	}
	i.by[name] = keySet{keys: set, at: time.Now()}
	return set, nil
}

// discover asks an issuer where its keys are.
func (i *issuers) discover(ctx context.Context, issuer string) (string, error) {
	b, err := i.fetch(ctx, strings.TrimRight(issuer, "/")+"/.well-known/openid-configuration")
	if err != nil {
		return "", err
	}
	var d struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(b, &d); err != nil {
		return "", fmt.Errorf("read its discovery document: %w", err)
	}
	u, err := url.Parse(d.JWKSURI)
	own, errOwn := url.Parse(issuer)
	switch {
	case d.Issuer != issuer:
		return "", fmt.Errorf("its discovery document says issuer %q", d.Issuer)
	case err != nil || errOwn != nil || u.Scheme != "https" && (u.Scheme != own.Scheme || u.Hostname() != own.Hostname()):
		return "", fmt.Errorf("its keys are at %q, want https", d.JWKSURI)
	}
	return d.JWKSURI, nil
}

func (i *issuers) fetch(ctx context.Context, at string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, err
	}
	res, err := i.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", at, res.Status)
	}
	return io.ReadAll(io.LimitReader(res.Body, maxDocument))
}
