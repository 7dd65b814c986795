package api

import (
	"context"
	"strconv"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/control"
)

// secretDoor answers for what service principals prove themselves with: secrets
// and other issuers' tokens. Its paths have an account in two spellings.
type secretDoor struct {
	identity *control.Identity
	account  string
}

func (d *secretDoor) create(ctx context.Context, q *query) (any, error) {
	var in wire.CreateSecret
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	var life time.Duration
	if in.Lifetime != "" {
		var err error
		if life, err = wire.ParseDuration("lifetime", in.Lifetime); err != nil {
			return nil, err
		}
	}
	s, value, err := d.identity.CreateSecret(ctx, q.r.PathValue("id"), life)
	if err != nil {
		return nil, err
	}
	out := secretOf(s)
	out.Secret = value.Reveal()
	return out, nil
}

func secretOf(s tarn.ClientSecret) wire.Secret {
	return wire.Secret{ID: s.ID, Status: "ACTIVE", CreateTime: wire.Time(s.CreateTime), UpdateTime: wire.Time(s.CreateTime), ExpireTime: wire.Time(s.ExpireTime)}
}

func (d *secretDoor) list(ctx context.Context, q *query) (any, error) {
	all, err := d.identity.Secrets(ctx, q.r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	out := wire.ListSecrets{Secrets: []wire.Secret{}}
	for _, s := range all {
		out.Secrets = append(out.Secrets, secretOf(s))
	}
	return out, nil
}

func (d *secretDoor) delete(ctx context.Context, q *query) (any, error) {
	return nil, d.identity.DeleteSecret(ctx, q.r.PathValue("id"), q.r.PathValue("secret"))
}

func (d *secretDoor) createPolicy(ctx context.Context, q *query) (any, error) {
	var in wire.FederationPolicy
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	p := tarn.FederationPolicy{ID: q.text("policy_id"), Principal: q.r.PathValue("id")}
	policyInto(in, &p)
	p, err := d.identity.CreatePolicy(ctx, p)
	if err != nil {
		return nil, existing(err, alreadyExists, func() error { return nil })
	}
	return d.policyOf(p), nil
}

func policyInto(in wire.FederationPolicy, p *tarn.FederationPolicy) {
	p.Description = in.Description
	if o := in.OIDC; o != nil {
		p.Issuer, p.Audiences, p.Subject, p.SubjectClaim, p.JWKSURI, p.JWKSJSON = o.Issuer, o.Audiences, o.Subject, o.SubjectClaim, o.JWKSURI, o.JWKSJSON
	}
}

func (d *secretDoor) policyOf(p tarn.FederationPolicy) wire.FederationPolicy {
	out := wire.FederationPolicy{
		Name: "accounts/" + d.account + "/federationPolicies/" + p.ID, PolicyID: p.ID, UID: p.ID, Description: p.Description,
		CreateTime: wire.Time(p.CreateTime), UpdateTime: wire.Time(p.UpdateTime),
		OIDC: &wire.OIDCPolicy{Issuer: p.Issuer, Audiences: p.Audiences, Subject: p.Subject, SubjectClaim: p.SubjectClaim, JWKSURI: p.JWKSURI, JWKSJSON: p.JWKSJSON},
	}
	if p.Principal != "" {
		out.Name = "accounts/" + d.account + "/servicePrincipals/" + p.Principal + "/federationPolicies/" + p.ID
		out.ServiceID, _ = strconv.ParseInt(p.Principal, 10, 64)
	}
	return out
}

func (d *secretDoor) listPolicies(ctx context.Context, q *query) (any, error) {
	all, err := d.identity.Policies(ctx, q.r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	out := wire.ListPolicies{Policies: []wire.FederationPolicy{}}
	for _, p := range all {
		out.Policies = append(out.Policies, d.policyOf(p))
	}
	return out, nil
}

func (d *secretDoor) getPolicy(ctx context.Context, q *query) (any, error) {
	p, err := d.identity.Policy(ctx, q.r.PathValue("id"), q.r.PathValue("policy"))
	if err != nil {
		return nil, err
	}
	return d.policyOf(p), nil
}

func (d *secretDoor) updatePolicy(ctx context.Context, q *query) (any, error) {
	var in wire.FederationPolicy
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	p, err := d.identity.UpdatePolicy(ctx, q.r.PathValue("id"), q.r.PathValue("policy"), func(p *tarn.FederationPolicy) { policyInto(in, p) })
	if err != nil {
		return nil, err
	}
	return d.policyOf(p), nil
}

func (d *secretDoor) deletePolicy(ctx context.Context, q *query) (any, error) {
	return nil, d.identity.DeletePolicy(ctx, q.r.PathValue("id"), q.r.PathValue("policy"))
}

// setPassword gives who asks a password, or as an admin somebody else.
func (d *secretDoor) setPassword(ctx context.Context, q *query) (any, error) {
	var in wire.SetPassword
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	id := q.who.ID
	if in.UserName != "" && in.UserName != q.who.Name {
		if !q.who.Admin {
			return nil, tarn.Denied("only an admin may set the password of %s", in.UserName)
		}
		p, err := d.identity.Named(ctx, in.UserName)
		if err != nil {
			return nil, err
		}
		id = p.ID
	}
	return nil, d.identity.SetPassword(ctx, id, tarn.Secret(in.Password))
}
