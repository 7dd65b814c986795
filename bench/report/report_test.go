package report

import (
	"context"
	"errors"
	"regexp"
	"testing"
)

func value(v float64, err error) func(context.Context) (float64, error) {
	return func(context.Context) (float64, error) { return v, err }
}

func TestSkippedIsNoFailure(t *testing.T) {
	o := Options{Case: regexp.MustCompile(""), Seconds: 1, Rounds: 1, JSON: true}
	skipped := Case{Name: "a", Ours: value(0, errors.Join(Skipped("no disk"), nil)), Peer: value(1, nil)}
	if err := Run(t.Context(), "test", o, []Case{skipped}); err != nil {
		t.Errorf("a skipped case: %v", err)
	}
	broken := Case{Name: "b", Ours: value(0, errors.New("broken")), Peer: value(1, nil)}
	if err := Run(t.Context(), "test", o, []Case{skipped, broken}); err == nil {
		t.Error("a broken case is no error")
	}
}

func TestRatioSaysHowGoodWeAre(t *testing.T) {
	for d, want := range map[Direction]float64{MoreIsBetter: 0.5, LessIsBetter: 2} {
		c := Case{Name: "a", Direction: d, Ours: value(10, nil), Peer: value(20, nil)}
		r, err := c.measure(t.Context(), "test", Options{Rounds: 3})
		if err != nil {
			t.Fatal(err)
		}
		if r.Ratio != want {
			t.Errorf("direction %d: 10 against 20 is %g, want %g", d, r.Ratio, want)
		}
	}
}
