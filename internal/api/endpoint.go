package api

import (
	"context"
	"net/http"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/control"
)

// endpointDoor answers …/branches/{branch}/endpoints and the credentials for
// them.
type endpointDoor struct {
	control *control.Control
	ops     *operationDoor
}

// create makes read replicas; for READ_WRITE endpoints it exists for
// replace_existing: every branch is born with its one.
func (d *endpointDoor) create(ctx context.Context, q *query) (any, error) {
	b, err := q.branch()
	if err != nil {
		return nil, err
	}
	var in wire.Endpoint
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	id, err := tarn.ParseID("endpoint", q.text("endpoint_id"))
	if err != nil {
		return nil, badField("endpoint_id", "%s", err)
	}
	replace, err := q.flag("replace_existing")
	if err != nil {
		return nil, err
	}
	if in.Spec == nil || in.Spec.EndpointType == "" {
		return nil, badField("spec.endpoint_type", "is missing: want %s or %s", tarn.ReadWrite, tarn.ReadOnly)
	}
	if in.Spec.EndpointType != string(tarn.ReadWrite) && in.Spec.EndpointType != string(tarn.ReadOnly) {
		return nil, badField("spec.endpoint_type", "got %q, want %s or %s", in.Spec.EndpointType, tarn.ReadWrite, tarn.ReadOnly)
	}
	if _, err := d.control.GetBranch(ctx, b); err != nil {
		return nil, err
	}
	n := b.Endpoint(id)
	_, err = d.control.GetEndpoint(ctx, n)
	switch {
	case err == nil && replace != nil && *replace:
		op, err := d.control.UpdateEndpoint(ctx, n, func(e *tarn.Endpoint) error { return changeEndpoint(e, nil, *in.Spec) })
		return d.ops.answer(ctx, op, err)
	case err == nil:
		return nil, &failure{
			status: http.StatusConflict, code: alreadyExists, msg: "endpoint " + n.String() + " exists",
			hint: "say replace_existing=true to change it",
		}
	case tarn.KindOf(err) != tarn.KindNotFound:
		return nil, err
	}
	if in.Spec.EndpointType == string(tarn.ReadOnly) {
		op, err := d.control.Replicas.Create(ctx, n, func(e *tarn.Endpoint) error { return changeEndpoint(e, nil, *in.Spec) })
		return d.ops.answer(ctx, op, err)
	}
	return nil, tarn.Conflict("create endpoint %s: branch %s has its one READ_WRITE endpoint, %s", id, b.Branch, tarn.DefaultEndpoint).
		WithHint("use endpoint " + tarn.DefaultEndpoint + ", or change it with replace_existing=true")
}

func (d *endpointDoor) list(ctx context.Context, q *query) (any, error) {
	b, err := q.branch()
	if err != nil {
		return nil, err
	}
	pg, err := q.page("page_size")
	if err != nil {
		return nil, err
	}
	es, next, err := d.control.ListEndpoints(ctx, b, pg)
	if err != nil {
		return nil, err
	}
	out := wire.ListEndpoints{Endpoints: []wire.Endpoint{}, NextPageToken: next}
	for _, e := range es {
		out.Endpoints = append(out.Endpoints, endpointOf(e))
	}
	return out, nil
}

func (d *endpointDoor) get(ctx context.Context, q *query) (any, error) {
	n, err := q.endpoint()
	if err != nil {
		return nil, err
	}
	e, err := d.control.GetEndpoint(ctx, n)
	if err != nil {
		return nil, err
	}
	return endpointOf(e), nil
}

// endpointFields are what an update may name.
var endpointFields = [...]string{
	"spec.autoscaling_limit_min_cu", "spec.autoscaling_limit_max_cu", "spec.disabled", "spec.endpoint_type",
	"spec.group", "spec.settings", "spec.suspension", "spec.suspend_timeout_duration", "spec.no_suspension",
	"spec.tarn_freeze_timeout_duration",
}

func (d *endpointDoor) update(ctx context.Context, q *query) (any, error) {
	n, err := q.endpoint()
	if err != nil {
		return nil, err
	}
	var in wire.Endpoint
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	m := parseMask(q.text("update_mask"))
	if err := m.check(endpointFields[:]...); err != nil {
		return nil, err
	}
	if in.Spec == nil {
		in.Spec = &wire.EndpointSpec{}
	}
	op, err := d.control.UpdateEndpoint(ctx, n, func(e *tarn.Endpoint) error { return changeEndpoint(e, m, *in.Spec) })
	return d.ops.answer(ctx, op, err)
}

// changeEndpoint applies an update to the recorded endpoint.
func changeEndpoint(e *tarn.Endpoint, m mask, s wire.EndpointSpec) error {
	if v := choose(m, given(s.EndpointType), "", "spec.endpoint_type"); v != nil && *v != "" && *v != string(typeOf(e.Type)) {
		return badField("spec.endpoint_type", "endpoint %s is %s and stays so", e.Name.Endpoint, typeOf(e.Type))
	}
	if err := readGroup("spec.group", s.Group); err != nil {
		return err
	}
	if v := choose(m, s.Disabled, false, "spec.disabled"); v != nil {
		e.Disabled = *v
	}
	if v := choose(m, s.Settings, wire.PgSettings{}, "spec.settings"); v != nil {
		e.Settings = v.PgSettings
	}
	lo, hi := limits(tarn.EndpointSpec{})
	es := wire.EndpointSettings{
		AutoscalingLimitMinCU: choose(m, s.AutoscalingLimitMinCU, lo, "spec.autoscaling_limit_min_cu"),
		AutoscalingLimitMaxCU: choose(m, s.AutoscalingLimitMaxCU, hi, "spec.autoscaling_limit_max_cu"),
	}
	var suspend *wire.EndpointSettings
	if s.NoSuspension != nil || s.SuspendTimeoutDuration != "" {
		suspend = &wire.EndpointSettings{NoSuspension: s.NoSuspension, SuspendTimeoutDuration: s.SuspendTimeoutDuration}
	}
	byDefault := wire.EndpointSettings{SuspendTimeoutDuration: wire.Duration(tarn.DefaultSuspendAfter)}
	if v := choose(m, suspend, byDefault, "spec.suspension", "spec.suspend_timeout_duration", "spec.no_suspension"); v != nil {
		es.NoSuspension, es.SuspendTimeoutDuration = v.NoSuspension, v.SuspendTimeoutDuration
	}
	byDefaultFrozen := wire.Duration(tarn.DefaultFreezeAfter)
	if v := choose(m, given(s.TarnFreezeTimeoutDuration), byDefaultFrozen, "spec.tarn_freeze_timeout_duration"); v != nil {
		d, err := wire.ParseDuration("spec.tarn_freeze_timeout_duration", *v)
		if err != nil {
			return err
		}
		if d == 0 {
			d = -1
		}
		e.FreezeAfter = d
	}
	return readSettings("spec", es, &e.EndpointSpec)
}

// delete removes a read replica. A READ_WRITE endpoint lives and dies with its
// branch: the detail lets Terraform take the refusal for done.
func (d *endpointDoor) delete(ctx context.Context, q *query) (any, error) {
	n, err := q.endpoint()
	if err != nil {
		return nil, err
	}
	e, err := d.control.GetEndpoint(ctx, n)
	if err != nil {
		return nil, err
	}
	if e.Type == tarn.ReadOnly {
		op, err := d.control.Replicas.Delete(ctx, n)
		return d.ops.answer(ctx, op, err)
	}
	return nil, &failure{
		status: http.StatusBadRequest, code: "INVALID_STATE",
		msg:      "delete endpoint " + n.String() + ": it belongs to its branch and goes with it",
		hint:     "delete branch " + n.Branch + ", or disable the endpoint",
		metadata: map[string]string{"declarative_context": "MANAGED_BY_PARENT"},
	}
}

// The published bounds of a credential's life.
const (
	minCredential = 5 * time.Minute
	maxCredential = time.Hour
)

func (d *endpointDoor) credential(ctx context.Context, q *query) (any, error) {
	var in wire.GenerateCredential
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	n, err := tarn.ParseEndpointName(in.Endpoint)
	if err != nil {
		return nil, badField("endpoint", "%s", err)
	}
	ttl, err := readCredentialLife(in, time.Now())
	if err != nil {
		return nil, err
	}
	if _, err := d.control.GetEndpoint(ctx, n); err != nil {
		return nil, err
	}
	secret, until, err := d.control.IssueCredential(ctx, q.who, []tarn.EndpointName{n}, ttl)
	if err != nil {
		return nil, err
	}
	return wire.Credential{Token: secret.Reveal(), ExpireTime: wire.Time(until)}, nil
}

func readCredentialLife(in wire.GenerateCredential, now time.Time) (time.Duration, error) {
	if len(in.Claims) > 0 {
		return 0, unbuilt("claims: credentials restricted to tables are not there yet; leave claims out")
	}
	ttl, field := maxCredential, "ttl"
	switch {
	case in.TTL != "" && in.ExpireTime != "":
		return 0, badField("ttl", "give ttl or expire_time, not both")
	case in.TTL != "":
		var err error
		if ttl, err = wire.ParseDuration("ttl", in.TTL); err != nil {
			return 0, err
		}
	case in.ExpireTime != "":
		t, err := wire.ParseTime("expire_time", in.ExpireTime)
		if err != nil {
			return 0, err
		}
		ttl, field = t.Sub(now), "expire_time"
	}
	if ttl < minCredential || ttl > maxCredential {
		return 0, badField(field, "a credential lives 5 minutes (300s) to 1 hour (3600s)")
	}
	return ttl, nil
}
