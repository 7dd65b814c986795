package tarn_test

import (
	"testing"
	"time"

	"github.com/tarndb/tarn"
)

func TestScheduleNext(t *testing.T) {
	for _, c := range []struct{ cron, zone, now, want string }{
		{"*/15 * * * *", "", "2026-01-02T03:04:05Z", "2026-01-02T03:15:00Z"},
		{"0 2 * * *", "", "2026-01-02T02:00:00Z", "2026-01-03T02:00:00Z"},
		{"30 6 * * MON-FRI", "", "2026-01-02T07:00:00Z", "2026-01-05T06:30:00Z"},
		{"0 0 29 2 *", "", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"},
		{"0 0 13 * 5", "", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"}, // the 13th or a Friday
		{"5,35 8-10/2 * * *", "", "2026-01-01T08:40:00Z", "2026-01-01T10:05:00Z"},
		{"0 9 * * 7", "", "2026-01-01T00:00:00Z", "2026-01-04T09:00:00Z"},
		{"20 30 9 ? * 2", "", "2026-01-01T00:00:00Z", "2026-01-05T09:30:20Z"}, // Quartz: 2 = Monday
		{"0 0 12 * * ? *", "", "2026-01-01T13:00:00Z", "2026-01-02T12:00:00Z"},
		{"0 2 * * *", "Europe/Berlin", "2026-01-01T01:30:00Z", "2026-01-02T01:00:00Z"},
		{"30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-30T00:30:00Z"}, // 02:30 on the 29th does not exist
	} {
		now, _ := time.Parse(time.RFC3339, c.now)
		s := tarn.Schedule{Cron: c.cron, Zone: c.zone}
		if err := s.Check(); err != nil {
			t.Errorf("%s: %v", c.cron, err)
		}
		if got := s.Next(now).Format(time.RFC3339); got != c.want {
			t.Errorf("%s after %s is %s, want %s", c.cron, c.now, got, c.want)
		}
	}
	for _, bad := range []string{"* * * *", "60 * * * *", "* * 30 2 *", "*/0 * * * *", "5-1 * * * *", "x * * * *", "* 0 0 * * ?", "0 0 0 ? * 0"} {
		if err := (tarn.Schedule{Cron: bad}).Check(); tarn.KindOf(err) != tarn.KindInvalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if err := (tarn.Schedule{Cron: "* * * * *", Zone: "Mars/Olympus"}).Check(); tarn.KindOf(err) != tarn.KindInvalid {
		t.Errorf("zone: %v", err)
	}
	if !(tarn.Schedule{}).Next(time.Now()).IsZero() {
		t.Error("no schedule comes")
	}
}
