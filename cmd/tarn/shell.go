package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn/client"
)

// shell is what a command reads from and writes to.
type shell struct {
	in    io.Reader
	out   io.Writer // results only
	err   io.Writer // progress, notes, errors
	flags flags

	resolved *settings // see settings
}

func newShell(in io.Reader, out, err io.Writer) *shell { return &shell{in: in, out: out, err: err} }

// show prints v as JSON when that was asked for, and calls human otherwise.
func (sh *shell) show(v any, human func()) error {
	if !sh.flags.json {
		human()
		return nil
	}
	enc := json.NewEncoder(sh.out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// say prints one line of result for people; note one beside it.
func (sh *shell) say(format string, args ...any)  { fmt.Fprintf(sh.out, format+"\n", args...) }
func (sh *shell) note(format string, args ...any) { fmt.Fprintf(sh.err, format+"\n", args...) }

// table prints rows under a heading.
func (sh *shell) table(heading string, rows [][]string) {
	w := tabwriter.NewWriter(sh.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.ReplaceAll(heading, " ", "\t"))
	for _, r := range rows {
		fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	_ = w.Flush() // standard output has no one to tell
}

// rows prints labels with what they stand for.
func (sh *shell) rows(rows [][]string) {
	w := tabwriter.NewWriter(sh.out, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	_ = w.Flush() // as in table
}

// patience is how long a command works before it says what it is doing.
const patience = 2 * time.Second

// during runs work and, when it takes long, says what is going on.
func (sh *shell) during(what string, work func() error) error {
	return telling(func(line string) { sh.note("%s", line) }, what, nil, work)
}

// making is during for work that waits for computes of a project, and says
// which of them fail and why: such work is tried again without end.
func (sh *shell) making(ctx context.Context, what string, c *client.Client, project string, work func() error) error {
	why := func() string {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		s, err := c.Status(ctx)
		if err != nil {
			return err.Error()
		}
		for _, p := range s.Computes {
			if strings.HasPrefix(p.Branch, "projects/"+project+"/") && p.Message != "" {
				return p.Message
			}
		}
		return ""
	}
	return telling(func(line string) { sh.note("%s", line) }, what, why, work)
}

// interactive says whether a person sits at in.
func interactive(in io.Reader) bool {
	f, ok := in.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// dash stands for an empty cell.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// shortTime shows a wire timestamp to people, in local time.
func shortTime(s string) string {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return dash(s)
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// last is the id at the end of a resource name.
func last(name string) string { return name[strings.LastIndex(name, "/")+1:] }
