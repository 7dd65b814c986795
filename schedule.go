package tarn

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// Schedule is a cron expression in a time zone; the zero value never comes.
//
// Five fields are minute, hour, day of month, month, day of week (0 and 7 =
// Sunday). Six or seven are Quartz's, as in Databricks' jobs: a field of
// seconds in front (only one second can be named), days of the week counted
// from 1 = Sunday, "?" for "any", and a year behind (only "*").
type Schedule struct {
	Cron string `json:"cron,omitempty"`
	Zone string `json:"zone,omitempty"` // IANA name; "" = UTC
}

// cronField is one field: its range and the names of its values.
type cronField struct {
	what     string
	from, to int
	names    []string // of from, from+1, …
}

// The fields of five-field cron.
func cronFields() [5]cronField {
	return [5]cronField{
		{"minute", 0, 59, nil}, {"hour", 0, 23, nil}, {"day of month", 1, 31, nil},
		{"month", 1, 12, []string{"JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"}},
		{"day of week", 0, 7, []string{"SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"}},
	}
}

// timetable is a Schedule that was read: the values each field lets through.
type timetable struct {
	second             int
	fields             [5][]int
	anyDay, anyWeekday bool
	zone               *time.Location
}

// Check reads a schedule. KindInvalid.
func (s Schedule) Check() error {
	if s == (Schedule{}) {
		return nil
	}
	t, err := s.read()
	if err == nil && t.next(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		err = Invalid("schedule %q never comes", s.Cron)
	}
	return err
}

// Next is the first time after now; zero = never.
func (s Schedule) Next(now time.Time) time.Time {
	if s.Cron == "" {
		return time.Time{}
	}
	t, err := s.read()
	if err != nil {
		return time.Time{}
	}
	return t.next(now).UTC()
}

func (s Schedule) read() (timetable, error) {
	t := timetable{zone: time.UTC}
	if s.Zone != "" {
		z, err := time.LoadLocation(s.Zone)
		if err != nil {
			return t, Invalid("time zone %q is not known", s.Zone)
		}
		t.zone = z
	}
	words := strings.Fields(s.Cron)
	quartz := len(words) == 6 || len(words) == 7
	if quartz {
		n, err := strconv.Atoi(words[0])
		if err != nil || n < 0 || n > 59 {
			return t, Invalid("schedule %q: the field of seconds wants one of 0 to 59", s.Cron)
		}
		if len(words) == 7 && words[6] != "*" {
			return t, Invalid("schedule %q: the field of years wants *", s.Cron)
		}
		t.second, words = n, words[1:6]
	}
	if len(words) != 5 {
		return t, Invalid("schedule %q wants five fields (minute hour day month weekday), e.g. \"*/15 * * * *\"", s.Cron)
	}
	for i, f := range cronFields() {
		if i == 4 && quartz {
			f.from, f.to = 1, 7
		}
		v, err := f.read(words[i])
		if err != nil {
			return t, Invalid("schedule %q: %w", s.Cron, err)
		}
		if i == 4 {
			for j := range v {
				if quartz {
					v[j]--
				}
				v[j] %= 7
			}
		}
		t.fields[i] = v
	}
	t.anyDay, t.anyWeekday = words[2] == "*" || words[2] == "?", words[4] == "*" || words[4] == "?"
	return t, nil
}

// read gives the values of a field: lists of *, ?, n, n-m, each with /step.
func (f cronField) read(text string) ([]int, error) {
	var out []int
	for part := range strings.SplitSeq(text, ",") {
		span, stepText, stepped := strings.Cut(part, "/")
		from, to, step := f.from, f.to, 1
		if stepped {
			n, err := strconv.Atoi(stepText)
			if err != nil || n < 1 {
				return nil, Invalid("%s %q has a bad step", f.what, part)
			}
			step = n
		}
		if span != "*" && span != "?" {
			first, last, ranged := strings.Cut(span, "-")
			a, err := f.value(first)
			if err != nil {
				return nil, err
			}
			b := a
			if ranged {
				if b, err = f.value(last); err != nil {
					return nil, err
				}
			} else if stepped {
				b = f.to
			}
			if b < a {
				return nil, Invalid("%s %q runs backwards", f.what, part)
			}
			from, to = a, b
		}
		for v := from; v <= to; v += step {
			out = append(out, v)
		}
	}
	return out, nil
}

func (f cronField) value(text string) (int, error) {
	if i := slices.IndexFunc(f.names, func(n string) bool { return strings.EqualFold(n, text) }); i >= 0 {
		return f.from + i, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < f.from || n > f.to {
		return 0, Invalid("%s %q wants %d to %d", f.what, text, f.from, f.to)
	}
	return n, nil
}

// cronHorizon is further than the rarest date, 29 February.
const cronHorizon = 9 * 366

// next walks over the days, then over hours and minutes of the day: local times
// that a clock change skips are left out.
func (t timetable) next(now time.Time) time.Time {
	now = now.In(t.zone)
	for d := range cronHorizon {
		day := time.Date(now.Year(), now.Month(), now.Day()+d, 0, 0, 0, 0, t.zone)
		if !t.onDay(day) {
			continue
		}
		for _, h := range sorted(t.fields[1]) {
			for _, m := range sorted(t.fields[0]) {
				at := time.Date(day.Year(), day.Month(), day.Day(), h, m, t.second, 0, t.zone)
				if at.Hour() == h && at.Minute() == m && at.After(now) {
					return at
				}
			}
		}
	}
	return time.Time{}
}

// onDay follows cron: when both days are given, either will do.
func (t timetable) onDay(d time.Time) bool {
	if !slices.Contains(t.fields[3], int(d.Month())) {
		return false
	}
	day, weekday := slices.Contains(t.fields[2], d.Day()), slices.Contains(t.fields[4], int(d.Weekday()))
	switch {
	case t.anyDay:
		return weekday
	case t.anyWeekday:
		return day
	}
	return day || weekday
}

func sorted(v []int) []int {
	v = slices.Clone(v)
	slices.Sort(v)
	return v
}
