package api

import (
	"context"
	"encoding/json"
	"strconv"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/syncedtable"
)

// change gives a synced table another policy or other settings in place; what
// the request leaves out stays. Tarn's own.
func (d *syncedDoor) change(ctx context.Context, q *query) (any, error) {
	var in wire.SyncedTableChange
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	t, err := d.read(ctx, q)
	if err != nil {
		return nil, err
	}
	policy, settings := t.Policy, t.SyncSettings
	if in.SchedulingPolicy != nil {
		policy = tarn.SyncPolicy(*in.SchedulingPolicy)
	}
	if in.Settings != nil {
		settings = readSyncSettings(*in.Settings)
	}
	if t, err = d.keeper.Change(ctx, t.Name, policy, settings); err != nil {
		return nil, err
	}
	return syncedOf(t), nil
}

func (d *syncedDoor) verify(ctx context.Context, q *query) (any, error) {
	t, err := d.read(ctx, q)
	if err != nil {
		return nil, err
	}
	v, err := d.keeper.Verify(ctx, t.Name)
	if err != nil {
		return nil, err
	}
	out := wire.Verification{Equal: v.Equal(), Version: v.Version, SourceRows: v.SourceRows, TargetRows: v.TargetRows,
		Rejected: v.Rejected, Older: v.Older, Buckets: v.Buckets, Different: v.Different}
	for _, k := range v.Keys {
		out.Keys = append(out.Keys, wire.KeyDifference{Key: k.Key, What: k.What})
	}
	return out, nil
}

func (d *syncedDoor) deadLetters(ctx context.Context, q *query) (any, error) {
	t, err := d.read(ctx, q)
	if err != nil {
		return nil, err
	}
	pg, err := q.page("page_size")
	if err != nil {
		return nil, err
	}
	after := int64(0)
	if pg.Token != "" {
		if after, err = strconv.ParseInt(pg.Token, 10, 64); err != nil {
			return nil, badField("page_token", "this server did not give it out")
		}
	}
	ls, err := d.keeper.DeadLetters(ctx, t.Name, after, pg.Size+1)
	if err != nil {
		return nil, err
	}
	out := wire.ListDeadLetters{DeadLetters: []wire.DeadLetter{}}
	if len(ls) > pg.Size {
		ls = ls[:pg.Size]
		out.NextPageToken = strconv.FormatInt(ls[len(ls)-1].ID, 10)
	}
	for _, l := range ls {
		out.DeadLetters = append(out.DeadLetters, wire.DeadLetter{ID: l.ID, Version: l.Version, Reason: l.Reason,
			Row: json.RawMessage(l.Row), Lossy: l.Lossy, Tries: l.Tries, Time: wire.Time(l.Created)})
	}
	return out, nil
}

func (d *syncedDoor) replay(ctx context.Context, q *query) (any, error) {
	var in wire.Replay
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	t, err := d.read(ctx, q)
	if err != nil {
		return nil, err
	}
	how := syncedtable.KeepText
	if in.ReplaceText {
		how = syncedtable.ReplaceText
	}
	r, err := d.keeper.Replay(ctx, t.Name, how)
	if err != nil {
		return nil, err
	}
	return wire.Replayed{Stored: r.Stored, Left: r.Left}, nil
}
