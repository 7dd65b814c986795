package syncedtable

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/delta"
)

// reserved are Postgres schemas that no synced table may be written to.
func reserved(schema string) bool {
	return strings.HasPrefix(schema, "pg_") || schema == "information_schema" || schema == trackingSchema
}

// Create validates and records a synced table; Run loads it. Nothing is
// changed when it fails. KindInvalid, KindNotFound, KindConflict.
func (k *Keeper) Create(ctx context.Context, who tarn.Principal, s tarn.SyncedTableSpec) (tarn.SyncedTable, error) {
	t, err := k.create(ctx, who, s)
	if err != nil {
		return tarn.SyncedTable{}, fmt.Errorf("create synced table %s: %w", s.Name, err)
	}
	k.wake()
	return t, nil
}

func (k *Keeper) create(ctx context.Context, who tarn.Principal, s tarn.SyncedTableSpec) (tarn.SyncedTable, error) {
	if s.Policy == "" {
		s.Policy = tarn.SyncSnapshot
	}
	if s.Database == "" {
		s.Database = tarn.DefaultDatabase
	}
	switch {
	case len(s.PrimaryKey) == 0:
		return tarn.SyncedTable{}, tarn.Invalid("at least one primary key column is needed")
	case len(s.Name.Schema) > maxIdentifier || len(s.Name.Table) > maxIdentifier:
		return tarn.SyncedTable{}, tarn.Invalid("schema and table names of a Postgres table have at most %d bytes", maxIdentifier)
	case reserved(s.Name.Schema):
		return tarn.SyncedTable{}, tarn.Invalid("Postgres schema %s belongs to the system", s.Name.Schema)
	}
	if err := checkSettings(s.Policy, s.SyncSettings); err != nil {
		return tarn.SyncedTable{}, err
	}
	branch, err := controldb.GetBranch(ctx, k.db, s.Branch)
	if err == nil && branch.State == tarn.BranchDeleted {
		err = tarn.NotFound("branch %s is being deleted", s.Branch)
	}
	if err != nil {
		return tarn.SyncedTable{}, err
	}
	_, snap, err := k.source(ctx, s.Source)
	if err != nil {
		return tarn.SyncedTable{}, err
	}
	if err := checkSource(snap, &s); err != nil {
		return tarn.SyncedTable{}, err
	}
	if err := checkFeed(snap, s.Source, s.Policy); err != nil {
		return tarn.SyncedTable{}, err
	}
	if _, err := k.catalog.Table(ctx, s.Name); err == nil {
		return tarn.SyncedTable{}, tarn.Conflict("the catalog has a table of that name already")
	} else if tarn.KindOf(err) != tarn.KindNotFound {
		return tarn.SyncedTable{}, err
	}
	if err := k.checkTarget(ctx, s); err != nil {
		return tarn.SyncedTable{}, err
	}
	var out tarn.SyncedTable
	err = k.db.InTx(ctx, func(tx *controldb.Tx) error {
		t, err := controldb.InsertSyncedTable(ctx, tx, who.Name, tarn.SyncedTable{SyncedTableSpec: s, State: tarn.SyncProvisioning, Version: -1})
		if err != nil {
			return err
		}
		out, err = ask(ctx, tx, t, tarn.CauseCreated, tarn.RefreshNew)
		return err
	})
	return out, err
}

// source opens a Delta table by its catalog name, at its newest version.
func (k *Keeper) source(ctx context.Context, n tarn.TableName) (*delta.Table, *delta.Snapshot, error) {
	entry, err := k.catalog.Table(ctx, n)
	if err != nil {
		return nil, nil, err
	}
	store, err := k.openStore(ctx, entry.Location)
	if err != nil {
		return nil, nil, fmt.Errorf("open source %s: %w", n, err)
	}
	t, err := delta.Open(ctx, store, "")
	if errors.Is(err, delta.ErrNotTable) {
		return nil, nil, tarn.Invalid("source %s has no Delta table at %s", n, entry.Location)
	}
	if err != nil {
		return nil, nil, refused(n, err)
	}
	s, err := t.Latest(ctx)
	if err != nil {
		return nil, nil, refused(n, err)
	}
	return t, s, nil
}

// checkSource looks whether a source has what a synced table needs, and spells
// the columns in spec as the source does.
func checkSource(snap *delta.Snapshot, spec *tarn.SyncedTableSpec) error {
	schema, n := snap.Schema(), spec.Source
	types := map[string]string{}
	for _, f := range schema.Fields {
		types[f.Name] = f.Type
	}
	find := func(name, what string) (string, error) {
		if found := spelled(schema, name); found != "" {
			return found, nil
		}
		have := make([]string, len(schema.Fields))
		for i, f := range schema.Fields {
			have[i] = f.Name
		}
		return "", tarn.Invalid("source %s has no column %q for %s; its columns are %s", n, name, what, strings.Join(have, ", "))
	}
	key := make([]string, len(spec.PrimaryKey))
	seen := map[string]bool{}
	for i, k := range spec.PrimaryKey {
		name, err := find(k, "the primary key")
		if err != nil {
			return err
		}
		if seen[name] {
			return tarn.Invalid("column %q stands twice in the primary key", name)
		}
		if nested(types[name]) {
			return tarn.Invalid("column %q of source %s is nested and cannot be a key", name, n)
		}
		seen[name], key[i] = true, name
	}
	if spec.TimeseriesKey != "" {
		name, err := find(spec.TimeseriesKey, "the timeseries key")
		if err != nil {
			return err
		}
		if seen[name] || !ordered(types[name]) {
			return tarn.Invalid("column %q of source %s cannot be the timeseries key: it wants a date, a timestamp or a whole number outside of the primary key", name, n)
		}
		spec.TimeseriesKey = name
	}
	overrides := make([]tarn.TypeOverride, len(spec.TypeOverrides))
	for i, o := range spec.TypeOverrides {
		name, err := find(o.Column, "a type override")
		if err != nil {
			return err
		}
		overrides[i] = tarn.TypeOverride{Column: name, Type: o.Type, Size: o.Size}
	}
	if len(overrides) == 0 {
		overrides = nil
	}
	if _, err := layoutOf(schema, key, spec.TimeseriesKey, overrides); err != nil {
		if delta.IsRefusal(err) {
			return refused(n, err)
		}
		return tarn.Invalid("source %s: %w", n, err)
	}
	spec.PrimaryKey, spec.TypeOverrides = key, overrides
	return nil
}

// feedProperty is the table property that TRIGGERED and CONTINUOUS need.
const feedProperty = "delta.enableChangeDataFeed"

func checkFeed(snap *delta.Snapshot, n tarn.TableName, p tarn.SyncPolicy) error {
	if !p.Follows() {
		return nil
	}
	for name, v := range snap.Properties() {
		if strings.EqualFold(name, feedProperty) && strings.EqualFold(v, "true") {
			return nil
		}
	}
	return tarn.Invalid("source table %s must have its change data feed enabled (%s = true) for scheduling policy %s", n, feedProperty, p).
		WithHint(fmt.Sprintf("ALTER TABLE %s SET TBLPROPERTIES (%s = true), or use SNAPSHOT", n, feedProperty))
}

// checkSettings refuses settings that make no sense, or none with the policy.
func checkSettings(p tarn.SyncPolicy, s tarn.SyncSettings) error {
	switch {
	case p != tarn.SyncSnapshot && !p.Follows():
		return tarn.Invalid("scheduling policy %q: want SNAPSHOT, TRIGGERED or CONTINUOUS", p)
	case s.Interval != 0 && p != tarn.SyncContinuous:
		return tarn.Invalid("an interval goes with scheduling policy CONTINUOUS; %s has a schedule, or runs on demand", p)
	case s.Interval != 0 && s.Interval < tarn.MinSyncInterval:
		return tarn.Invalid("the interval is %s; the shortest is %s", s.Interval, tarn.MinSyncInterval)
	case s.Schedule.Cron != "" && p == tarn.SyncContinuous:
		return tarn.Invalid("a schedule goes with SNAPSHOT and TRIGGERED; CONTINUOUS runs by itself")
	case s.OnReject != "" && s.OnReject != tarn.RejectContinue && s.OnReject != tarn.RejectStop:
		return tarn.Invalid("rows that cannot be stored: got %q, want CONTINUE or STOP", s.OnReject)
	case s.Alerts.Lag < 0 || s.Alerts.DeadLetters < 0:
		return tarn.Invalid("a bound of an alert is negative")
	}
	if s.Alerts.Webhook != "" {
		u, err := url.Parse(s.Alerts.Webhook)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return tarn.Invalid("webhook %q is not an http or https URL", s.Alerts.Webhook)
		}
	}
	return s.Schedule.Check()
}

// checkTarget looks whether the Postgres name is free, if the compute is up; a
// sleeping one is not woken, the load looks again.
func (k *Keeper) checkTarget(ctx context.Context, s tarn.SyncedTableSpec) error {
	status, err := k.computes.ComputeOf(ctx, s.Branch)
	if err != nil || status.State != tarn.ComputeActive {
		return nil
	}
	conn, err := k.computes.Connect(ctx, s.Branch, s.Database, configure)
	if err != nil {
		return nil // the load says so, and tries again
	}
	defer closeConn(conn)
	return targetFree(ctx, conn, s.Name)
}
