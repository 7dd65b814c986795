package api

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/warehouse"
)

// sqlDoor runs statements in the one warehouse there is.
type sqlDoor struct {
	warehouse *warehouse.Warehouse
}

// warehouseID is the id of the one warehouse.
const warehouseID = "default"

func sqlRoutes(c Config) []route {
	d := &sqlDoor{warehouse: c.Warehouse}
	const (
		statements = "/api/2.0/sql/statements"
		warehouses = "/api/2.0/sql/warehouses"
	)
	return []route{
		{"POST " + statements, signedIn, d.execute, says[wire.ExecuteStatement, wire.Statement]("sql.executeStatement", "")},
		{"POST " + statements + "/{$}", signedIn, d.execute, says[wire.ExecuteStatement, wire.Statement]("sql.executeStatementSlash", "")},
		{"GET " + statements + "/{statement}", signedIn, d.get, says[none, wire.Statement]("sql.getStatement", "")},
		{"POST " + statements + "/{statement}/cancel", signedIn, d.cancel, says[none, wire.Empty]("sql.cancelExecution", "")},
		{"GET " + statements + "/{statement}/result/chunks/{chunk}", signedIn, d.chunk, says[none, wire.StatementResult]("sql.getStatementResultChunkN", "")},
		{"GET " + warehouses, signedIn, d.list, says[none, wire.ListWarehouses]("sql.listWarehouses", "")},
		{"POST " + warehouses, adminOnly, d.create, says[none, wire.Empty]("sql.createWarehouse", "")},
		{"GET " + warehouses + "/{warehouse}", signedIn, d.one, says[none, wire.Warehouse]("sql.getWarehouse", "")},
		{"POST " + warehouses + "/{warehouse}/start", signedIn, d.start, says[none, wire.Empty]("sql.startWarehouse", "")},
		{"POST " + warehouses + "/{warehouse}/stop", adminOnly, d.stop, says[none, wire.Empty]("sql.stopWarehouse", "")},
		{"GET /api/2.0/sql/history/queries", signedIn, d.history, says[none, wire.QueryHistory]("sql.listQueries", "max_results page_token")},
	}
}

// have refuses what needs the warehouse where there is none.
func (d *sqlDoor) have(id string) error {
	switch {
	case d.warehouse == nil:
		return unbuilt("this server runs no SQL")
	case id != warehouseID && id != "":
		return tarn.NotFound("there is no warehouse %q", id).WithHint("the one warehouse is " + warehouseID)
	}
	return nil
}

func (d *sqlDoor) execute(ctx context.Context, q *query) (any, error) {
	var in wire.ExecuteStatement
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	if err := d.have(in.WarehouseID); err != nil {
		return nil, err
	}
	format, err := formatOf(in)
	if err != nil {
		return nil, err
	}
	wait, err := waitOf(in.WaitTimeout)
	if err != nil {
		return nil, err
	}
	if t := in.OnWaitTimeout; t != "" && t != "CONTINUE" && t != "CANCEL" {
		return nil, badField("on_wait_timeout", "got %q, want CONTINUE or CANCEL", t)
	}
	if in.RowLimit < 0 || in.ByteLimit < 0 {
		return nil, badField("row_limit", "a limit is not negative")
	}
	r := warehouse.Request{SQL: in.Statement, Catalog: in.Catalog, Schema: in.Schema, RowLimit: in.RowLimit, ByteLimit: in.ByteLimit, Address: addressOf(q.r), Agent: q.r.UserAgent()}
	for _, p := range in.Parameters {
		r.Params = append(r.Params, warehouse.Parameter{Name: p.Name, Type: p.Type, Value: p.Value})
	}
	s, err := d.warehouse.Submit(q.who, r)
	if err != nil {
		return nil, err
	}
	s.Wait(ctx, wait)
	if !s.Status().State.Over() && wait > 0 && in.OnWaitTimeout == "CANCEL" {
		s.Cancel()
		s.Wait(ctx, time.Minute)
	}
	return d.answer(ctx, s, format)
}

func formatOf(in wire.ExecuteStatement) (string, error) {
	if in.Disposition != "" && in.Disposition != "INLINE" {
		return "", unbuilt("disposition %s is not known: this server gives results INLINE, in as many chunks as they need", in.Disposition)
	}
	switch in.Format {
	case "", "JSON_ARRAY":
		return "JSON_ARRAY", nil
	case "ARROW_STREAM":
		return "ARROW_STREAM", nil
	}
	return "", badField("format", "got %q, want JSON_ARRAY or ARROW_STREAM", in.Format)
}

func waitOf(text string) (time.Duration, error) {
	if text == "" {
		return 10 * time.Second, nil
	}
	n, err := strconv.Atoi(strings.TrimSuffix(text, "s"))
	if err != nil || !strings.HasSuffix(text, "s") || n != 0 && (n < 5 || n > 50) {
		return 0, badField("wait_timeout", "got %q, want 0s or 5s to 50s", text)
	}
	return time.Duration(n) * time.Second, nil
}

func (d *sqlDoor) statement(q *query) (*warehouse.Statement, error) {
	if err := d.have(""); err != nil {
		return nil, err
	}
	return d.warehouse.Statement(q.who, q.r.PathValue("statement"))
}

func (d *sqlDoor) get(ctx context.Context, q *query) (any, error) {
	s, err := d.statement(q)
	if err != nil {
		return nil, err
	}
	return d.answer(ctx, s, s.Format())
}

func (d *sqlDoor) cancel(_ context.Context, q *query) (any, error) {
	s, err := d.statement(q)
	if err != nil {
		return nil, err
	}
	s.Cancel()
	return wire.Empty{}, nil
}

func (d *sqlDoor) chunk(_ context.Context, q *query) (any, error) {
	s, err := d.statement(q)
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(q.r.PathValue("chunk"))
	if err != nil {
		return nil, badField("chunk_index", "got %q, want a number", q.r.PathValue("chunk"))
	}
	return d.part(s, n, s.Format())
}

// answer tells how far a statement is; of one that succeeded, the first rows.
func (d *sqlDoor) answer(ctx context.Context, s *warehouse.Statement, format string) (any, error) {
	s.SetFormat(format)
	st := s.Status()
	out := wire.Statement{StatementID: s.ID, Status: wire.StatementStatus{State: string(st.State)}}
	switch st.State {
	case warehouse.Failed:
		out.Status.Error = statementError(st.Err)
	case warehouse.Running:
		if p := s.Progress(ctx); p >= 0 {
			out.Status.Progress = &p
		}
	case warehouse.Succeeded:
		out.Manifest = manifest(st.Result, format)
		if st.Result.Schema == nil || len(st.Result.Chunks) == 0 {
			out.Result = &wire.StatementResult{}
			break
		}
		first, err := d.part(s, 0, format)
		if err != nil {
			return nil, err
		}
		out.Result = first
	}
	return out, nil
}

func statementError(err error) *wire.StatementError {
	f := failureOf(err)
	code := map[string]string{
		"INVALID_PARAMETER_VALUE": "BAD_REQUEST", "INVALID_STATE": "BAD_REQUEST", "PERMISSION_DENIED": "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST": "NOT_FOUND",
		"TEMPORARILY_UNAVAILABLE": "TEMPORARILY_UNAVAILABLE", "NOT_IMPLEMENTED": "BAD_REQUEST",
	}[f.code]
	if code == "" {
		code = "INTERNAL_ERROR"
	}
	msg := f.msg
	if f.code == "PERMISSION_DENIED" {
		msg = "[INSUFFICIENT_PERMISSIONS] " + msg
	}
	return &wire.StatementError{ErrorCode: code, Message: unretried(msg), Hint: f.hint}
}

func manifest(r warehouse.Result, format string) *wire.StatementManifest {
	m := &wire.StatementManifest{Format: format, TotalChunkCount: len(r.Chunks), TotalRowCount: r.Rows, TotalByteCount: r.Bytes, Truncated: r.Truncated}
	m.Schema.Columns = []wire.StatementColumn{}
	if r.Schema != nil {
		for i, f := range r.Schema.Fields() {
			c := wire.StatementColumn{Name: f.Name, Position: i, TypeText: warehouse.TypeText(f.Type), TypeName: warehouse.TypeName(f.Type)}
			if t, ok := f.Type.(*arrow.Decimal128Type); ok {
				p, s := int(t.Precision), int(t.Scale)
				c.Precision, c.Scale = &p, &s
			}
			m.Schema.Columns = append(m.Schema.Columns, c)
		}
	}
	m.Schema.ColumnCount = len(m.Schema.Columns)
	for i, c := range r.Chunks {
		m.Chunks = append(m.Chunks, wire.StatementChunk{ChunkIndex: i, RowOffset: c.First, RowCount: c.Rows, ByteCount: c.Bytes})
	}
	return m
}

// part gives one chunk.
func (d *sqlDoor) part(s *warehouse.Statement, n int, format string) (*wire.StatementResult, error) {
	f, c, err := s.OpenChunk(n)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := &wire.StatementResult{StatementChunk: wire.StatementChunk{ChunkIndex: n, RowOffset: c.First, RowCount: c.Rows, ByteCount: c.Bytes}}
	if n+1 < len(s.Status().Result.Chunks) {
		next := n + 1
		out.NextChunkIndex = &next
		out.NextChunkInternalLink = fmt.Sprintf("/api/2.0/sql/statements/%s/result/chunks/%d?row_offset=%d", s.ID, next, c.First+c.Rows)
	}
	if format == "ARROW_STREAM" {
		out.Attachment, err = io.ReadAll(f)
		return out, err
	}
	rows := []byte{'['}
	err = s.EachBatch(n, func(rec arrow.RecordBatch) error {
		rows = warehouse.AppendRows(rows, rec)
		return nil
	})
	out.DataArray = append(rows, ']')
	return out, err
}

func (d *sqlDoor) shown() wire.Warehouse {
	l := d.warehouse.Limits()
	w := wire.Warehouse{
		ID: warehouseID, Name: "Tarn", ClusterSize: "Small", AutoStopMins: int(l.Idle / time.Minute), MaxNumClusters: 1, MinNumClusters: 1,
		EnableServerlessCompute: true, NumActiveSessions: d.warehouse.Active(), State: d.warehouse.State(), WarehouseType: "PRO",
		MemoryBytes: l.Memory, Threads: l.Threads, Health: &wire.WarehouseHealth{Status: "HEALTHY"},
	}
	if w.State == "RUNNING" {
		w.NumClusters = 1
	}
	if l.Library == "" {
		w.Health = &wire.WarehouseHealth{Status: "FAILED", Message: "DuckDB is not installed: scripts/setup.sh run"}
	}
	return w
}

func (d *sqlDoor) list(context.Context, *query) (any, error) {
	if err := d.have(""); err != nil {
		return nil, err
	}
	return wire.ListWarehouses{Warehouses: []wire.Warehouse{d.shown()}}, nil
}

func (d *sqlDoor) one(_ context.Context, q *query) (any, error) {
	if err := d.have(q.r.PathValue("warehouse")); err != nil {
		return nil, err
	}
	return d.shown(), nil
}

func (d *sqlDoor) create(context.Context, *query) (any, error) {
	return nil, unbuilt("there is one warehouse, %s, on the computer of the control plane; no other can be made", warehouseID)
}

func (d *sqlDoor) start(ctx context.Context, q *query) (any, error) {
	if err := d.have(q.r.PathValue("warehouse")); err != nil {
		return nil, err
	}
	return wire.Empty{}, d.warehouse.Start(ctx)
}

func (d *sqlDoor) stop(_ context.Context, q *query) (any, error) {
	if err := d.have(q.r.PathValue("warehouse")); err != nil {
		return nil, err
	}
	d.warehouse.Stop()
	return wire.Empty{}, nil
}

// history lists statements, newest first. A page's token is the time of its last.
func (d *sqlDoor) history(ctx context.Context, q *query) (any, error) {
	if err := d.have(""); err != nil {
		return nil, err
	}
	n, err := q.number("max_results")
	if err != nil {
		return nil, err
	}
	if n == 0 || n > 1000 {
		n = 100
	}
	before := time.Now().Add(time.Hour)
	if t := q.text("page_token"); t != "" {
		us, err := strconv.ParseInt(t, 10, 64)
		if err != nil {
			return nil, badField("page_token", "this server did not give it out")
		}
		before = time.UnixMicro(us)
	}
	all, err := d.warehouse.History(ctx, q.who, before, n+1)
	if err != nil {
		return nil, err
	}
	out := wire.QueryHistory{Results: []wire.QueryRecord{}}
	if len(all) > n {
		all = all[:n]
		out.HasNextPage, out.NextPageToken = true, strconv.FormatInt(all[n-1].Submitted.UnixMicro(), 10)
	}
	for _, r := range all {
		out.Results = append(out.Results, recordOf(r))
	}
	return out, nil
}

func recordOf(r warehouse.Record) wire.QueryRecord {
	q := wire.QueryRecord{
		QueryID: r.ID, QueryText: r.Text, QueryStartTimeMS: r.Submitted.UnixMilli(), UserName: r.Principal, ExecutedAsName: r.Principal,
		WarehouseID: warehouseID, EndpointID: warehouseID, RowsProduced: r.Rows, ErrorMessage: r.Error, StatementType: r.Kind, IsFinal: r.State.Over(),
		Status: map[warehouse.State]string{warehouse.Pending: "QUEUED", warehouse.Succeeded: "FINISHED", warehouse.Closed: "FINISHED"}[r.State],
	}
	if q.Status == "" {
		q.Status = string(r.State)
	}
	if !r.Ended.IsZero() {
		q.ExecutionEndMS, q.QueryEndTimeMS, q.Duration = r.Ended.UnixMilli(), r.Ended.UnixMilli(), r.Ended.Sub(r.Submitted).Milliseconds()
	}
	return q
}
