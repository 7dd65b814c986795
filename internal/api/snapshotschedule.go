package api

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
)

func (d *snapshotDoor) schedule(ctx context.Context, q *query) (any, error) {
	b, err := q.branch()
	if err != nil {
		return nil, err
	}
	s, err := d.control.Snapshots.Schedule(ctx, b)
	return scheduleOf(s), err
}

func (d *snapshotDoor) setSchedule(ctx context.Context, q *query) (any, error) {
	b, err := q.branch()
	if err != nil {
		return nil, err
	}
	var in wire.SnapshotSchedule
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	if err := parseMask(q.text("update_mask")).check("schedule"); err != nil {
		return nil, err
	}
	var all []tarn.Cadence
	for i, x := range in.Schedule {
		c, err := readCadence(fmt.Sprintf("schedule[%d]", i), x)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	s, err := d.control.Snapshots.SetSchedule(ctx, b, all)
	if err != nil {
		return nil, err
	}
	return scheduleOf(s), nil
}

func readCadence(field string, in wire.ScheduleCadence) (c tarn.Cadence, err error) {
	if c.Retention, err = wire.ParseDuration(field+".retention", in.Retention); err != nil {
		return c, err
	}
	n := 0
	if in.DailySchedule != nil {
		n++
		c.Hour = in.DailySchedule.Hour
	}
	if in.WeeklySchedule != nil {
		n++
		c.Hour = in.WeeklySchedule.Hour
		for d := time.Sunday; d <= time.Saturday; d++ {
			if strings.ToUpper(d.String()) == in.WeeklySchedule.DayOfWeek {
				c.Weekday = &d
			}
		}
		if c.Weekday == nil {
			return c, badField(field+".weekly_schedule.day_of_week", "got %q, want MONDAY to SUNDAY", in.WeeklySchedule.DayOfWeek)
		}
	}
	if in.MonthlySchedule != nil {
		n++
		c.Hour, c.MonthDay = in.MonthlySchedule.Hour, in.MonthlySchedule.Day
		if c.MonthDay < 1 {
			return c, badField(field+".monthly_schedule.day", "got %d, want 1 to 31", c.MonthDay)
		}
	}
	if n != 1 {
		return c, badField(field, "give one of daily_schedule, weekly_schedule and monthly_schedule")
	}
	return c, nil
}

func scheduleOf(s tarn.SnapshotSchedule) wire.SnapshotSchedule {
	out := wire.SnapshotSchedule{Name: s.Branch.String() + "/snapshot-schedule", Schedule: []wire.ScheduleCadence{}}
	for _, c := range s.Cadences {
		x := wire.ScheduleCadence{Retention: wire.Duration(c.Retention)}
		switch {
		case c.Weekday != nil:
			x.WeeklySchedule = &wire.WeeklySchedule{DayOfWeek: strings.ToUpper(c.Weekday.String()), Hour: c.Hour}
		case c.MonthDay != 0:
			x.MonthlySchedule = &wire.MonthlySchedule{Day: c.MonthDay, Hour: c.Hour}
		default:
			x.DailySchedule = &wire.DailySchedule{Hour: c.Hour}
		}
		out.Schedule = append(out.Schedule, x)
	}
	return out
}
