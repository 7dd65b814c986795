package main

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/client"
)

// branchNamed reads a branch as people type it: project/branch, branch, a
// resource name, or nothing for the default branch.
func (sh *shell) branchNamed(ctx context.Context, c *client.Client, arg string) (tarn.BranchName, error) {
	if strings.HasPrefix(arg, "projects/") {
		return tarn.ParseBranchName(arg)
	}
	project, branch, both := strings.Cut(arg, "/")
	if !both {
		p, isProject, err := sh.projectOr(ctx, c, arg)
		if err != nil {
			return tarn.BranchName{}, err
		}
		if isProject || arg == "" {
			return p.Branch(tarn.DefaultBranch), nil
		}
		project, branch = p.Project, arg
	}
	if _, err := tarn.ParseID("project", project); err != nil {
		return tarn.BranchName{}, err
	}
	if _, err := tarn.ParseID("branch", branch); err != nil {
		return tarn.BranchName{}, err
	}
	return tarn.BranchName{Project: project, Branch: branch}, nil
}

// projectNamed reads a project's id, or takes the one meant by default.
func (sh *shell) projectNamed(ctx context.Context, c *client.Client, arg string) (tarn.ProjectName, error) {
	if arg == "" {
		p, _, err := sh.projectOr(ctx, c, "")
		return p, err
	}
	id, err := tarn.ParseID("project", strings.TrimPrefix(arg, "projects/"))
	return tarn.ProjectName{Project: id}, err
}

// projectOr finds the project of a lone word: the word itself when a project
// is called so and no default project has a branch of that name, else the
// default project. It says which of the two it was.
func (sh *shell) projectOr(ctx context.Context, c *client.Client, word string) (tarn.ProjectName, bool, error) {
	s, err := sh.settings()
	if err != nil {
		return tarn.ProjectName{}, false, err
	}
	if sh.flags.project != "" {
		return tarn.ProjectName{Project: s.project}, false, nil
	}
	ps, err := c.Projects(ctx)
	if err != nil {
		return tarn.ProjectName{}, false, err
	}
	var ids []string
	called := false
	for _, p := range ps {
		ids = append(ids, p.ProjectID)
		called = called || p.ProjectID == word
	}
	if s.project == "" && len(ids) == 1 {
		s.project = ids[0]
	}
	if called && word != "" {
		if s.project == "" || s.project == word {
			return tarn.ProjectName{Project: word}, true, nil
		}
		_, err := c.Branch(ctx, tarn.BranchName{Project: s.project, Branch: word})
		if err != nil {
			return tarn.ProjectName{Project: word}, true, nil
		}
	}
	switch {
	case s.project != "":
		return tarn.ProjectName{Project: s.project}, false, nil
	case len(ids) == 0:
		return tarn.ProjectName{}, false, tarn.NotFound("there is no project yet").WithHint("make one: tarn project create NAME")
	}
	return tarn.ProjectName{}, false, &usageError{
		msg:  "there are several projects: " + strings.Join(ids, ", "),
		hint: "write project/branch, or say --project",
	}
}

// moment is a point in a branch's past: a time or a position in its WAL.
type moment struct {
	time time.Time
	lsn  tarn.LSN
}

// momentHelp shows what a moment looks like.
const momentHelp = `(2026-01-02T15:04:05.25Z, "2026-01-02 15:04:05", -10m, "10 minutes ago") or an LSN (0/16B3748)`

// parseMoment reads what --at takes: RFC 3339, also as Postgres prints it with a
// blank and a short offset ("2026-01-02 15:04:05+00"), "2026-01-02 15:04:05" in local
// time, "-10m" or "10 minutes ago" before now, or an LSN like 0/16B3748.
func parseMoment(s string, now time.Time) (moment, error) {
	if lsn, err := tarn.ParseLSN(s); err == nil && lsn != 0 { // no record begins at 0/0
		return moment{lsn: lsn}, nil
	}
	if span, ok := strings.CutPrefix(s, "-"); ok {
		if d, err := parseSpan(span); err == nil {
			return moment{time: now.Add(-d)}, nil
		}
	}
	if span, ok := strings.CutSuffix(s, " ago"); ok {
		if d, err := parseWordedSpan(span); err == nil {
			return moment{time: now.Add(-d)}, nil
		}
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05Z07", "2006-01-02T15:04:05Z07"} {
		if t, err := time.Parse(layout, s); err == nil {
			return moment{time: t}, nil
		}
	}
	for _, layout := range []string{"2006-01-02 15:04:05.999999999", "2006-01-02T15:04:05.999999999", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return moment{time: t}, nil
		}
	}
	return moment{}, tarn.Invalid(`%q is no moment: want a time like 2026-01-02T15:04:05Z, "2026-01-02 15:04:05", -10m or "10 minutes ago", or an LSN like 0/16B3748`, s)
}

// parseWordedSpan reads a length of time as people write it: "10 minutes",
// "1 day 2 hours", "90s".
func parseWordedSpan(s string) (time.Duration, error) {
	words := strings.Fields(s)
	if len(words) == 1 {
		return parseSpan(words[0])
	}
	if len(words)%2 != 0 {
		return 0, tarn.Invalid("length of time %q: want e.g. 10 minutes", s)
	}
	var total time.Duration
	for i := 0; i < len(words); i += 2 {
		n, err := strconv.ParseUint(words[i], 10, 16)
		if err != nil {
			return 0, tarn.Invalid("length of time %q: want e.g. 10 minutes", s)
		}
		unit := unitOf(words[i+1])
		if unit == 0 {
			return 0, tarn.Invalid("length of time %q: no unit %q", s, words[i+1])
		}
		total += time.Duration(n) * unit
	}
	return total, nil
}

func unitOf(word string) time.Duration {
	switch strings.TrimSuffix(word, "s") {
	case "second", "sec", "":
		return time.Second
	case "minute", "min", "m":
		return time.Minute
	case "hour", "h":
		return time.Hour
	case "day", "d":
		return 24 * time.Hour
	case "week", "w":
		return 7 * 24 * time.Hour
	}
	return 0
}

// parseSpan reads a length of time: Go's form and days, e.g. 90m, 7d, 1d12h.
func parseSpan(s string) (time.Duration, error) {
	var total time.Duration
	rest := s
	if days, more, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return 0, tarn.Invalid("length of time %q: want e.g. 90m, 12h or 7d", s)
		}
		total, rest = time.Duration(n)*24*time.Hour, more
	}
	if rest != "" {
		d, err := time.ParseDuration(rest)
		if err != nil || d < 0 {
			return 0, tarn.Invalid("length of time %q: want e.g. 90m, 12h or 7d", s)
		}
		total += d
	}
	if total <= 0 {
		return 0, tarn.Invalid("length of time %q: want more than nothing, e.g. 90m, 12h or 7d", s)
	}
	return total, nil
}
