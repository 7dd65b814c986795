package api

import (
	"context"
	"regexp"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/control"
)

// dataAPIDoor answers …/databases/{database}/data-api: what is asked of a Data
// API is kept and given back. Nothing serves it yet, so its status has no URL.
type dataAPIDoor struct {
	control *control.Control
	ops     *operationDoor
}

var servedSchema = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_$]{0,62}$`)

// dataAPIFields are what an update may name.
var dataAPIFields = [...]string{
	"spec.db_schemas", "spec.db_max_rows", "spec.db_extra_search_path", "spec.db_aggregates_enabled", "spec.jwt_role_claim_key",
	"spec.jwt_cache_max_lifetime", "spec.openapi_mode", "spec.server_cors_allowed_origins", "spec.server_timing_enabled",
}

// The published modes of the Data API's own document.
const (
	openAPIIgnorePrivileges = "OPEN_API_MODE_IGNORE_PRIVILEGES"
	openAPIDisabled         = "OPEN_API_MODE_DISABLED"
)

func changeDataAPI(s *tarn.DataAPISpec, m mask, in wire.DataAPISpec) error {
	if v := choose(m, in.DBSchemas, []string{"public"}, "spec.db_schemas"); v != nil {
		if len(*v) == 0 || len(*v) > 100 {
			return badField("spec.db_schemas", "names %d schemas, want 1 to 100", len(*v))
		}
		for _, name := range *v {
			if !servedSchema.MatchString(name) {
				return badField("spec.db_schemas", "%q is no name of a schema", name)
			}
		}
		s.Schemas = *v
	}
	if v := choose(m, in.DBMaxRows, 0, "spec.db_max_rows"); v != nil {
		if in.DBMaxRows != nil && *v < 1 {
			return badField("spec.db_max_rows", "got %d, want more than 0", *v)
		}
		s.MaxRows = *v
	}
	if v := choose(m, in.DBExtraSearchPath, nil, "spec.db_extra_search_path"); v != nil {
		s.ExtraSearchPath = *v
	}
	if v := choose(m, in.DBAggregatesEnabled, true, "spec.db_aggregates_enabled"); v != nil {
		s.NoAggregates = !*v
	}
	if v := choose(m, given(in.JWTRoleClaimKey), ".sub", "spec.jwt_role_claim_key"); v != nil {
		s.RoleClaim = *v
	}
	if v := choose(m, given(in.JWTCacheMaxLifetime), "0s", "spec.jwt_cache_max_lifetime"); v != nil {
		d, err := wire.ParseDuration("spec.jwt_cache_max_lifetime", *v)
		if err != nil {
			return err
		}
		s.TokenCache = d
	}
	if v := choose(m, given(in.OpenapiMode), openAPIIgnorePrivileges, "spec.openapi_mode"); v != nil {
		if *v != openAPIIgnorePrivileges && *v != openAPIDisabled {
			return badField("spec.openapi_mode", "got %q, want %s or %s", *v, openAPIIgnorePrivileges, openAPIDisabled)
		}
		s.NoOpenAPI = *v == openAPIDisabled
	}
	if v := choose(m, in.ServerCorsAllowedOrigins, nil, "spec.server_cors_allowed_origins"); v != nil {
		s.Origins = *v
	}
	if v := choose(m, in.ServerTimingEnabled, false, "spec.server_timing_enabled"); v != nil {
		s.ServerTiming = *v
	}
	return nil
}

func (d *dataAPIDoor) create(ctx context.Context, q *query) (any, error) {
	b, err := q.branch()
	if err != nil {
		return nil, err
	}
	var in wire.DataAPI
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	x := tarn.DataAPI{Branch: b, Database: q.r.PathValue("database"), Spec: tarn.DataAPISpec{Schemas: []string{"public"}, RoleClaim: ".sub"}}
	if in.Spec != nil {
		if err := changeDataAPI(&x.Spec, nil, *in.Spec); err != nil {
			return nil, err
		}
	}
	schemas, err := d.control.Published.Schemas(ctx, b, x.Database)
	if err != nil {
		return nil, err
	}
	made, err := d.control.Published.CreateDataAPI(ctx, x)
	if err != nil {
		return nil, existing(err, alreadyExists, func() error { return nil })
	}
	return d.ops.done(dataAPIName(made), verbCreate, made.UID, dataAPIOf(made, schemas))
}

func (d *dataAPIDoor) read(ctx context.Context, b tarn.BranchName, database string) (tarn.DataAPI, any, error) {
	x, err := d.control.Published.DataAPI(ctx, b, database)
	if err != nil {
		return x, nil, err
	}
	schemas, err := d.control.Published.Schemas(ctx, b, database)
	return x, dataAPIOf(x, schemas), err
}

func (d *dataAPIDoor) get(ctx context.Context, q *query) (any, error) {
	b, err := q.branch()
	if err != nil {
		return nil, err
	}
	_, out, err := d.read(ctx, b, q.r.PathValue("database"))
	return out, err
}

func (d *dataAPIDoor) update(ctx context.Context, q *query) (any, error) {
	b, err := q.branch()
	if err != nil {
		return nil, err
	}
	var in wire.DataAPI
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	m := parseMask(q.text("update_mask"))
	if err := m.check(dataAPIFields[:]...); err != nil {
		return nil, err
	}
	if in.Spec == nil {
		in.Spec = &wire.DataAPISpec{}
	}
	id := q.r.PathValue("database")
	x, err := d.control.Published.UpdateDataAPI(ctx, b, id, func(s *tarn.DataAPISpec) error { return changeDataAPI(s, m, *in.Spec) })
	if err != nil {
		return nil, err
	}
	_, out, err := d.read(ctx, b, id)
	if err != nil {
		return nil, err
	}
	return d.ops.done(dataAPIName(x), verbCreate, x.UID, out)
}

func (d *dataAPIDoor) delete(ctx context.Context, q *query) (any, error) {
	b, err := q.branch()
	if err != nil {
		return nil, err
	}
	x, err := d.control.Published.DataAPI(ctx, b, q.r.PathValue("database"))
	if err == nil {
		err = d.control.Published.DeleteDataAPI(ctx, b, x.Database)
	}
	if err != nil {
		return nil, err
	}
	return d.ops.done(dataAPIName(x), verbDelete, x.UID, nil)
}

// operation reads back an operation of a Data API.
func (d *dataAPIDoor) operation(ctx context.Context, name, branch, database, op string) (any, error) {
	b, err := tarn.ParseBranchName(branch)
	if err != nil {
		return nil, nothing(err)
	}
	return bornDone(name, op, func() (string, any, error) {
		x, out, err := d.read(ctx, b, database)
		return x.UID, out, err
	})
}

func dataAPIName(x tarn.DataAPI) string {
	return x.Branch.String() + "/databases/" + x.Database + "/data-api"
}

func dataAPIOf(x tarn.DataAPI, schemas []string) wire.DataAPI {
	s := x.Spec
	aggregates := !s.NoAggregates
	st := &wire.DataAPIStatus{AvailableSchemas: schemas, DataAPISpec: wire.DataAPISpec{
		DBSchemas: &s.Schemas, DBAggregatesEnabled: &aggregates, JWTRoleClaimKey: s.RoleClaim, OpenapiMode: openAPIIgnorePrivileges,
		JWTCacheMaxLifetime: wire.Duration(s.TokenCache.Round(time.Millisecond)), ServerTimingEnabled: &s.ServerTiming,
	}}
	if s.NoOpenAPI {
		st.OpenapiMode = openAPIDisabled
	}
	if s.MaxRows > 0 {
		st.DBMaxRows = &s.MaxRows
	}
	if len(s.ExtraSearchPath) > 0 {
		st.DBExtraSearchPath = &s.ExtraSearchPath
	}
	if len(s.Origins) > 0 {
		st.ServerCorsAllowedOrigins = &s.Origins
	}
	return wire.DataAPI{
		Name: dataAPIName(x), Parent: x.Branch.String() + "/databases/" + x.Database,
		CreateTime: wire.Time(x.CreateTime), UpdateTime: wire.Time(x.UpdateTime), Status: st,
	}
}
