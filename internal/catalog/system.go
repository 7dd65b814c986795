package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/delta"
)

// Event is one line of system.access.audit: who did what, to what, and with what
// result. It holds no secret.
type Event struct {
	Time      time.Time `json:"event_time"`
	Date      string    `json:"event_date"` // of Time, YYYY-MM-DD
	ID        string    `json:"event_id"`
	Service   string    `json:"service_name"` // database, postgres, catalog, …
	Action    string    `json:"action_name"`  // createCatalog, …
	RequestID string    `json:"request_id"`
	Principal string    `json:"principal"` // "" = not known
	SourceIP  string    `json:"source_ip_address"`
	Agent     string    `json:"user_agent"`
	Object    string    `json:"object"` // path of the request
	Detail    string    `json:"detail"` // what else is known, e.g. what was granted
	Status    int32     `json:"status_code"`
	Error     string    `json:"error"` // code and message; "" = it was done
}

func auditSchema() delta.Schema {
	s := delta.Schema{Fields: []delta.Field{{Name: "event_time", Type: "timestamp"}, {Name: "event_date", Type: "date"}}}
	for _, n := range []string{"event_id", "service_name", "action_name", "request_id", "principal", "source_ip_address", "user_agent", "object", "detail"} {
		s.Fields = append(s.Fields, delta.Field{Name: n, Type: "string", Nullable: true})
	}
	s.Fields = append(s.Fields, delta.Field{Name: "status_code", Type: "integer", Nullable: true}, delta.Field{Name: "error", Type: "string", Nullable: true})
	return s
}

// AuditTable is where the audit is read.
func AuditTable() tarn.TableName { return auditTable.name }

var auditTable = systemTable{
	name: tarn.TableName{Catalog: System, Schema: "access", Table: "audit"}, comment: "who did what, to what, and with what result",
	txn: "tarn.audit", day: "event_date", schema: auditSchema,
}

// Audit keeps what happened, and which statements were run. Record is durable when
// it returns; Run moves what was recorded into the Delta tables, each row once:
//
//  1. read from the table the number of the newest batch in it (its txn)
//  2. forget the rows of batches up to that one
//  3. give rows the next number (crash: the same rows have it still)
//  4. commit them with that number as txn (crash: step 2 forgets them)
type Audit struct {
	c    *Catalog
	open func(ctx context.Context, location string) (blob.Store, error)
	keep time.Duration
	log  *slog.Logger

	refusals refusals
	turn     chan struct{} // of the one Flush at a time
}

// NewAudit builds an audit that keeps events for keep, 0 = forever.
func NewAudit(c *Catalog, open func(ctx context.Context, location string) (blob.Store, error), keep time.Duration, log *slog.Logger) *Audit {
	return &Audit{c: c, open: open, keep: keep, log: log, turn: make(chan struct{}, 1)}
}

// Record keeps an event.
func (a *Audit) Record(ctx context.Context, e Event) error {
	e.bound()
	e.Time = e.Time.UTC().Truncate(time.Microsecond)
	e.Date = e.Time.Format(time.DateOnly)
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return controldb.InsertSystemRow(ctx, a.c.db, auditTable.target(), b)
}

// bound cuts texts that somebody else chose.
func (e *Event) bound() {
	for _, s := range []*string{&e.ID, &e.RequestID, &e.Principal, &e.SourceIP, &e.Agent, &e.Object, &e.Detail, &e.Error} {
		*s = storable(*s, 2048)
	}
}

// storable is what Postgres's JSON can hold of the first most bytes of s.
func storable(s string, most int) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s[:min(len(s), most)], "?"), "\x00", "")
}

// Run moves events into the table every now and then. Refusals that were counted
// are recorded at its end too.
func (a *Audit) Run(ctx context.Context, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var tidied time.Time
	for {
		err := errors.Join(a.count(ctx, time.Now()), a.Flush(ctx))
		if err == nil && time.Since(tidied) > 24*time.Hour {
			tidied = time.Now()
			err = a.tidy(ctx, tidied)
		}
		if err != nil && ctx.Err() == nil {
			a.log.WarnContext(ctx, "audit not written to its table; it is kept and tried again", "err", err)
		}
		select {
		case <-ctx.Done():
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			if err := a.count(end, time.Now().Add(time.Minute)); err != nil {
				a.log.WarnContext(end, "refusals not counted", "err", err)
			}
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// systemTables are those that are written here.
var systemTables = [...]systemTable{auditTable, historyTable}

// Flush moves what was recorded into the tables.
func (a *Audit) Flush(ctx context.Context) error {
	select { // two would give the number of a batch to other rows
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for _, t := range systemTables {
		if err := a.flush(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

// tidy makes few files of many and forgets what is older than is kept.
func (a *Audit) tidy(ctx context.Context, now time.Time) error {
	if a.keep > 0 {
		if err := controldb.ForgetLineage(ctx, a.c.db, now.Add(-a.keep)); err != nil {
			return err
		}
	}
	for _, t := range systemTables {
		if err := a.tidyTable(ctx, t, now); err != nil {
			return err
		}
	}
	return nil
}
