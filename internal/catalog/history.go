package catalog

import (
	"context"
	"encoding/json"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/delta"
)

// Query is one line of system.query.history: a statement that a warehouse ran to
// its end.
type Query struct {
	ID        string    `json:"statement_id"`
	Principal string    `json:"executed_by"`
	Text      string    `json:"statement_text"`   // at most 64 KiB of it
	Kind      string    `json:"statement_type"`   // SELECT, MERGE, …
	Status    string    `json:"execution_status"` // FINISHED, FAILED or CANCELED
	Error     string    `json:"error_message"`
	Start     time.Time `json:"start_time"`
	Date      string    `json:"start_date"` // of Start, YYYY-MM-DD
	End       time.Time `json:"end_time"`
	TotalMS   int64     `json:"total_duration_ms"`
	WaitMS    int64     `json:"waiting_at_capacity_duration_ms"`
	RunMS     int64     `json:"execution_duration_ms"`
	Rows      int64     `json:"produced_rows"`
}

var historyTable = systemTable{
	name: tarn.TableName{Catalog: System, Schema: "query", Table: "history"}, comment: "statements that warehouses ran",
	txn: "tarn.query.history", day: "start_date", schema: historySchema,
}

func historySchema() (s delta.Schema) {
	for _, f := range [][2]string{
		{"statement_id", "string"}, {"executed_by", "string"}, {"statement_text", "string"}, {"statement_type", "string"}, {"execution_status", "string"},
		{"error_message", "string"}, {"start_time", "timestamp"}, {"start_date", "date"}, {"end_time", "timestamp"}, {"total_duration_ms", "long"},
		{"waiting_at_capacity_duration_ms", "long"}, {"execution_duration_ms", "long"}, {"produced_rows", "long"},
	} {
		s.Fields = append(s.Fields, delta.Field{Name: f[0], Type: f[1], Nullable: true})
	}
	return s
}

// RecordQuery keeps a statement, on a connection to the control database.
func RecordQuery(ctx context.Context, c controldb.Conn, q Query) error {
	q.Text, q.Error = storable(q.Text, 64<<10), storable(q.Error, 2048)
	q.Start, q.End = q.Start.UTC().Truncate(time.Microsecond), q.End.UTC().Truncate(time.Microsecond)
	q.Date = q.Start.Format(time.DateOnly)
	b, err := json.Marshal(q)
	if err != nil {
		return err
	}
	return controldb.InsertSystemRow(ctx, c, historyTable.target(), b)
}
