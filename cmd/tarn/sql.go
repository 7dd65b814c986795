package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/spf13/cobra"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/client"
	"github.com/tarndb/tarn/internal/warehouse"
)

// sqlOptions say what is run and how the result is shown.
type sqlOptions struct {
	file    string
	format  string
	catalog string
	schema  string
	params  []string
	limit   int64
}

func sqlCommand(sh *shell) *cobra.Command {
	var o sqlOptions
	c := &cobra.Command{
		Use: "sql [STATEMENT]", Short: "Run SQL over Delta tables and registered Postgres databases",
		Long: "Run SQL over Delta tables and registered Postgres databases. Without a statement\n" +
			"it is read from standard input, and asked for when a person sits there. Several\n" +
			"statements are parted by semicolons and run one after the other, up to the first\n" +
			"that fails. Ctrl-C cancels the statement that runs.",
		Example: "  tarn sql \"SELECT * FROM lake.gold.users LIMIT 10\"\n" +
			"  tarn sql --format csv -f report.sql > report.csv\n" +
			"  tarn sql --param day=2026-01-31 \"SELECT count(*) FROM lake.gold.visits WHERE day = CAST(:day AS DATE)\"",
		Args: args(0, 1, "at most a statement"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if sh.flags.json && !cmd.Flags().Changed("format") {
				o.format = "json"
			}
			if len(args) == 1 && o.file != "" {
				return usage(cmd, "%s wants a statement or --file, not both", cmd.CommandPath())
			}
			switch o.format {
			case "table", "csv", "json", "arrow":
			default:
				return usage(cmd, "--format %s: want table, csv, json or arrow", o.format)
			}
			c, err := sh.client()
			if err != nil {
				return err
			}
			r := &sqlRun{sh: sh, sql: client.NewSQL(c), o: o}
			if len(args) == 0 && o.file == "" && interactive(sh.in) {
				return r.prompt(cmd.Context())
			}
			text, err := sqlText(sh, o.file, args)
			if err != nil {
				return err
			}
			return r.script(cmd.Context(), text)
		},
	}
	f := c.Flags()
	f.StringVarP(&o.file, "file", "f", "", "file of statements; - is standard input")
	f.StringVar(&o.format, "format", "table", "table, csv, json or arrow (a stream)")
	f.StringVar(&o.catalog, "catalog", "", "catalog of names without one (default lake)")
	f.StringVar(&o.schema, "schema", "", "schema of names without one (default default)")
	f.StringArrayVar(&o.params, "param", nil, "NAME=VALUE, or NAME:TYPE=VALUE, of :NAME in the statement; may be repeated")
	f.Int64Var(&o.limit, "limit", 0, "show at most so many rows (0 = all)")
	completeFlag(c, "format", cobra.FixedCompletions([]string{"table", "csv", "json", "arrow"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func sqlText(sh *shell, file string, args []string) (string, error) {
	if len(args) == 1 {
		return args[0], nil
	}
	if file == "" || file == "-" {
		b, err := io.ReadAll(sh.in)
		return string(b), err
	}
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return "", tarn.NotFound("no file %s", file)
	}
	return string(b), err
}

// sqlRun runs statements of one command.
type sqlRun struct {
	sh  *shell
	sql *client.SQL
	o   sqlOptions
}

func (r *sqlRun) script(ctx context.Context, text string) error {
	all, err := warehouse.Statements(text)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return tarn.Invalid("no statement").WithHint(`tarn sql "SELECT 1"`)
	}
	for _, s := range all {
		if err := r.one(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// prompt reads statements from a person, until the input ends. One that fails
// does not end it.
func (r *sqlRun) prompt(ctx context.Context) error {
	r.sh.note("Statements end with a semicolon. Ctrl-C cancels one, Ctrl-D leaves. Try: SHOW TABLES IN lake.default;")
	in := bufio.NewReader(r.sh.in)
	var text string
	for {
		mark := "tarn> "
		if strings.TrimSpace(text) != "" {
			mark = "   -> "
		}
		fmt.Fprint(r.sh.err, mark)
		line, err := in.ReadString('\n')
		text += line
		switch trimmed := strings.TrimSpace(text); {
		case err != nil && trimmed == "":
			fmt.Fprintln(r.sh.err)
			return nil
		case err == nil && (trimmed == "quit" || trimmed == "exit" || trimmed == `\q`):
			return nil
		case err == nil && !strings.HasSuffix(trimmed, ";"):
			continue
		}
		once, stop := signal.NotifyContext(context.WithoutCancel(ctx), os.Interrupt)
		if failed := r.script(once, text); failed != nil {
			r.sh.fail(failed)
		}
		stop()
		text = ""
		if err != nil {
			return nil
		}
	}
}

// one runs a statement and shows its rows.
func (r *sqlRun) one(ctx context.Context, text string) error {
	in := client.ExecuteStatement{Statement: text, Catalog: r.o.catalog, Schema: r.o.schema, RowLimit: r.o.limit, WaitTimeout: "0s", Format: "JSON_ARRAY"}
	if r.o.format == "arrow" {
		in.Format = "ARROW_STREAM"
	}
	for _, p := range r.o.params {
		name, value, ok := strings.Cut(p, "=")
		if !ok {
			return tarn.Invalid("--param %s: want NAME=VALUE", p)
		}
		name, typ, _ := strings.Cut(name, ":")
		in.Parameters = append(in.Parameters, client.SQLParameter{Name: name, Type: typ, Value: &value})
	}
	s, err := r.sql.Execute(ctx, in)
	if err != nil {
		return err
	}
	if s, err = r.await(ctx, s); err != nil {
		return err
	}
	switch s.Status.State {
	case "SUCCEEDED":
		return r.show(ctx, s)
	case "FAILED":
		if e := s.Status.Error; e != nil {
			failed := tarn.Conflict("%s", e.Message)
			if e.ErrorCode == "BAD_REQUEST" {
				failed = tarn.Invalid("%s", e.Message)
			} else if e.ErrorCode == "NOT_FOUND" {
				failed = tarn.NotFound("%s", e.Message)
			}
			return failed.WithHint(e.Hint)
		}
	}
	return tarn.Conflict("the statement is %s", s.Status.State)
}

// await waits for the end of a statement, says after two seconds how far it is,
// and cancels it when the wait ends early.
func (r *sqlRun) await(ctx context.Context, s client.SQLStatement) (client.SQLStatement, error) {
	begun, told := time.Now(), time.Time{}
	wait := 20 * time.Millisecond
	for {
		if s.Status.State != "PENDING" && s.Status.State != "RUNNING" {
			return s, nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			if err := r.sql.Cancel(end, s.StatementID); err != nil {
				return s, errors.Join(context.Cause(ctx), err)
			}
			r.sh.note("canceled")
			return s, context.Cause(ctx)
		}
		wait = min(wait*3/2, 500*time.Millisecond)
		var err error
		if s, err = r.sql.Get(ctx, s.StatementID); err != nil && ctx.Err() == nil {
			return s, err
		}
		if age := time.Since(begun); age > patience && time.Since(told) > patience {
			told = time.Now()
			how := ""
			if p := s.Status.Progress; p != nil {
				how = fmt.Sprintf(", %.0f %%", *p)
			}
			r.sh.note("%s for %s%s (Ctrl-C cancels)", strings.ToLower(s.Status.State), age.Round(time.Second), how)
		}
	}
}

// show writes a result. Rows of later chunks are fetched while earlier ones are
// written.
func (r *sqlRun) show(ctx context.Context, s client.SQLStatement) error {
	if s.Manifest == nil || s.Manifest.Schema.ColumnCount == 0 {
		r.sh.note("done")
		return nil
	}
	var out resultWriter
	var columns []string
	for _, c := range s.Manifest.Schema.Columns {
		columns = append(columns, c.Name)
	}
	switch r.o.format {
	case "csv":
		out = &csvRows{w: csv.NewWriter(r.sh.out), columns: columns}
	case "json":
		out = &jsonRows{w: r.sh.out, columns: columns, types: s.Manifest.Schema.Columns}
	case "arrow":
		out = &arrowRows{w: r.sh.out}
	default:
		out = &tableRows{w: tabwriter.NewWriter(r.sh.out, 0, 0, 2, ' ', 0), columns: columns}
	}
	if err := out.begin(); err != nil {
		return err
	}
	part := s.Result
	for part != nil && s.Manifest.TotalChunkCount > 0 {
		if err := out.part(*part); err != nil {
			return err
		}
		if part.NextChunkIndex == nil {
			break
		}
		next, err := r.sql.Chunk(ctx, s.StatementID, *part.NextChunkIndex)
		if err != nil {
			return err
		}
		part = &next
	}
	if err := out.end(); err != nil {
		return err
	}
	if r.o.format == "table" {
		rows, more := "rows", ""
		if s.Manifest.TotalRowCount == 1 {
			rows = "row"
		}
		if s.Manifest.Truncated {
			more = ", and there are more"
		}
		r.sh.note("%d %s%s", s.Manifest.TotalRowCount, rows, more)
	}
	return nil
}

// resultWriter writes a result in one format.
type resultWriter interface {
	begin() error
	part(p client.SQLResult) error
	end() error
}

type csvRows struct {
	w       *csv.Writer
	columns []string
}

func (c *csvRows) begin() error { return c.w.Write(c.columns) }

func (c *csvRows) part(p client.SQLResult) error {
	var rows [][]*string
	if err := json.Unmarshal(p.DataArray, &rows); err != nil {
		return err
	}
	for _, row := range rows {
		out := make([]string, len(row))
		for i, v := range row {
			if v != nil {
				out[i] = *v
			}
		}
		if err := c.w.Write(out); err != nil {
			return err
		}
	}
	return nil
}

func (c *csvRows) end() error { c.w.Flush(); return c.w.Error() }

type tableRows struct {
	w       *tabwriter.Writer
	columns []string
}

func (t *tableRows) begin() error { return t.line(t.columns) }

func (t *tableRows) line(cells []string) error {
	_, err := fmt.Fprintln(t.w, strings.Join(cells, "\t"))
	return err
}

func (t *tableRows) part(p client.SQLResult) error {
	var rows [][]*string
	if err := json.Unmarshal(p.DataArray, &rows); err != nil {
		return err
	}
	clean := strings.NewReplacer("\t", `\t`, "\n", `\n`, "\r", `\r`, "\v", `\v`, "\f", `\f`)
	for _, row := range rows {
		out := make([]string, len(row))
		for i, v := range row {
			if out[i] = "NULL"; v != nil {
				out[i] = clean.Replace(*v)
			}
		}
		if err := t.line(out); err != nil {
			return err
		}
	}
	return nil
}

func (t *tableRows) end() error { return t.w.Flush() }

// jsonRows writes an object a line; numbers are written as they are.
type jsonRows struct {
	w       io.Writer
	columns []string
	types   []client.SQLColumn
}

func (j *jsonRows) begin() error { return nil }

func (j *jsonRows) part(p client.SQLResult) error {
	var rows [][]*string
	if err := json.Unmarshal(p.DataArray, &rows); err != nil {
		return err
	}
	var b bytes.Buffer
	for _, row := range rows {
		b.WriteByte('{')
		for i, v := range row {
			if i > 0 {
				b.WriteString(", ")
			}
			name, err := json.Marshal(j.columns[i])
			if err != nil {
				return err
			}
			b.Write(name)
			b.WriteString(": ")
			if err := j.value(&b, i, v); err != nil {
				return err
			}
		}
		b.WriteString("}\n")
	}
	_, err := j.w.Write(b.Bytes())
	return err
}

func (j *jsonRows) value(b *bytes.Buffer, i int, v *string) error {
	if v == nil {
		b.WriteString("null")
		return nil
	}
	switch j.types[i].TypeName {
	case "BOOLEAN", "BYTE", "SHORT", "INT", "LONG", "FLOAT", "DOUBLE", "DECIMAL", "ARRAY", "MAP", "STRUCT":
		if json.Valid([]byte(*v)) {
			b.WriteString(*v)
			return nil
		}
	}
	quoted, err := json.Marshal(*v)
	b.Write(quoted)
	return err
}

func (j *jsonRows) end() error { return nil }

// arrowRows joins the streams of the chunks to one.
type arrowRows struct {
	w   io.Writer
	out *ipc.Writer
}

func (a *arrowRows) begin() error { return nil }

func (a *arrowRows) part(p client.SQLResult) error {
	in, err := ipc.NewReader(bytes.NewReader(p.Attachment))
	if err != nil {
		return err
	}
	defer in.Release()
	if a.out == nil {
		a.out = ipc.NewWriter(a.w, ipc.WithSchema(in.Schema()))
	}
	for in.Next() {
		if err := a.out.Write(in.RecordBatch()); err != nil {
			return err
		}
	}
	return in.Err()
}

func (a *arrowRows) end() error {
	if a.out == nil {
		return nil
	}
	return a.out.Close()
}
