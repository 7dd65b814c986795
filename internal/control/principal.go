package control

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/token"
)

// Verifier checks signed tokens; *token.Signer is one.
type Verifier interface {
	Verify(ctx context.Context, raw string) (token.Claims, error)
}

// Identity keeps who there is: users, service principals and groups, and how
// they prove it.
type Identity struct {
	cfg       Config
	directory *Directory
}

// CreatePrincipal records a principal. A service principal without a name gets
// an application id. KindConflict when the name is taken, by a principal of
// whatever type: each can become a Postgres role.
func (i *Identity) CreatePrincipal(ctx context.Context, p tarn.Principal) (tarn.Principal, error) {
	if p.Type == tarn.PrincipalService && p.Name == "" {
		p.Name = uuid.NewString()
	}
	if err := checkPrincipal(p); err != nil {
		return tarn.Principal{}, fmt.Errorf("create principal: %w", err)
	}
	p, err := controldb.InsertPrincipal(ctx, i.cfg.DB, p)
	if err != nil {
		return tarn.Principal{}, fmt.Errorf("create principal: %w", err)
	}
	i.directory.changed(ctx)
	return p, nil
}

const maxPrincipalText = 256 // bytes of a display name or an external id

func checkPrincipal(p tarn.Principal) error {
	switch {
	case p.Type != tarn.PrincipalUser && p.Type != tarn.PrincipalService && p.Type != tarn.PrincipalGroup:
		return tarn.Invalid("principal type %q: want USER, SERVICE_PRINCIPAL or GROUP", p.Type)
	case len(p.DisplayName) > maxPrincipalText || len(p.ExternalID) > maxPrincipalText:
		return tarn.Invalid("display name or external id has more than %d bytes", maxPrincipalText)
	case p.Type == tarn.PrincipalService && uuid.Validate(p.Name) != nil:
		return tarn.Invalid("application id %q is not a UUID", p.Name)
	case strings.TrimSpace(p.Name) != p.Name:
		return tarn.Invalid("principal name %q begins or ends with a space", p.Name)
	}
	return checkRoleName(p.Name)
}

// Principal reads a principal by its id.
func (i *Identity) Principal(ctx context.Context, id string) (tarn.Principal, error) {
	return controldb.PrincipalByID(ctx, i.cfg.DB, id)
}

// Named reads a principal by its name.
func (i *Identity) Named(ctx context.Context, name string) (tarn.Principal, error) {
	return controldb.GetPrincipal(ctx, i.cfg.DB, name)
}

// Principals lists the principals of one type, by name; "" = all.
func (i *Identity) Principals(ctx context.Context, t tarn.PrincipalType) ([]tarn.Principal, error) {
	all, err := controldb.ListPrincipals(ctx, i.cfg.DB)
	if err != nil || t == "" {
		return all, err
	}
	return slices.DeleteFunc(all, func(p tarn.Principal) bool { return p.Type != t }), nil
}

// Builtin says whether a group is one of those every workspace has.
func Builtin(p tarn.Principal) bool {
	return p.Type == tarn.PrincipalGroup && (p.Name == tarn.AdminsGroup || p.Name == tarn.UsersGroup)
}

// UpdatePrincipal changes what change changes. A user's or service principal's
// name stays, because projects and Postgres roles bear it. The workspace keeps
// at least one admin who may sign in.
func (i *Identity) UpdatePrincipal(ctx context.Context, id string, change func(*tarn.Principal) error) (now tarn.Principal, err error) {
	err = i.cfg.DB.InTx(ctx, func(tx *controldb.Tx) error {
		was, err := controldb.LockPrincipal(ctx, tx, id)
		if err != nil {
			return err
		}
		now = was
		if err := change(&now); err != nil {
			return err
		}
		now.ID, now.Type = was.ID, was.Type
		switch {
		case now.Name != was.Name && was.Type != tarn.PrincipalGroup:
			return tarn.Invalid("the name %s cannot be changed: projects and Postgres roles bear it", was.Name).WithHint("Make another principal and move what this one owns.")
		case Builtin(was) && (now.Name != was.Name || now.Admin != was.Admin):
			return tarn.Invalid("group %s is the workspace's own: only its members can be changed", was.Name)
		}
		if err := checkPrincipal(now); err != nil {
			return err
		}
		if err := controldb.UpdatePrincipal(ctx, tx, now); err != nil {
			return err
		}
		if now.Disabled {
			if err := controldb.EndSignIns(ctx, tx, now); err != nil {
				return err
			}
		}
		return keepAdmin(ctx, tx)
	})
	if err != nil {
		return tarn.Principal{}, fmt.Errorf("update principal: %w", err)
	}
	i.directory.changed(ctx)
	return now, nil
}

// keepAdmin refuses a change after which nobody could undo it.
func keepAdmin(ctx context.Context, tx *controldb.Tx) error {
	n, err := controldb.Admins(ctx, tx)
	if err == nil && n == 0 {
		return tarn.Conflict("the workspace would be left without an admin").WithHint("Make another user an admin first: tarn group add admins NAME")
	}
	return err
}

// DeletePrincipal removes a principal with its tokens, secrets, memberships
// and permissions. Its Postgres roles stay, and nobody can log in as them.
func (i *Identity) DeletePrincipal(ctx context.Context, id string) error {
	err := i.cfg.DB.InTx(ctx, func(tx *controldb.Tx) error {
		p, err := controldb.LockPrincipal(ctx, tx, id)
		if err != nil {
			return err
		}
		owned, err := controldb.OwnedBy(ctx, tx, p.Name)
		switch {
		case err != nil:
			return err
		case Builtin(p):
			return tarn.Invalid("group %s is the workspace's own and cannot be deleted", p.Name)
		case len(owned) > 0:
			return tarn.Conflict("%s owns project %s", p.Name, strings.Join(owned, ", ")).WithHint("Delete its projects first, or disable the principal.")
		}
		if err := controldb.DeletePrincipal(ctx, tx, id); err != nil {
			return err
		}
		return keepAdmin(ctx, tx)
	})
	if err != nil {
		return fmt.Errorf("delete principal: %w", err)
	}
	i.directory.changed(ctx)
	return nil
}

// Members gives a group's direct members, by name.
func (i *Identity) Members(ctx context.Context, group string) ([]tarn.Principal, error) {
	return controldb.Members(ctx, i.cfg.DB, group)
}

// DirectGroups gives the groups a principal was entered in, by name.
func (i *Identity) DirectGroups(ctx context.Context, id string) ([]tarn.Principal, error) {
	return controldb.DirectGroups(ctx, i.cfg.DB, id)
}

// Membership is a change of a group's direct members, by ids.
type Membership struct {
	Replace     bool // everybody goes before Add comes
	Add, Remove []string
}

// ChangeMembers changes a group's members. Groups may be in groups.
func (i *Identity) ChangeMembers(ctx context.Context, group string, m Membership) error {
	err := i.cfg.DB.InTx(ctx, func(tx *controldb.Tx) error {
		g, err := controldb.LockPrincipal(ctx, tx, group)
		switch {
		case err != nil:
			return err
		case g.Type != tarn.PrincipalGroup:
			return tarn.Invalid("%s is no group", g.Name)
		case g.Name == tarn.UsersGroup:
			return tarn.Invalid("everybody is in group %s: its members cannot be changed", g.Name)
		}
		if m.Replace {
			if err := controldb.ClearMembers(ctx, tx, group); err != nil {
				return err
			}
		}
		for _, id := range m.Remove {
			if err := controldb.RemoveMember(ctx, tx, group, id); err != nil {
				return err
			}
		}
		for _, id := range m.Add {
			p, err := controldb.PrincipalByID(ctx, tx, id)
			if err != nil {
				return tarn.Invalid("member %q: %w", id, err)
			}
			if p.ID == g.ID {
				return tarn.Invalid("group %s cannot be in itself", g.Name)
			}
			if err := controldb.AddMember(ctx, tx, group, p.ID); err != nil {
				return err
			}
		}
		return keepAdmin(ctx, tx)
	})
	if err != nil {
		return fmt.Errorf("change members: %w", err)
	}
	return nil
}

// MemberOf says whether a user or service principal is in a group, directly or
// through others.
func (i *Identity) MemberOf(ctx context.Context, member, group string) (bool, error) {
	p, err := controldb.Identify(ctx, i.cfg.DB, member)
	if tarn.KindOf(err) == tarn.KindNotFound {
		return false, nil
	}
	return err == nil && slices.Contains(p.Groups, group), err
}

// SetPassword gives a user a password to sign in with in a browser; "" takes
// it away. Sign-ins made with the old one end.
func (i *Identity) SetPassword(ctx context.Context, id string, password tarn.Secret) error {
	p, err := controldb.PrincipalByID(ctx, i.cfg.DB, id)
	if err != nil {
		return fmt.Errorf("set password: %w", err)
	}
	if p.Type != tarn.PrincipalUser {
		return tarn.Invalid("set password: %s is not a user", p.Name).WithHint("A service principal has secrets: tarn principal secret create NAME")
	}
	var hash string
	if password != "" {
		if hash, err = token.HashPassword(password.Reveal()); err != nil {
			return fmt.Errorf("set password: %w", err)
		}
	}
	return i.cfg.DB.InTx(ctx, func(tx *controldb.Tx) error {
		if err := controldb.SetPassword(ctx, tx, id, hash); err != nil {
			return err
		}
		return controldb.EndSignIns(ctx, tx, p)
	})
}

// maxSecrets is how many secrets a service principal may have, as published.
const maxSecrets = 5

// CreateSecret makes a secret of a service principal; life 0 = it never ends.
// Its value is shown only now.
func (i *Identity) CreateSecret(ctx context.Context, id string, life time.Duration) (tarn.ClientSecret, tarn.Secret, error) {
	value, hash := token.NewSecret("dose")
	s := tarn.ClientSecret{ID: uuid.NewString()}
	if life > 0 {
		s.ExpireTime = time.Now().Add(life)
	}
	err := i.cfg.DB.InTx(ctx, func(tx *controldb.Tx) error {
		p, err := controldb.LockPrincipal(ctx, tx, id)
		if err != nil {
			return err
		}
		if p.Type != tarn.PrincipalService {
			return tarn.Invalid("%s is no service principal", p.Name)
		}
		have, err := controldb.Secrets(ctx, tx, id)
		if err != nil {
			return err
		}
		if len(have) >= maxSecrets {
			return tarn.Conflict("%s has %d secrets already", p.Name, len(have)).WithHint("Delete one: tarn principal secret delete NAME ID")
		}
		s, err = controldb.InsertSecret(ctx, tx, id, s, hash)
		return err
	})
	if err != nil {
		return tarn.ClientSecret{}, "", fmt.Errorf("create secret: %w", err)
	}
	return s, value, nil
}

// Secrets lists a service principal's secrets, oldest first.
func (i *Identity) Secrets(ctx context.Context, id string) ([]tarn.ClientSecret, error) {
	if _, err := controldb.PrincipalByID(ctx, i.cfg.DB, id); err != nil {
		return nil, err
	}
	return controldb.Secrets(ctx, i.cfg.DB, id)
}

// DeleteSecret ends a secret; tokens it got live out their hour.
func (i *Identity) DeleteSecret(ctx context.Context, id, secret string) error {
	return controldb.DeleteSecret(ctx, i.cfg.DB, id, secret)
}
