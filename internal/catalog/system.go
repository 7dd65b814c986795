package catalog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

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

const auditTarget = "access.audit"

// AuditTable is where the audit is read.
func AuditTable() tarn.TableName {
	return tarn.TableName{Catalog: System, Schema: "access", Table: "audit"}
}

// Audit keeps what happened. Record is durable when it returns; Run moves what
// was recorded into the Delta table, each event once:
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
	// Zero is all that JSON can hold and Postgres's cannot.
	return controldb.InsertSystemRow(ctx, a.c.db, auditTarget, bytes.ReplaceAll(b, []byte(`\u0000`), nil))
}

// bound cuts texts that somebody else chose.
func (e *Event) bound() {
	const most = 2048 // bytes
	for _, s := range []*string{&e.Principal, &e.Agent, &e.Object, &e.Detail, &e.Error} {
		*s = strings.ToValidUTF8((*s)[:min(len(*s), most)], "?")
	}
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

// batchRows is how many events one commit holds at most.
const batchRows = 10_000

const auditTxn = "tarn.audit"

// Flush moves what was recorded into the table.
func (a *Audit) Flush(ctx context.Context) error {
	select { // two would give the number of a batch to other rows
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	t, err := a.table(ctx)
	if err != nil {
		return fmt.Errorf("open %s: %w", AuditTable(), err)
	}
	for {
		s, err := t.Latest(ctx)
		if err != nil {
			return err
		}
		done, _ := s.AppTxn(auditTxn)
		if err := controldb.DropSystemRows(ctx, a.c.db, auditTarget, done); err != nil {
			return err
		}
		rows, err := controldb.ClaimSystemRows(ctx, a.c.db, auditTarget, done+1, batchRows)
		if err != nil || len(rows) == 0 {
			return err
		}
		if err := write(ctx, t, s, rows, done+1); err != nil && !errors.Is(err, delta.ErrAppliedTxn) {
			return err
		}
	}
}

func write(ctx context.Context, t *delta.Table, s *delta.Snapshot, rows []json.RawMessage, batch int64) error {
	schema, err := s.Schema().Arrow()
	if err != nil {
		return err
	}
	var b bytes.Buffer
	b.WriteByte('[')
	for i, r := range rows {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(r)
	}
	b.WriteByte(']')
	rec, _, err := array.RecordFromJSON(memory.DefaultAllocator, schema, &b)
	if err != nil {
		return fmt.Errorf("read rows of batch %d: %w", batch, err)
	}
	defer rec.Release()
	_, err = t.Commit(ctx, delta.CommitOptions{Operation: "STREAMING UPDATE"}, func(x *delta.Tx) error {
		x.SetAppTxn(auditTxn, batch)
		return x.Append(ctx, rec)
	})
	return err
}

// table opens the table, which is made when missing.
func (a *Audit) table(ctx context.Context) (*delta.Table, error) {
	n := AuditTable()
	e, err := a.c.Table(ctx, n)
	if tarn.KindOf(err) == tarn.KindNotFound {
		e, err = a.c.CreateTable(ctx, tarn.Principal{}, n, "", "who did what, to what, and with what result")
	}
	if err != nil {
		return nil, err
	}
	s, err := a.open(ctx, e.Location)
	if err != nil {
		return nil, err
	}
	t, err := delta.Open(ctx, s, "")
	if errors.Is(err, delta.ErrNotTable) {
		return delta.Create(ctx, s, "", delta.Metadata{Name: "audit", Schema: auditSchema(), PartitionBy: []string{"event_date"}})
	}
	return t, err
}

// tidy makes few files of many and forgets what is older than is kept.
func (a *Audit) tidy(ctx context.Context, now time.Time) error {
	t, err := a.table(ctx)
	if err != nil {
		return err
	}
	if a.keep > 0 {
		if err := controldb.ForgetLineage(ctx, a.c.db, now.Add(-a.keep)); err != nil {
			return err
		}
		old, err := delta.ParsePredicate("event_date < '" + now.Add(-a.keep).UTC().Format(time.DateOnly) + "'")
		if err != nil {
			return err
		}
		if _, err := t.Commit(ctx, delta.CommitOptions{Operation: "DELETE"}, func(x *delta.Tx) error {
			_, err := x.Delete(ctx, old)
			return err
		}); err != nil {
			return fmt.Errorf("forget old events: %w", err)
		}
	}
	_, err = t.Optimize(ctx, delta.OptimizeOptions{})
	return err
}
