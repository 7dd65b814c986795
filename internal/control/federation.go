package control

import (
	"context"
	"fmt"
	"net/url"

	"github.com/google/uuid"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// CreatePolicy records whose tokens are exchanged for ours.
func (i *Identity) CreatePolicy(ctx context.Context, p tarn.FederationPolicy) (tarn.FederationPolicy, error) {
	if p.ID == "" {
		p.ID = uuid.NewString()
	}
	if err := i.checkPolicy(ctx, p); err != nil {
		return tarn.FederationPolicy{}, fmt.Errorf("create federation policy: %w", err)
	}
	p, err := controldb.InsertPolicy(ctx, i.cfg.DB, p)
	if err != nil {
		return tarn.FederationPolicy{}, fmt.Errorf("create federation policy: %w", err)
	}
	return p, nil
}

func (i *Identity) checkPolicy(ctx context.Context, p tarn.FederationPolicy) error {
	if p.Principal != "" {
		of, err := controldb.PrincipalByID(ctx, i.cfg.DB, p.Principal)
		switch {
		case err != nil:
			return err
		case of.Type != tarn.PrincipalService:
			return tarn.Invalid("%s is no service principal", of.Name)
		case p.Subject == "":
			return tarn.Invalid("a policy of a service principal needs the token's subject")
		}
	} else if p.Subject != "" {
		return tarn.Invalid("only a policy of a service principal has a subject")
	}
	for what, raw := range map[string]string{"issuer": p.Issuer, "jwks_uri": p.JWKSURI} {
		if raw == "" && what == "jwks_uri" {
			continue
		}
		u, err := url.Parse(raw)
		if err != nil || u.Host == "" || u.Scheme != "https" && !loopback(u) {
			return tarn.Invalid("%s %q: want an https URL (http on loopback only)", what, raw)
		}
	}
	return nil
}

func loopback(u *url.URL) bool {
	h := u.Hostname()
	return u.Scheme == "http" && (h == "localhost" || h == "127.0.0.1" || h == "::1")
}

// Policies lists the policies of a service principal, or with "" those of
// nobody in particular.
func (i *Identity) Policies(ctx context.Context, principal string) ([]tarn.FederationPolicy, error) {
	return controldb.Policies(ctx, i.cfg.DB, principal)
}

// Policy reads one policy.
func (i *Identity) Policy(ctx context.Context, principal, id string) (tarn.FederationPolicy, error) {
	all, err := controldb.Policies(ctx, i.cfg.DB, principal)
	if err != nil {
		return tarn.FederationPolicy{}, err
	}
	for _, p := range all {
		if p.ID == id {
			return p, nil
		}
	}
	return tarn.FederationPolicy{}, tarn.NotFound("federation policy %q does not exist", id)
}

// UpdatePolicy changes what change changes.
func (i *Identity) UpdatePolicy(ctx context.Context, principal, id string, change func(*tarn.FederationPolicy)) (tarn.FederationPolicy, error) {
	p, err := i.Policy(ctx, principal, id)
	if err != nil {
		return p, err
	}
	change(&p)
	p.ID, p.Principal = id, principal
	if err := i.checkPolicy(ctx, p); err != nil {
		return p, fmt.Errorf("update federation policy: %w", err)
	}
	if err := controldb.UpdatePolicy(ctx, i.cfg.DB, p); err != nil {
		return p, fmt.Errorf("update federation policy: %w", err)
	}
	return i.Policy(ctx, principal, id)
}

// DeletePolicy ends a policy; tokens it got live out their hour.
func (i *Identity) DeletePolicy(ctx context.Context, principal, id string) error {
	return controldb.DeletePolicy(ctx, i.cfg.DB, principal, id)
}
