package feed

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/delta"
	"github.com/tarndb/tarn/internal/pgoutput"
)

// missing says what to do when a history table does not exist.
type missing int

const (
	onlyExisting missing = iota
	createMissing
)

// targetName is the history table of a Postgres table.
func targetName(s tarn.FeedSpec, table string) tarn.TableName {
	clean := strings.Map(func(r rune) rune {
		if strings.ContainsRune("/\\.`", r) || r < ' ' {
			return '_'
		}
		return r
	}, table)
	return tarn.TableName{Catalog: s.Catalog, Schema: s.Schema, Table: "lb_" + clean + "_history"}
}

// openTable gives the table of rel, whose Delta table it opens or makes. nil:
// there is none and none is to be made. A table that cannot be followed comes
// back stopped.
func (s *session) openTable(ctx context.Context, rel *pgoutput.Relation, m missing) (*table, error) {
	if t := s.tables[rel.ID]; t != nil {
		if t.name == rel.Name {
			return t, nil
		}
		// Renamed, and about to be copied: what it had is committed by now.
		t.close(ctx)
		delete(s.tables, rel.ID)
	}
	t := &table{oid: rel.ID, name: rel.Name, target: targetName(s.row.FeedSpec, rel.Name), app: fmt.Sprintf("%s/%d", s.app, rel.ID), bury: s.graves.bury}
	t.status.copied, t.status.buried = s.recorded(rel.Name).Copied, s.recorded(rel.Name).DeadLetters
	t.setState(tarn.FeedStreaming, "")
	for _, o := range s.tables {
		if o.target == t.target && o.gone == 0 && !o.stopped() && o.name != t.name {
			t.setState(tarn.FeedSkipped, fmt.Sprintf("table %q already writes to %s", o.name, t.target))
			s.tables[rel.ID] = t
			return t, nil
		}
	}
	err := s.openDelta(ctx, t, rel, m)
	var stop *stopError
	switch {
	case errors.Is(err, delta.ErrNotTable):
		return nil, nil
	case errors.As(err, &stop):
		t.setState(tarn.FeedSkipped, stop.detail)
		t.delta = nil
	case err != nil:
		return nil, fmt.Errorf("open table %s: %w", t.target, err)
	}
	t.succeeds = !t.known && (t.used || s.writesTo(t.target))
	s.tables[rel.ID] = t
	return t, nil
}

// writesTo reports that a table writes, or wrote in this session, to target.
func (s *session) writesTo(target tarn.TableName) bool {
	for _, t := range s.tables {
		if t.target == target {
			return true
		}
	}
	return false
}

// openDelta opens or makes the Delta table.
//
//  1. the catalog gets the entry     a crash leaves an entry without a log, made here the next time
//  2. version 0 is written
func (s *session) openDelta(ctx context.Context, t *table, rel *pgoutput.Relation, m missing) error {
	entry, err := s.k.catalog.Table(ctx, t.target)
	if tarn.KindOf(err) == tarn.KindNotFound {
		if m == onlyExisting {
			return delta.ErrNotTable
		}
		entry, err = s.k.catalog.CreateTable(ctx, s.owner, t.target, "", fmt.Sprintf("changes of %s.%s of %s", s.row.PostgresSchema, t.name, s.row.Branch))
	}
	if err != nil {
		return err
	}
	store, err := s.k.openStore(ctx, entry.Location)
	if err != nil {
		return err
	}
	t.delta, err = delta.Open(ctx, store, "")
	if errors.Is(err, delta.ErrNotTable) && m == createMissing {
		schema, serr := historySchema(ctx, s.types, rel)
		if serr != nil {
			return serr
		}
		t.delta, err = delta.Create(ctx, store, "", delta.Metadata{
			Name: t.target.Table, Schema: schema, Properties: map[string]string{"delta.appendOnly": "true", changeFeedProperty: "true"},
		})
	}
	if err == nil {
		err = t.load(ctx)
	}
	if delta.IsRefusal(err) {
		return &stopError{err.Error()}
	}
	return err
}

// recorded is a table's last recorded status.
func (f *follower) recorded(name string) tarn.FeedTable { return f.tables[name] }

// record writes the tables' statuses to the control database.
func (s *session) record(ctx context.Context) error {
	var all []tarn.FeedTable
	var edges []tarn.LineageEdge
	seen := map[string]bool{}
	for _, t := range s.tables {
		if seen[t.name] && (t.gone != 0 || t.stopped()) {
			continue // another table has its name now
		}
		seen[t.name] = true
		now := t.feedTable(s.flushed)
		all = append(all, now)
		if now.Rows > s.follower.tables[t.name].Rows {
			edges = append(edges, s.lineage(now, t.schema)...)
		}
	}
	err := s.k.db.InTx(ctx, func(tx *controldb.Tx) error {
		for _, t := range all {
			if s.follower.tables[t.PostgresTable] == t {
				continue
			}
			if err := controldb.UpsertFeedTable(ctx, tx, s.row.UID, t); err != nil {
				return err
			}
		}
		for _, e := range edges {
			if err := controldb.RecordLineage(ctx, tx, e); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("record the tables: %w", err)
	}
	var news []*table
	for _, t := range s.tables {
		t.status.changed = false
		// Only what is news: the rows written here move the WAL, too.
		if now := (told{t.status.state, t.base}); t.status.told != now {
			t.status.told = now
			news = append(news, t)
		}
	}
	if len(news) > 0 && !s.src.conn.IsClosed() {
		if err := s.src.tell(ctx, news); err != nil && !s.src.conn.IsClosed() {
			return err
		}
	}
	for _, t := range all {
		before := s.follower.tables[t.PostgresTable]
		s.rows += max(0, t.Rows-before.Rows)
		s.tellChange(ctx, before, t)
		s.follower.tables[t.PostgresTable] = t
	}
	return nil
}

func (t *table) feedTable(flushed tarn.LSN) tarn.FeedTable {
	f := tarn.FeedTable{
		PostgresTable: t.name, Target: t.target, State: t.status.state,
		CommittedLSN: t.base, LastSync: t.status.sync, Detail: t.status.detail,
		Rows: t.status.total, DeadLetters: t.status.buried, Copied: t.status.copied, CopyRows: t.status.estimate,
	}
	if t.known && !t.stopped() && t.pending == 0 {
		f.CommittedLSN = max(t.base, flushed)
	}
	if t.status.lost > 0 {
		f.Detail = strings.TrimPrefix(f.Detail+fmt.Sprintf("; %d values have no Delta form and are NULL here and whole in feed_dead_letters, the last: %s", t.status.lost, t.status.example), "; ")
	}
	return f
}
