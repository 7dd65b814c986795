package control

import (
	"context"
	"fmt"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// Access says who may do what with projects.
type Access struct{ cfg Config }

// Levels are what one principal may do with each project.
type Levels struct {
	who tarn.Principal
	by  map[string]tarn.Level // given to it or its groups
}

// Of is the level on one project; "" = it may not even see it. Admins and
// owners may do everything.
func (l Levels) Of(p tarn.Project) tarn.Level {
	if l.who.Admin || p.Owner == l.who.Name {
		return tarn.CanManage
	}
	return l.by[p.Name.Project]
}

// Levels reads what who may do.
func (a *Access) Levels(ctx context.Context, who tarn.Principal) (Levels, error) {
	if who.Admin {
		return Levels{who: who}, nil
	}
	by, err := controldb.ProjectLevels(ctx, a.cfg.DB, who.ID)
	return Levels{who: who, by: by}, err
}

// Need refuses, as KindDenied, a principal whose level on the project is below
// want. A project that is not there is KindNotFound.
func (a *Access) Need(ctx context.Context, who tarn.Principal, n tarn.ProjectName, want tarn.Level) error {
	p, err := controldb.GetProject(ctx, a.cfg.DB, n)
	if err != nil {
		return err
	}
	l, err := a.Levels(ctx, who)
	if err != nil {
		return err
	}
	if have := l.Of(p); !have.Covers(want) {
		has := "nothing"
		if have != "" {
			has = string(have)
		}
		return tarn.Denied("%s may not do this: it needs %s on project %s and has %s", who.Name, want, n.Project, has).
			WithHint(fmt.Sprintf("Its owner %s or an admin can grant it: tarn permission grant %s %s %s", p.Owner, n.Project, who.Name, want))
	}
	return nil
}

// Permissions gives the project and who was given what on it, the owner not
// included.
func (a *Access) Permissions(ctx context.Context, n tarn.ProjectName) (tarn.Project, []tarn.Permission, error) {
	p, err := controldb.GetProject(ctx, a.cfg.DB, n)
	if err != nil {
		return tarn.Project{}, nil, err
	}
	all, err := controldb.Permissions(ctx, a.cfg.DB, n)
	return p, all, err
}

// Grant is a level for a principal, by name.
type Grant struct {
	Name  string
	Type  tarn.PrincipalType
	Level tarn.Level
}

// SetPermissions gives levels, in place of all that were given before when
// replace says so. Whoever asks and could manage the project still can.
func (a *Access) SetPermissions(ctx context.Context, who tarn.Principal, n tarn.ProjectName, gs []Grant, replace bool) error {
	err := a.cfg.DB.InTx(ctx, func(tx *controldb.Tx) error {
		p, err := controldb.LockProject(ctx, tx, n)
		if err != nil {
			return err
		}
		if replace {
			if err := controldb.ClearPermissions(ctx, tx, n); err != nil {
				return err
			}
		}
		for _, g := range gs {
			if !g.Level.Covers(tarn.CanCreate) {
				return tarn.Invalid("permission level %q: want %s, %s or %s", g.Level, tarn.CanCreate, tarn.CanUse, tarn.CanManage)
			}
			to, err := controldb.GetPrincipal(ctx, tx, g.Name)
			if err != nil {
				return err
			}
			if to.Type != g.Type {
				return tarn.Invalid("%s is a %s, not a %s", to.Name, to.Type, g.Type)
			}
			if err := controldb.SetPermission(ctx, tx, n, to.ID, g.Level); err != nil {
				return err
			}
		}
		if who.Admin || p.Owner == who.Name {
			return nil
		}
		by, err := controldb.ProjectLevels(ctx, tx, who.ID)
		if err != nil || by[n.Project].Covers(tarn.CanManage) {
			return err
		}
		return controldb.SetPermission(ctx, tx, n, who.ID, tarn.CanManage)
	})
	if err != nil {
		return fmt.Errorf("set permissions of project %s: %w", n.Project, err)
	}
	return nil
}
