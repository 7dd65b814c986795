package api

import (
	"context"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
)

// instanceFields are what an update may name; Terraform always names them all.
var instanceFields = [...]string{
	"capacity", "custom_tags", "enable_pg_native_login", "enable_readable_secondaries",
	"node_count", "retention_window_in_days", "stopped", "usage_policy_id",
}

// instanceChange is what one update asks of the project and of its endpoint;
// nil fields stay as they are.
type instanceChange struct {
	capacity *string
	tags     *[]wire.CustomTag
	login    *bool
	days     *int
	stopped  *bool
	policy   *string
}

func readInstanceChange(m mask, in wire.DatabaseInstance) (instanceChange, error) {
	if err := m.check(instanceFields[:]...); err != nil {
		return instanceChange{}, err
	}
	var tags *[]wire.CustomTag
	if in.CustomTags != nil {
		tags = &in.CustomTags
	}
	c := instanceChange{
		// A named capacity without a value keeps the present one: there is no
		// default to return to that would not resize somebody's database.
		capacity: choose(m, given(in.Capacity), "", "capacity"),
		tags:     choose(m, tags, nil, "custom_tags"),
		login:    choose(m, in.EnablePgNativeLogin, true, "enable_pg_native_login"),
		days:     choose(m, in.RetentionWindowInDays, defaultRetention, "retention_window_in_days"),
		stopped:  choose(m, in.Stopped, false, "stopped"),
		policy:   choose(m, given(in.UsagePolicyID), "", "usage_policy_id"),
	}
	if c.capacity != nil && *c.capacity == "" {
		c.capacity = nil
	}
	return c, oneNode(in)
}

// update changes the endpoint first and the project second. A crash between
// the two leaves an instance that truly runs as asked and only echoes an older
// wish; sending the request again mends it.
func (d *instanceDoor) update(ctx context.Context, q *query) (any, error) {
	n, err := q.project()
	if err != nil {
		return nil, err
	}
	var in wire.DatabaseInstance
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	c, err := readInstanceChange(parseMask(q.text("update_mask")), in)
	if err != nil {
		return nil, err
	}
	if _, err := d.control.GetProject(ctx, n); err != nil {
		return nil, err
	}
	var lo, hi float64
	if c.capacity != nil {
		if lo, hi, err = limitsOf(*c.capacity); err != nil {
			return nil, err
		}
	}
	var history time.Duration
	if c.days != nil {
		if history, err = retention(*c.days); err != nil {
			return nil, err
		}
	}
	if c.capacity != nil || c.stopped != nil {
		primary := n.Branch(tarn.DefaultBranch).Endpoint(tarn.DefaultEndpoint)
		_, err := d.control.UpdateEndpoint(ctx, primary, func(e *tarn.Endpoint) error {
			if c.capacity != nil {
				e.MinCU, e.MaxCU = lo, hi
			}
			if c.stopped != nil {
				e.Disabled = *c.stopped
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	_, err = d.control.UpdateProject(ctx, n, func(p *tarn.Project) error {
		c.apply(p)
		if c.days != nil {
			p.History = history
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return d.show(ctx, n)
}

func (c instanceChange) apply(p *tarn.Project) {
	if c.capacity != nil {
		p.Instance.Capacity = *c.capacity
	}
	if c.tags != nil {
		p.CustomTags = tagsIn(*c.tags)
	}
	if c.login != nil {
		p.DisableNativeLogin = !*c.login
	}
	if c.stopped != nil {
		p.Instance.Stopped = *c.stopped
	}
	if c.policy != nil {
		p.Instance.UsagePolicy = *c.policy
	}
}
