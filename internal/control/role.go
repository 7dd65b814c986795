package control

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
)

// ownDatabase gives a new project's database its owner: a role of the owner's
// name that logs in with a token, makes databases, roles and (logical)
// replication slots, and owns the default database and its schema public. Doing it again changes nothing.
func ownDatabase(ctx context.Context, st tarn.ComputeStatus, owner string) error {
	conn, err := dial(ctx, st, tarn.DefaultDatabase, nil)
	if err != nil {
		return fmt.Errorf("make role %q: %w", owner, err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	role := pgx.Identifier{owner}.Sanitize()
	database := pgx.Identifier{tarn.DefaultDatabase}.Sanitize()
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		var exists bool
		if err := tx.QueryRow(ctx, roleExists, owner).Scan(&exists); err != nil {
			return err
		}
		verb := "CREATE"
		if exists {
			verb = "ALTER"
		}
		for _, sql := range []string{
			verb + ` ROLE ` + role + ` LOGIN CREATEDB CREATEROLE REPLICATION PASSWORD NULL`,
			// With the option the owner can let others in on both.
			`GRANT ` + tarn.SuperuserRole + `, ` + tarn.OAuthMarkerRole + ` TO ` + role + ` WITH ADMIN OPTION`,
			`ALTER DATABASE ` + database + ` OWNER TO ` + role,
			`ALTER SCHEMA public OWNER TO ` + role,
			`GRANT ALL ON DATABASE ` + database + ` TO ` + tarn.SuperuserRole,
			`GRANT ALL ON SCHEMA public TO ` + tarn.SuperuserRole,
		} {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return fmt.Errorf("run %q: %w", sql, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("make role %q: %w", owner, err)
	}
	return nil
}

const roleExists = `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)`
