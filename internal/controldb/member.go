package controldb

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
)

// Members gives a group's direct members, by name.
func Members(ctx context.Context, c Conn, group string) ([]tarn.Principal, error) {
	v, err := list(ctx, c, scanPrincipal, membersOf, number(group))
	return v, fault(err, "members of group %s", group)
}

const membersOf = `
SELECT ` + principalColumns + ` FROM principals WHERE id IN (SELECT member_id FROM members WHERE group_id = $1) ORDER BY name`

// DirectGroups gives the groups a principal was entered in, by name.
func DirectGroups(ctx context.Context, c Conn, member string) ([]tarn.Principal, error) {
	v, err := list(ctx, c, scanPrincipal, directGroups, number(member))
	return v, fault(err, "groups of principal %s", member)
}

const directGroups = `
SELECT ` + principalColumns + ` FROM principals WHERE id IN (SELECT group_id FROM members WHERE member_id = $1) ORDER BY name`

// AddMember enters a principal in a group; doing it again changes nothing.
func AddMember(ctx context.Context, c Conn, group, member string) error {
	_, err := c.querier().Exec(ctx, addMember, number(group), number(member))
	return fault(err, "member %s of group %s", member, group)
}

const addMember = `INSERT INTO members (group_id, member_id) VALUES ($1, $2) ON CONFLICT DO NOTHING`

// RemoveMember takes a principal out of a group; that it is not in it is no
// error.
func RemoveMember(ctx context.Context, c Conn, group, member string) error {
	_, err := c.querier().Exec(ctx, removeMember, number(group), number(member))
	return fault(err, "member %s of group %s", member, group)
}

const removeMember = `DELETE FROM members WHERE group_id = $1 AND member_id = $2`

// ClearMembers takes everybody out of a group.
func ClearMembers(ctx context.Context, c Conn, group string) error {
	_, err := c.querier().Exec(ctx, clearMembers, number(group))
	return fault(err, "members of group %s", group)
}

const clearMembers = `DELETE FROM members WHERE group_id = $1`

// Admins counts the users and service principals that are admins and may sign
// in, themselves or by a group.
func Admins(ctx context.Context, c Conn) (n int, err error) {
	err = c.querier().QueryRow(ctx, admins).Scan(&n)
	return n, fault(err, "admins")
}

const admins = `
WITH RECURSIVE a (id) AS (
	SELECT id FROM principals WHERE admin
	UNION SELECT m.member_id FROM members m JOIN a ON m.group_id = a.id
)
SELECT count(*) FROM a JOIN principals p USING (id) WHERE p.type <> 'GROUP' AND NOT p.disabled`

// SetPermission gives a principal a level on a project in place of what it had.
func SetPermission(ctx context.Context, c Conn, project tarn.ProjectName, principal string, l tarn.Level) error {
	_, err := c.querier().Exec(ctx, setPermission, project.Project, number(principal), l)
	return fault(err, "permission of principal %s on %s", principal, project)
}

const setPermission = `
INSERT INTO permissions (project, principal, level) VALUES ($1, $2, $3)
ON CONFLICT (project, principal) DO UPDATE SET level = EXCLUDED.level`

// ClearPermissions takes every permission on a project away.
func ClearPermissions(ctx context.Context, c Conn, project tarn.ProjectName) error {
	_, err := c.querier().Exec(ctx, clearPermissions, project.Project)
	return fault(err, "permissions on %s", project)
}

const clearPermissions = `DELETE FROM permissions WHERE project = $1`

// Permissions gives who was given what on a project, by name.
func Permissions(ctx context.Context, c Conn, project tarn.ProjectName) ([]tarn.Permission, error) {
	v, err := list(ctx, c, scanPermission, permissionsOn, project.Project)
	return v, fault(err, "permissions on %s", project)
}

const permissionsOn = `
SELECT m.level, ` + principalColumns + ` FROM permissions m JOIN principals p ON p.id = m.principal WHERE m.project = $1 ORDER BY p.name`

func scanPermission(r pgx.Row) (m tarn.Permission, err error) {
	m.Principal, err = scanPrincipal(after{r, &m.Level})
	return m, err
}

// after is a row whose first column goes to first.
type after struct {
	pgx.Row
	first any
}

func (a after) Scan(dest ...any) error { return a.Row.Scan(append([]any{a.first}, dest...)...) }

// ProjectLevels gives the levels that a principal was given, itself or by its
// groups, by project. Who owns what is not in it.
func ProjectLevels(ctx context.Context, c Conn, principal string) (map[string]tarn.Level, error) {
	type row struct {
		project string
		level   tarn.Level
	}
	rows, err := list(ctx, c, func(r pgx.Row) (v row, err error) { return v, r.Scan(&v.project, &v.level) }, projectLevels, number(principal))
	if err != nil {
		return nil, fault(err, "permissions of principal %s", principal)
	}
	out := make(map[string]tarn.Level, len(rows))
	for _, r := range rows {
		if !out[r.project].Covers(r.level) {
			out[r.project] = r.level
		}
	}
	return out, nil
}

const projectLevels = allGroups + `
SELECT project, level FROM permissions WHERE principal = $1 OR principal IN (SELECT id FROM g)`
