package control

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os/user"
	"strings"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// Beginning is what Bootstrap made or found.
type Beginning struct {
	Workspace tarn.Workspace
	Owner     tarn.Principal
	// Token is the owner's first personal access token. It is shown only at
	// the first start; who lost it makes another with CreateToken.
	Token tarn.Secret
}

// Bootstrap makes the workspace, its owner and the owner's first token, or
// finds them. Many may start at once: one of them makes it.
func (c *Control) Bootstrap(ctx context.Context) (Beginning, error) {
	b, err := findBeginning(ctx, c.cfg.DB)
	if tarn.KindOf(err) == tarn.KindNotFound {
		b, err = begin(ctx, c.cfg)
		if tarn.KindOf(err) == tarn.KindConflict { // another was faster
			b, err = findBeginning(ctx, c.cfg.DB)
		}
	}
	if err != nil {
		return Beginning{}, fmt.Errorf("bootstrap workspace: %w", err)
	}
	c.workspace.Store(&b.Workspace)
	return b, nil
}

func findBeginning(ctx context.Context, db *controldb.DB) (b Beginning, err error) {
	if b.Workspace, _, err = controldb.GetWorkspace(ctx, db); err != nil {
		return Beginning{}, err
	}
	b.Owner, err = controldb.Identify(ctx, db, b.Workspace.Owner)
	return b, err
}

func begin(ctx context.Context, cfg Config) (Beginning, error) {
	owner, err := ownerName(cfg.Owner)
	if err != nil {
		return Beginning{}, err
	}
	b := Beginning{Workspace: tarn.Workspace{ID: newWorkspaceID(), Owner: owner}}
	err = cfg.DB.InTx(ctx, func(tx *controldb.Tx) (err error) {
		if err := controldb.InsertWorkspace(ctx, tx, b.Workspace, newBlock()); err != nil {
			return err
		}
		if b.Owner, err = controldb.InsertPrincipal(ctx, tx, tarn.Principal{Name: owner, Type: tarn.PrincipalUser}); err != nil {
			return err
		}
		admins, err := controldb.GetPrincipal(ctx, tx, tarn.AdminsGroup)
		if err != nil {
			return err
		}
		if err := controldb.AddMember(ctx, tx, admins.ID, b.Owner.ID); err != nil {
			return err
		}
		if b.Owner, err = controldb.Identify(ctx, tx, owner); err != nil {
			return err
		}
		_, b.Token, err = insertToken(ctx, tx, b.Owner, "first token of the owner", 0)
		return err
	})
	return b, err
}

// ownerName checks the configured owner, who becomes a Postgres role, and
// falls back to whoever runs us.
func ownerName(s string) (string, error) {
	if s == "" {
		s = "owner@localhost"
		if u, err := user.Current(); err == nil && u.Username != "" {
			s = u.Username + "@localhost"
		}
	}
	return s, checkRoleName(s)
}

// checkRoleName says whether a principal's name can be a Postgres role's.
func checkRoleName(s string) error {
	switch {
	case s == "" || len(s) > 63 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return tarn.Invalid("principal name %q: want 1 to 63 bytes without control characters, since it becomes a Postgres role", s)
	case s == tarn.Superuser || s == tarn.OAuthMarkerRole || s == tarn.SuperuserRole || s == "public" || s == "none" || strings.HasPrefix(s, "pg_"):
		return tarn.Invalid("principal name %q is reserved in Postgres", s)
	}
	return nil
}

// newWorkspaceID has 16 digits, like the published ones.
func newWorkspaceID() int64 {
	return int64(1e15 + random()%9e15)
}

// newUID is an identity that is never used again and fits in host names,
// socket paths and folder names.
func newUID(prefix string) string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], random())
	return prefix + hex.EncodeToString(b[:])
}

func newTimelineID() tarn.TimelineID {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return tarn.TimelineID(hex.EncodeToString(b[:]))
}

func random() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint64(b[:])
}
