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
	nodes    *int
	readable *bool
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
		nodes:    choose(m, in.NodeCount, 1, "node_count"),
		readable: choose(m, in.EnableReadableSecondaries, false, "enable_readable_secondaries"),
	}
	if c.capacity != nil && *c.capacity == "" {
		c.capacity = nil
	}
	return c, nil
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
	b, have, err := d.record(ctx, q, n)
	if err != nil {
		return nil, err
	}
	c.spec(&have)
	if err := checkNodes(have); err != nil {
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
		_, err := d.control.UpdateEndpoint(ctx, b.Endpoint(tarn.DefaultEndpoint), func(e *tarn.Endpoint) error {
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
	if err := d.secondaries(ctx, b, have, c); err != nil {
		return nil, err
	}
	if q.child != nil {
		if c.days != nil || c.login != nil {
			return nil, badField("update_mask", "retention_window_in_days and enable_pg_native_login of a child are its parent's: change %s", q.child.Branch.Project)
		}
		child := *q.child
		child.Instance = have
		if c.tags != nil {
			child.CustomTags = tagsIn(*c.tags)
		}
		if err := d.control.Published.UpdateChild(ctx, child); err != nil {
			return nil, err
		}
		return d.viewChild(ctx, child)
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

// spec applies what an update says to what is kept of an instance.
func (c instanceChange) spec(i *tarn.InstanceSpec) {
	if c.capacity != nil {
		i.Capacity = *c.capacity
	}
	if c.nodes != nil {
		i.NodeCount = *c.nodes
	}
	if c.readable != nil {
		i.Readable = *c.readable
	}
	if c.policy != nil {
		i.UsagePolicy = *c.policy
	}
	i.NodeCount = max(1, i.NodeCount)
	// Its endpoint is disabled: a project that is stopped would take the
	// children along.
	if c.stopped != nil {
		i.Stopped = false
	}
}

func (c instanceChange) apply(p *tarn.Project) {
	c.spec(&p.Instance)
	if c.tags != nil {
		p.CustomTags = tagsIn(*c.tags)
	}
	if c.login != nil {
		p.DisableNativeLogin = !*c.login
	}
}
