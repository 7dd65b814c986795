// Package report is what every benchmark here has in common: its flags, rounds
// that alternate us and the peer, medians, and the two forms of output. It
// knows nothing of what is measured.
package report

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"text/tabwriter"
)

// Options are the flags of every benchmark.
type Options struct {
	Case    *regexp.Regexp // which cases run
	Seconds int            // length of one timed run
	Rounds  int            // at least three; medians are reported
	JSON    bool           // one object a line on standard output and nothing else
}

// ParseFlags reads the flags of a benchmark.
func ParseFlags() (Options, error) {
	var o Options
	pattern := flag.String("case", "", "run only the cases that match this regular expression")
	flag.IntVar(&o.Seconds, "seconds", 10, "length of one timed run, seconds")
	flag.IntVar(&o.Rounds, "rounds", 3, "rounds; the median counts")
	flag.BoolVar(&o.JSON, "json", false, "one JSON object a line on standard output")
	flag.Parse()
	re, err := regexp.Compile(*pattern)
	o.Case = re
	if err == nil && (o.Seconds < 1 || o.Rounds < 1) {
		err = fmt.Errorf("-seconds and -rounds must be at least 1")
	}
	return o, err
}

// Direction says whether more of a unit is better.
type Direction int

// The two directions.
const (
	MoreIsBetter Direction = iota
	LessIsBetter
)

// Case measures the same work twice: once by us and once by the peer.
type Case struct {
	Name      string
	Unit      string
	PeerName  string
	Direction Direction
	Ours      func(ctx context.Context) (float64, error)
	Peer      func(ctx context.Context) (float64, error)
}

// Skipped is why a case cannot run on this machine. A case that returns it is
// named with the reason on standard error and has no result.
type Skipped string

func (s Skipped) Error() string { return "skipped: " + string(s) }

// Result is one line of a report. Ratio is always how good we are: 1 is equal,
// more is better.
type Result struct {
	Bench    string  `json:"bench"`
	Case     string  `json:"case"`
	Ours     float64 `json:"ours"`
	Peer     float64 `json:"peer"`
	PeerName string  `json:"peer_name"`
	Unit     string  `json:"unit"`
	Ratio    float64 `json:"ratio"`
}

// Run measures every chosen case, alternating us and the peer in each round,
// and prints the results.
func Run(ctx context.Context, bench string, o Options, cases []Case) error {
	var results []Result
	for _, c := range cases {
		if !o.Case.MatchString(c.Name) {
			continue
		}
		r, err := c.measure(ctx, bench, o)
		if why, ok := errors.AsType[Skipped](err); ok {
			fmt.Fprintf(os.Stderr, "%s %s\n", c.Name, why.Error())
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", c.Name, err)
		}
		results = append(results, r)
		if o.JSON {
			if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
				return err
			}
		}
	}
	if !o.JSON {
		print(os.Stdout, results)
	}
	return nil
}

func (c Case) measure(ctx context.Context, bench string, o Options) (Result, error) {
	var ours, peer []float64
	for round := range o.Rounds {
		// Who goes first changes each round, so that neither always finds the
		// machine warmed up by the other.
		order := []func(context.Context) (float64, error){c.Ours, c.Peer}
		into := []*[]float64{&ours, &peer}
		if round%2 == 1 {
			slices.Reverse(order)
			slices.Reverse(into)
		}
		for i, f := range order {
			v, err := f(ctx)
			if err != nil {
				return Result{}, err
			}
			*into[i] = append(*into[i], v)
		}
		fmt.Fprintf(os.Stderr, "%s round %d/%d: ours %.4g, %s %.4g %s\n", c.Name, round+1, o.Rounds, ours[round], c.PeerName, peer[round], c.Unit)
	}
	r := Result{Bench: bench, Case: c.Name, Ours: Median(ours), Peer: Median(peer), PeerName: c.PeerName, Unit: c.Unit}
	r.Ratio = r.Ours / r.Peer
	if c.Direction == LessIsBetter {
		r.Ratio = r.Peer / r.Ours
	}
	return r, nil
}

// Median is the middle of some values.
func Median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

func print(w io.Writer, results []Result) {
	t := tabwriter.NewWriter(w, 2, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "case\tours\tpeer\tunit\tratio\tagainst\t")
	for _, r := range results {
		fmt.Fprintf(t, "%s\t%.4g\t%.4g\t%s\t%.2f\t%s\t\n", r.Case, r.Ours, r.Peer, r.Unit, r.Ratio, r.PeerName)
	}
	// A table that cannot be printed has nowhere to say so.
	_ = t.Flush()
}
