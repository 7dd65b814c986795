package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/tarndb/tarn/client"
)

// load is what one run of pgbench did, and what the process between spent.
type load struct {
	transactions, tps float64
	cpu               time.Duration
}

var (
	processed = regexp.MustCompile(`transactions actually processed: (\d+)`)
	rate      = regexp.MustCompile(`(?m)^tps = ([\d.]+)`)
)

// pgbench runs pgbench for some seconds and watches a process meanwhile.
func (s *site) pgbench(ctx context.Context, url string, pid, seconds int, args ...string) (load, error) {
	before, err := cpuOf(pid)
	if err != nil {
		return load{}, err
	}
	cmd := exec.CommandContext(ctx, "pgbench", append(append([]string{"-n", "-T", strconv.Itoa(seconds)}, args...), url)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return load{}, fmt.Errorf("pgbench: %w: %s", err, out)
	}
	after, err := cpuOf(pid)
	if err != nil {
		return load{}, err
	}
	n, r := processed.FindSubmatch(out), rate.FindSubmatch(out)
	if n == nil || r == nil {
		return load{}, fmt.Errorf("pgbench says nothing of its rate: %s", out)
	}
	l := load{cpu: after - before}
	if l.transactions, err = strconv.ParseFloat(string(n[1]), 64); err != nil {
		return l, err
	}
	l.tps, err = strconv.ParseFloat(string(r[1]), 64)
	return l, err
}

// cpuOf is the processor time a process has used, in ticks of 10 ms.
func cpuOf(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	user, err1 := strconv.Atoi(f[11])
	system, err2 := strconv.Atoi(f[12])
	if err1 != nil || err2 != nil {
		return 0, fmt.Errorf("read /proc/%d/stat", pid)
	}
	return time.Duration(user+system) * 10 * time.Millisecond, nil
}

// rssOf is the memory of a process, bytes.
func rssOf(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	pages, err := strconv.Atoi(strings.Fields(string(b))[1])
	return float64(pages * os.Getpagesize()), err
}

const idleClients = 2000

// idle measures what one idle client that has run a statement costs.
func (s *site) idle(url string, pid int) func(context.Context) (float64, error) {
	return func(ctx context.Context) (float64, error) {
		before, err := rssOf(pid)
		if err != nil {
			return 0, err
		}
		conns := make([]*pgx.Conn, idleClients)
		defer func() {
			for _, c := range conns {
				if c != nil {
					c.Close(ctx)
				}
			}
		}()
		var g errgroup.Group
		g.SetLimit(8)
		for i := range conns {
			g.Go(func() (err error) {
				if conns[i], err = pgx.Connect(ctx, url+"&default_query_exec_mode=simple_protocol"); err != nil {
					return err
				}
				_, err = conns[i].Exec(ctx, "SELECT 1")
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return 0, err
		}
		after, err := rssOf(pid)
		return max(after-before, 1) / 1024 / idleClients, err
	}
}

// wakes suspends the compute and measures how long a client waits for its first
// answer, connecting included. All cases and rounds look at one series.
func (s *site) wakes(quantile float64, count int) func(context.Context) (float64, error) {
	return func(ctx context.Context) (float64, error) {
		for len(s.woke) < count {
			if _, err := s.tarn(ctx, "endpoint", "suspend", "bench"); err != nil {
				return 0, err
			}
			ms, err := firstAnswer(ctx, s.direct)
			if err != nil {
				return 0, err
			}
			s.woke = append(s.woke, ms)
		}
		return quantileOf(s.woke, quantile), nil
	}
}

func quantileOf(all []float64, q float64) float64 {
	all = slices.Sorted(slices.Values(all))
	return all[min(int(q*float64(len(all))), len(all)-1)]
}

func firstAnswer(ctx context.Context, url string) (float64, error) {
	began := time.Now()
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return 0, err
	}
	defer c.Close(ctx)
	if _, err := c.Exec(ctx, "SELECT 1"); err != nil {
		return 0, err
	}
	return float64(time.Since(began).Microseconds()) / 1000, nil
}

const (
	thawsARound  = 5
	freezeAfter  = "2s" // the least there is
	thawPatience = time.Minute
)

// thaws measures statements on a session whose compute was frozen meanwhile.
func (s *site) thaws(ctx context.Context) (ms float64, err error) {
	if _, err := s.tarn(ctx, "endpoint", "update", "bench/production", "--freeze-after", freezeAfter); err != nil {
		return 0, err
	}
	defer func() {
		_, uerr := s.tarn(ctx, "endpoint", "update", "bench/production", "--freeze-after", "never")
		err = errors.Join(err, uerr)
	}()
	c, err := pgx.Connect(ctx, s.direct+"&default_query_exec_mode=simple_protocol")
	if err != nil {
		return 0, err
	}
	defer c.Close(ctx)
	var took []float64
	for range thawsARound {
		if err := s.awaitFrozen(ctx); err != nil {
			return 0, err
		}
		began := time.Now()
		if _, err := c.Exec(ctx, "SELECT 1"); err != nil {
			return 0, err
		}
		took = append(took, float64(time.Since(began).Microseconds())/1000)
	}
	return quantileOf(took, 0.5), nil
}

// awaitFrozen waits until the compute is frozen.
func (s *site) awaitFrozen(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, thawPatience)
	defer cancel()
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	for {
		out, err := s.tarn(ctx, "status", "--json")
		if err != nil {
			return err
		}
		var st client.Status
		if err := json.Unmarshal([]byte(out), &st); err != nil {
			return fmt.Errorf("status: %w", err)
		}
		if slices.ContainsFunc(st.Computes, func(c client.Compute) bool { return c.State == "frozen" }) {
			return nil
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for the compute to freeze: %w", ctx.Err())
		}
	}
}
