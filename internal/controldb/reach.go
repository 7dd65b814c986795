package controldb

import (
	"context"
	"net/netip"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
)

// Reached is an endpoint, and what its project says of who may come in.
type Reached struct {
	Endpoint           tarn.Endpoint
	DisableNativeLogin bool
	Allowed            []netip.Prefix
}

const selectReached = `
SELECT e.project, e.branch, e.name, e.uid, e.type, e.min_cu, e.max_cu, e.suspend_after, e.disabled, e.settings, e.host, e.freeze_after,
	e.last_active, e.created, e.updated, p.disable_native_login, p.allowed
FROM endpoints e JOIN projects p ON p.name = e.project`

func scanReached(r pgx.Row) (v Reached, err error) {
	e := &v.Endpoint
	err = r.Scan(&e.Name.Project, &e.Name.Branch, &e.Name.Endpoint, &e.UID, &e.Type, &e.MinCU, &e.MaxCU, &e.SuspendAfter,
		&e.Disabled, &e.Settings, &e.Host, &e.FreezeAfter, (*stamp)(&e.LastActive), (*stamp)(&e.CreateTime), (*stamp)(&e.UpdateTime),
		&v.DisableNativeLogin, &v.Allowed)
	e.Settings = noEmpty(e.Settings)
	return v, err
}

// ReachHost finds the endpoint that has one of two addresses: every connection
// does this, so it reads one row by an index, however many endpoints there are.
func ReachHost(ctx context.Context, c Conn, host, or string) (Reached, error) {
	v, err := scanReached(c.querier().QueryRow(ctx, reachHost, host, or))
	return v, fault(err, "endpoint with address %s", host)
}

const reachHost = selectReached + ` WHERE e.host IN ($1, $2)`

// ReachUID finds an endpoint by its UID.
func ReachUID(ctx context.Context, c Conn, uid string) (Reached, error) {
	v, err := scanReached(c.querier().QueryRow(ctx, reachUID, uid))
	return v, fault(err, "endpoint with uid %s", uid)
}

const reachUID = selectReached + ` WHERE e.uid = $1`

// ReachName finds an endpoint by its name.
func ReachName(ctx context.Context, c Conn, n tarn.EndpointName) (Reached, error) {
	v, err := scanReached(c.querier().QueryRow(ctx, reachName, n.Project, n.Branch, n.Endpoint))
	return v, fault(err, "endpoint %s", n)
}

const reachName = selectReached + ` WHERE e.project = $1 AND e.branch = $2 AND e.name = $3`
