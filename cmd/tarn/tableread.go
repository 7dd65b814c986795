package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/spf13/cobra"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/delta"
)

// open opens the table that is meant: at --path, or where the catalog says the
// named one lies.
func (s *source) open(ctx context.Context, sh *shell, name string) (*delta.Table, error) {
	if s.path != "" {
		return tableAt(ctx, s.path)
	}
	c, n, err := sh.tableNamed(name)
	if err != nil {
		return nil, err
	}
	t, err := c.Tables().Get(ctx, n)
	if err != nil {
		return nil, err
	}
	return tableAt(ctx, t.StorageLocation)
}

// at is --version or --at.
type tableMoment struct{ at string }

func (m *tableMoment) register(c *cobra.Command) {
	c.Flags().StringVar(&m.at, "at", "", `the table as it was at a time (2026-01-02T15:04:05Z, "2026-01-02 15:04:05", -10m, "10 minutes ago")`)
	c.MarkFlagsMutuallyExclusive("at", "version")
}

// snapshotOf gives the version that --version, --at or neither asks for.
func (s *source) snapshotOf(ctx context.Context, t *delta.Table, m tableMoment) (*delta.Snapshot, error) {
	switch {
	case m.at != "":
		when, err := parseMoment(m.at, time.Now())
		if err != nil {
			return nil, err
		}
		if when.time.IsZero() {
			return nil, tarn.Invalid("--at %s: a table has times, not LSNs", m.at)
		}
		return t.AtTime(ctx, when.time)
	case s.version >= 0:
		return t.At(ctx, s.version)
	}
	return t.Latest(ctx)
}

// rowFormat is how rows are printed.
type rowFormat struct{ name string }

func (f *rowFormat) register(c *cobra.Command) {
	c.Flags().StringVar(&f.name, "format", "table", "table, csv or json (an object a line); --json is --format json")
	_ = c.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"table", "csv", "json"}, cobra.ShellCompDirectiveNoFileComp))
}

// rowPrinter prints batches of rows as they come.
type rowPrinter struct {
	sh      *shell
	format  string
	heading []string
	csv     *csv.Writer
	begun   bool
}

func (f rowFormat) printer(c *cobra.Command, sh *shell, heading []string) (*rowPrinter, error) {
	format := f.name
	if sh.flags.json {
		format = "json"
	}
	switch format {
	case "table", "csv", "json":
		return &rowPrinter{sh: sh, format: format, heading: heading, csv: csv.NewWriter(sh.out)}, nil
	}
	return nil, usage(c, "--format %s: want table, csv or json", f.name)
}

// print prints a batch; first are the values before its columns.
func (p *rowPrinter) print(first []any, rec arrow.RecordBatch) error {
	var lines [][]string
	for i := range int(rec.NumRows()) {
		values := append([]any{}, first...)
		for _, c := range rec.Columns() {
			values = append(values, c.GetOneForMarshal(i))
		}
		if p.format == "json" {
			if err := p.object(values); err != nil {
				return err
			}
			continue
		}
		line := make([]string, len(values))
		for k, v := range values {
			text, err := json.Marshal(v)
			if err != nil {
				return fmt.Errorf("column %s: %w", p.heading[k], err)
			}
			if line[k] = cell(text); v == nil && p.format == "csv" {
				line[k] = ""
			} else if s, ok := v.(string); ok && p.format == "csv" {
				line[k] = s
			}
		}
		lines = append(lines, line)
	}
	switch p.format {
	case "csv":
		if !p.begun {
			_ = p.csv.Write(p.heading) // Flush tells
		}
		_ = p.csv.WriteAll(lines)
		p.begun = true
		return p.csv.Error()
	case "table":
		p.table(lines)
	}
	return nil
}

func (p *rowPrinter) table(lines [][]string) {
	names := make([]string, len(p.heading))
	for i, n := range p.heading {
		names[i] = strings.ReplaceAll(n, " ", "_")
	}
	p.sh.table(strings.Join(names, " "), lines)
	p.begun = true
}

// object writes a row as one line.
func (p *rowPrinter) object(values []any) error {
	var b strings.Builder
	b.WriteByte('{')
	for i, v := range values {
		name, err := json.Marshal(p.heading[i])
		if err != nil {
			return err
		}
		text, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("column %s: %w", p.heading[i], err)
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(text)
	}
	b.WriteString("}\n")
	_, err := p.sh.out.Write([]byte(b.String()))
	return err
}

// end prints the heading when there was no row.
func (p *rowPrinter) end() error {
	if p.begun {
		return nil
	}
	switch p.format {
	case "csv":
		return p.csv.WriteAll([][]string{p.heading})
	case "table":
		p.table(nil)
	}
	return nil
}

// headingOf gives the names of the asked columns as the batches have them.
func headingOf(s *delta.Schema, columns []string) []string {
	var out []string
	for _, f := range s.Fields {
		for _, c := range columns {
			if c == f.Name || strings.HasPrefix(c, f.Name+".") {
				out = append(out, f.Name)
				break
			}
		}
		if columns == nil {
			out = append(out, f.Name)
		}
	}
	return out
}

func tableRead(sh *shell) *cobra.Command {
	var s source
	var m tableMoment
	var f rowFormat
	var columns []string
	var where string
	var limit int64
	c := &cobra.Command{
		Use: "read NAME | read --path FOLDER", Short: "Print a table's rows, all or those that satisfy a condition",
		Example: "  tarn table read lake.gold.users --where \"id > 5 and town = 'Oslo'\" --columns id,name\n  tarn table read --path ./users --at -1d --format csv > users.csv",
		Args:    s.args,
		RunE: func(cmd *cobra.Command, args []string) error {
			o := delta.ScanOptions{Columns: columns, Limit: limit}
			var err error
			if where != "" {
				if o.Where, err = delta.ParsePredicate(where); err != nil {
					return err
				}
			}
			if limit < 0 {
				return usage(cmd, "-n wants a number that is not negative")
			}
			ctx := cmd.Context()
			t, err := s.open(ctx, sh, optional(args))
			if err != nil {
				return err
			}
			snap, err := s.snapshotOf(ctx, t, m)
			if err != nil {
				return err
			}
			p, err := f.printer(cmd, sh, headingOf(snap.Schema(), columns))
			if err != nil {
				return err
			}
			for rec, err := range snap.Scan(ctx, o) {
				if err != nil {
					return err
				}
				err := p.print(nil, rec)
				rec.Release()
				if err != nil {
					return err
				}
			}
			return p.end()
		},
	}
	s.register(c)
	s.registerVersion(c)
	m.register(c)
	f.register(c)
	c.Flags().StringSliceVar(&columns, "columns", nil, "which columns, fields of structs as a.b (default: all)")
	c.Flags().StringVar(&where, "where", "", "condition as in SQL: comparisons, IN, IS NULL, AND, OR, NOT")
	c.Flags().Int64VarP(&limit, "rows", "n", 0, "at most how many rows (default: all)")
	return c
}

func tableChanges(sh *shell) *cobra.Command {
	var s source
	var f rowFormat
	var from, to int64
	var columns []string
	c := &cobra.Command{
		Use: "changes NAME | changes --path FOLDER", Short: "Print what versions of a table changed (needs its change data feed)",
		Long: "Print what versions of a table changed, a row a line: inserts, deletes, and the rows\nbefore (update_preimage) and after (update_postimage) updates. The table must keep a\nchange data feed: its property delta.enableChangeDataFeed is true.",
		Args: s.args,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			t, err := s.open(ctx, sh, optional(args))
			if err != nil {
				return err
			}
			sum, err := t.ChangesAvailable(ctx, from, to)
			if err != nil {
				return err
			}
			p, err := f.printer(cmd, sh, append([]string{"_commit_version", "_commit_timestamp", "_change_type"}, headingOf(sum.NewSchema, columns)...))
			if err != nil {
				return err
			}
			for ch, err := range t.Changes(ctx, delta.ChangeOptions{From: from, To: to, Columns: columns}) {
				if err != nil {
					return err
				}
				err := p.print([]any{ch.Version, ch.Time.Format(time.RFC3339Nano), string(ch.Type)}, ch.Rows)
				ch.Rows.Release()
				if err != nil {
					return err
				}
			}
			return p.end()
		},
	}
	s.register(c)
	f.register(c)
	c.Flags().Int64Var(&from, "from", 0, "first version")
	c.Flags().Int64Var(&to, "to", 0, "last version (default: the newest)")
	c.Flags().StringSliceVar(&columns, "columns", nil, "which columns (default: all)")
	return c
}

// tableFacts is what `table show` tells.
type tableFacts struct {
	ID             string            `json:"id"`
	Name           string            `json:"name,omitempty"`
	Version        int64             `json:"version"`
	Time           time.Time         `json:"time"`
	Rows           int64             `json:"rows"`
	Files          int               `json:"files"`
	Bytes          int64             `json:"bytes"`
	PartitionBy    []string          `json:"partition_by"`
	Properties     map[string]string `json:"properties"`
	MinReader      int               `json:"min_reader_version"`
	MinWriter      int               `json:"min_writer_version"`
	ReaderFeatures []string          `json:"reader_features,omitempty"`
	WriterFeatures []string          `json:"writer_features,omitempty"`
	Columns        []tableColumn     `json:"columns"`
}

type tableColumn struct {
	Name     string `json:"name"`
	Type     string `json:"type"`
	Nullable bool   `json:"nullable"`
}

func tableShow(sh *shell) *cobra.Command {
	var s source
	var m tableMoment
	c := &cobra.Command{
		Use: "show NAME | show --path FOLDER", Short: "Show a table's columns, properties and size", Args: s.args,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			t, err := s.open(ctx, sh, optional(args))
			if err != nil {
				return err
			}
			snap, err := s.snapshotOf(ctx, t, m)
			if err != nil {
				return err
			}
			f, err := factsOf(ctx, snap)
			if err != nil {
				return err
			}
			return sh.show(f, func() { printFacts(sh, f) })
		},
	}
	s.register(c)
	s.registerVersion(c)
	m.register(c)
	return c
}

func factsOf(ctx context.Context, s *delta.Snapshot) (tableFacts, error) {
	p := s.Protocol()
	f := tableFacts{
		ID: s.ID(), Name: s.Name(), Version: s.Version(), Time: s.Time(), Files: s.Files(), Bytes: s.Size(),
		PartitionBy: s.PartitionBy(), Properties: s.Properties(), MinReader: p.MinReader, MinWriter: p.MinWriter,
		ReaderFeatures: p.ReaderFeatures, WriterFeatures: p.WriterFeatures,
	}
	for _, c := range s.Schema().Fields {
		f.Columns = append(f.Columns, tableColumn{c.Name, c.Type, c.Nullable})
	}
	var err error
	f.Rows, err = s.Count(ctx)
	return f, err
}

func printFacts(sh *shell, f tableFacts) {
	features := "reader " + strconv.Itoa(f.MinReader) + ", writer " + strconv.Itoa(f.MinWriter)
	if len(f.WriterFeatures) > 0 {
		features += ": " + strings.Join(f.WriterFeatures, ", ")
	}
	rows := [][]string{
		{"version", fmt.Sprint(f.Version)}, {"committed", f.Time.Local().Format("2006-01-02 15:04:05")},
		{"rows", fmt.Sprint(f.Rows)}, {"files", fmt.Sprint(f.Files)}, {"bytes", fmt.Sprint(f.Bytes)},
		{"partitioned by", dash(strings.Join(f.PartitionBy, ", "))}, {"protocol", features}, {"id", f.ID},
	}
	sh.rows(rows)
	sh.say("")
	var columns [][]string
	for _, c := range f.Columns {
		null := "no"
		if c.Nullable {
			null = "yes"
		}
		columns = append(columns, []string{c.Name, c.Type, null})
	}
	sh.table("COLUMN TYPE NULLS", columns)
	if len(f.Properties) == 0 {
		return
	}
	sh.say("")
	var properties [][]string
	for _, name := range sortedKeys(f.Properties) {
		properties = append(properties, []string{name, f.Properties[name]})
	}
	sh.table("PROPERTY VALUE", properties)
}
